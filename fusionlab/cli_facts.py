"""What a checkpoint states of its model, and no configuration can change.

Restored components are told on which data they were trained, that the checkpoint holds their
weights, and from which file these came once. They are told so by arguments of their own, which
stand beside the user's settings in a configuration; but these are facts about the checkpoint. They
are not saved with the settings of a run, and in a restored model nobody's null takes them away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from fusionlab.errors import InputError

FACTS = ("trained_on", "restored", "sha256", "packed_tokenizer", "tower_sizes")
"""Arguments of tasks and components that a checkpoint fills in; a user's class may have them too.

`trained_on`: the schema of the data of its training. `restored`: whether the checkpoint holds the
weights. `sha256`: of the file that these came from. `packed_tokenizer`: of an expert for texts.
`tower_sizes`: of a network that came from a hub.
"""

_INSIDE = ("expert", "encoders")
"""What is inside a pretrained expert, or a zero-shot model: a fact too, but one whose own settings
may be changed."""

_Settings = Mapping[str, Any] | Namespace


def without_facts(settings: Any) -> Any:  # noqa: ANN401
    """A copy of a configuration, at any depth, with the user's settings only.

    An expert that nobody named is left out as well. The ``sha256`` of a file that still has to be
    read stays: it is the user's, who wants that file and no other.
    """
    if isinstance(settings, list | tuple):
        return [without_facts(inner) for inner in settings]
    if not isinstance(settings, Mapping | Namespace):
        return settings
    pinned = settings.get("sha256") is not None and settings.get("trained_on") is None
    kept = {
        name: without_facts(inner)
        for name, inner in _entries(settings)
        if not (name in FACTS and not (name == "sha256" and pinned))
        and not (name in _INSIDE and inner is None)
    }
    return Namespace(kept) if isinstance(settings, Namespace) else kept  # type: ignore[no-untyped-call]


def denied_facts(settings: _Settings, description: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint states and the settings say otherwise; empty if they agree.

    Args:
        settings: of a whole command, as parsed.
        description: ``{"model": {class_path, init_args}}`` of the checkpoint.

    Returns:
        A configuration that puts these facts right and says nothing else.
    """
    denied: dict[str, Any] = {}
    for place, said, stated in _parts(settings, description):
        for name in (*FACTS, *_INSIDE):
            if name not in stated or name not in said or said[name] == stated[name]:
                continue
            if name in FACTS or said[name] is None:
                inner = denied
                for step in place:
                    inner = inner.setdefault(step, {})
                inner[name] = stated[name]
    return denied


def refuse_other_files(settings: _Settings, description: Mapping[str, Any], *, where: Path) -> None:
    """Refuses files with other weights for experts whose weights the checkpoint holds.

    They would not be read. A file that is gone, or is the one that the weights came from, does not
    matter: configurations go on naming it.

    Args:
        settings: of a whole command, as parsed.
        description: ``{"model": {class_path, init_args}}`` of the checkpoint.
        where: the checkpoint.

    Raises:
        InputError: for the first one.
    """
    for place, said, stated in _parts(settings, description):
        file = said.get("checkpoint")
        inside = any(stated.get(name) is not None for name in _INSIDE)
        holds = inside and stated.get("checkpoint") is None
        if not holds or not isinstance(file, str) or not Path(file).is_file():
            continue
        with Path(file).open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != stated.get("sha256"):
            key = ".".join(step for step in (*place, "checkpoint") if step != "init_args")
            raise InputError(
                f"{key}: {file} is not the file that this expert was trained in (SHA-256 {found}, "
                f"expected {stated.get('sha256')}), and would not be read: {where} holds the "
                f"expert's weights itself. To restore the model as it was trained, say --{key} "
                "null, or leave that setting out. To fuse the other expert, train the fusion anew, "
                "without --ckpt_path."
            )


def _parts(
    said: _Settings, stated: Mapping[str, Any], place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], _Settings, Mapping[str, Any]]]:
    """Every dictionary that both have, with the keys that lead there."""
    yield place, said, stated
    for name, inner in stated.items():
        before = said.get(name)
        if name in FACTS or not isinstance(inner, Mapping):
            continue
        if isinstance(before, Mapping | Namespace):
            yield from _parts(before, inner, (*place, name))


def _entries(settings: _Settings) -> list[tuple[str, Any]]:
    values = vars(settings) if isinstance(settings, Namespace) else settings
    return list(values.items())

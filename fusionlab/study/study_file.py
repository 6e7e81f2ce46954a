"""The file that describes a study: its members, seeds, and what may differ between members."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fusionlab.errors import InputError, did_you_mean
from fusionlab.study.ladder import DROPOUT, RUNGS

Overlay = Path | dict[str, Any]
"""A configuration file, or the content of one written into the study file."""

_KEYS = (
    "title", "output", "seeds", "members", "ladder", "overlay", "allow_differences", "score",
    "trackers",
)  # fmt: skip
_NAME = re.compile(r"[\w][\w.+-]*")


@dataclass(frozen=True)
class Ladder:
    """Members to be derived from a fusion over all modalities; see `fusionlab.study.ladder`.

    Attributes:
        fusion: configuration of the model over all of them; later overlays win.
        rungs: which members, of `RUNGS`.
    """

    fusion: tuple[Overlay, ...]
    rungs: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """What a study file says.

    Attributes:
        file: where it was read from.
        title: of the report.
        output: folder of the study, relative to the working directory, as ``--output`` of a fit.
        seeds: every member is trained with each of them.
        members: by name, in the order of the table; the later overlays of a member win.
        ladder: what more members are derived from; None if there is none. A member with the name of
            a rung takes its place.
        overlay: merged over every member; may be empty.
        allow_differences: keys of the data in which members may differ; a key stands for all below.
        score: what ranks the members, ``test/…``; None for the score that the task monitors.
        trackers: loggers that are given the report, each with ``class_path`` and ``init_args``.
    """

    file: Path
    title: str
    output: Path
    seeds: tuple[int, ...]
    members: dict[str, tuple[Overlay, ...]]
    overlay: dict[str, Any]
    allow_differences: tuple[str, ...]
    score: str | None
    trackers: tuple[dict[str, Any], ...] = ()
    ladder: Ladder | None = None


def read_study(
    path: str | Path, *, output: Path | None = None, seeds: Sequence[int] | None = None
) -> Study:
    """Reads a study file.

    Args:
        path: a YAML file; the files of its members are relative to its folder.
        output: instead of the file's.
        seeds: instead of the file's.

    Raises:
        InputError: names the setting that is unknown, missing or of the wrong kind, or the file
            that does not exist.
    """
    file = Path(path)
    content = _content(file)
    for key in content:
        if key not in _KEYS:
            raise InputError(f"{file}: no setting {key!r}.{or_known(str(key), _KEYS)}")
    content |= {} if output is None else {"output": str(output)}
    content |= {} if seeds is None else {"seeds": list(seeds)}
    ladder = None if content.get("ladder") is None else _ladder(content["ladder"], file)
    for key in ("output", "members"):
        if not content.get(key) and not (key == "members" and ladder):
            raise InputError(
                f"{file}: missing `{key}:`. A study needs an output, and members or a ladder."
            )
    members = content.get("members") or {}
    if not isinstance(members, dict):
        raise InputError(
            f"{file}: members: expected a name for each, `early: [base.yaml, early.yaml]`, got "
            f"{_kind(members)}."
        )
    named = {_name(name, file): _overlays(name, given, file) for name, given in members.items()}
    overlay = content.get("overlay") or {}
    if not isinstance(overlay, dict):
        raise InputError(f"{file}: overlay: expected settings, got {_kind(overlay)}.")
    trackers = content.get("trackers") or []
    if not isinstance(trackers, list) or not all(isinstance(spec, dict) for spec in trackers):
        raise InputError(
            f"{file}: trackers: expected a list of loggers, each with class_path and init_args."
        )
    allowed = _texts(content.get("allow_differences"), f"{file}: allow_differences")
    return Study(
        file=file,
        title=str(content.get("title") or file.resolve().parent.name.replace("_", " ")),
        output=Path(_text(content["output"], f"{file}: output")),
        seeds=_seeds(content.get("seeds", [0]), file),
        members=named,
        overlay=overlay,
        allow_differences=(*allowed, *([f"data.{DROPOUT}"] if ladder else [])),
        score=None if content.get("score") is None else _text(content["score"], f"{file}: score"),
        trackers=tuple(trackers),
        ladder=ladder,
    )


def or_known(name: str, known: Iterable[str]) -> str:
    """The names most like one that is not known, or all that are."""
    names = list(known)
    return did_you_mean(name, names) or f" Known: {', '.join(names)}."


def _content(file: Path) -> dict[str, Any]:
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise InputError(f"--config: {file} {what}; expected a study file.")
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if isinstance(content, dict) and "members" not in content and "model" in content:
        raise InputError(
            f"{file} configures one run, not a study: train it with `fusionlab fit --config "
            f"{file}`, or name it as a member in a study file."
        )
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected settings of a study, got {_kind(content)}.")
    return content


def _name(name: object, file: Path) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{file}: members: {name!r} cannot be the name of a member, which is that of a folder: "
            "letters, digits, _ . + and -, not beginning with one of the last three."
        )
    return name


def _overlays(name: str, given: object, file: Path) -> tuple[Overlay, ...]:
    return _configurations(given, f"{file}: members.{name}", file.parent)


def _configurations(given: object, where: str, folder: Path) -> tuple[Overlay, ...]:
    overlays = tuple(_flat(given, where, folder))
    if not overlays:
        raise InputError(f"{where} names no configuration.")
    return overlays


def _ladder(given: object, file: Path) -> Ladder:
    where = f"{file}: ladder"
    if not isinstance(given, dict) or "fusion" not in given:
        raise InputError(
            f"{where}: expected the configuration of a fusion over all modalities, "
            f"`ladder: {{fusion: [base.yaml, late.yaml]}}`, got {_kind(given)}."
        )
    for key in given:
        if key not in ("fusion", "rungs"):
            raise InputError(f"{where}: no setting {key!r}.{or_known(key, ('fusion', 'rungs'))}")
    chosen = _texts(given.get("rungs", ["alone", "pairs", "all"]), f"{where}.rungs")
    for name in chosen:
        if name not in RUNGS:
            raise InputError(f"{where}.rungs: no rungs {name!r}.{or_known(name, RUNGS)}")
    if not chosen:
        raise InputError(f"{where}.rungs: name one or more of {', '.join(RUNGS)}.")
    return Ladder(_configurations(given["fusion"], f"{where}.fusion", file.parent), chosen)


def _flat(given: object, where: str, folder: Path) -> Iterator[Overlay]:
    """Overlays in their order; lists in lists come from YAML's anchors."""
    if isinstance(given, list):
        for part in given:
            yield from _flat(part, where, folder)
    elif isinstance(given, dict):
        yield given
    elif isinstance(given, str):
        path = folder / given
        if not path.is_file():
            raise InputError(f"{where}: {path} does not exist.{_like(path)}")
        yield path
    else:
        raise InputError(f"{where}: expected files or settings, got {_kind(given)}.")


def _like(path: Path) -> str:
    files = [file.name for file in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    return did_you_mean(path.name, files)


def _seeds(given: object, file: Path) -> tuple[int, ...]:
    seeds = given if isinstance(given, list) else []
    good = [s for s in seeds if isinstance(s, int) and not isinstance(s, bool) and s >= 0]
    if not seeds or len(set(good)) < len(seeds):
        raise InputError(
            f"{file}: seeds: expected a list of different whole numbers, such as [0, 1, 2], got "
            f"{given!r}."
        )
    return tuple(good)


def _texts(given: object, where: str) -> tuple[str, ...]:
    values = [given] if isinstance(given, str) else given or []
    if not isinstance(values, list):
        raise InputError(f"{where}: expected a list of keys, got {_kind(given)}.")
    return tuple(_text(value, where) for value in values)


def _text(given: object, where: str) -> str:
    if not isinstance(given, str) or not given:
        raise InputError(f"{where}: expected text, got {given!r}.")
    return given


def _kind(given: object) -> str:
    kinds: Mapping[type, str] = {list: "a list", dict: "settings", type(None): "nothing"}
    return kinds.get(type(given), repr(given))

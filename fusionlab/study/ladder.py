"""The modality ladder: each expert of a fusion alone, some together, all of them.

What a modality adds is seen where the same fusion is trained with it and without it. The members
are derived from the configuration of the fusion over all modalities, so that they differ in
nothing else.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

from fusionlab.errors import InputError

ALL: Final = "all"
"""The member with every modality."""
RUNGS: Final = ("alone", "pairs", "all_but_one", "all")
"""What a ladder may consist of."""
DROPOUT: Final = "modality_dropout"
"""The option of data that names modalities, of which a member without them cannot hear."""

_NOT_TRAINED = ("FrozenExpert",)
_NO_FUSION = ("ContrastiveModel",)  # whose experts say nothing alone
_EXPERT_NAME = re.compile(r"\w[\w.-]*")


def rungs(experts: Sequence[str], wanted: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The members of a ladder.

    Args:
        experts: names, in the order of the fusion.
        wanted: of `RUNGS`.

    Returns:
        By the member's name, such as ``image``, ``image+caption`` and ``all``, the experts that it
        keeps; from few to many.
    """
    n = len(experts)
    sizes = {"alone": 1, "pairs": 2, "all_but_one": n - 1, "all": n}
    found = {}
    for size in sorted({sizes[name] for name in wanted}):
        for kept in combinations(experts, size):
            found[ALL if size == n else "+".join(kept)] = kept
    return found


def experts_of(config: Mapping[str, Any], *, where: str) -> tuple[str, ...]:
    """Names of the experts of a fusion.

    Args:
        config: of a run, whole.
        where: the study's setting, for the message.

    Raises:
        InputError: if the model is no fusion of two or more experts, or one has a name of which no
            member's name can be made.
    """
    model = _model(config)
    experts = (model.get("init_args") or {}).get("experts")
    kind = str(model.get("class_path") or "nothing").rpartition(".")[-1]
    if not isinstance(experts, Mapping) or len(experts) < 2 or kind in _NO_FUSION:
        raise InputError(
            f"{where}: a ladder is climbed with a model of two or more `experts:`, such as "
            f"LateFusion or FeatureFusion, but the model is {kind}."
        )
    names = tuple(str(name) for name in experts)
    for name in names:
        if name == ALL or not _EXPERT_NAME.fullmatch(name):
            raise InputError(
                f"{where}: the expert {name!r} cannot be part of a member's name, such as "
                f"image+caption. Call it otherwise: letters, digits, _ . and -, and not {ALL!r}."
            )
    return names


def reduced(config: Mapping[str, Any], kept: Sequence[str], *, where: str) -> dict[str, Any]:
    """The configuration of a run with fewer of the experts.

    One expert alone becomes the model. Shares and learning rates by expert lose those that are
    left out; so does the dropout of modalities.

    Args:
        config: of the fusion over all of them, whole.
        kept: names of the experts to keep.
        where: the rung, for messages.

    Raises:
        InputError: if something else than these speaks of an expert that is left out, or one that
            cannot be trained is to stand alone.
    """
    left: dict[str, Any] = copy.deepcopy(dict(config))
    task, model = left["model"]["init_args"], _model(left)
    arguments = model["init_args"]
    experts = arguments["experts"]
    dropped = [name for name in experts if name not in kept]
    groups = task.get("parameter_groups")
    if len(kept) == 1:
        (name,) = kept
        _require_trainable(name, experts[name], where=where)
        task["model"] = _with_modality(experts[name], name)
    else:
        arguments["experts"] = {name: experts[name] for name in kept}
        if arguments.get("reference") in dropped:
            arguments["reference"] = None  # the finest of those that are left
        rest = {key: part for key, part in arguments.items() if key != "experts"}
        arguments |= _without(rest, dropped, list(experts), where=where)
    if groups:
        task["parameter_groups"] = dict(_groups(groups, kept, dropped))
    _restrict_dropout(left, [_modality(experts[name], name) for name in kept])
    return left


def _model(config: Mapping[str, Any]) -> dict[str, Any]:
    found = (config.get("model") or {}).get("init_args", {}).get("model")
    return found if isinstance(found, dict) else {}


def _require_trainable(name: str, expert: Mapping[str, Any], *, where: str) -> None:
    kind = str(expert.get("class_path", "")).rpartition(".")[-1]
    if kind in _NOT_TRAINED:
        raise InputError(
            f"{where}: the expert {name!r} is a {kind} and has nothing to train alone. Train it as "
            f"a member `{name}:` of its own, which takes the place of this rung, or leave `alone` "
            "out of `rungs:`."
        )


def _modality(expert: Mapping[str, Any], name: str) -> str:
    return str((expert.get("init_args") or {}).get("modality") or name)


def _with_modality(expert: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An expert that says what it looks at, since the data deliver more."""
    arguments = {**(expert.get("init_args") or {}), "modality": _modality(expert, name)}
    return {**expert, "init_args": arguments}


def _without(
    part: Any,  # noqa: ANN401
    dropped: Sequence[str],
    experts: Sequence[str],
    *,
    where: str,
    key: str = "",
) -> Any:  # noqa: ANN401
    """A copy of settings without what they say of experts that are left out."""
    if isinstance(part, str) and part in dropped and not key.endswith("class_path"):
        raise InputError(
            f"{where}: {key} is {part!r}, which this rung leaves out. Name these members under "
            "`members:` yourself, or choose a fusion that treats its experts alike."
        )
    if isinstance(part, Mapping):
        by_expert = bool(part) and set(part) <= set(experts)
        return {
            name: _without(
                value, dropped, experts, where=where, key=f"{key}.{name}" if key else str(name)
            )
            for name, value in part.items()
            if not (by_expert and name in dropped)
        }
    if isinstance(part, list):
        return [
            _without(value, dropped, experts, where=where, key=f"{key}[{i}]")
            for i, value in enumerate(part)
        ]
    return part


def _groups(
    groups: Mapping[str, Any], kept: Sequence[str], dropped: Sequence[str]
) -> Iterator[tuple[str, Any]]:
    """Learning rates by the names that parameters have with fewer experts."""
    for pattern, options in groups.items():
        if any(pattern.startswith(f"experts.{name}.") for name in dropped):
            continue
        if len(kept) == 1:
            if pattern.startswith(("fusion.", "head.")):
                continue
            pattern = pattern.removeprefix(f"experts.{kept[0]}.")
        yield pattern, options


def _restrict_dropout(config: dict[str, Any], modalities: Sequence[str]) -> None:
    """A model that looks at one modality never goes without it."""
    arguments = (config.get("data") or {}).get("init_args") or {}
    given = arguments.get(DROPOUT)
    if not given:
        return
    left = {name: p for name, p in given.items() if name in modalities}
    arguments[DROPOUT] = left if len(modalities) > 1 and left else None

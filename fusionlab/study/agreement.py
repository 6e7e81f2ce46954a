"""Whether members of a study are comparable: what differs between their configurations.

Members must be trained and tested on the same data. Which modalities they look at is their own
matter, and how fast samples are read changes nothing that is learned. The batch size belongs to the
optimiser, although it is an option of the data: like learning rates and epochs it may differ, and
is remarked upon.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fusionlab.errors import InputError

LOADING: Final = frozenset(
    {"num_workers", "pin_memory", "persistent_workers", "prefetch_factor", "timeout"}
)
"""Options of a data module that change how fast samples come, and not which."""
TRAINER_DATA: Final = frozenset(
    {
        "limit_train_batches",
        "limit_val_batches",
        "limit_test_batches",
        "overfit_batches",
        "fast_dev_run",
    }
)
"""Options of the trainer that leave out data."""
TRAINER_DISPLAY: Final = frozenset(
    {
        "default_root_dir",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "limit_predict_batches",
        "log_every_n_steps",
        "logger",
        "num_sanity_val_steps",
        "profiler",
    }
)
"""Options of the trainer that change what is shown and logged."""

SEED: Final = "seed_everything"
"""The setting of the seed."""

_DATA = "data.init_args"
_ABSENT: Final = object()
_WIDTH = 48


@dataclass(frozen=True)
class Difference:
    """A setting that is not the same for all.

    Attributes:
        key: dotted.
        values: per member; only those that have the setting.
    """

    key: str
    values: dict[str, Any]

    def __str__(self) -> str:
        """Key, and for each value who has it."""
        groups: dict[str, list[str]] = {}
        for member, value in self.values.items():
            groups.setdefault(_short(value), []).append(member)
        # Most have the usual value, which need not list them.
        largest = max(groups, key=lambda text: len(groups[text])) if len(groups) > 1 else None
        many = largest is not None and len(groups[largest]) > 3
        parts = [
            f"{text} ({'the others' if many and text == largest else ', '.join(who)})"
            for text, who in groups.items()
        ]
        return f"{self.key}: {' | '.join(parts)}"


def require_agreement(
    configs: Mapping[str, Mapping[str, Any]], *, allowed: Sequence[str], where: str
) -> list[str]:
    """Refuses members that are not trained and tested on the same data.

    Args:
        configs: whole configurations by member.
        allowed: keys in which data may differ nevertheless; a key stands for all below it, and
            ``init_args`` may be left out.
        where: what holds the members, for the message.

    Returns:
        Remarks for the report: what differs in optimiser, schedule, epochs, batch size or
        precision, and differences of the data that were allowed.

    Raises:
        InputError: a table of what differs: key, and values with their members.
    """
    found = list(data_differences(configs))
    refused = [d for d in found if not _is_allowed(d.key, allowed)]
    if refused:
        raise InputError(refusal(refused, where=where))
    return [
        *(f"Data differ, as allowed: {difference}" for difference in found),
        *(f"Not identical: {difference}" for difference in training_differences(configs)),
    ]


def require_one_seed(
    configs: Mapping[str, Mapping[str, Any]], *, allowed: Sequence[str], where: str
) -> list[str]:
    """Refuses members whose files name different seeds: a study trains all with those of its own.

    Args:
        configs: whole configurations by member.
        allowed: may hold ``seed_everything``.
        where: what holds the members, for the message.

    Returns:
        A remark for the report where they differ and may.

    Raises:
        InputError: with the seeds and their members.
    """
    seeds = {name: config.get(SEED) for name, config in configs.items()}
    found = list(nested_differences(seeds, SEED))
    if found and not _is_allowed(SEED, allowed):
        raise InputError(refusal(found, where=where))
    return [f"Members name other seeds, in place of which the study's are used: {d}" for d in found]


def refusal(differences: Sequence[Difference], *, where: str) -> str:
    """What to say of differences that nobody allowed."""
    width = max(len(difference.key) for difference in differences)
    lines = [
        f"  {difference.key:{width}}  {str(difference).removeprefix(f'{difference.key}: ')}"
        for difference in differences
    ]
    keys = " ".join(difference.key for difference in differences)
    return "\n".join(
        [
            f"{where}: members differ in data or seed, so their scores would not be comparable:",
            *lines,
            f"Make them agree, or compare them nevertheless with --allow-differences {keys}",
        ]
    )


def data_differences(configs: Mapping[str, Mapping[str, Any]]) -> Iterator[Difference]:
    """What differs in data: those of training, validation and test, in the order of the file."""
    parts, chosen = {}, {}
    for member, config in configs.items():
        data = dict(config.get("data") or {})
        arguments = dict(data.get("init_args") or {})
        chosen[member] = arguments.pop("modalities", None)
        for name in (*LOADING, "batch_size"):
            arguments.pop(name, None)
        parts[member] = {**data, "init_args": arguments}
    yield from nested_differences(parts, "data")
    yield from _other_bands(chosen, f"{_DATA}.modalities")
    for name in sorted(TRAINER_DATA):
        values = {m: (config.get("trainer") or {}).get(name) for m, config in configs.items()}
        yield from nested_differences(values, f"trainer.{name}")


def training_differences(configs: Mapping[str, Mapping[str, Any]]) -> Iterator[Difference]:
    """What differs in how members are trained, apart from the model itself."""

    def section(config: Mapping[str, Any], name: str, without: frozenset[str]) -> dict[str, Any]:
        return {k: v for k, v in (config.get(name) or {}).items() if k not in without}

    parts: dict[str, dict[str, Any]] = {}
    for member, config in configs.items():
        model = config.get("model") or {}
        arguments = {k: v for k, v in (model.get("init_args") or {}).items() if k != "model"}
        data = (config.get("data") or {}).get("init_args") or {}
        parts[member] = {
            "model": {"class_path": model.get("class_path"), "init_args": arguments},
            "trainer": section(config, "trainer", TRAINER_DATA | TRAINER_DISPLAY),
            "checkpoint": section(config, "checkpoint", frozenset({"dirpath"})),
            "data": {"init_args": {"batch_size": data.get("batch_size")}},
        }
    yield from nested_differences(parts)


def nested_differences(values: Mapping[str, Any], key: str = "") -> Iterator[Difference]:
    """Differences between values of one key, as deep down as they can be told.

    Args:
        values: per member.
        key: dotted; empty for whole configurations.
    """
    present = {member: value for member, value in values.items() if value is not _ABSENT}
    first = next(iter(present.values()), None)
    if all(value == first for value in present.values()) and len(present) == len(values):
        return
    nested = [value for value in present.values() if isinstance(value, Mapping)]
    if len(nested) < len(values):
        yield Difference(key, present)
        return
    paths = {member: value.get("class_path") for member, value in present.items()}
    if len(set(map(str, paths.values()))) > 1:  # options of different classes tell nothing
        yield Difference(f"{key}.class_path", paths)
        return
    for name in dict.fromkeys(name for value in nested for name in value):
        inner = {member: value.get(name, _ABSENT) for member, value in present.items()}
        yield from nested_differences(inner, f"{key}.{name}" if key else str(name))


def _other_bands(chosen: Mapping[str, Any], key: str) -> Iterator[Difference]:
    """Modalities that several members chose, and made of other bands."""
    named = {member: value for member, value in chosen.items() if isinstance(value, Mapping)}
    for name in dict.fromkeys(name for value in named.values() for name in value):
        bands = {member: value[name] for member, value in named.items() if name in value}
        yield from nested_differences(bands, f"{key}.{name}")


def _is_allowed(key: str, allowed: Sequence[str]) -> bool:
    """Whether a key, or one above it, is among the allowed ones."""
    plain = _plain(key)
    return any(plain == a or plain.startswith(f"{a}.") for a in map(_plain, allowed))


def _plain(key: str) -> str:
    return ".".join(part for part in key.split(".") if part != "init_args")


def _short(value: Any) -> str:  # noqa: ANN401
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"

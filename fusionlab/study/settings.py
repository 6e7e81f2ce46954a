"""On what terms members were trained: what is the same for all of them, and what is not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from fusionlab.study.finished import FinishedRun

_IRRELEVANT = (
    "output", "overwrite", "ckpt_path", "seed_everything", "writer", "trainer.logger",
    "trainer.default_root_dir", "trainer.enable_progress_bar", "trainer.enable_model_summary",
    "checkpoint.dirpath", "model.init_args.model",
)  # fmt: skip
"""Settings that do not change what is learned, and the model, which is what a study compares."""

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s:]+(:[^/@\s]*)?@")


def terms(runs: Mapping[str, Sequence[FinishedRun]]) -> list[tuple[str, str]]:
    """What was compared, in words: data, seeds, epochs, optimiser and the like.

    Args:
        runs: by member.

    Returns:
        Pairs of a heading and its value; where members differ, every value with its members.
    """
    every = [run for group in runs.values() for run in group]
    seeds = {
        member: ", ".join("none" if run.seed is None else str(run.seed) for run in group)
        for member, group in runs.items()
    }
    found = [("Members", f"{len(runs)}: {' · '.join(runs)}"), ("Seeds", _by_member(seeds))]
    for heading, key in (
        ("Data", "data.class_path"),
        ("Data folder", "data.init_args.root"),
        ("Modalities", "data.init_args.modalities"),
        ("Batch size", "data.init_args.batch_size"),
        ("Task", "model.class_path"),
        ("Loss", "model.init_args.loss.class_path"),
        ("Optimiser", "model.init_args.optimizer"),
        ("Schedule", "model.init_args.lr_scheduler"),
        ("Epochs at most", "trainer.max_epochs"),
        ("Precision", "trainer.precision"),
    ):
        values = {
            member: " / ".join(dict.fromkeys(_text(_setting(run.config, key)) for run in group))
            for member, group in runs.items()
        }
        if set(values.values()) != {""}:
            found.append((heading, _by_member({m: v or "default" for m, v in values.items()})))
    devices = [str(run.measures["device"]) for run in every if run.measures.get("device")]
    if devices:
        found.append(("Device", ", ".join(dict.fromkeys(devices))))
    return found


def differences(runs: Mapping[str, Sequence[FinishedRun]]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same for all members, besides the model itself.

    Args:
        runs: by member; a member's settings are those of its first run.

    Returns:
        Pairs of a setting's key, and each of its values with the members that have it.
    """
    flat = {member: dict(_flattened(group[0].config)) for member, group in runs.items()}
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    found = []
    for key in keys:
        by_value: dict[str, list[str]] = {}
        for member, settings in flat.items():
            by_value.setdefault(settings.get(key, "not set"), []).append(member)
        if len(by_value) > 1:
            values = [f"{value} ({', '.join(members)})" for value, members in by_value.items()]
            found.append((key, values))
    return found


def config_text(run: FinishedRun) -> str:
    """The configuration of a run as YAML, without user names and passwords of addresses."""
    text = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True, width=100)
    return _CREDENTIALS.sub("", text)


def _flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if key in _IRRELEVANT:
            continue
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{key}.")
        elif value is not None:
            yield key, _text(value)


def _setting(config: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:  # noqa: ANN401
    """A setting in a line: classes by their short names with what is set of their arguments."""
    if value is None:
        return ""
    if isinstance(value, Mapping) and "class_path" in value:
        arguments = {
            name: inner
            for name, inner in (value.get("init_args") or {}).items()
            if inner is not None and inner is not False
        }
        inside = ", ".join(f"{name} {_text(inner)}" for name, inner in arguments.items())
        return (
            f"{_short(value['class_path'])} ({inside})" if inside else _short(value["class_path"])
        )
    if isinstance(value, str):
        text = _short(value) if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value) else value
        return _CREDENTIALS.sub("", text)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return json.dumps(value, default=str, ensure_ascii=False)


def _short(class_path: str) -> str:
    return str(class_path).rpartition(".")[-1]


def _by_member(values: Mapping[str, str]) -> str:
    """One value if all have the same, else each with its members."""
    by_value: dict[str, list[str]] = {}
    for member, value in values.items():
        by_value.setdefault(value, []).append(member)
    if len(by_value) == 1:
        return next(iter(by_value))
    return "; ".join(f"{value} ({', '.join(members)})" for value, members in by_value.items())

"""What a command line says of checkpoint, folder and model, read before it is parsed.

A checkpoint describes its model, and the parser needs that description before all else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from fusionlab.checkpoints import read_file
from fusionlab.errors import InputError

OUTPUT = "output"
"""The folder of a run that names none."""


def read_ahead(args: Sequence[str], command: str) -> dict[str, Any]:
    """The settings ``output``, ``ckpt_path`` and those of configuration files; later ones win.

    Raises:
        InputError: if a configuration does not exist or is no YAML.
    """
    settings: dict[str, Any] = {}
    for name, value in _options(args):
        if name in ("--config", "-c"):
            content = _config(value)
            section = content.pop(command, None) or {}
            settings = _merged(_merged(settings, content), section)
        elif name in ("--output", "--ckpt_path"):
            settings[name.removeprefix("--")] = None if value == "null" else value
        elif name in ("--model", "--model.class_path"):
            settings["model"] = value
        elif name.startswith("--model."):
            settings.setdefault("model", None)
    return settings


def asks_for_help(args: Sequence[str]) -> bool:
    """Whether the command line asks what may be written in it."""
    return any(arg.split("=")[0].split(".")[-1] in ("-h", "--help", "help") for arg in args)


def checkpoint_path(settings: dict[str, Any]) -> Path | None:
    """The checkpoint to restore; ``best`` and ``last`` are those of the output folder.

    Raises:
        InputError: if it does not exist.
    """
    given = settings.get("ckpt_path")
    if given is None:
        return None
    if given in ("best", "last"):
        path = Path(settings.get("output") or OUTPUT, f"{given}.ckpt")
    else:
        path = Path(given)
    if not path.is_file():
        raise InputError(f"--ckpt_path: {path} does not exist.")
    return path


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Settings of two files, the second winning, section by section."""
    merged = dict(first)
    for name, value in second.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def task_in(settings: dict[str, Any]) -> str | None:
    """Class path of the task that the settings name."""
    model = settings.get("model")
    path = model.get("class_path") if isinstance(model, dict) else model
    return path if isinstance(path, str) else None


def described_in(path: Path) -> dict[str, Any]:
    """A checkpoint's own description of its task, as a configuration; empty if it has none."""
    hyper_parameters = dict(read_file(path).get("hyper_parameters", {}))
    hyper_parameters.pop("_instantiator", None)
    class_path = hyper_parameters.pop("_class_path", None)
    if class_path is None:
        return {}
    return {"model": {"class_path": class_path, "init_args": hyper_parameters}}


def with_checkpoint(
    args: Sequence[str], command: str, path: Path, description: dict[str, Any]
) -> list[str]:
    """Arguments that name the file of a checkpoint, with its description put before all else."""
    completed = [*args, "--ckpt_path", str(path)]
    if description:
        position = completed.index(command) + 1
        # In its own order: the weights of a fusion are those of its first expert, its second, ...
        completed[position:position] = ["--config", yaml.safe_dump(description, sort_keys=False)]
    return completed


def _options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options and their values, written as ``--name value`` or ``--name=value``."""
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        if arg.startswith("-"):
            name, separator, value = arg.partition("=")
            yield name, value if separator else following


def _config(given: str) -> dict[str, Any]:
    """The content of a configuration: a file, or YAML on the command line itself."""
    try:
        is_file = Path(given).is_file()
    except (OSError, ValueError):  # too long for a path
        is_file = False
    try:
        content = yaml.safe_load(Path(given).read_text() if is_file else given)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--config: {given} is not YAML: {reason}") from error
    if not is_file and not isinstance(content, dict):
        raise InputError(f"--config: {given} does not exist.")
    return content if isinstance(content, dict) else {}

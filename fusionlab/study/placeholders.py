"""``{runs}`` and ``{study}`` in configurations: folders that are known when a study runs.

``{runs}`` is the folder of all runs of one seed, so that a member can use the checkpoint of
another: ``{runs}/aerial/best.ckpt``. ``{study}`` is the folder of the study, for what all share,
such as a cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fusionlab.errors import InputError

RUNS = "{runs}"
STUDY = "{study}"
_TOKENS = {RUNS: "__folder_of_the_runs__", STUDY: "__folder_of_the_study__"}
"""What stands for them while a configuration is parsed, where braces would be read as YAML."""


def filled(part: Any, *, runs: Path, study: Path) -> Any:  # noqa: ANN401
    """A copy of a configuration with folders in place of ``{runs}`` and ``{study}``."""
    return replaced(part, {RUNS: str(runs), STUDY: str(study)})


def tokenised(part: Any) -> Any:  # noqa: ANN401
    """A copy that a parser leaves as it is."""
    return replaced(part, _TOKENS)


def restored(part: Any) -> Any:  # noqa: ANN401
    """A copy with placeholders where `tokenised` had put something else."""
    return replaced(part, {token: name for name, token in _TOKENS.items()})


def replaced(part: Any, words: Mapping[str, str]) -> Any:  # noqa: ANN401
    """A copy of nested dictionaries and lists in whose strings other words stand."""
    if isinstance(part, str):
        for old, new in words.items():
            part = part.replace(old, new)
        return part
    if isinstance(part, Mapping):
        return {replaced(key, words): replaced(value, words) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [replaced(value, words) for value in part]
    return part


def has_placeholders(part: Any) -> bool:  # noqa: ANN401
    """Whether any string of a configuration contains one."""
    return any(name in text for _, text in strings(part) for name in _TOKENS)


def strings(part: Any, place: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """All strings of a configuration, each with its dotted key."""
    if isinstance(part, str):
        yield place, part
    elif isinstance(part, Mapping):
        for name, value in part.items():
            yield from strings(value, f"{place}.{name}" if place else str(name))
    elif isinstance(part, list | tuple):
        for i, value in enumerate(part):
            yield from strings(value, f"{place}[{i}]")


def used_members(part: Any) -> dict[str, str]:  # noqa: ANN401
    """Members whose runs a configuration refers to, each with the key where it does so first.

    Raises:
        InputError: for a misspelt placeholder, and for ``{runs}`` without a member behind it.
    """
    found: dict[str, str] = {}
    for key, text in strings(part):
        for name in re.findall(r"\{(\w+)\}(?=[/\\]|$)", text):
            near = get_close_matches(name.lower(), ("runs", "study"), n=1, cutoff=0.7)
            if near and name not in ("runs", "study"):
                raise InputError(f"{key}: {text} has a {{{name}}}. Did you mean {{{near[0]}}}?")
        for rest in text.split(RUNS)[1:]:
            match = re.match(r"[/\\]+([^/\\]+)", rest)
            if match is None:
                raise InputError(
                    f"{key}: {text} names no member. Write {RUNS}/MEMBER/best.ckpt for the "
                    f"checkpoint of another one, or {STUDY}/… for what all share."
                )
            found.setdefault(match[1], key)
    return found

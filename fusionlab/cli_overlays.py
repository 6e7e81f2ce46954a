"""What a later configuration file changes of what earlier files and flags said.

jsonargparse replaces a dictionary, such as the experts of a fusion, by what a later file says of
it. Here a later file changes the entries that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from jsonargparse import Namespace

from fusionlab.cli_facts import FACTS

_Settings = Mapping[str, Any] | Namespace


def overlaid(earlier: _Settings, given: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, its dictionaries completed with the entries that are there already.

    The parser itself merges sections, and arguments of one class.

    Args:
        earlier: what earlier files and flags said, parsed.
        given: the content of a file. A null takes an entry out of an earlier dictionary.
    """
    same = _arguments(earlier, given)
    if same is None:
        return dict(given)
    is_section = isinstance(same, Namespace)
    result = {} if is_section else {name: _unchanged(value) for name, value in same.items()}
    for name, value in given.items():
        before = same.get(name)
        if name not in FACTS and isinstance(value, dict) and isinstance(before, Namespace | dict):
            result[name] = overlaid(before, value)
        elif value is None and before is not None and not is_section:
            del result[name]
        else:
            result[name] = value
    return result


def without_replaced_lists(earlier: Namespace, given: Mapping[str, Any]) -> Namespace:
    """A copy of a configuration without the lists that a file replaces.

    The parser merges lists of classes by position if they are equally long.

    Args:
        earlier: what earlier files and flags said, parsed.
        given: the content of the file.
    """
    copy = earlier.clone()
    _remove_lists(copy, given)
    return copy


def _remove_lists(earlier: _Settings, given: Mapping[str, Any]) -> None:
    same = _arguments(earlier, given)
    for name, value in given.items() if same is not None else ():
        assert same is not None
        before = same.get(name)
        if isinstance(value, dict) and isinstance(before, Namespace | dict):
            _remove_lists(before, value)
        elif isinstance(value, list) and isinstance(before, list) and isinstance(same, Namespace):
            same[name] = None


def _arguments(earlier: _Settings, given: Mapping[str, Any]) -> _Settings | None:
    """What the keys of `given` stand for in `earlier`; None if it speaks of another class."""
    if "class_path" in earlier and not {"class_path", "init_args", "dict_kwargs"} & given.keys():
        arguments: _Settings = earlier.get("init_args") or {}  # the short form, without `init_args`
        return arguments
    return earlier if _class_name(given) in ("", _class_name(earlier)) else None


def _class_name(spec: _Settings) -> str:
    """Short name of a class, which may be written with or without its module."""
    return str(spec.get("class_path") or "").rpartition(".")[-1]


def _unchanged(value: Any) -> Any:  # noqa: ANN401
    """What makes the parser keep an entry of a dictionary as it is."""
    if isinstance(value, Namespace):
        return {"class_path": value.class_path} if "class_path" in value else value.as_dict()
    if isinstance(value, dict):
        return {name: _unchanged(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_unchanged(inner) for inner in value]
    if isinstance(value, Enum):
        return value.name
    return value if isinstance(value, str | int | float | bool | None) else str(value)

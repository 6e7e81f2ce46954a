"""What is wrong with a command line or a configuration, told shortly.

jsonargparse reports a misspelt class five levels deep with everything around it, some seventy
lines. Here the innermost cause is kept, with what may have been meant.
"""

from __future__ import annotations

import re
import sys
import traceback
from argparse import ArgumentError
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

from lightning.pytorch.cli import LightningArgumentParser

from fusionlab.errors import InputError, did_you_mean

_LINES, _WIDTH = 3, 240
"""The most that is shown of a message that is not understood."""

_FRAME = r'Parser key "|Does not validate|Subtypes:|Errors:|Given value|Problem with given'
"""How the lines begin that say where a cause lies, and not what it is."""


class Mistake(ArgumentError):
    """What is wrong, the key at which it was found, and the file if it was found in one."""

    def __init__(self, key: str, text: str, *, file: str = "") -> None:
        text = text.strip()
        super().__init__(None, ": ".join(part for part in (file, key, text) if part))
        self.key = key
        self.text = text
        self.file = file


def _flags(parser: LightningArgumentParser) -> list[str]:
    """The options of a parser that may be written as flags."""
    return [name for name in parser._option_string_actions if name.startswith("--")]


def options(parser: LightningArgumentParser, prefix: str = "") -> list[str]:
    """Names of the options of a parser, of one group only if its prefix is given."""
    names = [action.dest for action in parser._actions]
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def check_names(
    parser: LightningArgumentParser, args: Iterable[str], settings: Iterable[str]
) -> None:
    """Refuses flags and settings of files that do not exist; leaves those with a dot.

    Raises:
        Mistake: for the first one.
    """
    for arg in args:
        flag = arg.split("=", 1)[0]
        if flag.startswith("--") and "." not in flag and flag not in _flags(parser):
            raise Mistake("", _unknown_flag(flag, _flags(parser)))
    known = {name.split(".")[0] for name in options(parser)}
    for name in settings:
        if name not in known:
            raise Mistake("", _unknown(name, known))


def explained(
    parser: LightningArgumentParser, message: str, error: BaseException | None
) -> Mistake:
    """What a message of jsonargparse says, in a line or a few.

    Args:
        parser: that gave it; knows the names that it might have been.
        message: the whole text.
        error: what it was made of; the innermost mistake behind it counts, if there is one.
    """
    key = _search(r'^Parser key "([^"]+)"', message)
    found = _mistake_behind(error)
    if found is not None:
        return Mistake(_join(key, found.key), found.text, file=found.file)
    if flag := _search(r"^unrecognized arguments: (\S+)", message):
        name = flag.split("=", 1)[0]
        return Mistake("", _unknown_flag(name, _flags(parser)))
    if option := _search(r"Group '\S+' does not accept option '([^']+)'", message):
        group = _search(r"Group '(\S+)'", message)
        return Mistake(group, _unknown(option, options(parser, f"{group}.")))
    if option := _search(r"Subcommand '\S+' does not accept option '([^']+)'", message):
        command = _search(r"Subcommand '(\S+)'", message)
        inner = parser._subcommands_action._name_parser_map[command]  # type: ignore[union-attr]
        group, _, last = option.rpartition(".")
        names = options(inner, f"{group}." if group else "")
        return Mistake(group, _unknown(last, {name.split(".")[0] for name in names}))
    if option := _search(r"^Option '([^']+)' is not accepted", message):
        return Mistake("", _unknown(option, options(parser)))
    if missing := _search(r"^the following arguments are required: (.+)", message):
        names = [_without_command(name) for name in missing.split(", ")]
        return Mistake("", f"missing: {', '.join(names)}.")
    key = _without_command(key)
    if "but got None" in message and "Expected an import path" in message:
        return Mistake(
            key,
            "expected a class, got null. A null takes an entry out only in a --config, and "
            "only one that an earlier file or flag brought.",
        )
    found_out = _wrong_class(parser, key, message) or _wrong_choice(message) or _wrong_type(message)
    return Mistake(key, found_out or _cut(message))


def _wrong_class(parser: LightningArgumentParser, key: str, message: str) -> str | None:
    action = next((a for a in parser._actions if a.dest == key), None)
    known = _subclasses(getattr(action, "_typehint", None))
    if name := _search(r"Expected a dot import path string: ([^\s.]+)", message):
        if (made := _dataclass_in(getattr(action, "_typehint", None))) is not None:
            return _options_wanted(made, name, message)
        # Where no class is expected at all, something else is wrong.
        return f"no class {name!r}.{_did_you_mean(name, known)}" if known else None
    path = _search(r"given class_path '([^']+)'", message) or _search(
        r"Got value: (?:Namespace\(class_path='|\{'class_path': ')?([\w.]+)", message
    )
    if module := _search(r"No module named '([^']+)'", message):
        files = [file.stem for file in Path.cwd().glob("*.py")]
        return (
            f"{path or module}: no module {module!r}, neither installed nor in this folder."
            f"{did_you_mean(module, files)}"
        )
    if match := re.search(r"module '([^']+)' has no attribute '([^']+)'", message):
        inside = vars(sys.modules[match[1]]) if match[1] in sys.modules else {}
        classes = [name for name, value in inside.items() if isinstance(value, type)]
        return f"no class {match[2]!r} in {match[1]}.{_did_you_mean(match[2], classes)}"
    if re.search(r"does not correspond to a subclass|to be a subclass of", message):
        path = path or _search(r"(?:Import path |Expected ')([\w.]+)", message)
        return f"{path} is of another kind.{_did_you_mean(path, known)}"
    return None


def _dataclass_in(hint: Any) -> type[Any] | None:  # noqa: ANN401
    """The only class that a type hint names, if that is a dataclass, as groups of options are."""
    if isinstance(hint, type):
        return hint if is_dataclass(hint) else None
    found = [_dataclass_in(part) for part in get_args(hint) if part not in (str, type(None))]
    return found[0] if len(found) == 1 else None


def _options_wanted(made: type[Any], given: str, message: str) -> str:
    """What to write where a plain text stands for options, as in ``texts: {caption: caption}``."""
    first = fields(made)[0]
    listed = str(first.type).startswith("list")
    example = f"{{{first.name}: {f'[{given}]' if listed else given}}}"
    if name := _search(rf"Given value: .*'([^']+)': '{re.escape(given)}'", message):
        example = f"{{{name}: {example}}}"
    return f"expected options, got {given!r}. Write {example}."


def _mistake_behind(error: BaseException | None) -> Mistake | None:
    while error is not None and not isinstance(error, Mistake):
        error = error.__cause__ or error.__context__
    return error


def raised_behind(error: BaseException) -> BaseException:
    """The error that jsonargparse wrapped in its own: where a class of the user's failed."""
    while (cause := error.__cause__ or error.__context__) is not None:
        raised = traceback.extract_tb(error.__traceback__)
        if not raised or "jsonargparse" not in Path(raised[-1].filename).parts:
            break
        error = cause
    return error


def input_error(error: BaseException | None) -> InputError | None:
    """The input error behind an exception, if there is one."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def _search(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


def _join(*keys: str) -> str:
    return ".".join(_without_command(key) for key in keys if key)


def _without_command(key: str) -> str:
    return re.sub(r"^(fit|validate|test|predict)\.", "", key)


def _subclasses(hint: Any) -> set[str]:  # noqa: ANN401
    """Short names of the classes that a type hint names or returns, and of those below them."""
    if isinstance(hint, type):
        builtin = hint.__module__ == "builtins"
        names = set() if builtin else {kind.__name__ for kind in subclasses(hint)}
    else:
        inner = get_args(hint)
        if inner and isinstance(inner[0], list):  # what a factory is given is not the user's choice
            inner = inner[1:]
        names = {name for part in inner for name in _subclasses(part)}
    return {name for name in names if not name.startswith("_")}


def subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    """A class and all that derive from it."""
    yield cls
    for subclass in cls.__subclasses__():
        yield from subclasses(subclass)


def _unknown_flag(flag: str, known: Iterable[str]) -> str:
    return f"no option {flag}.{did_you_mean(flag, known) or ' See --help.'}"


def _unknown(option: str, known: Iterable[str]) -> str:
    return f"no option {option!r}.{_did_you_mean(option, known)}"


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the names most like it, or a list where there are few."""
    names = sorted(set(known) - {"help", "config", "print_config"})
    listed = f" Known: {', '.join(names)}."
    return did_you_mean(name, names) or (listed if names and len(listed) < _WIDTH else "")


def _wrong_choice(message: str) -> str | None:
    """Of a few words that are known, none was given."""
    listed = re.findall(r"Expected an? typing\.Literal\[([^\]]+)\]", message)
    value = _search(r"(?:Given value: |Got value: )(.+)", message).strip()
    others = len(re.findall("Expected", message)) - message.count("Expected a <class 'NoneType'>")
    if len(listed) != 1 or others != 1 or not value or value.startswith("NestedArg"):
        return None
    words = [word.strip().strip("'\"") for word in listed[0].split(",")]
    return f"expected one of {', '.join(words)}, got {value!r}.{did_you_mean(value, words)}"


def _wrong_type(message: str) -> str | None:
    types = list(dict.fromkeys(re.findall(r"Expected an? <class '([\w.]+)'>", message)))
    value = re.search(r"(?:Given value: |Got value: )(.+)", message)
    # Other expectations would be lost here.
    if not types or not value or len(re.findall("Expected", message)) > len(types):
        return None
    expected = " or ".join("null" if name == "NoneType" else name for name in types)
    return f"expected {expected}, got {value[1].strip()[:_WIDTH]}."


def _cut(message: str) -> str:
    """The lines of a message of jsonargparse that say something, shortened."""
    lines = []
    for line in message.splitlines():
        text = re.sub(r"^- |\.? Got value: .*", "", line.strip())
        if text and not re.match(_FRAME, text) and text != "Expected a <class 'NoneType'>":
            lines.append(text[:_WIDTH] + ("…" if len(text) > _WIDTH else ""))
    return "\n".join(lines[-_LINES:]) or message[:_WIDTH]

"""The argument parser of the command line: overlays change single keys, mistakes are told shortly.

jsonargparse replaces a dictionary, such as the experts of a fusion, by what a later file says of
it. Here a later file changes the entries that it names.

It also reports a misspelt class five levels deep with everything around it, some seventy lines.
Here every parser on the way out keeps the innermost cause and adds where it lies.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from jsonargparse import Namespace, get_loader
from lightning.pytorch.cli import LightningArgumentParser

from fusionlab.errors import InputError

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


class Parser(LightningArgumentParser):
    """Merges configurations key by key; raises a `Mistake`, where others print usage and exit.

    Attributes:
        command: the command whose options it parses; empty for the one above all commands.
    """

    command: str = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        # Abbreviations would let a misspelt flag pass as another one.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        *rest: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Namespace:
        """Parses; reads a null that jsonargparse hands to a nested parser as Python writes it."""
        if args is not None:
            args = [re.sub(r"^(--[\w.]+)=None$", r"\1=null", arg) for arg in args]
        return super().parse_args(args, *rest, **kwargs)

    def parse_path(self, path: Any, *rest: Any, **kwargs: Any) -> Namespace:  # noqa: ANN401
        """Parses a configuration file.

        Raises:
            Mistake: with the file's name.
        """
        try:
            return super().parse_path(path, *rest, **kwargs)  # type: ignore[no-any-return]
        except Mistake as mistake:
            raise Mistake(mistake.key, mistake.text, file=mistake.file or str(path)) from mistake

    def _load_config_parser_mode(
        self,
        content: str,
        path: Any = "",  # noqa: ANN401
        ext_vars: dict[str, Any] | None = None,
        prev_cfg: Namespace | None = None,
    ) -> Namespace:
        """As jsonargparse does, after `overlaid` has completed what the content says."""
        try:
            given = get_loader(self.parser_mode)(content)
        except yaml.YAMLError:  # reported by what is called below
            given = None
        if isinstance(given, dict):
            given = overlaid(prev_cfg or {}, self._section(given))
            content = yaml.safe_dump(given, sort_keys=False)
        return super()._load_config_parser_mode(content, path, ext_vars, prev_cfg)

    def _section(self, given: dict[str, Any]) -> dict[str, Any]:
        """What a file with a section per command says of this one; other files as they are."""
        if not isinstance(given.get(self.command), dict):
            return given
        if beside := [name for name in given if name in {n.split(".")[0] for n in self._options()}]:
            raise Mistake(
                "",
                f"`{beside[0]}:` stands beside a section `{self.command}:`. Put it into the "
                "section, or leave the sections out.",
            )
        section: dict[str, Any] = given[self.command]
        return section

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises what is wrong.

        Raises:
            Mistake: always.
        """
        key = _search(r'^Parser key "([^"]+)"', message)
        found = _mistake_behind(ex)
        if found is not None:
            raise Mistake(_join(key, found.key), found.text, file=found.file) from ex
        raise self._explained(key, message) from ex

    def flags(self) -> list[str]:
        """The options that may be written as flags."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def check_names(self, args: Iterable[str], settings: Iterable[str]) -> None:
        """Refuses flags and settings of files that do not exist; leaves those with a dot.

        Raises:
            Mistake: for the first one.
        """
        for arg in args:
            flag = arg.split("=", 1)[0]
            if flag.startswith("--") and "." not in flag and flag not in self.flags():
                raise Mistake("", _unknown_flag(flag, self.flags()))
        known = {name.split(".")[0] for name in self._options()}
        for name in settings:
            if name not in known:
                raise Mistake("", _unknown(name, known))

    def _explained(self, key: str, message: str) -> Mistake:
        if flag := _search(r"^unrecognized arguments: (\S+)", message):
            name = flag.split("=", 1)[0]
            return Mistake("", _unknown_flag(name, self.flags()))
        if option := _search(r"Group '\S+' does not accept option '([^']+)'", message):
            group = _search(r"Group '(\S+)'", message)
            return Mistake(group, _unknown(option, self._options(f"{group}.")))
        if option := _search(r"Subcommand '\S+' does not accept option '([^']+)'", message):
            command = _search(r"Subcommand '(\S+)'", message)
            parser = self._subcommands_action._name_parser_map[command]  # type: ignore[union-attr]
            group, _, last = option.rpartition(".")
            names = parser._options(f"{group}." if group else "")
            return Mistake(group, _unknown(last, {name.split(".")[0] for name in names}))
        if option := _search(r"^Option '([^']+)' is not accepted", message):
            return Mistake("", _unknown(option, self._options()))
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
        return Mistake(
            key, self._wrong_class(key, message) or _wrong_type(message) or _cut(message)
        )

    def _options(self, prefix: str = "") -> list[str]:
        """Names of the options, of one group only if its prefix is given."""
        names = [action.dest for action in self._actions]
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    def _wrong_class(self, key: str, message: str) -> str | None:
        action = next((a for a in self._actions if a.dest == key), None)
        known = _subclasses(getattr(action, "_typehint", None))
        if name := _search(r"Expected a dot import path string: ([^\s.]+)", message):
            # Where no class is expected at all, something else is wrong.
            return f"no class {name!r}. {_did_you_mean(name, known)}" if known else None
        path = _search(r"given class_path '([^']+)'", message) or _search(
            r"Got value: (?:Namespace\(class_path='|\{'class_path': ')?([\w.]+)", message
        )
        if module := _search(r"No module named '([^']+)'", message):
            files = [file.stem for file in Path.cwd().glob("*.py")]
            return (
                f"{path or module}: no module {module!r}, neither installed nor in this folder. "
                f"{_did_you_mean(module, files, otherwise=' ')}"
            )
        if match := re.search(r"module '([^']+)' has no attribute '([^']+)'", message):
            inside = vars(sys.modules[match[1]]) if match[1] in sys.modules else {}
            classes = [name for name, value in inside.items() if isinstance(value, type)]
            return f"no class {match[2]!r} in {match[1]}. {_did_you_mean(match[2], classes)}"
        if re.search(r"does not correspond to a subclass|to be a subclass of", message):
            path = path or _search(r"(?:Import path |Expected ')([\w.]+)", message)
            return f"{path} is of another kind. {_did_you_mean(path, known)}"
        return None


def overlaid(earlier: Mapping[str, Any] | Namespace, given: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, its dictionaries completed with the entries that are there already.

    The parser itself merges sections, and arguments of one class. Dictionaries it replaces, and
    lists of classes it merges by position if they are equally long; both is mended here.

    Args:
        earlier: what earlier files and flags said, parsed; the lists that `given` replaces are
            removed from it.
        given: the content of a file. A null takes an entry out of an earlier dictionary.
    """
    if "class_path" in earlier and not {"class_path", "init_args", "dict_kwargs"} & given.keys():
        earlier = earlier.get("init_args") or {}  # the short form, without `init_args:`
    elif _class_name(given) not in ("", _class_name(earlier)):
        return dict(given)  # arguments of another class
    is_section = isinstance(earlier, Namespace)
    result = {} if is_section else {name: _unchanged(value) for name, value in earlier.items()}
    for name, value in given.items():
        before = earlier.get(name)
        if isinstance(value, dict) and isinstance(before, Namespace | dict):
            result[name] = overlaid(before, value)
        elif value is None and before is not None and not is_section:
            del result[name]
        else:
            result[name] = value
        if isinstance(value, list) and isinstance(before, list) and isinstance(earlier, Namespace):
            earlier[name] = None
    return result


def _class_name(spec: Mapping[str, Any] | Namespace) -> str:
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


def _mistake_behind(error: BaseException | None) -> Mistake | None:
    while error is not None and not isinstance(error, Mistake):
        error = error.__cause__ or error.__context__
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
    return f"no option {flag}. {_did_you_mean(flag, known, otherwise='See --help.')}"


def _unknown(option: str, known: Iterable[str]) -> str:
    return f"no option {option!r}. {_did_you_mean(option, known)}"


def _did_you_mean(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """A question with the names most like it, or a list where there are few."""
    names = sorted(set(known) - {"help", "config", "print_config"})
    by_lower = {n.lower(): n for n in names}
    near = [by_lower[n] for n in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    listed = ", ".join(names)
    return otherwise or (f"Known: {listed}." if names and len(listed) < _WIDTH else "")


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

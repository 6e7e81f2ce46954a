"""Finding parts of networks by name: this package's own, other libraries', and third parties'.

A third party adds a part by naming its class in the configuration (``mypkg.nets.MyBackbone``), or
for everybody who installs its package, by an entry point in its ``pyproject.toml``::

    [project.entry-points."fusionlab.backbones"]
    my_backbone = "mypkg.nets:MyBackbone"
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from importlib import metadata
from typing import Any, NamedTuple, Protocol, TypeVar, overload

from torch import nn

from fusionlab.errors import InputError, did_you_mean

Constructor = Callable[..., nn.Module]
"""What builds a part: a class, or a function that returns a module."""

Registered = TypeVar("Registered", bound=Constructor)

Entries = list["Entry"]
"""What is listed."""

OWN = "fusionlab"
"""Prefix of this package's own parts."""


class Entry(NamedTuple):
    """One part that a registry knows.

    Attributes:
        name: under which it is found, without a prefix.
        source: where it comes from: the prefix.
        description: in a few words, empty where nothing is known.
    """

    name: str
    source: str
    description: str = ""

    @property
    def full_name(self) -> str:
        """The name that only this one has: ``source/name``."""
        return f"{self.source}/{self.name}"


class Source(Protocol):
    """Parts of one origin.

    Attributes:
        prefix: its name, in front of the slash.
    """

    prefix: str

    def names(self) -> Sequence[str]:
        """Names of all parts, as they are listed."""

    def find(self, name: str) -> Constructor | None:
        """What builds the part of this name, which need not be listed; None if there is none."""

    def describe(self, name: str) -> str:
        """A listed part in a few words."""


class Library:
    """Parts of another library that are wrapped here, as a source.

    Args:
        prefix: of their names.
        parts: by name.
    """

    def __init__(self, prefix: str, parts: Mapping[str, Constructor]) -> None:
        self.prefix = prefix
        self.parts = dict(parts)

    def names(self) -> Sequence[str]:
        """Names of all parts."""
        return list(self.parts)

    def find(self, name: str) -> Constructor | None:
        """The part of this name."""
        return self.parts.get(name)

    def describe(self, name: str) -> str:
        """First line of the part's documentation."""
        return _first_line(self.parts[name])


class Registry:
    """Parts of one kind, by name.

    A name is ``prefix/name``, or the name alone, or the path of a class. A name alone is looked up
    in the package's own parts first, then in entry points, then in `sources` in their order, and
    the first one counts; a name that entry points of several packages have is refused unless the
    prefix says which. Entry points have the name of their package as prefix. What is found nowhere
    and has a dot is taken for the path of a class.

    Args:
        kind: what the parts are, in the singular, e.g. ``backbone``.
        plural: the same in the plural: the entry points' group is ``fusionlab.<plural>``, and
            ``fusionlab <plural>`` is the command that lists them. `kind` and an s if not given.
        sources: other libraries.
    """

    def __init__(
        self, kind: str, *, plural: str | None = None, sources: Sequence[Source] = ()
    ) -> None:
        self.kind = kind
        self.plural = plural if plural is not None else f"{kind}s"
        self.sources = tuple(sources)
        self.broken: dict[str, str] = {}
        """Entry points that could not be loaded when they were asked for: name and reason."""
        self.own: dict[str, Constructor] = {}
        """This package's own parts, and those registered, by name."""

    @overload
    def register(self, constructor: Registered) -> Registered: ...

    @overload
    def register(self, *, name: str) -> Callable[[Registered], Registered]: ...

    def register(
        self, constructor: Registered | None = None, *, name: str | None = None
    ) -> Registered | Callable[[Registered], Registered]:
        """Adds a class or a function under its own name or another; also as a decorator.

        Raises:
            InputError: if the name is taken by another one, or holds a slash.
        """
        if constructor is None:
            return partial(self._register, name=name)
        return self._register(constructor, name=name)

    def _register(self, constructor: Registered, *, name: str | None) -> Registered:
        chosen = name if name is not None else constructor.__name__
        if "/" in chosen or not chosen:
            raise InputError(
                f"A {self.kind} is registered by a name without slash, not {chosen!r}."
            )
        taken = self.own.get(chosen)
        if taken is not None and _path(taken) != _path(constructor):  # a module may load twice
            raise InputError(
                f"There is a {self.kind} {chosen!r} already, {_path(taken)}. Register "
                f"{_path(constructor)} by another name: `register(name=…)`."
            )
        self.own[chosen] = constructor
        return constructor

    def find(self, name: str) -> Constructor:
        """What builds the part of this name.

        Raises:
            InputError: if there is none (names similar ones), if several packages have one, if an
                entry point cannot be loaded, or if a path names no class of modules.
        """
        prefix, slash, rest = name.partition("/")
        if slash:
            found = self._find_prefixed(prefix, rest)
        else:
            found = self.own.get(name) or self._find_entry_point(name)
            for source in self.sources:
                found = found or source.find(name)
            if found is None and "." in name:
                found = self._import(name)
        if found is None:
            raise InputError(self._unknown(name))
        return found

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self.find(name) is not None
        except InputError:
            return False

    def build(
        self,
        part: str | Constructor | nn.Module,
        /,
        *args: Any,  # noqa: ANN401  # as the part has them
        **options: Any,  # noqa: ANN401
    ) -> nn.Module:
        """Builds a part.

        Args:
            part: a name, a class or function, or a ready module, which is returned as it is.
            args: what the surroundings supply.
            options: configuration.

        Raises:
            InputError: as `find`; for options that the part does not have (names similar ones) or
                that it needs and that are missing; or if the result is no module. What the part
                itself raises is passed on as it is.
        """
        if isinstance(part, nn.Module):
            if options:
                raise InputError(
                    f"The {self.kind} {type(part).__name__} is built already, so it takes no "
                    f"options; got {sorted(options)}. Leave them out, or name the class."
                )
            return part
        constructor = self.find(part) if isinstance(part, str) else part
        self.check_options(constructor, options, given=len(args), name=_shown(part))
        try:
            built = constructor(*args, **options)
        except (TypeError, ValueError) as error:
            # What our own parts raise so is of values that no part could take; of other parts, it
            # may be a mistake inside, which is seen where it is made.
            if isinstance(error, InputError) or not _own(constructor):
                raise
            raise InputError(
                f"The {self.kind} {_shown(part)} cannot be built with {options} "
                f"({type(error).__name__}: {error}). Is every value of the right kind?"
            ) from error
        if not isinstance(built, nn.Module):
            raise InputError(
                f"The {self.kind} {_shown(part)} gave a {type(built).__name__}, but a torch module "
                "is expected."
            )
        return built

    def check_options(
        self, constructor: Constructor, options: Iterable[str], *, given: int, name: str
    ) -> None:
        """Whether a part can be built with these options, without building it.

        Args:
            constructor: what builds it.
            options: their names.
            given: number of arguments that the surroundings supply, by position.
            name: of the part, for the message.

        Raises:
            InputError: for options that it does not have, or that it needs and that are missing.
        """
        try:
            parameters = list(inspect.signature(constructor).parameters.values())
        except ValueError:  # written in another language, which says nothing of its arguments
            return
        options = set(options)
        fixed = set(constructor.keywords) if isinstance(constructor, partial) else set()
        by_position = [
            p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        supplied = {parameter.name for parameter in by_position[:given]}
        named = [
            p
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            and p.name not in supplied | fixed
        ]
        known = {parameter.name for parameter in named}
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        unknown = sorted(options & (supplied | fixed) if takes_any else options - known)
        if unknown:
            raise InputError(
                f"The {self.kind} {name} has no {_option(unknown)}."
                f"{did_you_mean(unknown, known)} It has {sorted(known)}."
            )
        missing = sorted({p.name for p in named if p.default is p.empty} - options)
        if missing:
            raise InputError(f"The {self.kind} {name} needs the {_option(missing)}.")

    def list(self, pattern: str | None = None) -> Entries:
        """All parts, or those whose name matches.

        Args:
            pattern: with ``*``, ``?`` or ``[``, a glob for the whole name, with prefix
                (``timm/*dinov3*``) or without; otherwise a text somewhere in the name with its
                prefix. Upper and lower case count as equal.
        """
        entries = []
        for prefix, names, describe in self._listings():
            for name in sorted(names):
                if pattern is None or _matches(pattern, f"{prefix}/{name}"):
                    entries.append(Entry(name, prefix, describe(name)))
        return entries

    def search(self, text: str) -> Entries:
        """Parts whose name or description has a text in it, or whose name matches a glob."""
        return [
            entry
            for entry in self.list()
            if _matches(text, entry.full_name) or text.casefold() in entry.description.casefold()
        ]

    def _listings(self) -> Iterable[tuple[str, Iterable[str], Callable[[str], str]]]:
        yield OWN, self.own, self._describe_own
        points = self._entry_points()
        for prefix in sorted({_package(point) for point in points}):
            of_package = {p.name: p.value for p in points if _package(p) == prefix}
            yield prefix, of_package, of_package.__getitem__
        for source in self.sources:
            yield source.prefix, source.names(), source.describe

    def _describe_own(self, name: str) -> str:
        return _first_line(self.own[name])

    def _entry_points(self) -> Sequence[metadata.EntryPoint]:
        return list(metadata.entry_points(group=f"fusionlab.{self.plural}"))

    def _find_prefixed(self, prefix: str, name: str) -> Constructor | None:
        if prefix == OWN:
            return self.own.get(name)
        for source in self.sources:
            if source.prefix == prefix:
                return source.find(name)
        return self._find_entry_point(name, package=prefix)

    def _find_entry_point(self, name: str, package: str | None = None) -> Constructor | None:
        points = [
            point
            for point in self._entry_points()
            if point.name == name and package in (None, _package(point))
        ]
        if len({point.value for point in points}) > 1:
            choices = " or ".join(f"{_package(point)}/{name}" for point in points)
            raise InputError(f"Several packages have a {self.kind} {name!r}: say {choices}.")
        if not points:
            return None
        point = points[0]
        try:
            loaded: Constructor = point.load()
        except Exception as error:  # a package of somebody else may fail in any way
            self.broken[f"{_package(point)}/{name}"] = f"{type(error).__name__}: {error}"
            raise InputError(
                f"The {self.kind} {name!r} of the package {_package(point)} cannot be loaded from "
                f"{point.value} ({type(error).__name__}: {error}). Repair or reinstall the package."
            ) from error
        if inspect.isclass(loaded) and not issubclass(loaded, nn.Module):
            raise InputError(
                f"The {self.kind} {name!r} of the package {_package(point)}, {point.value}, is no "
                "class that derives from torch.nn.Module. Repair or reinstall the package."
            )
        return loaded

    def _import(self, path: str) -> Constructor | None:
        """The class of modules at a path; None if there is no such Python module."""
        module_path, _, name = path.rpartition(".")
        if not all(part.isidentifier() for part in path.split(".")):
            return None
        try:
            module = importlib.import_module(module_path)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module_path}.".startswith(f"{error.name}."):
                return None
            raise  # the module is there, but something that it imports is not
        found = getattr(module, name, None)
        if found is None:
            classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
            hint = did_you_mean(name, classes)
            raise InputError(f"The module {module_path!r} has no {name!r}.{hint}")
        # A checkpoint may hold such a path, so it must not name just any callable.
        if not (inspect.isclass(found) and issubclass(found, nn.Module)):
            raise InputError(
                f"{path} is no {self.kind}: it must be a class that derives from torch.nn.Module."
            )
        return found

    def _unknown(self, name: str) -> str:
        prefix, slash, rest = name.partition("/")
        listings = [(source, list(names)) for source, names, _ in self._listings()]
        prefixes = [source for source, _ in listings]
        advice = f"`fusionlab {self.plural}` lists all; a class of your own is named by its path."
        if slash and prefix not in prefixes:
            return (
                f"There is no source {prefix!r} of {self.plural}."
                f"{did_you_mean(prefix, prefixes)} The sources are {prefixes}. {advice}"
            )
        wanted = rest if slash else name
        candidates: dict[str, str] = {}  # each name as its first source has it
        for source, names in listings:
            for each in names if not slash or source == prefix else ():
                candidates.setdefault(each.casefold(), f"{source}/{each}")
        stems = [wanted.casefold(), wanted.partition(".")[0].casefold()]
        near = [
            candidates[match]
            for stem in dict.fromkeys(stems)
            for match in get_close_matches(stem, candidates, n=5)
        ]
        hint = f" Similar names: {list(dict.fromkeys(near))[:5]}." if near else ""
        return f"There is no {self.kind} {name!r}.{hint} {advice}"


def _first_line(constructor: Constructor) -> str:
    return (inspect.getdoc(constructor) or "").partition("\n")[0].strip()


def _matches(pattern: str, full_name: str) -> bool:
    pattern, full_name = pattern.casefold(), full_name.casefold()
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(full_name, pattern) or fnmatchcase(full_name.partition("/")[2], pattern)
    return pattern in full_name


def _option(names: Sequence[str]) -> str:
    return f"option{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


def _package(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value.partition(".")[0]


def _own(constructor: Constructor) -> bool:
    made_by = constructor.func if isinstance(constructor, partial) else constructor
    return str(made_by.__module__).startswith(f"{OWN}.")


def _path(constructor: Constructor) -> str:
    return f"{constructor.__module__}.{getattr(constructor, '__qualname__', constructor)}"


def _shown(part: str | Constructor) -> str:
    if isinstance(part, partial):  # of a library that builds all its parts by one class
        part = part.keywords.get("name", part.func)
    return repr(part) if isinstance(part, str) else getattr(part, "__name__", repr(part))

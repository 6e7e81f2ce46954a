"""``fusionlab backbones | necks | decoders | heads [PATTERN]``: which parts of networks there are.

These commands start without Lightning, which takes as long to import as all that they need.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

from fusionlab.registry import Entry, Registry


class _Kind(NamedTuple):
    """Where a registry is, and an example of what to look for in it."""

    module: str
    registry: str
    example: str


_KINDS = {
    "backbones": _Kind("fusionlab.backbones", "BACKBONES", "timm/*dinov3*"),
    "necks": _Kind("fusionlab.necks", "NECKS", "pyramid"),
    "decoders": _Kind("fusionlab.decoders", "DECODERS", "unet"),
    "heads": _Kind("fusionlab.heads", "HEADS", "regression"),
}
EPILOG = (
    "fusionlab compare trains and compares several models. "
    f"fusionlab {' | '.join(_KINDS)} [PATTERN] lists the parts of networks by name."
)
"""What the help of all commands says of those that start without Lightning."""


def lists_parts(args: Sequence[str]) -> bool:
    """Whether a command line is one of these commands."""
    return bool(args) and args[0] in _KINDS


def list_parts(args: Sequence[str]) -> int:
    """Prints the parts of a kind, one per line: name with prefix, and description.

    On a terminal descriptions are cut to its width. A reader that wants no more, such as ``head``,
    is no error.

    Args:
        args: the command, and a pattern or ``--help``.

    Returns:
        The exit status: 0, or 1 if nothing matches.

    Raises:
        SystemExit: after the help, or for other arguments.
    """
    command = args[0]
    pattern: str | None = _parser(command).parse_args(args[1:]).pattern
    kind = _KINDS[command]
    registry = getattr(importlib.import_module(kind.module), kind.registry)
    assert isinstance(registry, Registry)
    every = registry.list()
    entries = every if pattern is None else registry.search(pattern)
    if pattern is not None and not entries:
        sys.stderr.write(_no_match(command, pattern, every))
        return 1
    _print(sorted(entries, key=_order))
    return 0


def _parser(command: str) -> ArgumentParser:
    kind = _KINDS[command]
    parser = ArgumentParser(
        prog=f"fusionlab {command}",
        description=f"Lists {command} by the names that a configuration takes, with a description.",
        epilog=f"example:\n  fusionlab {command} '{kind.example}'",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "pattern",
        nargs="?",
        metavar="PATTERN",
        help=f"only {command} with this text in name or description, or with * ? [ a pattern that "
        "the whole name matches, with prefix or without; quote it for the shell",
    )
    return parser


def _order(entry: Entry) -> tuple[str, str]:
    return entry.full_name.casefold(), entry.full_name


def _print(entries: Sequence[Entry]) -> None:
    width = max((len(entry.full_name) for entry in entries), default=0)
    lines = [
        f"{entry.full_name:{width}}  {entry.description.replace('`', '')}".rstrip()
        for entry in entries
    ]
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        lines = [_cut(line, columns, width) for line in lines]
    text = "".join(f"{line}\n" for line in lines)
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter would flush once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cut(line: str, columns: int, width: int) -> str:
    """A line that fits a terminal; its name, of at most `width` letters, stays whole."""
    if len(line) <= columns:
        return line
    return f"{line[: columns - 1]}…" if columns > width + 3 else line[:width].rstrip()


def _no_match(command: str, pattern: str, every: Sequence[Entry]) -> str:
    """What to say, with names that are like the pattern."""
    wanted = "".join(letter for letter in pattern.casefold() if letter not in "*?[]")
    known: dict[str, str] = {}  # in lower case, with prefix and without
    for entry in every:
        known.setdefault(entry.name.casefold(), entry.full_name)
        known.setdefault(entry.full_name.casefold(), entry.full_name)
    near = dict.fromkeys(known[name] for name in get_close_matches(wanted, known, n=8))
    hint = "".join(f"  {name}\n" for name in list(near)[:5])
    text = f"fusionlab: no {command} match {pattern!r}; `fusionlab {command}` lists all.\n"
    return f"{text}Similar names:\n{hint}" if near else text

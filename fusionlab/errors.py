"""The one exception for input that cannot be used, raised with a message that teaches."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """What the user gave (data, configuration, checkpoint) cannot be used.

    The message says what was expected, what was found, where, and what to do. The command line
    prints it without a traceback and exits with status 2.
    """


def did_you_mean(unknown: str | Iterable[str], known: Iterable[str]) -> str:
    """`` Did you mean this or that?`` for what is like something known; empty if nothing is.

    Args:
        unknown: a name, or several; upper and lower case are one.
        known: the names that there are.
    """
    names = [unknown] if isinstance(unknown, str) else list(unknown)
    by_lower = {name.lower(): name for name in sorted(known)}
    near = [
        by_lower[match]
        for name in names
        for match in get_close_matches(name.lower(), by_lower, n=3 if len(names) == 1 else 1)
    ]
    return f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""

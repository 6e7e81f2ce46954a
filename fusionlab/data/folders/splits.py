"""Which places are for training, validation and test: by name, by list, or drawn by seed."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

from fusionlab.data.choices import Part, require_known
from fusionlab.data.folders.files import SUFFIXES, Header
from fusionlab.errors import InputError

log = logging.getLogger(__name__)

Splits = Mapping[str, float | str | Sequence[str]]
"""Per split a share, a pattern, a list of names and patterns, or a text file of names."""


def check_splits(splits: Splits) -> None:
    """Refuses splits that make no sense before any file is looked for.

    Raises:
        InputError: for an unknown split, or shares that leave nothing over.
    """
    require_known(list(splits), get_args(Part), option="splits", what="split")
    shares = {name: value for name, value in splits.items() if isinstance(value, int | float)}
    for name, share in shares.items():
        if not 0 < share <= 1:
            raise InputError(f"splits.{name}: a share lies above 0 and up to 1, got {share}.")
    if sum(shares.values()) > 1 + 1e-9:
        raise InputError(f"splits: the shares {shares} make more than 1.")


def split(
    names: Sequence[str],
    splits: Splits,
    *,
    root: Path,
    seed: int,
    blocks: Mapping[str, str] | None = None,
) -> dict[str, list[str]]:
    """Gives every place to one split, or to none.

    Names, patterns and lists come first. Shares are of the places that are left, drawn in an order
    that depends on the seed and on their names alone: a place that is added changes little. The
    training split, unless it is given, takes what remains.

    Args:
        names: of all places.
        splits: what the user says of ``train``, ``val`` and ``test``.
        root: folder of lists of names.
        seed: of the draw.
        blocks: for every name the block that it lies in; blocks are drawn whole. None draws places
            one by one.

    Returns:
        Names per split, in the order of `names`.

    Raises:
        InputError: if a name does not exist, is in two splits, or if a share would be empty.
    """
    chosen: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for part, given in splits.items():
        if isinstance(given, int | float):
            continue
        chosen[part] = _named(names, given, root=root, where=f"splits.{part}")
        for name in chosen[part]:
            if owner.setdefault(name, part) != part:
                raise InputError(f"{name!r} is in splits.{owner[name]} and in splits.{part}.")
    left = [name for name in names if name not in owner]
    total = len(left)
    queue = deque(_shuffled_blocks(left, blocks, seed))
    shares = {part: value for part, value in splits.items() if isinstance(value, int | float)}
    for part, share in shares.items():
        wanted = max(1, round(share * total))
        drawn: list[str] = []
        while queue and (share == 1 or len(drawn) < wanted):
            drawn += queue.popleft()
        chosen[part] = drawn
    if "train" not in splits:
        chosen["train"] = [name for block in queue for name in block]
    elif rest := sum(len(block) for block in queue):
        log.info("%d of %d places are in no split.", rest, len(names))
    if empty := [part for part in ("train", *shares) if not chosen[part]]:
        unit = "places" if blocks is None else f"places in {len(set(blocks.values()))} blocks"
        raise InputError(
            f"splits: nothing is left for {empty[0]!r} of {total} {unit} that no name or list "
            "takes. Give smaller shares, or name the places of each split."
        )
    order = {name: i for i, name in enumerate(names)}
    return {part: sorted(found, key=order.__getitem__) for part, found in chosen.items()}


def block_of(header: Header, size: float) -> str:
    """Name of the square block of ground that the middle of a file lies in.

    Args:
        header: of the file.
        size: of a block along a side, metres; in degrees for files that are.

    Raises:
        InputError: if the file has no place on Earth.
    """
    bounds, unit = header.bounds, header.unit
    if bounds is None or unit is None or header.crs is None:
        raise InputError(
            f"split_blocks: {header.path} has no place on Earth. Leave split_blocks out, or name "
            "the places of each split."
        )
    left, top, right, bottom = bounds
    column, row = ((n / 2 * unit) // size for n in (left + right, top + bottom))
    return f"{header.crs.to_string()}:{row:.0f}:{column:.0f}"


def _named(
    names: Sequence[str], given: str | Sequence[str], *, root: Path, where: str
) -> list[str]:
    patterns = [given] if isinstance(given, str) else list(given)
    if isinstance(given, str) and given.endswith(".txt"):
        patterns = _read_list(root / given, where=where)
    known = set(names)
    found: dict[str, None] = {}
    for pattern in patterns:
        bare = pattern
        for suffix in SUFFIXES:
            bare = bare.removesuffix(suffix)
        matches = [bare] if bare in known else [n for n in names if fnmatchcase(n, bare)]
        if not matches:
            near = get_close_matches(bare, names, n=2) or list(names[:3])
            raise InputError(
                f"{where}: no place is called {pattern!r}, of {len(names)} such as {near}. A name "
                "is a file's path below its folder without suffix; * and ? stand for anything."
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def _read_list(path: Path, *, where: str) -> list[str]:
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: cannot read the list of names {path} ({error}).") from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise InputError(f"{where}: the list {path} is empty. Write one name per line.")
    return names


def _shuffled_blocks(
    names: Sequence[str], blocks: Mapping[str, str] | None, seed: int
) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name if blocks is None else blocks[name], []).append(name)
    return [groups[key] for key in sorted(groups, key=lambda key: _draw(seed, key))]


def _draw(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=16).digest()

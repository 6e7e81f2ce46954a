"""Which pairs are for training, validation and test: drawn by seed, alike in every class."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.choices import Part
from fusionlab.data.rgb_lidar.index import Pairs, Rows
from fusionlab.errors import InputError

Size = int | float
"""A number of pairs, or, below 1, a share of all."""


def check_size(size: Size, *, option: str) -> None:
    """Refuses a size that makes no sense before any file is looked for.

    Raises:
        InputError: names the option.
    """
    whole = isinstance(size, int) or float(size).is_integer()
    if not (0 <= size < 1 or (whole and size >= 1)):
        raise InputError(f"data.{option} is a share from 0 to 1, or a number of pairs, got {size}.")


def stratified_split(pairs: Pairs, *, val: Size, test: Size, seed: int) -> dict[Part, Rows]:
    """Gives every pair to one split; each has the classes in the proportion of the whole.

    The draw depends on the seed and on the names of pairs alone, not on which of their files are
    there. Of every class at least one pair is for each split that is not to be empty.

    Args:
        pairs: all there are.
        val: size of the validation split.
        test: size of the test split; first its pairs are drawn.
        seed: of the draw.

    Returns:
        Rows per split, ascending.

    Raises:
        InputError: if a class has nothing left to train on.
    """
    counts = np.bincount(pairs.folder, minlength=len(pairs.folders))
    tested, validated = apportion(counts, test), apportion(counts, val)
    short = [i for i, n in enumerate(counts) if tested[i] + validated[i] >= n]
    if short:
        i = short[0]
        raise InputError(
            f"data: of the {counts[i]} pairs of {pairs.folders[i]!r}, {tested[i]} are for the test "
            f"and {validated[i]} for validation, and none is left to train on. Lower test_size "
            f"({test}) or val_size ({val}), or add pairs."
        )
    parts: dict[Part, list[Rows]] = {"train": [], "val": [], "test": []}
    for i in range(len(counts)):
        rows = np.flatnonzero(pairs.folder == i)
        drawn = rows[np.argsort([_draw(seed, pairs.name(int(row))) for row in rows], kind="stable")]
        first, second = tested[i], tested[i] + validated[i]
        parts["test"].append(drawn[:first])
        parts["val"].append(drawn[first:second])
        parts["train"].append(drawn[second:])
    return {part: np.sort(np.concatenate(rows)) for part, rows in parts.items()}


def apportion(counts: NDArray[np.int64], size: Size) -> Rows:
    """How many of each class are for a split: in proportion, by largest remainders.

    Args:
        counts: ``(K,)`` pairs per class.
        size: of the split.

    Returns:
        ``(K,)``; they sum to the size, unless that is fewer than one of each class.
    """
    total = round(size * counts.sum()) if size < 1 else int(size)
    if not total:
        return np.zeros(len(counts), np.int64)
    exact = total * counts / counts.sum()
    shares = np.floor(exact).astype(np.int64)
    order = np.argsort(shares - exact, kind="stable")
    shares[order[: total - shares.sum()]] += 1
    counted: Rows = np.maximum(shares, 1)
    return counted


def _draw(seed: int, name: str) -> str:
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).hexdigest()

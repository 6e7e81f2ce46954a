"""Which rows of a manifest are for training, validation and test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fusionlab.data.folders.files import METRES_PER_DEGREE
from fusionlab.data.folders.splits import check_splits, split
from fusionlab.data.manifest.options import ManifestSplits
from fusionlab.data.manifest.problems import Problems
from fusionlab.data.manifest.source import READERS, Rows
from fusionlab.data.manifest.table import Manifest, present
from fusionlab.errors import InputError

log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")
_USUAL = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_SHARES = {"val": 0.1, "test": 0.1}


def check_manifest_splits(given: ManifestSplits) -> None:
    """Refuses splits that make no sense before the manifest is read.

    Raises:
        InputError: names the option and what was expected.
    """
    parts = _given(given)
    shares = _shares(parts)
    if given.column is not None and shares:
        raise InputError(
            f"splits: with a column, {list(shares)} are the values that it has, got {shares}. "
            "Leave the column out to draw shares."
        )
    if given.column is None and len(shares) < len(parts):
        raise InputError(
            f"splits: {[p for p in parts if p not in shares]} are values of a column: name it with "
            "`splits.column`, or give shares such as 0.1."
        )
    check_splits({part: share for part, share in shares.items() if share})
    if given.blocks is not None and not given.blocks > 0:
        raise InputError(f"splits.blocks is a size in metres above 0, got {given.blocks}.")
    for pair in (("x", "y"), ("longitude", "latitude")):
        if sum(getattr(given, name) is not None for name in pair) == 1:
            raise InputError(f"splits: give both {pair[0]} and {pair[1]}.")
    if given.coordinates and given.blocks is None:
        raise InputError("splits: coordinates tell blocks: say their size, `splits.blocks: 1000`.")


def find_splits(
    manifest: Manifest,
    given: ManifestSplits,
    *,
    keys: Sequence[str],
    block_of: Callable[[int], str | None],
    problems: Problems,
) -> dict[str, Rows]:
    """Rows of every split, ascending.

    Args:
        manifest: the table.
        given: what the user says.
        keys: per row what it is drawn by, see `draw_keys`; rows of one key stay together.
        block_of: names the block that a row lies in, by its images; None if they do not say.
        problems: takes rows whose split or place cannot be told.

    Raises:
        InputError: for a column that is not there, and if nothing is left for a split.
    """
    if given.column is not None:
        return _by_column(manifest, given, problems)
    drawn = list(keys)
    if given.blocks is not None:
        blocks = _blocks(manifest, given, block_of, problems)
        problems.refuse()  # what lies nowhere cannot be drawn
        one: dict[str, str] = {}  # for all rows of a key, whatever their order
        for key, block in zip(keys, blocks, strict=True):
            one[key] = min(block, one.get(key, block))
        drawn = [one[key] for key in keys]
    alone = len(set(drawn)) == len(drawn)
    names = drawn if alone else [str(row) for row in range(len(manifest))]
    row_of = {name: row for row, name in enumerate(names)}
    shares = {**_SHARES, **_shares(_given(given))}
    found = split(
        names,
        {part: share for part, share in shares.items() if share},
        root=Path(),
        seed=given.seed,
        blocks=None if alone else dict(zip(names, drawn, strict=True)),
    )
    return {
        part: np.array([row_of[name] for name in found.get(part, [])], np.int64) for part in PARTS
    }


def draw_keys(
    manifest: Manifest, *, place: str | None, name: str | None, files: Sequence[str]
) -> list[str]:
    """What rows are drawn by: their place, or else their name, their first file, their number.

    Only of rows that have nothing but their number, as in plain tables of numbers and texts, does
    the split depend on the order in which they stand.

    Args:
        manifest: the table.
        place: column that says which rows show the same place.
        name: column of names.
        files: columns of paths; those that are not there are passed over.
    """
    own = [name] if name is not None else [c for c in files if c in manifest.columns]
    known = [manifest.texts(column, where="data.name", names=name is not None) for column in own]
    numbers = pa.array([f"row {row + 1}" for row in range(len(manifest))], pa.large_string())
    if place is not None:
        texts = manifest.texts(place, where="data.place", names=True)
        word, space = (pa.scalar(text, pa.large_string()) for text in ("place", " "))
        known.insert(0, pc.binary_join_element_wise(word, texts, space))
    keys: list[str] = pc.coalesce(*known, numbers).to_pylist()
    return keys


def warn_of_places(
    parts: Mapping[str, Rows], places: NDArray[np.int64], names: Sequence[str | None]
) -> None:
    """Warns of places that lie in more than one split, as a column may have it.

    Args:
        parts: rows of every split.
        places: per row the number of its place.
        names: per row what the place is called.
    """
    found = [np.unique(places[rows]) for rows in parts.values()]
    distinct, times = np.unique(np.concatenate(found), return_counts=True)
    shared = distinct[times > 1]
    if len(shared):
        example = names[int(np.flatnonzero(places == shared[0])[0])]
        log.warning(
            "place: %d of %d places are in more than one split, such as %r. Scores on places that "
            "a model was trained on are too good: give all rows of a place one split.",
            len(shared), len(distinct), example,
        )  # fmt: skip


def _given(given: ManifestSplits) -> Mapping[str, float | str | Sequence[str]]:
    values = {part: getattr(given, part) for part in PARTS}
    return {part: value for part, value in values.items() if value is not None}


def _shares(parts: Mapping[str, object]) -> dict[str, float]:
    return {part: float(v) for part, v in parts.items() if isinstance(v, int | float)}


def _by_column(manifest: Manifest, given: ManifestSplits, problems: Problems) -> dict[str, Rows]:
    assert given.column is not None
    texts = manifest.texts(given.column, where="splits.column", names=True)
    cells = np.array(texts.fill_null("").to_pylist(), object)
    named = _given(given)
    part_of: dict[str, str] = {}
    for part in PARTS:
        value = named.get(part, _USUAL[part])
        for text in (value,) if isinstance(value, str) else value:  # type: ignore[union-attr]
            if part_of.setdefault(str(text).lower(), part) != part:
                raise InputError(
                    f"splits: {text!r} stands for {part_of[str(text).lower()]} and for {part}."
                )
    distinct, inverse = np.unique(cells.astype(str), return_inverse=True)
    parts = [part_of.get(text.lower(), "") for text in distinct]
    strangers = [i for i, text in enumerate(distinct) if text and not parts[i]]
    if strangers and named:
        log.info("%s in the column %r is in no split.", distinct[strangers], given.column)
    elif strangers:
        for row in np.flatnonzero(np.isin(inverse, strangers) & present(texts)).tolist():
            problems.add(
                row,
                f"{given.column}: {cells[row]!r} is none of train, val and test. Say what stands "
                "for them with splits.train, splits.val and splits.test.",
            )
    chosen = np.array(parts, object)[inverse]
    return {part: np.flatnonzero(chosen == part).astype(np.int64) for part in PARTS}


def _blocks(
    manifest: Manifest,
    given: ManifestSplits,
    block_of: Callable[[int], str | None],
    problems: Problems,
) -> list[str]:
    size = given.blocks
    assert size is not None
    if given.coordinates is None:
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(block_of, range(len(manifest))))
        for row in (row for row, block in enumerate(found) if block is None):
            problems.add(row, "splits.blocks: none of its images has a place on Earth.")
        return [block or "" for block in found]
    x, y = (
        manifest.numbers(column, where="splits", problems=problems) for column in given.coordinates
    )
    for row in np.flatnonzero(np.isnan(x) | np.isnan(y)).tolist():
        problems.add(row, f"splits.blocks: no coordinates in {list(given.coordinates)}.")
    x, y = np.nan_to_num(x), np.nan_to_num(y)
    if given.longitude is not None:
        y = y * METRES_PER_DEGREE
        # Meridians come closer; all of a row of blocks take the distance in its middle.
        middle = (np.floor(y / size) + 0.5) * size / METRES_PER_DEGREE
        x = x * METRES_PER_DEGREE * np.cos(np.radians(np.clip(middle, -89.9, 89.9)))
    columns, rows = (np.floor(values / size).astype(np.int64) for values in (x, y))
    return [f"{row}:{column}" for row, column in zip(rows, columns, strict=True)]

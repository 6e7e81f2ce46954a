"""What is known of rows beside their modalities: names, places, and the ground they lie on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.folders.files import read_header
from fusionlab.data.folders.splits import block_of
from fusionlab.data.manifest.images import ImageSource, RasterSource
from fusionlab.data.manifest.options import ManifestSplits
from fusionlab.data.manifest.problems import Problems
from fusionlab.data.manifest.series import FileSeries
from fusionlab.data.manifest.source import Rows, Source
from fusionlab.data.manifest.splits import PARTS, draw_keys, find_splits, warn_of_places
from fusionlab.data.manifest.table import Manifest, present
from fusionlab.errors import InputError

_FEW = 3
"""With fewer rows there is not one for each split."""


@dataclass(frozen=True)
class Division:
    """Which rows are for training, validation and test.

    Attributes:
        parts: rows of every split, ascending.
        places: per row the number of its place; None if it is not known.
        refusal: why rows are in no split, where they cannot be; they can be predicted all the same.
    """

    parts: Mapping[str, Rows]
    places: NDArray[np.int64] | None = None
    refusal: InputError | None = None


def divide(
    manifest: Manifest,
    splits: ManifestSplits,
    *,
    place: str | None,
    name: str | None,
    files: Sequence[str],
    sources: Mapping[str, Source],
    problems: Problems,
    needed: bool,
) -> Division:
    """Splits the rows of a manifest.

    Args:
        manifest: the table.
        splits: what the user says of them.
        place: column that says which rows show the same place; None if none does.
        name: column of names; None if there is none.
        files: columns of paths, of all modalities that are declared, used or not: however many a
            model looks at, rows are drawn alike.
        sources: the modalities.
        problems: takes rows whose split cannot be told, and heeds no other rows in no split.
        needed: whether rows must be split; those of a table that is only to be predicted need not.

    Raises:
        InputError: if they must be and cannot.
    """
    try:
        found = Problems(manifest.path)
        places = numbered_places(manifest, place)
        parts = find_splits(
            manifest,
            splits,
            keys=draw_keys(manifest, place=place, name=name, files=files),
            block_of=partial(block, sources, size=splits.blocks or 1.0),
            problems=found,
        )
        if needed:
            problems.only(np.concatenate(list(parts.values())))
            problems.include(found)
        else:
            found.refuse()
        if places is not None and splits.column is not None:
            assert place is not None
            warn_of_places(
                parts, places, manifest.texts(place, where="data.place", names=True).to_pylist()
            )
        return Division(parts, places)
    except InputError as error:
        if not needed:
            return Division(dict.fromkeys(PARTS, np.zeros(0, np.int64)), refusal=error)
        columns = (splits.column, place, *(splits.coordinates or ()))
        if len(manifest) >= _FEW and all(c in manifest.columns for c in columns if c is not None):
            raise
        raise InputError(
            f"{error} To predict all rows of a new table, set `predict_split: all`."
        ) from error


def sample_names(
    manifest: Manifest, column: str | None, sources: Mapping[str, Source], problems: Problems
) -> list[str]:
    """A name for every row.

    Args:
        manifest: the table.
        column: that holds them. None takes the names of the first modality's files that are there
            in every row and all different, or else the number of the row.
        sources: the modalities.
        problems: takes rows without a name, or with that of another.

    Raises:
        InputError: if there is no such column.
    """
    total = len(manifest)
    if column is not None:
        texts = manifest.texts(column, where="data.name", names=True)
        names: list[str] = texts.fill_null("").to_pylist()
        first: dict[str, int] = {}
        for row, text in enumerate(names):
            if not text:
                problems.add(row, f"{column}: no name.")
            elif first.setdefault(text, row) != row:
                problems.add(row, f"{column}: {text!r} is the name of row {first[text] + 1}, too.")
        return names
    for source in sources.values():
        if isinstance(source, ImageSource | FileSeries) and source.files.there.all():
            names = [Path(source.files.path(row)).stem for row in range(total)]
            if len(set(names)) == total:
                return names
    width = len(str(total))
    return [f"{row + 1:0{width}}" for row in range(total)]


def numbered_places(manifest: Manifest, column: str | None) -> NDArray[np.int64] | None:
    """Per row the number of its place; rows without one are places of their own.

    Args:
        manifest: the table.
        column: that says which rows show the same place; None if none does.

    Raises:
        InputError: if there is no such column.
    """
    if column is None:
        return None
    texts = manifest.texts(column, where="data.place", names=True)
    codes = texts.dictionary_encode().indices
    places: NDArray[np.int64] = codes.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    own = ~present(texts)
    places[own] = len(texts) + np.flatnonzero(own)
    return places


def block(sources: Mapping[str, Source], row: int, *, size: float) -> str | None:
    """The block that a row lies in, by the first of its images that knows its place.

    Args:
        sources: the modalities.
        row: position of the row.
        size: of a block along a side, metres.
    """
    for source in sources.values():
        if isinstance(source, RasterSource) and source.there[row]:
            path = source.files.path(row)
            if Path(path).is_file():
                try:
                    return block_of(read_header(path, where=source.where), size)
                except InputError:  # without a place, or reported with all other files
                    continue
    return None

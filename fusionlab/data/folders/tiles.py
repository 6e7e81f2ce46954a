"""Places whose files were checked: all of one size on the ground, all with the bands expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from fusionlab.data.folders.files import Header, band_indexes, read_whole_header
from fusionlab.data.folders.layers import Layer
from fusionlab.data.raster.files import same_crs, same_gsd
from fusionlab.errors import InputError

_READERS = 8
"""Threads that open files; most of the time is spent waiting for the disk."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file to read from.

    Attributes:
        path: where it is.
        indexes: the bands to read, from 1.
    """

    path: str
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """One place.

    Attributes:
        name: of the place.
        images: the file of every modality that it has.
        target: the file of the target, where it is needed.
        height: rows on the grid of the target.
        width: columns on the grid of the target.
        dtypes: types of the values of every modality that it has.
    """

    name: str
    images: Mapping[str, ImageFile]
    target: ImageFile | None
    height: int
    width: int
    dtypes: Mapping[str, np.dtype[Any]]


def open_tiles(
    names: Sequence[str],
    images: Mapping[str, Layer],
    target: Layer | None,
    *,
    allow_missing: bool,
) -> tuple[list[Tile], dict[str, np.dtype[Any]]]:
    """Reads the headers of all files of some places and checks that they go together.

    Args:
        names: of the places.
        images: of every modality.
        target: where every place must have one.
        allow_missing: whether a place may lack some modalities, but not all.

    Returns:
        The places in the order of their names, and the common type of the values per modality.

    Raises:
        InputError: says how many places cannot be used, and names the first and what is wrong.
    """
    _require_files(names, images, target, allow_missing=allow_missing)
    tiles: list[Tile] = []
    problems: list[InputError] = []
    kinds: dict[str, set[np.dtype[Any]]] = {key: set() for key in images}
    for tile in checked_tiles(names, images, target):
        if isinstance(tile, InputError):
            problems.append(tile)
            continue
        tiles.append(tile)
        for key, dtype in tile.dtypes.items():
            kinds[key].add(dtype)
    if problems:
        many = f"{len(problems)} of {len(names)} places cannot be used. The first: "
        raise InputError(f"{many if len(names) > 1 else ''}{problems[0]}") from problems[0]
    dtypes = {key: delivered_dtype(found, where=images[key].where) for key, found in kinds.items()}
    return tiles, dtypes


def checked_tiles(
    names: Sequence[str], images: Mapping[str, Layer], target: Layer | None
) -> Iterator[Tile | InputError]:
    """Reads the headers of the files of some places: each place, or what is wrong with it.

    Args:
        names: of the places; each has a file of some modality, and of the target, if there is one.
        images: of every modality.
        target: where every place must have one.
    """
    layers = {**images, **({"": target} if target else {})}

    def checked(name: str) -> Tile | InputError:
        try:
            headers = {
                key: read_whole_header(layer.files[name], where=layer.where)
                for key, layer in layers.items()
                if name in layer.files
            }
            return _tile(name, headers, layers)
        except InputError as error:
            return error

    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(checked, names)


def delivered_dtype(kinds: set[np.dtype[Any]], *, where: str) -> np.dtype[Any]:
    """The one type in which values of some types are delivered, float32 where there is none.

    Raises:
        InputError: for complex numbers.
    """
    common = np.result_type(*kinds) if kinds else np.dtype(np.float32)
    if common.kind not in "iuf":
        raise InputError(f"{where}: expected real numbers, the files hold {common}.")
    if common.kind == "f" or common == np.uint64:
        return np.dtype(np.float32)
    return np.dtype(np.int64) if common == np.uint32 else common


def _require_files(
    names: Sequence[str],
    images: Mapping[str, Layer],
    target: Layer | None,
    *,
    allow_missing: bool,
) -> None:
    if target is not None and (without := [name for name in names if name not in target.files]):
        raise InputError(
            f"{target.where}: {len(without)} of {len(names)} places have no file here, the first "
            f"{without[0]!r}. Put it beside {_example(target)}, or name the places that have one "
            "in `splits`."
        )
    for key, layer in images.items():
        without = [name for name in names if name not in layer.files]
        if without and not allow_missing:
            raise InputError(
                f"{layer.where}: {len(without)} of {len(names)} places have no file of {key!r}, the"
                f" first {without[0]!r}. Put it beside {_example(layer)}, or set allow_missing: "
                "true to have the modality marked as missing there."
            )
    nothing = [n for n in names if not any(n in layer.files for layer in images.values())]
    if nothing:
        raise InputError(
            f"{len(nothing)} of {len(names)} places have a target, but no file of "
            f"{list(images)}, the first {nothing[0]!r}. Remove it, or leave it out of `splits`."
        )


def _example(layer: Layer) -> str:
    return next(iter(layer.files.values()))


def _tile(name: str, headers: Mapping[str, Header], layers: Mapping[str, Layer]) -> Tile:
    indexes = {
        key: band_indexes(header, layers[key].bands, where=layers[key].where)
        for key, header in headers.items()
    }
    for key, header in headers.items():
        _check_gsd(header, layers[key])
    # The target comes last; sizes are told in terms of the first modality.
    first = next(iter(headers))
    reference, ratio = headers[first], layers[first].ratio
    height, width = reference.height * ratio, reference.width * ratio
    finest = min(layers[key].gsd for key in headers)
    for key, header in headers.items():
        _check_size(header, layers[key], reference, height, width)
        _check_place(header, layers[key], reference, layers[first], finest)
    if height.denominator != 1 or width.denominator != 1:
        raise InputError(
            f"{layers[first].where}: {reference.path} has {reference.height} × {reference.width} "
            f"pixels, which do not make whole pixels of the target's grid, {1 / ratio} times as "
            "large. Cut the files to whole pixels of both."
        )
    return Tile(
        name,
        {key: ImageFile(h.path, indexes[key]) for key, h in headers.items() if key},
        ImageFile(headers[""].path, indexes[""]) if "" in headers else None,
        int(height),
        int(width),
        {key: header.dtype for key, header in headers.items() if key},
    )


def _check_gsd(header: Header, layer: Layer) -> None:
    if header.gsd is not None and not all(same_gsd(size, layer.gsd) for size in header.gsd):
        rows, columns = header.gsd
        raise InputError(
            f"{layer.where}: {header.path} has pixels of {columns:g} × {rows:g} m, expected "
            f"{layer.gsd:g} m. Resample it, e.g. `gdalwarp -tr {layer.gsd:g} {layer.gsd:g} IN OUT`,"
            " or set gsd if all files have the other size."
        )


def _check_size(
    header: Header, layer: Layer, reference: Header, height: Fraction, width: Fraction
) -> None:
    if (header.height * layer.ratio, header.width * layer.ratio) != (height, width):
        rows, columns = height / layer.ratio, width / layer.ratio
        raise InputError(
            f"{layer.where}: {header.path} has {header.height} × {header.width} pixels of "
            f"{layer.gsd:g} m, expected {float(rows):g} × {float(columns):g}, as "
            f"{reference.path} has {reference.height} × {reference.width}. Cut all files of a place"
            " to the same ground."
        )


def _check_place(
    header: Header, layer: Layer, reference: Header, first: Layer, finest: float
) -> None:
    if header.crs and reference.crs and not same_crs(header.crs, reference.crs):
        code = reference.crs.to_string()
        raise InputError(
            f"{layer.where}: {header.path} is in {header.crs.to_string()}, but {reference.path} is "
            f"in {code}. Bring all files of a place to one reference system, e.g. `gdalwarp -t_srs "
            f"{code} IN OUT`."
        )
    here, there, size = header.bounds, reference.bounds, reference.transform
    if here is None or there is None or size is None:
        return
    tolerance = abs(size.a) * finest / first.gsd / 2
    if any(abs(a - b) > tolerance for a, b in zip(here, there, strict=True)):
        raise InputError(
            f"{layer.where}: {header.path} covers (left, top, right, bottom) {here}, but "
            f"{reference.path} covers {there}: files of one name must lie on the same ground."
        )

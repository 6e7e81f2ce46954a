"""Crops of rasters on a grid of choice, from one file or several side by side."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from types import EllipsisType
from typing import Any, Literal, NamedTuple

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from fusionlab.data.damage import unreadable
from fusionlab.data.raster.files import (
    CACHE_MEGABYTES,
    Mask,
    RasterFile,
    Values,
    observed,
    same_gsd,
)

Upsampling = Literal["nearest", "bilinear"]
Place = tuple[EllipsisType, slice, slice]
_MOST_OPEN_FILES = 128


class Handles:
    """Files kept open, per process, so that a worker opens each only once."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"_open": OrderedDict(), "_process": -1}

    def __getitem__(self, path: str) -> Any:  # noqa: ANN401
        if self._process != os.getpid():  # handles do not survive a fork
            self._open, self._process = OrderedDict(), os.getpid()
        if path not in self._open:
            if len(self._open) >= _MOST_OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[path] = rasterio.open(path)
        self._open.move_to_end(path)
        return self._open[path]


class Patch(NamedTuple):
    """A crop.

    Attributes:
        values: ``(bands, height, width)`` as read; undefined where not observed.
        observed: ``(bands, height, width)``.
        offset: rows and columns from the centre of the crop to the point asked for, in pixels.
    """

    values: Values
    observed: Mask
    offset: tuple[float, float]


def read_window(handles: Handles, file: RasterFile, window: Window, *, where: str) -> Patch:
    """Reads whole pixels from inside a raster.

    Raises:
        InputError: if the file cannot be read.
    """
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES):
            dataset = handles[file.path]
            values = dataset.read(list(file.indexes), window=window)
            return Patch(values, observed(dataset, window, file.indexes, values), (0.0, 0.0))
    except RasterioError as error:
        raise unreadable(file.path, error, expected="a raster", where=where) from error


def read_patch(
    handles: Handles,
    files: Iterable[RasterFile],
    center: tuple[float, float],
    *,
    size: int,
    gsd: float,
    bands: int,
    dtype: np.dtype[Any],
    where: str,
    upsampling: Upsampling = "bilinear",
) -> Patch:
    """A square crop around a point, from one file or several side by side.

    A file of this pixel size is read as it is, to the nearest pixel; another is resampled, exactly
    centred: bilinear, unless `upsampling` says otherwise. Where files overlap, the first one that
    has an observation counts.

    Args:
        handles: open files.
        files: of one modality and date, all with the same number of bands to read.
        center: x and y on the ground.
        size: rows and columns of the crop.
        gsd: pixel size of the crop, in units of the CRS.
        bands: how many bands the files have to read.
        dtype: type of the crop.
        where: what is asking, for error messages.
        upsampling: how files of coarser pixels are resampled.
    """
    values = np.zeros((bands, size, size), dtype)
    mask = np.zeros((bands, size, size), bool)
    offset: tuple[float, float] | None = None
    x, y = center
    half = gsd * size / 2
    for file in files:
        left, bottom, right, top = file.bounds
        if not (left < x + half and x - half < right and bottom < y + half and y - half < top):
            continue
        if same_gsd(file.gsd, gsd):
            found = _whole_pixels(handles, file, center, size=size, where=where)
            if found is None:
                continue
            piece, place = found
        else:
            nearest = upsampling == "nearest" and file.gsd > gsd
            how = Resampling.nearest if nearest else Resampling.bilinear
            piece = _resampled(handles, file, center, size=size, gsd=gsd, how=how, where=where)
            place = (..., slice(None), slice(None))
        new = piece.observed & ~mask[place]
        np.copyto(values[place], piece.values, where=new, casting="unsafe")
        mask[place] |= piece.observed
        offset = piece.offset if offset is None else offset
    return Patch(values, mask, offset or (0.0, 0.0))


def _whole_pixels(
    handles: Handles, file: RasterFile, center: tuple[float, float], *, size: int, where: str
) -> tuple[Patch, Place] | None:
    """The part of a crop that lies on a raster of its pixel size, to the nearest pixel.

    Returns:
        The part, with the offset of the whole crop, and where in the crop it belongs; None if not
        even a pixel lies on the raster.
    """
    row = (center[1] - file.transform.f) / file.transform.e - size / 2
    column = (center[0] - file.transform.c) / file.transform.a - size / 2
    # An odd window on an even crop lies half a pixel off: always to the same side.
    first_row, first_column = (int(np.floor(n + 0.5 + 1e-6)) for n in (row, column))
    r0, r1 = max(first_row, 0), min(first_row + size, file.height)
    c0, c1 = max(first_column, 0), min(first_column + size, file.width)
    if r0 >= r1 or c0 >= c1:
        return None
    piece = read_window(handles, file, Window(c0, r0, c1 - c0, r1 - r0), where=where)
    rows = slice(r0 - first_row, r1 - first_row)
    columns = slice(c0 - first_column, c1 - first_column)
    shift = (row - first_row, column - first_column)
    return piece._replace(offset=shift), (..., rows, columns)


def _resampled(
    handles: Handles,
    file: RasterFile,
    center: tuple[float, float],
    *,
    size: int,
    gsd: float,
    how: Resampling,
    where: str,
) -> Patch:
    """A whole crop, exactly centred, of a raster of another pixel size."""
    x, y = center
    half = gsd * size / 2
    alpha = [band for band in file.alpha if not set(file.alpha) & set(file.indexes)]
    options: dict[str, Any] = {"nodata": file.nodata} if file.nodata is not None else {}
    if file.nodata is None and not file.alpha:
        options["add_alpha"] = True
    try:
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES),
            WarpedVRT(
                handles[file.path],
                crs=file.crs,
                transform=from_origin(x - half, y + half, gsd, gsd),
                width=size,
                height=size,
                resampling=how,
                **options,
            ) as warped,
        ):
            values = warped.read(list(file.indexes))
            seen: Mask = warped.read_masks(list(file.indexes)) > 0
            if alpha:
                seen &= warped.read(alpha[0])[None] > 0
    except RasterioError as error:
        raise unreadable(file.path, error, expected="a raster", where=where) from error
    left, bottom, right, top = file.bounds
    steps = (np.arange(size) + 0.5) * gsd
    columns, rows = x - half + steps, y + half - steps
    inside = np.outer((bottom < rows) & (rows < top), (left < columns) & (columns < right))
    seen &= inside[None]
    if values.dtype.kind == "f":
        seen &= np.isfinite(values)
    return Patch(values, seen, (0.0, 0.0))

"""Windows of files: raw values of an image, class indices or values of a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import rasterio
import torch
from rasterio.errors import RasterioError
from rasterio.windows import Window
from torch import Tensor

from fusionlab.data.damage import unreadable
from fusionlab.data.folders.tiles import ImageFile
from fusionlab.data.raster.crops import Handles
from fusionlab.data.raster.files import CACHE_MEGABYTES, Mask, Values, observed
from fusionlab.data.raster.fill import neutral_values
from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX, Modality


class Extent(NamedTuple):
    """A window on the grid of the target, in its pixels."""

    row: int
    column: int
    height: int
    width: int

    def scaled(self, ratio: Fraction) -> Window:
        """The same ground in pixels that are so many times larger."""
        row, column, height, width = (int(n / ratio) for n in self)
        return Window(column, row, width, height)


@contextmanager
def opened(path: str, *, where: str) -> Iterator[Any]:
    """A raster, closed again afterwards.

    Raises:
        InputError: if it is none.
    """
    try:
        source = rasterio.open(path)
    except RasterioError as error:
        raise unreadable(path, error, expected="a raster", where=where) from error
    with source:
        yield source


def read_values(
    handles: Handles | Mapping[str, Any],
    file: ImageFile,
    window: Window,
    *,
    nodata: float | None,
    where: str,
) -> tuple[Values, Mask]:
    """Raw values ``(bands, height, width)`` and where they were observed.

    Raises:
        InputError: if the file cannot be read.
    """
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES):
            source = handles[file.path]
            values = source.read(list(file.indexes), window=window)
            mask = observed(source, window, file.indexes, values)
    except RasterioError as error:
        raise unreadable(file.path, error, expected="a raster", where=where) from error
    if nodata is not None:
        mask &= values != nodata
    return values, mask


@dataclass(frozen=True)
class ImageReader:
    """Reads one modality.

    Attributes:
        modality: as it is delivered.
        ratio: pixels of the target's grid along a side of one of its own.
        dtype: type of the values delivered.
        nodata: value that means "no observation", beside what the files declare.
        where: config key, for error messages.
    """

    modality: Modality
    ratio: Fraction
    dtype: np.dtype[Any]
    nodata: float | None
    where: str

    def read(self, handles: Handles, file: ImageFile, extent: Extent) -> Tensor | None:
        """Raw values ``(C, h, w)``; None if nothing was observed there.

        Where a pixel was not observed, floats are NaN and integers the mean of the modality: what
        experts take for the mean either way.
        """
        window = extent.scaled(self.ratio)
        values, mask = read_values(handles, file, window, nodata=self.nodata, where=self.where)
        if not mask.any():
            return None
        values = values.astype(self.dtype, copy=False)
        if not mask.all():
            neutral = neutral_values(self.dtype, self.modality.mean, self.modality.scale)
            np.copyto(values, neutral[:, None, None], where=~mask)
        return torch.from_numpy(values)

    def blank(self, extent: Extent) -> Tensor:
        """Zeros for what is missing, ``(C, h, w)``."""
        window = extent.scaled(self.ratio)
        shape = (len(self.modality.bands), int(window.height), int(window.width))
        return torch.from_numpy(np.zeros(shape, self.dtype))


class TargetReader:
    """Base of what reads targets.

    Args:
        where: config key, for error messages.
        nodata: value that means "unknown", beside what the files declare.
    """

    unknown: float
    pixelwise = True
    """Whether a target says something about every pixel, not about the window as a whole."""

    def __init__(self, *, nodata: float | None, where: str) -> None:
        self.nodata = nodata
        self.where = where

    def read(self, handles: Handles, file: ImageFile, extent: Extent) -> Tensor:
        """The target of a window; `unknown` where it is not known."""
        window = extent.scaled(Fraction(1))
        values, mask = read_values(handles, file, window, nodata=self.nodata, where=self.where)
        return self.target(values, mask, file.path)

    def target(self, values: Values, mask: Mask, path: str) -> Tensor:
        """Raw values ``(bands, height, width)``, known where the mask says so, as a target."""
        raise NotImplementedError


class ClassReader(TargetReader):
    """Reads class indices ``(H, W)`` int64, 255 where unknown.

    Args:
        indices: the class index of every raster value that stands for one.
        ignore: values that may occur beside them, and count nowhere.
        nodata: likewise.
        where: config key, for error messages.
    """

    unknown = IGNORE_INDEX

    def __init__(
        self,
        indices: Mapping[int, int],
        *,
        ignore: Sequence[int] = (),
        nodata: float | None = None,
        where: str = "target",
    ) -> None:
        super().__init__(nodata=nodata, where=where)
        table = {**indices, **dict.fromkeys(ignore, IGNORE_INDEX)}
        self._values = np.array(sorted(table))
        self._indices = np.array([table[value] for value in sorted(table)])

    def target(self, values: Values, mask: Mask, path: str) -> Tensor:
        """See `TargetReader.target`.

        Raises:
            InputError: for values that stand for no class; names file and values.
        """
        raw, known = values[0], mask[0]
        place = np.searchsorted(self._values, raw).clip(max=len(self._values) - 1)
        foreign = known & (self._values[place] != raw)
        if foreign.any():
            found = np.unique(raw[foreign])[:8].tolist()
            raise InputError(
                f"{self.where}: {path} holds the values {found}, which stand for no class; known "
                f"are {self._values.tolist()}. Add them to `values`, to `ignore`, or as nodata."
            )
        target = np.where(known, self._indices[place], IGNORE_INDEX)
        return torch.from_numpy(target.astype(np.int64, copy=False))


class ValueReader(TargetReader):
    """Reads values to regress, ``(V, H, W)`` float32, NaN where unknown.

    Args:
        scale: what raw values are multiplied by.
        nodata: value that means "unknown", beside what the files declare.
        where: config key, for error messages.
    """

    unknown = float("nan")

    def __init__(
        self, *, scale: float = 1.0, nodata: float | None = None, where: str = "target"
    ) -> None:
        super().__init__(nodata=nodata, where=where)
        self.scale = scale

    def target(self, values: Values, mask: Mask, path: str) -> Tensor:
        """See `TargetReader.target`."""
        scaled = values.astype(np.float32) * np.float32(self.scale)
        scaled[~mask] = np.nan
        return torch.from_numpy(scaled)


class MeanReader(ValueReader):
    """Reads one value per variable and window, ``(V,)`` float32: the mean of those that are known.

    A variable of which nothing is known in a window is NaN. Arguments are those of `ValueReader`.
    """

    pixelwise = False

    def target(self, values: Values, mask: Mask, path: str) -> Tensor:
        """See `TargetReader.target`."""
        count = mask.sum(axis=(1, 2))
        total = values.sum(axis=(1, 2), dtype=np.float64, where=mask)
        means = np.full(len(values), np.nan)
        np.divide(total * self.scale, count, out=means, where=count > 0)
        return torch.from_numpy(means.astype(np.float32))

"""Images of a manifest: a raster or an image file per row."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from torch import Tensor
from torch.nn import functional

from fusionlab.data.damage import reason, unreadable
from fusionlab.data.folders.files import Header, band_indexes, read_header, read_whole_header
from fusionlab.data.folders.options import check_length
from fusionlab.data.folders.reading import read_values
from fusionlab.data.folders.statistics import Moments, Statistics, file_moments
from fusionlab.data.folders.tiles import ImageFile, delivered_dtype
from fusionlab.data.manifest.options import Fitting, ImageColumn
from fusionlab.data.manifest.problems import Problems
from fusionlab.data.manifest.source import READERS, FileColumn, Mask, Rows, Source
from fusionlab.data.manifest.statistics import file_facts, finished, stored
from fusionlab.data.manifest.table import Manifest
from fusionlab.data.raster.crops import Handles
from fusionlab.data.raster.files import same_gsd
from fusionlab.data.raster.fill import neutral_values
from fusionlab.errors import InputError
from fusionlab.types import Modality

Values = NDArray[Any]


class ImageSource(Source):
    """Base of images and series of images.

    Args:
        name: of the modality.
        options: what the user says of it.
        manifest: the table.
        root: folder that relative paths are below.

    Attributes:
        files: the column of paths.
        bands: what the bands of the files are called.
        gsd: pixel size of the files, metres.
        shape: rows and columns that are delivered; known once a file was seen.

    Raises:
        InputError: if there is no such column.
    """

    section = "images"
    bands: tuple[str, ...]
    gsd: float

    def __init__(self, name: str, options: ImageColumn, manifest: Manifest, root: Path) -> None:
        super().__init__(name)
        self.options = options
        self.files = FileColumn(manifest, options.column, root, where=self.where)
        self.there: Mask = self.files.there.copy()
        self.bands = tuple(options.bands or ())
        self.gsd = options.gsd or 1.0
        self.shape = options.shape
        self.dtype = np.dtype(np.float32)
        self._kinds: set[np.dtype[Any]] = set()
        self._first_shape = (1, 1)
        self._zoom = 1.0

    @property
    def blank_shape(self) -> tuple[int, int]:
        """Rows and columns of what stands for a missing one."""
        return self.shape or self._first_shape

    def find(self, rows: Rows, problems: Problems) -> None:
        """See `Source.find`."""
        self.files.check(rows, problems)

    def describe(self, training: Rows, *, store: Path, verify: Callable[[], None]) -> None:
        """See `Source.describe`."""
        options, count = self.options, len(self.bands)
        for option in ("scale", "mean", "std"):
            check_length(getattr(options, option), count, where=f"{self.where}.{option}")
        scale = tuple(options.scale) if isinstance(options.scale, list) else (options.scale,)
        scale = scale if len(scale) == count else scale * count
        mean, std = options.mean, options.std
        rows = training[self.there[training]]
        if mean is None and len(rows):
            paths = [self.files.path(row) for row in rows.tolist()]

            def compute() -> Statistics:
                verify()
                return finished(self.moments(rows), self.bands, where=self.where)

            content = [*self.recipe(), list(self.bands), options.nodata, file_facts(paths)]
            raw = stored(store, self.name, content, self.bands, compute)
            mean = [m * s for m, s in zip(raw.mean, scale, strict=True)]
            std = [d * abs(s) for d, s in zip(raw.std, scale, strict=True)]
        self.modality = Modality(
            self.bands,
            self.gsd * self._zoom,
            scale,
            tuple(mean or ()),
            tuple(std or ()),
            temporal=options.temporal is not None,
            preparation=self.preparation(),
        )

    def moments(self, rows: Rows) -> Moments:
        """Sums over the raw values of some rows, whose files were checked."""
        raise NotImplementedError

    def recipe(self) -> list[Any]:
        """Plain values of options that change the statistics."""
        return []

    def preparation(self) -> dict[str, Any]:
        """See `Modality.preparation`."""
        if self.options.shape is None:
            return {}
        return {"size": list(self.options.shape), "fitting": self.options.fitting}

    def misfit(self, height: int, width: int, path: str) -> str | None:
        """Why a file of this size cannot be delivered; the first sets the size of all."""
        if self.shape is None:
            self.shape = (height, width)
        if self.options.shape is None and (height, width) != self.shape:
            rows, columns = self.shape
            return (
                f"{path} has {height} × {width} pixels, the first {rows} × {columns}: set "
                f"{self.where}.size to deliver one size."
            )
        too_small = height < self.shape[0] or width < self.shape[1]
        if self.options.fitting == "crop" and too_small:
            return f"{path} has {height} × {width} pixels, fewer than size {list(self.shape)}."
        return None

    def seen(self, dtype: np.dtype[Any]) -> None:
        """Takes note of the type of a file's values."""
        if dtype not in self._kinds:
            self._kinds.add(dtype)
            self.dtype = delivered_dtype(self._kinds, where=self.where)

    def first_is(self, height: int, width: int) -> None:
        """Takes note of the first file's size, and of how much larger pixels become."""
        self._first_shape = (height, width)
        if self.options.shape is not None and self.options.fitting == "resize":
            self._zoom = height / self.options.shape[0]

    def fitted(self, values: Values, mask: Mask) -> tuple[Values, Mask]:
        """Values and mask ``(..., h, w)`` at the size to deliver."""
        if self.options.shape is None or values.shape[-2:] == self.options.shape:
            return values, mask
        return fit(values, mask, self.options.shape, how=self.options.fitting)

    def filled(self, values: Values, mask: Mask) -> Tensor:
        """Values ``(..., C, h, w)`` as delivered: NaN, or the mean, where not observed."""
        values = values.astype(self.dtype, copy=False)
        if not mask.all():
            neutral = neutral_values(self.dtype, self.modality.mean, self.modality.scale)
            np.copyto(values, neutral[:, None, None], where=~mask)
        return torch.from_numpy(values)


class RasterSource(ImageSource):
    """One image per row, ``(C, h, w)`` in the type it has on disk.

    Files that were cut off are found by `check` where their format says how they end, see
    `fusionlab.data.raster.ends`; others when they are read.
    """

    def __init__(self, name: str, options: ImageColumn, manifest: Manifest, root: Path) -> None:
        super().__init__(name, options, manifest, root)
        self._indexes: dict[int, tuple[int, ...]] = {}
        self._kept: dict[int, Tensor] = {}
        self._handles = Handles()

    def prepare(self) -> None:
        """See `Source.prepare`."""
        path = self.files.first()
        if path is None:
            if not self.bands:
                raise InputError(
                    f"{self.where}: no row names a file, so name the bands: `{self.where}.bands`."
                )
            return
        header = read_header(path, where=self.where)
        if not self.bands:
            names = _band_names(header)
            if names is None:
                raise InputError(
                    f"{self.where}: {path} describes its {header.count} band(s) as "
                    f"{list(header.descriptions)}. Say what the files' bands are, in order: "
                    f"`{self.where}.bands: [...]`."
                )
            self.bands = names
        if self.options.gsd is None and header.gsd is not None:
            self.gsd = round(header.gsd[1], 6)
        self.first_is(header.height, header.width)

    def check(self, rows: Rows, problems: Problems) -> None:
        """See `Source.check`."""
        found = self.files.check(rows, problems)
        new = [row for row in found.tolist() if row not in self._indexes]
        if not new:
            return
        with ThreadPoolExecutor(READERS) as pool:
            headers = list(pool.map(partial(_header, where=self.where), map(self.files.path, new)))
        for row, header in zip(new, headers, strict=True):
            problem = header if isinstance(header, str) else self._problem(row, header)
            if problem is not None:
                path = self.files.path(row)
                problems.add(row, f"{self.files.column}: {problem}", file=path)

    def found(self, row: int, indexes: tuple[int, ...]) -> None:
        """Takes note of the bands to read of a file that was checked elsewhere."""
        self._indexes[row] = indexes

    def read(self, row: int) -> Tensor | None:
        """See `Source.read`.

        Raises:
            InputError: if the file cannot be read; names it.
        """
        if not self.there[row]:
            return None
        if (kept := self._kept.get(int(row))) is not None:
            return kept.clone()
        file = ImageFile(self.files.path(row), self._indexes[int(row)])
        values, mask = read_values(
            self._handles, file, None, nodata=self.options.nodata, where=self.where
        )
        values, mask = self.fitted(values, mask)
        image = self.filled(values, mask) if mask.any() else None
        if self.options.keep and image is not None:
            self._kept[int(row)] = image.clone()
        return image

    def blank(self) -> Tensor:
        """Zeros ``(C, h, w)``."""
        return torch.from_numpy(np.zeros((len(self.bands), *self.blank_shape), self.dtype))

    def moments(self, rows: Rows) -> Moments:
        """See `ImageSource.moments`."""
        files = [ImageFile(self.files.path(row), self._indexes[row]) for row in rows.tolist()]
        summed = partial(file_moments, nodata=self.options.nodata, where=self.where)
        total = Moments.none(len(self.bands))
        with ThreadPoolExecutor(READERS) as pool:
            for moments in pool.map(summed, files):
                total += moments
        return total

    def _problem(self, row: int, header: Header) -> str | None:
        try:
            self._indexes[row] = band_indexes(header, self.bands, where=self.where)
            self.seen(header.dtype)
        except InputError as error:
            return str(error).removeprefix(f"{self.where}: ")
        resized = self.options.shape is not None and self.options.fitting == "resize"
        if header.gsd is not None and not resized and self.options.gsd is None:
            rows, columns = header.gsd
            if not (same_gsd(rows, self.gsd) and same_gsd(columns, self.gsd)):
                return (
                    f"{header.path} has pixels of {columns:g} × {rows:g} m, the first of "
                    f"{self.gsd:g} m: resample it, or set {self.where}.gsd if that does not matter."
                )
        return self.misfit(header.height, header.width, header.path)


def fit(values: Values, mask: Mask, shape: tuple[int, int], *, how: Fitting) -> tuple[Values, Mask]:
    """Images at another size.

    Resampled, a pixel is the mean of the pixels under it, or between its neighbours, of those
    that were observed; it counts as observed if half of what it is made of was.

    Args:
        values: ``(..., h, w)``.
        mask: where observed, the same shape.
        shape: rows and columns wanted.
        how: the whole image resampled, or its middle cut out.
    """
    if how == "crop":
        top, left = ((n - m) // 2 for n, m in zip(values.shape[-2:], shape, strict=True))
        middle = (..., slice(top, top + shape[0]), slice(left, left + shape[1]))
        return values[middle].copy(), mask[middle].copy()
    lead, dtype = values.shape[:-2], values.dtype
    known = torch.from_numpy(mask.astype(np.float32)).reshape(1, -1, *values.shape[-2:])
    image = torch.from_numpy(np.where(mask, values, 0).astype(np.float32)).reshape(known.shape)
    resample = partial(
        functional.interpolate, size=shape, mode="bilinear", align_corners=False, antialias=True
    )
    share = resample(known)
    image = (resample(image) / share.clamp(min=1e-6)).reshape(*lead, *shape)
    seen: Mask = (share >= 0.5).reshape(*lead, *shape).numpy()
    resized = image.numpy()
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        resized = np.clip(np.round(resized), limits.min, limits.max)
    return resized.astype(dtype), seen


def _header(path: str, *, where: str) -> Header | str:
    try:
        return read_whole_header(path, where=where)
    except InputError as error:
        cause = error.__cause__
        why = reason(cause) if isinstance(cause, Exception) else str(error)
        return f"{path} cannot be read as an image ({why})."


def _band_names(header: Header) -> tuple[str, ...] | None:
    """By descriptions, or by colours; None if neither tells all bands apart."""
    names = list(header.descriptions)
    if not any(names):
        try:
            with rasterio.open(header.path) as source:
                names = [color.name for color in source.colorinterp]
        except RasterioError as error:
            raise unreadable(header.path, error, expected="a raster") from error
        names = [n for i, n in enumerate(names, 1) if i not in header.alpha]
        if not set(names) <= {"red", "green", "blue", "gray"}:
            return None
        # GDAL calls the first band of any single raster grey; only pictures mean it.
        if names == ["gray"] and header.crs is not None:
            return None
    return tuple(names) if all(names) and len(set(names)) == len(names) else None

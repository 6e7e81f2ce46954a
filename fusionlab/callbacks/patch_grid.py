"""Predictions of the patches of a raster as a coarser raster, one pixel per patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from fusionlab.callbacks.map_layers import write_categories
from fusionlab.types import IGNORE_INDEX

Floats = NDArray[np.float32]

_STRIP = 64
"""Rows of patches that are kept until they are whole, and compressed together."""
_NODATA_OF_MANY = 65_535


class PatchGrid:
    """The grid of one raster, from its first patch to its last.

    Every pixel lies in the middle of its patch and is as large as the step from patch to patch: the
    patch itself where patches do not overlap.

    Args:
        source: the raster that was cut into patches.
        folder: where files go, under temporary names.
        window: rows and columns of a patch, pixels of the source.
        stride: pixels from one patch to the next.
        names: what the bands are: classes, of which they hold probabilities, or variables.
        units: of variables; none of classes.
        colors: ``#rrggbb`` per class, if exactly one class is true of a patch; then the most
            probable class is written too, with its colours and names.
        tags: what the file says of itself.

    Attributes:
        paths: final paths by kind, ``answers`` and ``classes``.
        temporary: likewise, the names until the files are whole.
        complete: whether no patch is missing; known once it is closed.
    """

    def __init__(
        self,
        source: str,
        folder: Path,
        *,
        window: int,
        stride: int,
        names: Sequence[str],
        units: Sequence[str] = (),
        colors: Sequence[str] | None = None,
        tags: Mapping[str, str],
    ) -> None:
        self.source = source
        self.stride = stride
        self.names = tuple(names)
        self.complete = True
        self.paths = {"answers": folder / f"{Path(source).stem}_patches.tif"}
        if colors is not None:
            self.paths["classes"] = folder / f"{Path(source).stem}_patches_classes.tif"
        self.temporary = {k: p.with_name(f".{p.name}.part") for k, p in self.paths.items()}
        with rasterio.open(source) as file:
            crs, transform = file.crs, file.transform
            self.rows, self.columns = (
                max(-(-(length - window) // stride), 0) + 1 for length in file.shape
            )
        width, height = transform.a, transform.e  # north is up, as `inspect` has seen to
        margin = (window - stride) / 2
        self.transform = Affine(
            width * stride, 0, transform.c + margin * width,
            0, height * stride, transform.f + margin * height,
        )  # fmt: skip
        few = len(self.names) <= IGNORE_INDEX
        self.nodata = IGNORE_INDEX if few else _NODATA_OF_MANY
        self._written = 0
        self._buffer = np.empty((len(self.names), _STRIP, self.columns), np.float32)
        self._buffer[:] = np.nan
        self._visited = np.zeros((_STRIP, self.columns), bool)
        self._files: dict[str, Any] = {}
        self._sums: dict[str, int] = {}
        try:
            for kind in self.paths:
                self._files[kind] = self._create(kind, crs, few=few)
                self._files[kind].update_tags(**tags)
            for band, name in enumerate(self.names, 1):
                self._files["answers"].set_band_description(band, name)
            if units:
                self._files["answers"].units = tuple(units)
            if colors is not None:
                self._describe_classes(colors, few=few)
        except BaseException:
            self.abort()
            raise

    def _create(self, kind: str, crs: Any, *, few: bool) -> Any:  # noqa: ANN401
        floats = kind == "answers"
        return rasterio.open(
            self.temporary[kind],
            "w",
            driver="GTiff",
            width=self.columns,
            height=self.rows,
            count=len(self.names) if floats else 1,
            dtype="float32" if floats else "uint8" if few else "uint16",
            nodata=np.nan if floats else self.nodata,
            crs=crs,
            transform=self.transform,
            blockysize=min(_STRIP, self.rows),
            interleave="band",
            compress="deflate",
            predictor=3 if floats else 1,
            BIGTIFF="IF_SAFER",
        )

    def _describe_classes(self, colors: Sequence[str], *, few: bool) -> None:
        file = self._files["classes"]
        file.set_band_description(1, "class")
        file.update_tags(1, **{f"CLASS_{i}": name for i, name in enumerate(self.names)})
        if few:
            table = {i: (*bytes.fromhex(color[1:]), 255) for i, color in enumerate(colors)}
            file.write_colormap(1, {**table, self.nodata: (0, 0, 0, 0)})

    def add(self, rows: NDArray[np.int64], columns: NDArray[np.int64], values: Floats) -> None:
        """Adds patches.

        Args:
            rows: first rows of the patches in the source; never less than those before.
            columns: first columns.
            values: ``(n, K)``, one per band; NaN where nothing was seen.
        """
        at_row, at_column = rows // self.stride, columns // self.stride
        if (rows % self.stride).any() or (columns % self.stride).any():
            raise RuntimeError(f"Patches of {self.source} do not lie {self.stride} pixels apart.")
        for strip in np.unique(at_row // _STRIP).tolist():
            self._flush(strip * _STRIP)
            if strip * _STRIP < self._written:
                raise RuntimeError(f"Patches of {self.source} must come row by row.")
            here = at_row // _STRIP == strip
            place = at_row[here] - self._written, at_column[here]
            self._buffer[:, *place] = values[here].T
            self._visited[place] = True

    def close(self) -> None:
        """Writes what is left; files keep their temporary names, or vanish if patches are missing.

        Raises:
            OSError: if they could not be written in full.
        """
        self._flush(self.rows)
        files, self._files = self._files, {}
        for file in files.values():
            file.close()
        if not self.complete:
            self.abort()
            return
        for kind, path in self.temporary.items():
            if self._read_back(path) != self._sums[kind]:
                raise OSError(f"{path.name} is incomplete after writing")

    def commit(self) -> None:
        """Gives the files their names, in place of those of an earlier run."""
        for kind, path in self.paths.items():
            path.with_name(f"{path.name}.aux.xml").unlink(missing_ok=True)  # statistics of a GIS
            if kind == "classes":
                write_categories(path, self.names)
            self.temporary[kind].replace(path)

    def abort(self) -> None:
        """Leaves nothing behind."""
        for file in self._files.values():
            with suppress(RasterioError):  # a full disk must not keep the file from being removed
                file.close()
        self._files = {}
        for path in self.temporary.values():
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.aux.xml").unlink(missing_ok=True)

    def _strip(self, first: int) -> Window:
        return Window(0, first, self.columns, min(_STRIP, self.rows - first))

    def _read_back(self, path: Path) -> int:
        """Checksum of what is on disk: errors while a file is closed are not reported."""
        total = 0
        try:
            with rasterio.open(path) as file:
                for first in range(0, self.rows, _STRIP):
                    total = crc32(file.read(window=self._strip(first)), total)
        except Exception as error:  # GDAL's own, too, which share no public base
            raise OSError(f"{path.name} is incomplete after writing: {error}") from error
        return total

    def _write(self, kind: str, values: NDArray[Any], window: Window) -> None:
        self._files[kind].write(values, window=window)
        self._sums[kind] = crc32(np.ascontiguousarray(values).data, self._sums.get(kind, 0))

    def _flush(self, until: int) -> None:
        while self._written < until:
            window = self._strip(self._written)
            rows = window.height
            values = self._buffer[:, :rows]
            self.complete &= bool(self._visited[:rows].all())
            self._write("answers", values, window)
            if "classes" in self._files:
                seen = ~np.isnan(values[0])
                classes = np.where(seen, values.argmax(axis=0), self.nodata)
                kind = self._files["classes"].dtypes[0]
                self._write("classes", classes.astype(kind)[None], window)
            self._buffer[:] = np.nan
            self._visited[:] = False
            self._written += rows

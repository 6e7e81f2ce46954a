"""A map written as a stream: windows in, finished block rows out, memory bounded.

Overlapping windows are blended by a smooth weight. Only the rows that a later window can still
touch are kept; finished rows go to tiled, compressed GeoTIFFs, one whole row of tiles at a time, so
that no compressed tile is written twice. The files bear a temporary name until they are whole.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from fusionlab.callbacks.map_layers import KINDS, Blended, Floats, Layer
from fusionlab.data.raster.files import CACHE_MEGABYTES, Mask, alpha_bands, observed

BLOCK = 256
_LEAST_WEIGHT = 1e-3
_LARGEST_BUFFER = 2**29
"""Bytes; the rows of a wider raster are kept in an unnamed temporary file instead of memory."""


@lru_cache(maxsize=8)
def blend_weights(height: int, width: int) -> Floats:
    """Hann weights ``(height, width)``, 1 in the middle and never zero.

    At half overlap the weights of neighbours sum to 1; the pixels at a window's border, which see
    the least context, hardly count.
    """
    axes = [np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in (height, width)]
    # Each axis by itself: along the raster's first row, columns must still be blended.
    weights: Floats = np.outer(*(np.maximum(a, _LEAST_WEIGHT) for a in axes)).astype(np.float32)
    return weights


def leftovers(folder: Path, stem: str, *, written: Collection[Path]) -> list[Path]:
    """Files that an earlier run may have put beside a map and this one does not replace.

    Args:
        folder: where the map goes.
        stem: name of the raster that it lies on, without ending.
        written: the GeoTIFFs that this run writes.
    """
    paths = [folder / f"{stem}_quicklook.png"]  # drawn anew once the map is there
    for kind in KINDS:
        path = folder / f"{stem}_{kind}.tif"
        paths.append(path.with_name(f"{path.name}.aux.xml"))  # statistics that a GIS program left
        if path not in written:
            paths.append(path)
    return paths


class MapStream:
    """The maps of one raster, from its first window to its last.

    Args:
        source: the raster that the maps lie on.
        folder: where the maps go.
        window_height: rows of a window.
        layers: what to write; the first is the map itself.
        answers: number of channels of the model's answer.
        shares: number of modalities whose shares are written.
        band_counts: numbers of bands of the model's images; a raster with one of these numbers has
            no alpha band, even if one is marked so.
        compress: GeoTIFF compression.

    Attributes:
        map: final path of the map itself.
        paths: final paths by kind of layer.
        complete: whether no window is missing; known once it is closed.
    """

    def __init__(
        self,
        source: str,
        folder: Path,
        *,
        window_height: int,
        layers: Sequence[Layer],
        answers: int,
        shares: int = 0,
        band_counts: Sequence[int],
        compress: str = "deflate",
    ) -> None:
        self.source = source
        self.layers = {layer.kind: layer for layer in layers}
        self.answers = answers
        self.complete = True
        self._written = 0
        self._folder = folder
        self._files: dict[str, Any] = {}
        self._temporary: dict[str, Path] = {}
        self._stem = Path(source).stem
        self.paths = {kind: folder / f"{self._stem}_{kind}.tif" for kind in self.layers}
        self.map = self.paths[layers[0].kind]
        self._input = rasterio.open(source)
        self.height, self.width = self._input.height, self._input.width
        alpha = () if self._input.count in band_counts else alpha_bands(self._input)
        self._bands = [i for i in range(1, self._input.count + 1) if i not in alpha]
        rows = min(self.height, window_height + BLOCK)
        self._buffer = _zeros((answers + 1 + shares, rows, self.width), folder)
        self._visited = np.zeros((rows, self.width), bool)
        try:
            self._create(compress)
        except BaseException:
            self.abort()
            raise

    def _create(self, compress: str) -> None:
        for kind, layer in self.layers.items():
            path = self.paths[kind]
            self._temporary[kind] = path.with_name(f".{path.name}.part")
            self._files[kind] = rasterio.open(
                self._temporary[kind],
                "w",
                driver="GTiff",
                width=self.width,
                height=self.height,
                count=len(layer.names),
                dtype=layer.dtype,
                nodata=layer.nodata,
                crs=self._input.crs,
                transform=self._input.transform,
                tiled=True,
                blockxsize=BLOCK,
                blockysize=BLOCK,
                interleave="band",
                compress=compress,
                BIGTIFF="IF_SAFER",
                **layer.options,
            )
            layer.describe(self._files[kind])

    def add(
        self,
        row: int,
        column: int,
        answers: Floats,
        shares: Floats | None = None,
        *,
        present: bool = True,
    ) -> None:
        """Adds a window.

        Args:
            row: first row; never less than that of the window before.
            column: first column.
            answers: ``(K, height, width)``, the part inside the raster.
            shares: ``(modalities, height, width)``, if contributions are written.
            present: whether the model saw anything here. If not, its answer counts for nothing,
                and pixels that no other window covers become nodata.
        """
        self._flush(row // BLOCK * BLOCK)
        if row < self._written:
            raise RuntimeError(f"Windows of {self.source} must come row by row, got row {row}.")
        k, height, width = answers.shape
        first = row - self._written
        self._visited[first : first + height, column : column + width] = True
        if not present:
            return
        weights = blend_weights(height, width)
        part = self._buffer[:, first : first + height, column : column + width]
        for i in range(k):
            part[i] += answers[i] * weights
        part[k] += weights
        if shares is not None:
            part[k + 1 :] += shares * weights

    def close(self) -> None:
        """Writes what is left and gives the files their names, unless windows are missing."""
        self._flush(self.height)
        self._input.close()
        for file in self._files.values():
            file.close()
        self._files = {}
        if not self.complete:
            self.abort()
            return
        # What another run wrote beside its map would pass for part of this one.
        for path in leftovers(self._folder, self._stem, written=self.paths.values()):
            path.unlink(missing_ok=True)
        # The map itself comes last: once it is there, everything is.
        for kind, path in reversed(self.paths.items()):
            self.layers[kind].write_beside(path)
            self._temporary.pop(kind).replace(path)

    def abort(self) -> None:
        """Leaves nothing behind; does nothing once the maps are whole."""
        self._input.close()
        for file in self._files.values():
            with suppress(RasterioError):  # a full disk must not keep the file from being removed
                file.close()
        self._files = {}
        for path in self._temporary.values():
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".aux.xml").unlink(missing_ok=True)
        self._temporary = {}

    def _flush(self, until: int) -> None:
        while self._written < until:
            rows = min(BLOCK, until - self._written)
            self._write_rows(rows)
            kept = self._buffer.shape[1] - rows
            # One channel at a time: the copy of an overlap needs memory.
            for channel in (*self._buffer, self._visited):
                channel[:kept] = channel[rows:]
                channel[kept:] = 0
            self._written += rows

    def _write_rows(self, rows: int) -> None:
        k = self.answers
        window = Window(0, self._written, self.width, rows)
        part = self._buffer[:, :rows]
        self.complete &= bool(self._visited[:rows].all())
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES):
            seen = (part[k] > 0) & self._observed(window)
            blended = Blended(part[:k], part[k + 1 :], weight=part[k], seen=seen)
            for kind, layer in self.layers.items():
                for band, values in enumerate(layer.bands(blended), 1):
                    self._files[kind].write(values, band, window=window)

    def _observed(self, window: Window) -> Mask:
        """Where any band of the source has an observation; mostly the first one tells."""
        seen = np.zeros((window.height, window.width), bool)
        for band in self._bands:
            seen |= observed(self._input, window, [band])[0]
            if seen.all():
                break
        return seen


def _zeros(shape: tuple[int, ...], folder: Path) -> Floats:
    if 4 * np.prod(shape, dtype=np.int64) <= _LARGEST_BUFFER:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile(dir=folder) as file:  # lives on, unnamed, while it is mapped
        return np.memmap(file, np.float32, "w+", shape=shape)

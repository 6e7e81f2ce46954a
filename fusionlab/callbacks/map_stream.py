"""A map written as a stream: windows in, finished block rows out, memory bounded.

Overlapping windows are blended by a smooth weight. Only the rows that a later window can still
touch are kept; finished rows go to tiled, compressed GeoTIFFs, one whole row of tiles at a time, so
that no compressed tile is written twice. The files bear a temporary name until they are whole.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from fusionlab.data.raster.files import CACHE_MEGABYTES, Mask, alpha_bands, observed
from fusionlab.types import IGNORE_INDEX

Floats = NDArray[np.float32]
Probabilities = Literal["none", "uint8", "float16"]

BLOCK = 256
NODATA = IGNORE_INDEX
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
    weights: Floats = np.maximum(np.outer(*axes), _LEAST_WEIGHT).astype(np.float32)
    return weights


def leftovers(classes: Path, *, written: Collection[Path]) -> list[Path]:
    """Files that an earlier run may have put beside a map and this one does not replace.

    Args:
        classes: path of the map, ``<stem>_classes.tif``.
        written: the GeoTIFFs that this run writes.
    """
    stem = classes.name.removesuffix("_classes.tif")
    paths = [classes.with_name(f"{stem}_quicklook.png")]  # drawn anew once the map is there
    for kind in ("probabilities", "contributions"):
        path = classes.with_name(f"{stem}_{kind}.tif")
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
        classes: class names.
        colors: ``#rrggbb`` per class.
        band_counts: numbers of bands of the model's images; a raster with one of these numbers has
            no alpha band, even if one is marked so.
        probabilities: whether and how to write class probabilities.
        modalities: modalities whose contributions to write; none if empty.
        compress: GeoTIFF compression.

    Attributes:
        paths: final paths by kind: ``classes``, ``probabilities``, ``contributions``.
    """

    def __init__(
        self,
        source: str,
        folder: Path,
        *,
        window_height: int,
        classes: Sequence[str],
        colors: Sequence[str],
        band_counts: Sequence[int],
        probabilities: Probabilities = "none",
        modalities: Sequence[str] = (),
        compress: str = "deflate",
    ) -> None:
        self.source = source
        self.classes = tuple(classes)
        self.modalities = tuple(modalities)
        self.probabilities = probabilities
        self.complete = True
        self._written = 0
        self._files: dict[str, Any] = {}
        self._temporary: dict[str, Path] = {}
        self.paths: dict[str, Path] = {}
        self._input = rasterio.open(source)
        self.height, self.width = self._input.height, self._input.width
        alpha = () if self._input.count in band_counts else alpha_bands(self._input)
        self._bands = [i for i in range(1, self._input.count + 1) if i not in alpha]
        rows = min(self.height, window_height + BLOCK)
        channels = len(self.classes) + 1 + len(self.modalities)
        self._buffer = _zeros((channels, rows, self.width), folder)
        self._visited = np.zeros((rows, self.width), bool)
        try:
            self._create(folder, colors, compress)
        except BaseException:
            self.abort()
            raise

    def _create(self, folder: Path, colors: Sequence[str], compress: str) -> None:
        bits = {"NBITS": 16} if self.probabilities == "float16" else {}
        scaled = self.probabilities == "uint8"
        layout: dict[str, tuple[Sequence[str], str, float, dict[str, Any]]] = {
            "classes": (("class",), "uint8", NODATA, {})
        }
        if self.probabilities != "none":
            # GDAL keeps half-precision floats as "float32 of 16 bits".
            kind, nodata = ("uint8", NODATA) if scaled else ("float32", float("nan"))
            layout["probabilities"] = (self.classes, kind, nodata, bits)
        if self.modalities:
            layout["contributions"] = (self.modalities, "uint8", NODATA, {})
        stem = Path(self.source).stem
        for kind, (names, dtype, nodata, options) in layout.items():
            path = folder / f"{stem}_{kind}.tif"
            self.paths[kind] = path
            self._temporary[kind] = path.with_name(f".{path.name}.part")
            file = rasterio.open(
                self._temporary[kind],
                "w",
                driver="GTiff",
                width=self.width,
                height=self.height,
                count=len(names),
                dtype=dtype,
                nodata=nodata,
                crs=self._input.crs,
                transform=self._input.transform,
                tiled=True,
                blockxsize=BLOCK,
                blockysize=BLOCK,
                interleave="band",
                compress=compress,
                BIGTIFF="IF_SAFER",
                **options,
            )
            self._files[kind] = file
            for band, name in enumerate(names, 1):
                file.set_band_description(band, name)
        self._describe(colors)

    def _describe(self, colors: Sequence[str]) -> None:
        file = self._files["classes"]
        table = {i: (*bytes.fromhex(color[1:]), 255) for i, color in enumerate(colors)}
        file.write_colormap(1, {**table, NODATA: (0, 0, 0, 0)})
        file.update_tags(1, **{f"CLASS_{i}": name for i, name in enumerate(self.classes)})
        file.update_tags(CLASS_NAMES=json.dumps(self.classes, ensure_ascii=False))
        if self.probabilities == "uint8":
            file = self._files["probabilities"]
            file.scales = (1 / _FULL,) * file.count
        if self.modalities:
            self._files["contributions"].units = ("percent",) * len(self.modalities)

    def add(
        self,
        row: int,
        column: int,
        probabilities: Floats,
        shares: Floats | None = None,
        *,
        present: bool = True,
    ) -> None:
        """Adds a window.

        Args:
            row: first row; never less than that of the window before.
            column: first column.
            probabilities: ``(K, height, width)``, the part inside the raster.
            shares: ``(modalities, height, width)``, if contributions are written.
            present: whether the model saw anything here. If not, its answer counts for nothing,
                and pixels that no other window covers become nodata.
        """
        self._flush(row // BLOCK * BLOCK)
        if row < self._written:
            raise RuntimeError(f"Windows of {self.source} must come row by row, got row {row}.")
        k, height, width = probabilities.shape
        first = row - self._written
        self._visited[first : first + height, column : column + width] = True
        if not present:
            return
        weights = blend_weights(height, width)
        part = self._buffer[:, first : first + height, column : column + width]
        for i in range(k):
            part[i] += probabilities[i] * weights
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
        for path in leftovers(self.paths["classes"], written=self.paths.values()):
            path.unlink(missing_ok=True)
        # The map itself comes last: once it is there, everything is.
        for kind in sorted(self.paths, key=lambda kind: kind == "classes"):
            if kind == "classes":
                write_categories(self.paths[kind], self.classes)
            self._temporary.pop(kind).replace(self.paths[kind])

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
        k = len(self.classes)
        window = Window(0, self._written, self.width, rows)
        part = self._buffer[:, :rows]
        weight = part[k]
        self.complete &= bool(self._visited[:rows].all())
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES):
            seen = (weight > 0) & self._observed(window)
            classes = part[:k].argmax(axis=0).astype(np.uint8)
            classes[~seen] = NODATA
            self._files["classes"].write(classes, 1, window=window)
            if self.probabilities != "none":
                file = self._files["probabilities"]
                for band in range(k):
                    file.write(self._encoded(part[band], weight, seen), band + 1, window=window)
            for band in range(len(self.modalities)):
                share = _divided(part[k + 1 + band], weight)
                percent = np.where(seen, np.round(share * 100), NODATA).astype(np.uint8)
                self._files["contributions"].write(percent, band + 1, window=window)

    def _observed(self, window: Window) -> Mask:
        """Where any band of the source has an observation; mostly the first one tells."""
        seen = np.zeros((window.height, window.width), bool)
        for band in self._bands:
            seen |= observed(self._input, window, [band])[0]
            if seen.all():
                break
        return seen

    def _encoded(self, sums: Floats, weight: Floats, seen: NDArray[np.bool_]) -> NDArray[Any]:
        probability = _divided(sums, weight)
        if self.probabilities == "uint8":
            return np.where(seen, np.round(probability * _FULL), NODATA).astype(np.uint8)
        return np.where(seen, probability, np.float32(np.nan))


_FULL = 254
"""A probability of 1 as uint8; 255 is nodata."""


def _divided(sums: Floats, weight: Floats) -> Floats:
    result: Floats = np.divide(sums, weight, out=np.zeros_like(sums), where=weight > 0)
    return result.clip(0, 1)


def _zeros(shape: tuple[int, ...], folder: Path) -> Floats:
    if 4 * np.prod(shape, dtype=np.int64) <= _LARGEST_BUFFER:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile(dir=folder) as file:  # lives on, unnamed, while it is mapped
        return np.memmap(file, np.float32, "w+", shape=shape)


def write_categories(path: Path, classes: Sequence[str]) -> None:
    """Writes GDAL's side file, from which GIS programs take the legend's names.

    A GeoTIFF itself has no place for category names, only for the tags that hold them as well.
    """
    names = "".join(f"<Category>{escape(name)}</Category>" for name in classes)
    text = (
        '<PAMDataset><PAMRasterBand band="1"><CategoryNames>'
        f"{names}</CategoryNames></PAMRasterBand></PAMDataset>\n"
    )
    target = path.with_name(path.name + ".aux.xml")
    temporary = target.with_name(f".{target.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)

"""Rows whose images and masks lie on the same ground: windows of them, and maps of predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fusionlab.data.folders.dataset import FolderDataset
from fusionlab.data.folders.files import read_header
from fusionlab.data.folders.layers import Layer, ratio_of
from fusionlab.data.folders.options import TargetFolder, check_target, class_values
from fusionlab.data.folders.reading import ClassReader, ImageReader, TargetReader, ValueReader
from fusionlab.data.folders.tiles import Tile, checked_tiles, delivered_dtype
from fusionlab.data.manifest.images import ImageSource, RasterSource
from fusionlab.data.manifest.options import TargetColumn
from fusionlab.data.manifest.problems import Problems
from fusionlab.data.manifest.source import FileColumn, Rows
from fusionlab.data.manifest.table import Manifest
from fusionlab.errors import InputError
from fusionlab.types import Modality, Schema


class MaskTarget:
    """A raster per row: classes or values per pixel.

    Args:
        options: what the user says of it.
        manifest: the table.
        root: folder that relative paths are below.

    Raises:
        InputError: for options that make no sense, or a column that is not there.
    """

    def __init__(self, options: TargetColumn, manifest: Manifest, root: Path) -> None:
        assert options.column is not None
        self.options = TargetFolder(
            "",
            classes=options.classes,
            values=options.values,
            ignore=options.ignore,
            colors=options.colors,
            variables=options.variables,
            units=options.units,
            scale=options.scale,
            nodata=options.nodata,
            gsd=options.gsd,
        )
        if self.options.regression == bool(options.classes or options.values):
            raise InputError(
                "target: of a mask, give classes (or values with their classes) to learn a class "
                "per pixel, or variables, such as [canopy_height], to learn values: one of the two."
            )
        check_target(self.options)
        self.files = FileColumn(manifest, options.column, root, where="target")

    @property
    def gsd(self) -> float | None:
        """Pixel size in metres, as given or of the first file; None if none says it."""
        path = self.files.first()
        if self.options.gsd is not None or path is None:
            return self.options.gsd
        header = read_header(path, where="target")
        return round(header.gsd[1], 6) if header.gsd is not None else None

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands of the files."""
        return tuple(self.options.variables or ["class"])

    def schema(self, modalities: Mapping[str, Modality], gsd: float) -> Schema:
        """What the data deliver."""
        options = self.options
        if options.variables is not None:
            return Schema(
                modalities,
                gsd=gsd,
                target="regression",
                variables=options.variables,
                units=options.units or [""] * len(options.variables),
            )
        return Schema(modalities, class_values(options)[0], colors=options.colors or (), gsd=gsd)

    def check(self, rows: Rows, problems: Problems) -> None:
        """Notes the rows that have no mask, or name one that is not there."""
        for row in rows[~self.files.there[rows]].tolist():
            problems.add(row, f"{self.files.column}: no mask.")
        self.files.check(rows, problems)

    def reader(self) -> TargetReader:
        """Reads windows of it."""
        options = self.options
        if options.regression:
            return ValueReader(scale=options.scale, nodata=options.nodata)
        return ClassReader(class_values(options)[1], ignore=options.ignore, nodata=options.nodata)


class Ground:
    """The rasters of rows, whose pixels lie on the same ground.

    Args:
        sources: all images; those of one file per row lie beside the mask.
        mask: the target, if it is one.
        names: of all rows.
        crop: rows and columns of a window, in pixels of the mask; None for whole files.
        overlap: pixels that windows of a prediction share.

    Raises:
        InputError: if there is no image, pixel sizes do not fit each other, or windows not them.
    """

    def __init__(
        self,
        sources: Mapping[str, ImageSource],
        mask: MaskTarget | None,
        names: Sequence[str],
        *,
        crop: int | None,
        overlap: int,
    ) -> None:
        self.rasters = {n: s for n, s in sources.items() if isinstance(s, RasterSource)}
        if not self.rasters:
            raise InputError(
                "data.images: an answer per pixel needs an image that it lies on: declare one with "
                "a raster per row."
            )
        for source in sources.values():
            if source.options.shape is not None:
                raise InputError(
                    f"{source.where}.size: images are not resized where the target is a mask, as "
                    "pixels would not lie on it. Leave it out, or set crop."
                )
        self.mask = mask
        self.names = names
        self.crop = crop
        self.overlap = overlap
        finest = min(source.gsd for source in self.rasters.values())
        self.gsd = (mask.gsd if mask is not None else None) or finest
        self.ratios = {
            name: ratio_of(source.gsd, self.gsd, where=source.where)
            for name, source in sources.items()
        }
        self.step = math.lcm(*(ratio.numerator for ratio in self.ratios.values()))
        if crop is not None and (crop < 1 or crop % self.step or overlap % self.step):
            raise InputError(
                f"crop {crop} and overlap {overlap} must be multiples of {self.step}: so many "
                "pixels of the mask are a pixel of the coarsest images."
            )
        self._tiles: dict[tuple[int, bool], Tile] = {}

    def check(self, rows: Rows, problems: Problems, *, masks: bool) -> None:
        """Reads the headers of the files of some rows and checks that they go together.

        Args:
            rows: which.
            problems: takes those that do not.
            masks: whether masks belong to them.
        """
        new = [row for row in rows.tolist() if (row, masks) not in self._tiles]
        for source in self.rasters.values():
            source.files.check(rows, problems)
        present = [
            row
            for row in new
            if any(s.files.readable(row) for s in self.rasters.values())
            and (not masks or (self.mask is not None and self.mask.files.readable(row)))
        ]
        layers = {name: self._layer(name, present) for name in self.rasters}
        target = self._target_layer(present) if masks else None
        found = checked_tiles([self.names[row] for row in present], layers, target)
        for row, tile in zip(present, found, strict=True):
            if isinstance(tile, InputError):
                problems.add(row, str(tile))
                continue
            if self.crop is not None and min(tile.height, tile.width) < self.crop:
                problems.add(
                    row,
                    f"{tile.height} × {tile.width} pixels of the mask's grid, fewer than the "
                    f"{self.crop} of a crop.",
                )
                continue
            self._tiles[row, masks] = tile
            for name, file in tile.images.items():
                self.rasters[name].found(row, file.indexes)
        for row in set(new) - set(present):
            if not any(source.files.there[row] for source in self.rasters.values()):
                problems.add(row, f"no image of {list(self.rasters)}, on which an answer lies.")

    def dataset(
        self, rows: Rows, *, masks: bool, random: bool, placed: bool, maps: bool
    ) -> FolderDataset:
        """Windows of checked rows, see `FolderDataset`; texts and the like are not among them.

        Args:
            rows: which.
            masks: whether to read masks.
            random: whether windows lie anywhere, as in training.
            placed: whether to say where a prediction belongs on the ground.
            maps: whether the windows of a row make a map together.
        """
        tiles = [self._tiles[row, masks] for row in rows.tolist()]
        kinds: dict[str, set[np.dtype[Any]]] = {name: set() for name in self.rasters}
        for tile in tiles:
            for name, dtype in tile.dtypes.items():
                kinds[name].add(dtype)
        readers = {
            name: ImageReader(
                source.modality,
                self.ratios[name],
                delivered_dtype(kinds[name], where=source.where),
                source.options.nodata,
                source.where,
            )
            for name, source in self.rasters.items()
        }
        return FolderDataset(
            tiles,
            readers,
            self.mask.reader() if masks and self.mask is not None else None,
            crop=self.crop,
            overlap=self.overlap if placed else 0,
            step=self.step,
            at="random" if random else "grid",
            placed=placed,
            maps=maps,
        )

    def require_one_size(self, rows: Rows, problems: Problems, *, masks: bool) -> None:
        """Notes rows of another size than the first, which make no batch."""
        tiles = {row: self._tiles.get((row, masks)) for row in rows.tolist()}
        sizes = {row: (tile.height, tile.width) for row, tile in tiles.items() if tile is not None}
        first = next(iter(sizes.values()), None)
        for row, size in sizes.items():
            if size != first:
                problems.add(
                    row,
                    f"{size[0]} × {size[1]} pixels of the mask's grid, the first row has "
                    f"{first}: set crop, or batch_size: 1.",
                )

    def _layer(self, name: str, rows: Sequence[int]) -> Layer:
        source = self.rasters[name]
        files = {self.names[r]: source.files.path(r) for r in rows if source.files.readable(r)}
        ratio: Fraction = self.ratios[name]
        return Layer(
            source.files.column, files, source.bands, source.gsd, ratio, source.options.nodata
        )

    def _target_layer(self, rows: Sequence[int]) -> Layer:
        assert self.mask is not None
        files = {self.names[row]: self.mask.files.path(row) for row in rows}
        layer = Layer(self.mask.files.column, files, self.mask.bands, self.gsd)
        return replace(layer, nodata=self.mask.options.nodata)

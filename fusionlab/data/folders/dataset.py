"""Samples of a data set in folders: whole files, random crops, or a grid of windows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fusionlab.data.folders.reading import Extent, ImageReader, TargetReader
from fusionlab.data.folders.tiles import Tile
from fusionlab.data.raster.crops import Handles
from fusionlab.data.raster.windows import starts
from fusionlab.data.samples import Sample, Transform
from fusionlab.errors import InputError


class FolderDataset(Dataset[Sample]):
    """Windows of tiles: tile by tile, row by row.

    Every tile gives as many samples as windows of this size are needed to cover it. They lie on a
    regular grid inside the tile, the last ones moved inwards; of an evaluation, what an earlier
    window has covered already is then unknown in the target, so that every pixel counts once. In
    training each is somewhere else in the tile every time. A target that is one value per sample is
    always that of the whole window.

    Args:
        tiles: what to read.
        images: how every modality is read.
        target: how the target is read; None leaves it out.
        crop: rows and columns of a window on the grid of the target; None takes whole tiles.
        overlap: pixels that neighbouring windows share.
        step: windows start at multiples of so many pixels, so that coarser images have whole ones.
        at: whether windows lie on the ``grid`` or at ``random``.
        placed: whether to say where a prediction belongs on the ground.
        maps: whether predictions are maps, which those of a tile's windows make together; otherwise
            each is of a window by itself.
        transforms: applied to each sample in this order.

    Attributes:
        lengths: number of samples per tile.

    Raises:
        InputError: if a prediction has no grid to lie on.
    """

    def __init__(
        self,
        tiles: Sequence[Tile],
        images: Mapping[str, ImageReader],
        target: TargetReader | None,
        *,
        crop: int | None = None,
        overlap: int = 0,
        step: int = 1,
        at: Literal["grid", "random"] = "grid",
        placed: bool = False,
        maps: bool = True,
        transforms: Sequence[Transform] = (),
    ) -> None:
        self.tiles = list(tiles)
        self.images = dict(images)
        self.target = target
        self.crop = crop
        self.stride = None if crop is None else crop - overlap
        self.step = step
        self.at = at
        self.placed = placed
        self.maps = maps
        self.transforms = tuple(transforms)
        self._handles = Handles()
        if placed:
            for tile in self.tiles:
                self._laying(tile)
        self.lengths = [len(self._starts(t.height)) * len(self._starts(t.width)) for t in tiles]
        self._ends = list(accumulate(self.lengths))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Sample:
        """Reads one window.

        Raises:
            InputError: if a file cannot be used; names it.
        """
        return self.window(*self.locate(index))

    def locate(self, index: int) -> tuple[int, Extent, tuple[int, int]]:
        """Where a sample lies; at random, each time somewhere else.

        Returns:
            The number of its tile, its window there, and how many of its first rows and columns
            earlier windows have covered.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"There are {len(self)} samples, no sample {index}.")
        number = bisect_right(self._ends, index)
        tile = self.tiles[number]
        rows, columns = self._starts(tile.height), self._starts(tile.width)
        step = index - (self._ends[number] - self.lengths[number])
        i, j = divmod(step, len(columns))
        return number, *self._extent(tile, rows, columns, i, j)

    def window(self, number: int, extent: Extent, seen: tuple[int, int]) -> Sample:
        """Reads a window that `locate` found.

        Raises:
            InputError: if a file cannot be used; names it.
        """
        tile = self.tiles[number]
        whole = self.crop is None
        sample: Sample = {
            "inputs": {},
            "available": {},
            "sample_id": tile.name if whole else f"{tile.name}_{extent.row}_{extent.column}",
        }
        for name, reader in self.images.items():
            file = tile.images.get(name)
            values = None if file is None else reader.read(self._handles, file, extent)
            sample["available"][name] = torch.tensor(values is not None)
            sample["inputs"][name] = reader.blank(extent) if values is None else values
        if self.target is not None:
            assert tile.target is not None
            target = self.target.read(self._handles, tile.target, extent)
            if self.target.pixelwise:
                target[..., : seen[0], :] = self.target.unknown
                target[..., : seen[1]] = self.target.unknown
            sample["target"] = target
        if self.placed:
            sample["placement"] = self._placement(tile, extent)
        for transform in self.transforms:
            sample = transform(sample)
        return sample

    def _starts(self, length: int) -> list[int]:
        if self.crop is None or self.stride is None:
            return [0]
        return starts(length, window=self.crop, stride=self.stride)

    def _extent(
        self, tile: Tile, rows: list[int], columns: list[int], i: int, j: int
    ) -> tuple[Extent, tuple[int, int]]:
        """A window, and how many of its first rows and columns earlier windows have covered."""
        if self.crop is None or self.stride is None:
            return Extent(0, 0, tile.height, tile.width), (0, 0)
        size = self.crop
        if self.at == "random":
            row, column = (self._anywhere(length) for length in (tile.height, tile.width))
            return Extent(row, column, size, size), (0, 0)
        seen = tuple(
            max(at[k - 1] + size - at[k], 0) if k else 0 for at, k in ((rows, i), (columns, j))
        )
        return Extent(rows[i], columns[j], size, size), (seen[0], seen[1])

    def _anywhere(self, length: int) -> int:
        assert self.crop is not None
        return int(torch.randint((length - self.crop) // self.step + 1, ())) * self.step

    def _placement(self, tile: Tile, extent: Extent) -> dict[str, str | Tensor]:
        name = self._laying(tile)
        reader = self.images[name]
        window = extent.scaled(reader.ratio)
        rows, columns = int(window.height), int(window.width)
        placement: dict[str, str | Tensor] = {
            "source": tile.images[name].path,
            "window": torch.tensor([int(window.row_off), int(window.col_off), rows, columns]),
            "shape": torch.tensor([rows, columns]),
            "gsd": torch.tensor(reader.modality.gsd),
        }
        if self.stride is not None and self.maps:
            placement["stride"] = torch.tensor([int(self.stride / reader.ratio)] * 2)
        return placement

    def _laying(self, tile: Tile) -> str:
        """The modality whose file lays the grid of a prediction.

        Its pixels are as large as the target's or, where no modality has such, the finest.

        Raises:
            InputError: if the tile has no file of such pixels.
        """
        ratios = {name: reader.ratio for name, reader in self.images.items()}
        ratio = Fraction(1) if Fraction(1) in ratios.values() else min(ratios.values())
        fitting = [name for name in self.images if ratios[name] == ratio]
        for name in fitting:
            if name in tile.images:
                return name
        raise InputError(
            f"The place {tile.name!r} has no file of {fitting}, on whose pixels predictions are "
            "written. Leave it out of the split to predict."
        )

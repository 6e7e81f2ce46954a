"""Samples of BigEarthNet: the modalities of one patch, and its target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from fusionlab.data.bigearthnet import constants
from fusionlab.data.bigearthnet.grid import stack
from fusionlab.data.bigearthnet.index import Patches
from fusionlab.data.bigearthnet.names import Sensor
from fusionlab.data.bigearthnet.options import Recipe, sensor_of
from fusionlab.data.bigearthnet.sources import GeoTiffFolders, Source, bands_of
from fusionlab.data.bigearthnet.targets import Target
from fusionlab.data.samples import Sample, Transform
from fusionlab.types import Placement


@dataclass(eq=False)
class BigEarthNetDataset(Dataset[Sample]):
    """One sample per patch.

    Attributes:
        patches: what to read.
        source: where from.
        recipes: which modalities to make of which bands.
        present: per sensor that any recipe needs, ``(N,)`` bool: which patches have it.
        target: reads targets; None leaves them out.
        placed: whether samples say where they lie; needs GeoTIFFs.
        transforms: applied to each sample in this order.
    """

    patches: Patches
    source: Source
    recipes: Sequence[Recipe]
    present: Mapping[Sensor, NDArray[np.bool_]]
    target: Target | None = None
    placed: bool = False
    transforms: Sequence[Transform] = ()
    _bands: dict[Sensor, list[str]] = field(init=False)
    _gsd: int = field(init=False)

    def __post_init__(self) -> None:
        wanted = [band for recipe in self.recipes for band in recipe.bands]
        # Bands that several modalities share are read once.
        self._bands = {sensor: bands_of(sensor, wanted) for sensor in self.present}
        self._gsd = min(constants.GSD[band] for band in wanted)

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> Sample:
        """Reads one patch.

        Raises:
            InputError: if a file or key cannot be used; names it.
        """
        pixels: dict[str, NDArray[Any]] = {}
        for sensor, bands in self._bands.items():
            if self.present[sensor][index]:
                name = self.patches.names(sensor)[index].as_py()
                arrays = self.source.read(sensor, name, bands)
                pixels.update(zip(bands, arrays, strict=True))
        inputs, available = {}, {}
        for recipe in self.recipes:
            there = all(band in pixels for band in recipe.bands)
            if there:
                channels = [pixels[band] for band in recipe.bands]
                image = stack(channels, recipe.size, recipe.dtype, upsampling=recipe.upsampling)
            else:
                image = np.zeros((len(recipe.bands), recipe.size, recipe.size), recipe.dtype)
            inputs[recipe.name] = torch.from_numpy(image)
            available[recipe.name] = torch.tensor(there)
        sample: Sample = {
            "inputs": inputs,
            "available": available,
            "sample_id": self.patches.name(index),
        }
        if self.target is not None:
            sample["target"] = self.target(self.patches, index)
        if self.placed:
            sample["placement"] = self._placement(index)
        for transform in self.transforms:
            sample = transform(sample)
        return sample

    def _placement(self, index: int) -> Placement:
        assert isinstance(self.source, GeoTiffFolders)
        optical = "S2" in self.present and bool(self.present["S2"][index])
        sensor: Sensor = "S2" if optical else "S1"
        size = constants.PATCH_METRES // self._gsd
        # One grid for all patches: where the sensor's delivered bands are coarser, another band's.
        band = next(
            band
            for band in (*self._bands[sensor], *constants.BANDS)
            if sensor_of(band) == sensor and constants.GSD[band] == self._gsd
        )
        path = self.source.path(sensor, self.patches.names(sensor)[index].as_py(), band)
        return {
            # Collation makes the list of them.
            "source": path,  # type: ignore[typeddict-item]
            "window": torch.tensor([0, 0, size, size]),
            "shape": torch.tensor([size, size]),
            "gsd": torch.tensor(float(self._gsd)),
        }

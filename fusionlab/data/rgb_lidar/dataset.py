"""Samples of RGB and LiDAR pairs, from files or from memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fusionlab.data.rgb_lidar.index import Pairs, Sensor
from fusionlab.data.rgb_lidar.loading import Loader, dtype_of
from fusionlab.data.samples import Sample, Transform


@dataclass(eq=False)
class RgbLidarDataset(Dataset[Sample]):
    """One sample per pair.

    Attributes:
        pairs: what there is.
        loader: reads files.
        sensors: which of them to deliver.
        cached: per sensor all that the loader would give, ``(N, 4, size, size)``; empty to read a
            file whenever it is asked for. Worker processes share this memory: those that are forked
            have the pages of their parent, others are handed the tensors through shared memory.
        targets: whether samples have a target, the index of their folder.
        transforms: applied to each sample in this order.
    """

    pairs: Pairs
    loader: Loader
    sensors: Sequence[Sensor]
    cached: dict[Sensor, Tensor] = field(default_factory=dict)
    targets: bool = True
    transforms: Sequence[Transform] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """One pair: ``(4, size, size)`` uint8 of RGB, float32 of LiDAR.

        Raises:
            InputError: if a file cannot be read; names it.
        """
        inputs, available = {}, {}
        for sensor in self.sensors:
            there = bool(self.pairs.present[sensor][index])
            inputs[sensor] = self._values(sensor, index, there=there)
            available[sensor] = torch.tensor(there)
        sample: Sample = {
            "inputs": inputs,
            "available": available,
            "sample_id": self.pairs.name(index),
        }
        if self.targets:
            sample["target"] = torch.tensor(int(self.pairs.folder[index]))
        for transform in self.transforms:
            sample = transform(sample)
        return sample

    def _values(self, sensor: Sensor, index: int, *, there: bool) -> Tensor:
        if sensor in self.cached:
            return self.cached[sensor][index]
        if there:
            return self.loader.one(self.pairs, sensor, index)
        size = self.loader.size
        return torch.zeros((4, size, size), dtype=dtype_of(sensor))

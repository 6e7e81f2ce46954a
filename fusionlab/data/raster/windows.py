"""Where windows lie on a raster, and which process maps which rasters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from torch.utils.data import Dataset, DistributedSampler


def starts(length: int, *, window: int, stride: int) -> list[int]:
    """First pixels of windows that cover an axis, all inside it, the last one moved inwards.

    An axis shorter than a window has one window, which sticks out.
    """
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def grid_starts(length: int, *, window: int, stride: int) -> list[int]:
    """First pixels of windows that cover an axis, all multiples of the stride.

    The last window may stick out: its neighbours' places are kept, so that the windows of a raster
    are the pixels of a coarser one.
    """
    return [*range(0, max(length - window, 0) + stride, stride)]


class WholeSources(DistributedSampler[Any]):
    """Gives every process whole rasters, largest first to whoever has least to do.

    The windows of a raster stay together and in order, so that a map is written by one process as
    a stream. Being a distributed sampler, it is not replaced by Lightning.

    Args:
        dataset: the samples.
        lengths: how many consecutive samples belong to each source.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self, dataset: Dataset[Any], lengths: Sequence[int], *, rank: int, world_size: int
    ) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False)
        load = [0] * world_size
        mine = []
        for source in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
            idle = load.index(min(load))
            load[idle] += lengths[source]
            if idle == rank:
                mine.append(source)
        first = [0, *accumulate(lengths)]
        self.indices = [
            index for source in sorted(mine) for index in range(first[source], first[source + 1])
        ]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

"""Flips and turns, the symmetries of the square."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fusionlab.data.samples import Sample
from fusionlab.data.transforms.base import SampleTransform, is_map
from fusionlab.types import TimeSeries


class D4(NamedTuple):
    """A symmetry of the square: maybe a flip from left to right, then turns by 90 degrees.

    Attributes:
        turns: anticlockwise quarter turns, 0 to 3.
        flip: whether columns are reversed before turning.
    """

    turns: int = 0
    flip: bool = False

    @property
    def inverse(self) -> D4:
        """What undoes it. A flip followed by turns is its own inverse."""
        return self if self.flip else D4(-self.turns % 4)

    def image(self, tensor: Tensor) -> Tensor:
        """Moves the pixels of a tensor ``(..., H, W)`` in the CPU's memory; gives a copy."""
        # NumPy moves uint16 in every release, and on one thread: PyTorch's own threads cost more
        # than they save where several processes read samples.
        array = tensor.numpy()
        if self.flip:
            array = array[..., ::-1]
        return torch.from_numpy(np.rot90(array, self.turns, axes=(-2, -1)).copy())

    def offset(self, offset: Tensor) -> Tensor:
        """Moves a vector ``(..., 2)`` of rows and columns that starts in the centre."""
        row, col = offset.unbind(-1)
        if self.flip:
            col = -col
        for _ in range(self.turns):
            row, col = -col, row
        return torch.stack((row, col), dim=-1)

    def __call__(self, sample: Sample) -> Sample:
        """Moves all that is spatial in a sample: images, series, cloud cover, offsets, target.

        Texts, tables and labels of whole samples stay as they are.
        """
        moved = dict(sample)
        moved["inputs"] = {name: self._input(value) for name, value in sample["inputs"].items()}
        for key, move in (("cloud_cover", self.image), ("offset", self.offset)):
            if key in sample:
                moved[key] = {name: move(value) for name, value in sample[key].items()}
        if "target" in sample and is_map(sample["target"]):
            moved["target"] = self.image(sample["target"])
        return moved

    def _input(self, value: Tensor | TimeSeries | str) -> Tensor | TimeSeries | str:
        if isinstance(value, TimeSeries):
            return value._replace(values=self.image(value.values)) if is_map(value) else value
        return self.image(value) if isinstance(value, Tensor) and is_map(value) else value


class RandomD4(SampleTransform):
    """Flips and turns a sample at random, all of it together, each part at its own resolution.

    Every symmetry that the arguments allow is equally likely. Where any part is not square, turns
    by 90 degrees would change its shape, and with it the batch: then only flips and turns by 180
    degrees are drawn. (The FLAIR #2 baseline turns the aerial image without the Sentinel-2 series.)

    Args:
        flips: reverse rows or columns.
        quarter_turns: turn by 90 degrees.
    """

    def __init__(self, *, flips: bool = True, quarter_turns: bool = True) -> None:
        self.flips = flips
        self.quarter_turns = quarter_turns

    def choices(self, *, square: bool) -> list[D4]:
        """The symmetries to draw from."""
        if self.quarter_turns and square:
            turns = [0, 1, 2, 3]
        else:
            turns = [0, 2] if self.quarter_turns or self.flips else [0]
        flips = [False, True] if self.flips else [False]
        return [D4(turn, flip) for flip in flips for turn in turns]

    def __call__(self, sample: Sample) -> Sample:
        """A new sample; the one given is not changed."""
        choices = self.choices(square=_is_square(sample))
        return choices[int(torch.randint(len(choices), ()))](sample)


def _is_square(sample: Sample) -> bool:
    values = [*sample["inputs"].values(), *sample.get("cloud_cover", {}).values()]
    if "target" in sample:
        values.append(sample["target"])
    maps = [v.values if isinstance(v, TimeSeries) else v for v in values if is_map(v)]
    return all(m.shape[-1] == m.shape[-2] for m in maps)

"""What several decoders are made of: convolutions with normalisation, and changes of size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionlab.errors import InputError
from fusionlab.norms import BatchNorm2d


def conv_norm_relu(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """Convolution that keeps the size, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        BatchNorm2d(outputs),
        nn.ReLU(),
    )


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resampling of ``(B, C, h, w)`` to ``(B, C, *size)``."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def grow(maps: Tensor, rows: int, columns: int) -> Tensor:
    """Repeats the bottom and right edges of ``(B, C, h, w)`` until it has this size or more.

    Built from copies, because the padding by replication has no deterministic algorithm on CUDA.
    """
    for axis, wanted in ((-2, rows), (-1, columns)):
        size = maps.shape[axis]
        if size < wanted:
            edge = maps.narrow(axis, size - 1, 1)
            maps = torch.cat([maps, edge.repeat_interleave(wanted - size, axis)], axis)
    return maps


def checked_index(index: int, number: int, *, where: str) -> int:
    """A position among `number` maps, counted from the front.

    Raises:
        InputError: if there is no such map.
    """
    if not -number <= index < number:
        raise InputError(
            f"{where} has index {index}, but gets {number} map(s): use 0 to {number - 1}, or "
            f"-1 to {-number} from the end."
        )
    return index % number


def counts(values: Any, *, where: str) -> list[int]:  # noqa: ANN401
    """Numbers of channels (of cells, of pixels…), one per layer.

    Raises:
        InputError: unless it is a list of integers of at least 1.
    """
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError(f"{where} is a list of integers, got {values!r}.")
    return [count(value, where=where) for value in values]


def count(value: Any, *, where: str) -> int:  # noqa: ANN401
    """A number of channels (of cells, of pixels…).

    Raises:
        InputError: unless it is an integer of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{where} must be an integer of 1 or more, got {value!r}.")
    return value

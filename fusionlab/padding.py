"""Growing images at their bottom and right edges, so that any size fits a network's grid."""

from __future__ import annotations

import torch
from torch import Tensor


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pads ``(..., H, W)`` at the bottom and the right until both sizes divide by `multiple`."""
    height, width = images.shape[-2:]
    return pad_bottom_right(images, -height % multiple, -width % multiple)


def pad_bottom_right(images: Tensor, bottom: int, right: int) -> Tensor:
    """Pads ``(..., H, W)`` by reflection, or by repeating the edge where there is too little.

    Built from copies instead of `torch.nn.functional.pad`, whose reflection takes neither more than
    four axes nor (on CUDA) deterministic algorithms.
    """
    return _extend(_extend(images, bottom, -2), right, -1)


def _extend(images: Tensor, amount: int, axis: int) -> Tensor:
    if amount == 0:
        return images
    size = images.shape[axis]
    if amount < size:
        tail = images.narrow(axis, size - 1 - amount, amount).flip(axis)
    else:
        tail = images.narrow(axis, size - 1, 1).repeat_interleave(amount, axis)
    return torch.cat([images, tail], axis)

"""Two tensors that become one: interpolated, taken from either, or pasted into each other."""

from __future__ import annotations

import torch
from torch import Tensor


def of_larger_share(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Each sample from the one that has the larger share; of two halves, the sample itself.

    Args:
        own: ``(B, ...)``.
        other: what the partners have, of the same shape and type.
        share: ``(B,)``, of `own`.
    """
    return torch.where(per_sample(share, own) >= 0.5, own, other)


def blended(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """The sum of two tensors by their shares.

    What is no finite number in one of them, and codes, come from the one of the larger share.

    Args:
        own: ``(B, ...)``.
        other: what the partners have, of the same shape and type.
        share: ``(B,)``, of `own`; 1 gives exactly `own`.
    """
    either = of_larger_share(own, other, share)
    if not own.is_floating_point():
        return either
    part = per_sample(share, own)
    between = own.isfinite() & other.isfinite() & (part < 1)
    return torch.where(between, part * own + (1 - part) * other, either)


def pasted(own: Tensor, other: Tensor, window: Tensor) -> Tensor:
    """Pixels of one tensor within windows of the other.

    Args:
        own: ``(B, ..., H, W)``.
        other: what the partners have, of the same shape and type.
        window: ``(B, 4)`` int64: first row, end of rows, first column, end of columns; an empty one
            changes nothing.
    """
    rows, columns = (torch.arange(n, device=own.device) for n in own.shape[-2:])
    top, bottom, left, right = (edge[:, None] for edge in window.unbind(dim=1))
    down = (rows >= top) & (rows < bottom)
    across = (columns >= left) & (columns < right)
    inside = down[:, :, None] & across[:, None, :]
    shape = (len(own), *[1] * (own.ndim - 3), *inside.shape[1:])
    return torch.where(inside.reshape(shape), other, own)


def per_sample(share: Tensor, like: Tensor) -> Tensor:
    """``(B,)`` as ``(B, 1, ...)`` with as many axes as another tensor."""
    return share.reshape(-1, *[1] * (like.ndim - 1))

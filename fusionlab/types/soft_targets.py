"""Soft targets: shares of exclusive classes in the place of the index of the right one."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionlab.types.batch import IGNORE_INDEX


def is_soft(target: Tensor) -> bool:
    """Whether a target of exclusive classes holds shares, not indices."""
    return target.is_floating_point()


def known_shares(target: Tensor) -> Tensor:
    """Where a soft target says something.

    Args:
        target: shares ``(B, K, ...)``, which sum to 1, and to 0 where nothing is known.

    Returns:
        Bool ``(B, ...)``.
    """
    return target.sum(dim=1) > 0


def soft_target(target: Tensor, num_classes: int) -> Tensor:
    """The shares of classes that a target means; one that is soft already as it is.

    Args:
        target: class indices ``(B, ...)``, or `IGNORE_INDEX`.
        num_classes: K.

    Returns:
        Float32 ``(B, K, ...)``: 1 for the right class, 0 for all others and where it is unknown.
    """
    if is_soft(target):
        return target
    shape = (len(target), num_classes + 1, *target.shape[1:])
    index = target.masked_fill(target == IGNORE_INDEX, num_classes).long()
    shares = torch.zeros(shape, device=target.device).scatter_(1, index[:, None], 1.0)
    return shares[:, :num_classes]


def largest_share(target: Tensor) -> Tensor:
    """The class of the largest share, the first of several; indices are given back as they are.

    Args:
        target: shares ``(B, K, ...)``, or class indices ``(B, ...)``.

    Returns:
        Class indices ``(B, ...)``, `IGNORE_INDEX` where nothing is known.
    """
    if not is_soft(target):
        return target
    return target.argmax(dim=1).masked_fill(~known_shares(target), IGNORE_INDEX)

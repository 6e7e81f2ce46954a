"""Which samples of a batch stand in for those that statistics over the batch must not see."""

from __future__ import annotations

import torch
from torch import Tensor


def stand_ins(available: Tensor) -> Tensor:
    """For each sample, itself where it is there, and one of those that are where it is not.

    Those that are there take turns, so that each stands in equally often, give or take one. Where
    none is there, every sample stays itself.

    Args:
        available: ``(B,)`` bool.

    Returns:
        ``(B,)`` int64, indices into the batch.
    """
    itself = torch.arange(len(available), device=available.device)
    first_those_there = (~available).long().argsort(stable=True)
    turn = (~available).cumsum(dim=0) - 1  # of a missing sample, among the missing ones
    turn = turn.clamp(min=0) % available.sum().clamp(min=1)
    return torch.where(available | ~available.any(), itself, first_those_there[turn])

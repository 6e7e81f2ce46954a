"""Shares of the experts per channel and pixel, from multi-scale channel attention.

Dai et al., "Attentional Feature Fusion", WACV 2021, arXiv 2009.14082, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.fusion.features.base import softmax_over_available
from fusionlab.fusion.ms_cam import MSCAM
from fusionlab.fusion.stand_ins import stand_ins


class AttentionShares(nn.Module):
    """A softmax over the experts of scores that `MSCAM` reads off what they have in common.

    Every expert but the last has an `MSCAM` of its own, the last one's score is 0. Of two experts
    the first one's share is thus the published ``sigmoid(L(x) + G(x))``, and the second one's the
    rest. Vectors are taken for maps of a single cell.

    In training, samples with fewer than two experts, whose shares are not decided here, are not
    seen by batch normalisation: others of the batch stand in, unless there are fewer than two.

    Args:
        experts: number of them, 2 or more.
        channels: C of the features.
        reduction: the bottleneck of an `MSCAM` has ``max(C // reduction, 1)`` channels.
        where: the operator, for error messages.

    Raises:
        InputError: if `reduction` is less than 1.
    """

    def __init__(self, experts: int, channels: int, *, reduction: int, where: str) -> None:
        super().__init__()
        if reduction < 1:
            raise InputError(f"{where} reduction must be 1 or more, got {reduction}.")
        self.branches = nn.ModuleList(
            MSCAM(channels, reduction=reduction) for _ in range(experts - 1)
        )

    def forward(self, context: Tensor, available: Tensor) -> Tensor:
        """Shares in [0, 1], which sum to 1 over the experts.

        Args:
            context: ``(B, C)`` or ``(B, C, H, W)``, what the scores are read off.
            available: ``(M, B)`` bool.

        Returns:
            ``(M, *context.shape)``; 0 for experts that are missing, equal where none is there.
        """
        maps = context[..., None, None] if context.ndim == 2 else context
        if self.training:
            decided = available.sum(dim=0) > 1
            enough = decided.sum() > 1  # copies of a single sample have no variance
            maps = maps.index_select(0, stand_ins(decided & enough))
        scores = [branch.scores(maps) for branch in self.branches]  # type: ignore[operator]
        stacked = torch.stack([*scores, torch.zeros_like(scores[0])])
        return softmax_over_available(stacked.reshape(-1, *context.shape), available)

"""Attentional fusion of decisions.

Dai et al., "Attentional Feature Fusion", WACV 2021, arXiv 2009.14082, in the paper's convex form
(the released code multiplies by 2), applied to logits instead of features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.fusion.base import Fused, Fusion
from fusionlab.fusion.ms_cam import MSCAM
from fusionlab.fusion.pointwise import as_maps


class Attentional(Fusion):
    """A convex combination of the logits with weights from multi-scale channel attention.

    Each modality but the last has an `MSCAM` over the sum of all logits; the weights are the
    softmax over modalities of their scores, the last one's fixed at 0. With two modalities that is
    ``m * first + (1 - m) * second`` with ``m = MSCAM(first + second)``.

    Args:
        modalities: names.
        classes: class names.
        reduction: the attention's bottleneck has ``max(K // reduction, 1)`` channels.

    Raises:
        InputError: if ``reduction`` is less than 1.
    """

    def __init__(
        self, modalities: Sequence[str], classes: Sequence[str], *, reduction: int = 16
    ) -> None:
        super().__init__(modalities, classes)
        if reduction < 1:
            raise InputError(f"Attentional reduction must be 1 or more, got {reduction}.")
        self.attention = nn.ModuleList(
            MSCAM(len(self.classes), reduction=reduction) for _ in self.modalities[1:]
        )

    def fuse(self, logits: Tensor, available: Tensor, cloud_cover: Mapping[str, Tensor]) -> Fused:
        """See `Fusion.fuse`."""
        total = as_maps(logits).sum(dim=0)  # missing modalities are zeros
        scores = [attention.scores(total) for attention in self.attention]  # type: ignore[operator]
        stacked = torch.stack([*scores, torch.zeros_like(scores[0])])
        return self.weighted_sum(logits, stacked.reshape(logits.shape), available)

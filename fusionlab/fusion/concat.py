"""Stacked logits and a small convolutional head: stacked generalisation on maps.

Wolpert, "Stacked generalization", Neural Networks 5(2), 1992: a second learner over the first ones'
decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor

from fusionlab.fusion.base import Fused, Fusion
from fusionlab.fusion.pointwise import as_maps, bottleneck


class Concat(Fusion):
    """Two 1x1 convolutions over the concatenated logits of all modalities.

    Free to mix classes, so there are no weights of modalities to read. Where a modality is missing,
    the mean of the others stands in for it; where only one is there, its logits pass unchanged.

    Args:
        modalities: names.
        classes: class names.
    """

    def __init__(self, modalities: Sequence[str], classes: Sequence[str]) -> None:
        super().__init__(modalities, classes)
        channels = len(self.modalities) * len(self.classes)
        self.head = bottleneck(channels, channels, len(self.classes))

    def fuse(self, logits: Tensor, available: Tensor, cloud_cover: Mapping[str, Tensor]) -> Fused:
        """See `Fusion.fuse`."""
        maps = as_maps(logits)
        there = available[:, :, None, None, None]
        count = there.sum(dim=0)
        total = maps.sum(dim=0)  # missing modalities are zeros
        filled = torch.where(there, maps, total / count.clamp_min(1))
        fused = self.head(rearrange(filled, "m b k h w -> b (m k) h w"))
        return Fused(torch.where(count <= 1, total, fused).reshape(logits.shape[1:]))

"""The sum of linear projections: a linear layer over all features, one block per expert."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusionlab.fusion.features.base import FeatureOperator, FusedFeatures, keep_available
from fusionlab.fusion.features.channel_linear import ChannelLinear, common_width


class Projection(FeatureOperator):
    """Every expert's features pass a linear layer of their own to a common width, and are summed.

    Where ``n`` of ``M`` experts are there, their sum is multiplied by ``M / n``, so that what comes
    after sees magnitudes as in training with all.

    Args:
        channels: per expert, the width of its features.
        width: width of the result; that of the widest expert if not given.

    Raises:
        InputError: if `width` is less than 1.
    """

    def __init__(self, channels: Mapping[str, int], *, width: int | None = None) -> None:
        super().__init__(channels)
        self.channels_out = common_width(width, list(self.channels.values()), where="Projection")
        self.projections = nn.ModuleDict(
            {name: ChannelLinear(own, self.channels_out) for name, own in self.channels.items()}
        )

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """See `FeatureOperator.fuse`."""
        projected = torch.stack([self.projections[name](features[name]) for name in self.channels])
        total = keep_available(projected, available).sum(dim=0)
        scale = len(self.channels) / available.sum(dim=0).clamp(min=1)
        return FusedFeatures(total * scale.to(total.dtype).reshape(-1, *[1] * (total.ndim - 1)))

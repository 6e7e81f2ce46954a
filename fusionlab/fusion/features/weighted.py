"""A weighted mean of features with one weight per expert, learned or given."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusionlab.fusion.features.base import (
    FeatureOperator,
    FusedFeatures,
    keep_available,
    softmax_over_available,
)
from fusionlab.fusion.features.channel_linear import ChannelLinear
from fusionlab.fusion.options import modality_shares


class Weighted(FeatureOperator):
    """A convex combination of the experts' features, each at the width of the widest.

    Features that are narrower than the widest pass a linear layer, the others come as they are. The
    weights are the softmax over experts of the parameter ``weight (M,)``, which begins equal; with
    only one expert there, its features come out alone.

    Args:
        channels: per expert, the width of its features.
        weights: fixed weights instead of learned ones: non-negative, one per expert, by name or in
            their order; normalised to sum 1. One of weight 0 still answers where it is alone.

    Raises:
        InputError: if there is not exactly one weight per expert, one is negative, or their sum is
            0.
    """

    log_weights: Tensor
    weight: nn.Parameter | None

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        weights: dict[str, float] | list[float] | None = None,
    ) -> None:
        super().__init__(channels)
        width = self.channels_out = max(self.channels.values())
        self.projections = nn.ModuleDict(
            {
                name: ChannelLinear(own, width) if own < width else nn.Identity()
                for name, own in self.channels.items()
            }
        )
        m = len(self.channels)
        if weights is None:
            self.weight = nn.Parameter(torch.full((m,), 1 / m))
        else:
            shares = torch.tensor(
                modality_shares(weights, list(self.channels), where="Weighted weights")
            )
            # Not log(0) = -inf: an expert of weight 0 that is alone must get all of the weight.
            log_weights = shares.clamp_min(torch.finfo(shares.dtype).tiny).log()
            self.register_buffer("log_weights", log_weights, persistent=False)
            self.register_parameter("weight", None)

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """See `FeatureOperator.fuse`."""
        projected = torch.stack([self.projections[name](features[name]) for name in self.channels])
        scores = self.log_weights if self.weight is None else self.weight
        scores = scores.reshape(-1, *[1] * (projected.ndim - 1))
        shares = softmax_over_available(scores, available)
        # A projection has a bias, which speaks for a missing expert too, where none is there.
        fused = (shares * keep_available(projected, available)).sum(dim=0)
        return FusedFeatures(fused, dict(zip(self.channels, shares, strict=True)))

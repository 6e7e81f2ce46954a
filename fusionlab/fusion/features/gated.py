"""Gated multimodal units.

Arevalo et al., "Gated Multimodal Units for Information Fusion", 2017, arXiv 1702.01992, section
3.1. For more than two experts the paper gives each a sigmoid of its own; here a softmax over the
experts goes on where the sigmoid of two ends, so that the gates are shares whatever their number.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from fusionlab.fusion.features.base import FeatureOperator, FusedFeatures, softmax_over_available
from fusionlab.fusion.features.channel_linear import ChannelLinear, common_width


class Gated(FeatureOperator):
    """Every channel of the result is a mixture of the experts', in shares that the sample decides.

    Every expert's features pass a linear layer and tanh: ``h_m = tanh(W_m x_m)``. The gates are a
    softmax over the experts of scores that one linear layer reads off all features together, the
    last expert's score fixed at 0. With two experts that is ``z * h_1 + (1 - z) * h_2`` with
    ``z = sigmoid(W_z [x_1; x_2])``. No layer has a bias, as published. Gates begin equal. On maps
    there is a gate per pixel.

    Args:
        channels: per expert, the width of its features.
        width: width of the result; that of the widest expert if not given.

    Raises:
        InputError: if `width` is less than 1.
    """

    def __init__(self, channels: Mapping[str, int], *, width: int | None = None) -> None:
        super().__init__(channels)
        widths = list(self.channels.values())
        self.channels_out = common_width(width, widths, where="Gated")
        self.projections = nn.ModuleDict(
            {
                name: ChannelLinear(own, self.channels_out, bias=False)
                for name, own in self.channels.items()
            }
        )
        scores = (len(widths) - 1) * self.channels_out
        self.gate = ChannelLinear(sum(widths), scores, bias=False)
        nn.init.zeros_(self.gate.weight)

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """See `FeatureOperator.fuse`. The weights are the means of the gates over the channels."""
        # Those that are missing are zeros, here and, without a bias, behind their layer.
        hidden = torch.stack(
            [self.projections[name](features[name]) for name in self.channels]
        ).tanh()
        everything = torch.cat([features[name] for name in self.channels], dim=1)
        scores = rearrange(self.gate(everything), "b (m d) ... -> m b d ...", d=self.channels_out)
        scores = torch.cat([scores, torch.zeros_like(scores[:1])])
        gates = softmax_over_available(scores, available)
        weights = gates.mean(dim=2, keepdim=True)
        return FusedFeatures(
            (gates * hidden).sum(dim=0), dict(zip(self.channels, weights, strict=True))
        )

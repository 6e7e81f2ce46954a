"""A learned query that attends over the experts.

Pooling by multihead attention with one seed vector, as in Lee et al., "Set Transformer: A Framework
for Attention-based Permutation-Invariant Neural Networks", ICML 2019, arXiv 1810.00825, section
3.2, without its feed-forward layers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.fusion.features.base import (
    FeatureOperator,
    FusedFeatures,
    keep_available,
    softmax_over_available,
)
from fusionlab.fusion.features.channel_linear import ChannelLinear, common_width


class Attention(FeatureOperator):
    """Weights that depend on the sample: one query attends over the projected features.

    Every expert's features pass a linear layer of their own to a common width, which also tells the
    experts apart. A learned query per head compares itself with their keys; missing experts are
    masked. On maps it attends at every pixel.

    Args:
        channels: per expert, the width of its features.
        width: width of the result, divisible by `heads`; that of the widest expert if not given.
        heads: attention heads, each with weights of its own; those returned are their mean.

    Raises:
        InputError: if `width` is less than 1 or does not divide by `heads`.
    """

    def __init__(
        self, channels: Mapping[str, int], *, width: int | None = None, heads: int = 4
    ) -> None:
        super().__init__(channels)
        width = common_width(width, list(self.channels.values()), where="Attention")
        if heads < 1 or width % heads:
            raise InputError(f"Attention width ({width}) must be divisible by heads ({heads}).")
        self.channels_out = width
        self.heads = heads
        self.projections = nn.ModuleDict(
            {name: ChannelLinear(own, width) for name, own in self.channels.items()}
        )
        self.query = nn.Parameter(torch.randn(heads, width // heads))
        # A bias of the keys would add the same to every expert's score, which the softmax ignores.
        self.key = ChannelLinear(width, width, bias=False)
        self.value = ChannelLinear(width, width)
        self.out = ChannelLinear(width, width)

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """See `FeatureOperator.fuse`."""
        m = len(self.channels)
        tokens = torch.cat([self.projections[name](features[name]) for name in self.channels])
        split = "(m b) (heads d) ... -> m b heads d ..."
        keys = rearrange(self.key(tokens), split, m=m, heads=self.heads)
        values = rearrange(self.value(tokens), split, m=m, heads=self.heads)
        scale = self.query.shape[1] ** -0.5
        scores = torch.einsum("h d, m b h d ... -> m b h ...", self.query * scale, keys)
        shares = softmax_over_available(scores, available)  # (M, B, heads, ...)
        attended = (shares.unsqueeze(3) * values).sum(dim=0)
        fused = self.out(rearrange(attended, "b heads d ... -> b (heads d) ..."))
        weights = shares.mean(dim=2, keepdim=True)
        return FusedFeatures(
            keep_available(fused, available.any(dim=0)),
            dict(zip(self.channels, weights, strict=True)),
        )

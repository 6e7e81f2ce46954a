"""Multiplicative interactions of all orders between experts, at low rank.

Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-specific Factors", ACL 2018, arXiv
1806.00064, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.fusion.features.base import FeatureOperator, FusedFeatures
from fusionlab.fusion.features.channel_linear import ChannelLinear, common_width
from fusionlab.fusion.features.hadamard import product_over_available


class LowRankBilinear(FeatureOperator):
    """A sum of products of linear layers: a weight for every combination of the experts' features.

    ``sum over r of prod over m of W_m^r [x_m; 1]``, which is a linear layer over the outer product
    of all experts' features, each with a 1 appended, whose weights are a tensor of rank `rank`. Of
    two experts that is bilinear; the 1 keeps the lower orders, down to each expert by itself. A
    missing expert is a factor of one, so that one expert alone comes out as the sum of its own
    layers. The order of the experts does not matter. On maps it acts at every pixel.

    Args:
        channels: per expert, the width of its features; widths may differ.
        width: width of the result; that of the widest expert if not given.
        rank: number of products that are summed; parameters are ``rank * width`` times the sum of
            all widths, each plus 1.

    Raises:
        InputError: if `width` or `rank` is less than 1.
    """

    def __init__(
        self, channels: Mapping[str, int], *, width: int | None = None, rank: int = 4
    ) -> None:
        super().__init__(channels)
        self.channels_out = common_width(
            width, list(self.channels.values()), where="LowRankBilinear"
        )
        if rank < 1:
            raise InputError(f"LowRankBilinear rank must be 1 or more, got {rank}.")
        self.factors = nn.ModuleDict(
            {
                name: ChannelLinear(own, rank * self.channels_out)
                for name, own in self.channels.items()
            }
        )

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """See `FeatureOperator.fuse`."""
        factors = torch.stack([self.factors[name](features[name]) for name in self.channels])
        products = product_over_available(factors, available)
        split = rearrange(products, "b (rank d) ... -> rank b d ...", d=self.channels_out)
        return FusedFeatures(split.sum(dim=0))

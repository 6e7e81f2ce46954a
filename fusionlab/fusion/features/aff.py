"""Attentional feature fusion (AFF).

Dai et al., "Attentional Feature Fusion", WACV 2021, arXiv 2009.14082, section 4.1. The paper's form
is a convex combination; the code released with it doubles that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor

from fusionlab.errors import InputError
from fusionlab.fusion.features.attention_shares import AttentionShares
from fusionlab.fusion.features.base import FusedFeatures
from fusionlab.fusion.features.common_width import CommonWidthOperator

Scale = Literal[1, 2]
"""By what two experts' convex combination is multiplied."""


class AFF(CommonWidthOperator):
    """A convex combination with shares from multi-scale channel attention over the sum.

    ``M(x + y) * x + (1 - M(x + y)) * y``, where M is an `MSCAM`. For more than two experts, each
    but the last has an `MSCAM` over the sum of all, and the shares are the softmax of their scores,
    the last one's fixed at 0, which for two is the same. Exchanging two experts exchanges their
    shares, so the order of the experts matters. Shares are renormalised over those that are there;
    one alone comes out as it is (or as its projection is).

    Batches of a single sample train, also as vectors (see `MSCAM`).

    Args:
        channels: per expert, the width of its features.
        width: width of the result, to which every expert's features pass a linear layer of their
            own. If not given, features must all have one width.
        reduction: the attention's bottleneck has ``max(width // reduction, 1)`` channels.
        scale: 1 is the paper's form: equal features come out as they are, and magnitudes do not
            depend on who is there. 2 is that of the released code, the magnitude of a sum: as many
            times as experts are there, twice for two.

    Raises:
        InputError: if widths differ and no `width` is given, `width` or `reduction` is less than 1,
            or `scale` is neither 1 nor 2.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        width: int | None = None,
        reduction: int = 4,
        scale: Scale = 1,
    ) -> None:
        super().__init__(channels, width=width)
        if scale not in get_args(Scale):
            raise InputError(
                f"AFF scale is 1 (as in the paper) or 2 (as in the code released with it), got "
                f"{scale}."
            )
        self.scale = scale
        self.attention = AttentionShares(
            len(self.channels), self.channels_out, reduction=reduction, where="AFF"
        )

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """See `FeatureOperator.fuse`. The weights are the means of the shares over the channels."""
        values = self.at_common_width(features, available)
        shares = self.attention(values.sum(dim=0), available)
        fused = (shares * values).sum(dim=0)
        if self.scale == 2:
            count = available.sum(dim=0).to(fused.dtype)
            fused = fused * count.reshape(-1, *[1] * (fused.ndim - 1))
        weights = shares.mean(dim=2, keepdim=True)
        return FusedFeatures(fused, dict(zip(self.channels, weights, strict=True)))

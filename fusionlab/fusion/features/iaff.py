"""Iterative attentional feature fusion (iAFF).

Dai et al., "Attentional Feature Fusion", WACV 2021, arXiv 2009.14082, section 4.2. The second pass
has attention of its own, locally and globally, as in the authors' code; a PyTorch port of it asks
the first pass's global branch again and leaves the second one's without a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fusionlab.fusion.features.attention_shares import AttentionShares
from fusionlab.fusion.features.base import FusedFeatures
from fusionlab.fusion.features.common_width import CommonWidthOperator


class IterativeAFF(CommonWidthOperator):
    """`AFF` whose attention looks at a first attentional fusion instead of at the sum.

    ``z = M1(x + y) * x + (1 - M1(x + y)) * y``, then ``M2(z) * x + (1 - M2(z)) * y``: the scores
    are not read off a mere sum, in which experts that contradict each other cancel out. More than
    two experts, their order, missing ones and batches of a single sample are as in `AFF`. The
    result is always a convex combination, as published and released.

    Args:
        channels: per expert, the width of its features.
        width: width of the result, to which every expert's features pass a linear layer of their
            own. If not given, features must all have one width.
        reduction: the attentions' bottlenecks have ``max(width // reduction, 1)`` channels.

    Raises:
        InputError: if widths differ and no `width` is given, or `width` or `reduction` is less than
            1.
    """

    def __init__(
        self, channels: Mapping[str, int], *, width: int | None = None, reduction: int = 4
    ) -> None:
        super().__init__(channels, width=width)
        self.first_attention, self.attention = (
            AttentionShares(
                len(self.channels), self.channels_out, reduction=reduction, where="IterativeAFF"
            )
            for _ in range(2)
        )

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """See `FeatureOperator.fuse`. The weights are the means of the second pass's shares."""
        values = self.at_common_width(features, available)
        first = (self.first_attention(values.sum(dim=0), available) * values).sum(dim=0)
        shares = self.attention(first, available)
        weights = shares.mean(dim=2, keepdim=True)
        return FusedFeatures(
            (shares * values).sum(dim=0), dict(zip(self.channels, weights, strict=True))
        )

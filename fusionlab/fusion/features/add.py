"""The sum of features: intermediate fusion at its plainest."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fusionlab.fusion.features.base import FusedFeatures
from fusionlab.fusion.features.common_width import CommonWidthOperator


class Add(CommonWidthOperator):
    """The sum of the features of the experts that are there.

    The order of the experts does not matter. One expert alone comes out as it is (or as its
    projection is); nothing is scaled up for those that are missing, which `Projection` does.

    Args:
        channels: per expert, the width of its features.
        width: width of the result, to which every expert's features pass a linear layer of their
            own. If not given, features must all have one width, and there are no parameters.

    Raises:
        InputError: if widths differ and no `width` is given, or it is less than 1.
    """

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """See `FeatureOperator.fuse`."""
        return FusedFeatures(self.at_common_width(features, available).sum(dim=0))

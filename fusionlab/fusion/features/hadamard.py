"""The product of features, value by value."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from fusionlab.fusion.features.base import FusedFeatures, keep_available
from fusionlab.fusion.features.common_width import CommonWidthOperator


class Hadamard(CommonWidthOperator):
    """The product, value by value, of the features of the experts that are there.

    A missing expert is a factor of one, so one expert alone comes out as it is (or as its
    projection is). The order of the experts does not matter. A value is large only where all
    experts' are: for embeddings that were not trained together, give a `width`.

    Args:
        channels: per expert, the width of its features.
        width: width of the result, to which every expert's features pass a linear layer of their
            own. If not given, features must all have one width, and there are no parameters.

    Raises:
        InputError: if widths differ and no `width` is given, or it is less than 1.
    """

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """See `FeatureOperator.fuse`."""
        return FusedFeatures(
            product_over_available(self.at_common_width(features, available), available)
        )


def product_over_available(factors: Tensor, available: Tensor) -> Tensor:
    """The product over the experts that are there; zeros where none is.

    Args:
        factors: ``(M, B, D, ...)``.
        available: ``(M, B)`` bool.

    Returns:
        ``(B, D, ...)``.
    """
    there = available.reshape(*available.shape, *[1] * (factors.ndim - 2))
    present = torch.where(there, factors, torch.ones_like(factors))
    # Not torch.prod, whose gradient looks for zeros in the data.
    return keep_available(reduce(torch.mul, present.unbind()), available.any(dim=0))

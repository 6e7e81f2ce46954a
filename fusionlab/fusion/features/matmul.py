"""The matrix product of feature maps, per channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from fusionlab.errors import InputError
from fusionlab.fusion.features.base import FusedFeatures
from fusionlab.fusion.features.common_width import CommonWidthOperator


class MatMul(CommonWidthOperator):
    """The matrix product, channel by channel, of the maps of the experts that are there.

    Every channel of a map is taken for a matrix of H rows and W columns, and the matrices are
    multiplied in the order of the experts, ``X_1 X_2 ... X_M``: another order is another result. A
    pixel of the result reads a whole row of the one and a whole column of the other map, so the
    result no longer lies on the grid of the images: it is for classifying whole samples, and
    refused for a target per pixel. A missing expert is left out of the product, so one alone comes
    out as it is (or as its projection is).

    Vectors are maps of a single cell, of which the matrix product is the product of values: there
    it is `Hadamard`.

    Args:
        channels: per expert, the width of its features.
        width: width of the result, to which every expert's features pass a linear layer of their
            own. If not given, features must all have one width, and there are no parameters.

    Raises:
        InputError: if widths differ and no `width` is given, or it is less than 1; when called, if
            maps have not as many rows as columns.
    """

    keeps_grid: ClassVar[bool] = False

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """See `FeatureOperator.fuse`."""
        values = self.at_common_width(features, available)
        maps = values.ndim == 5
        if maps and values.shape[-2] != values.shape[-1]:
            shapes = {name: tuple(features[name].shape) for name in self.channels}
            raise InputError(
                "MatMul multiplies maps as matrices and needs as many rows as columns, got the "
                f"shapes {shapes}. Cut square images, or choose Hadamard, Add or Concat."
            )
        multiply = torch.matmul if maps else torch.mul
        fused, started = values[0], available[0]
        axes = [1] * (fused.ndim - 1)
        # Not an identity matrix in the place of the missing: 0 * inf is not 0, and a product with
        # ones may be rounded (TF32).
        for own, there in zip(values[1:], available[1:], strict=True):
            either = torch.where(there.reshape(-1, *axes), own, fused)  # zeros before the first
            both = (started & there).reshape(-1, *axes)
            fused = torch.where(both, multiply(fused, own), either)
            started = started | there
        return FusedFeatures(fused)

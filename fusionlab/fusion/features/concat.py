"""Features side by side: the fusion that loses nothing and weighs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.fusion.features.base import FeatureOperator, FusedFeatures

Missing = Literal["zeros", "learned"]
"""What stands in for an expert that is missing."""


class Concat(FeatureOperator):
    """The features of all experts one after the other, in their order.

    Args:
        channels: per expert, the width of its features.
        missing: what stands in the place of an expert that is missing for a sample: ``zeros``, or a
            ``learned`` vector per expert, which begins at zero. Only that has parameters.

    Raises:
        InputError: if `missing` is neither.
    """

    def __init__(self, channels: Mapping[str, int], *, missing: Missing = "zeros") -> None:
        super().__init__(channels)
        if missing not in get_args(Missing):
            raise InputError(f"Concat missing is one of {list(get_args(Missing))}, got {missing}.")
        self.channels_out = sum(self.channels.values())
        self.stand_ins = (
            nn.ParameterDict([(name, torch.zeros(width)) for name, width in self.channels.items()])
            if missing == "learned"
            else None
        )

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """See `FeatureOperator.fuse`."""
        parts = [features[name] for name in self.channels]
        if self.stand_ins is not None:
            axes = [1] * (parts[0].ndim - 2)
            parts = [
                torch.where(
                    there.reshape(-1, 1, *axes),
                    part,
                    self.stand_ins[name].to(part.dtype).reshape(1, -1, *axes),
                )
                for name, part, there in zip(self.channels, parts, available, strict=True)
            ]
        return FusedFeatures(torch.cat(parts, dim=1))

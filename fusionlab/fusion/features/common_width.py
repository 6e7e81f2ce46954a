"""Operators that meet the experts' features value by value, for which all must have one width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.fusion.features.base import FeatureOperator, keep_available
from fusionlab.fusion.features.channel_linear import ChannelLinear, common_width


class CommonWidthOperator(FeatureOperator):
    """An operator over features of one width: as the experts give them, or projected to it.

    Args:
        channels: per expert, the width of its features.
        width: width of the result, to which every expert's features pass a linear layer of their
            own. If not given, features come as they are, and must all have one width.

    Raises:
        InputError: if widths differ and no `width` is given, or it is less than 1.
    """

    def __init__(self, channels: Mapping[str, int], *, width: int | None = None) -> None:
        super().__init__(channels)
        name = type(self).__name__
        widths = list(self.channels.values())
        if width is None and len(set(widths)) > 1:
            raise InputError(
                f"{name} needs features of one width, got {self.channels}. Give `width:` (e.g. "
                f"{max(widths)}), to which a linear layer per expert then brings them."
            )
        self.channels_out = common_width(width, widths, where=name)
        self.projections = nn.ModuleDict(
            {}
            if width is None
            else {expert: ChannelLinear(own, width) for expert, own in self.channels.items()}
        )

    def at_common_width(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        """All features stacked, ``(M, B, channels_out, ...)``; zeros where an expert is missing.

        Args:
            features: as `fuse` gets them.
            available: ``(M, B)`` bool.
        """
        if not self.projections:
            return torch.stack([features[name] for name in self.channels])
        # A projection has a bias, which speaks for a missing expert too.
        projected = [self.projections[name](features[name]) for name in self.channels]
        return keep_available(torch.stack(projected), available)

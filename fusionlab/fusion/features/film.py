"""Feature-wise linear modulation: one expert scales and shifts what the others see.

Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018, arXiv
1709.07871, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.fusion.features.base import FusedFeatures, keep_available
from fusionlab.fusion.features.channel_linear import ChannelLinear
from fusionlab.fusion.features.common_width import CommonWidthOperator


class FiLM(CommonWidthOperator):
    """Every channel is scaled and shifted by values that a conditioning expert decides.

    ``(1 + g(c)) * x + b(c)``, where g and b are one linear layer over the conditioning expert's
    features, which begins at zero: at first x comes out as it is. With several others there is such
    a layer for each, and the result is the mean of those modulated ones that are there. On maps the
    modulation is per pixel, so that the condition keeps its place; of vectors it is the published
    one.

    Where the conditioning expert is missing, nothing is modulated. Where only that is there, its
    own features (or their projection) come out. The order of the experts does not matter if the
    condition is named.

    Args:
        channels: per expert, the width of its features.
        condition: name of the expert that modulates the others; the last one if not given.
        width: width of the result, to which every expert's features pass a linear layer of their
            own. If not given, features must all have one width.

    Raises:
        InputError: if `condition` is none of the experts, widths differ and no `width` is given, or
            it is less than 1.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        condition: str | None = None,
        width: int | None = None,
    ) -> None:
        super().__init__(channels, width=width)
        names = list(self.channels)
        if condition is not None and condition not in names:
            raise InputError(f"FiLM condition is one of the experts {names}, got {condition!r}.")
        self.condition = condition or names[-1]
        self.modulations = nn.ModuleDict(
            {
                name: ChannelLinear(self.channels_out, 2 * self.channels_out)
                for name in names
                if name != self.condition
            }
        )
        for parameter in self.modulations.parameters():
            nn.init.zeros_(parameter)

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """See `FeatureOperator.fuse`."""
        names = list(self.channels)
        by_name = dict(zip(names, self.at_common_width(features, available), strict=True))
        there = dict(zip(names, available, strict=True))
        condition, informed = by_name[self.condition], there[self.condition]
        modulated = []
        for name in self.modulations:
            scale_and_shift = keep_available(self.modulations[name](condition), informed)
            scale, shift = scale_and_shift.chunk(2, dim=1)
            modulated.append((1 + scale) * by_name[name] + shift)
        others = torch.stack([there[name] for name in self.modulations])
        total = keep_available(torch.stack(modulated), others).sum(dim=0)
        count = others.sum(dim=0).clamp(min=1).to(total.dtype)
        mean = total / count.reshape(-1, *[1] * (total.ndim - 1))
        return FusedFeatures(mean + keep_available(condition, ~others.any(dim=0)))

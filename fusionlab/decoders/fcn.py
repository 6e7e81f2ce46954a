"""Fully convolutional decoder on one scale, also for auxiliary heads.

Long et al., "Fully Convolutional Networks for Semantic Segmentation", 2015, arXiv:1411.4038.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fusionlab.decoders.base import Decoder
from fusionlab.decoders.blocks import checked_index, conv_norm_relu, count


class FCN(Decoder):
    """3 x 3 convolutions with batch normalisation and ReLU on one map, at its own resolution.

    Args:
        in_channels: widths of the maps.
        index: which map it looks at; -1 is the last (coarsest, deepest).
        num_convs: number of convolutions, 1 or more.
        channels: width of the convolutions and of what comes out.

    Raises:
        InputError: if there is no such map, or no convolution or channel.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        /,
        *,
        index: int = -1,
        num_convs: int = 2,
        channels: int = 256,
    ) -> None:
        super().__init__(in_channels)
        self.index = checked_index(index, len(self.in_channels), where="The decoder FCN")
        self.out_channels = count(channels, where="FCN channels")
        repeats = count(num_convs, where="FCN num_convs (the decoder Linear has none)")
        widths = [self.in_channels[self.index], *[channels] * repeats]
        self.convs = nn.Sequential(*(conv_norm_relu(i, o) for i, o in pairwise(widths)))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h_i, w_i)`` to ``(B, channels, h_index, w_index)``."""
        maps: Tensor = self.convs(features[self.index])
        return maps

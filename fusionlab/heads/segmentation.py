"""Classes of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fusionlab.heads.base import Head, checked_widths, dropout_layer


class SegmentationHead(Head):
    """Optional 3 x 3 convolutions with ReLU, dropout, and a 1 x 1 convolution to the classes.

    Args:
        channels: width of the map.
        names: class names.
        channel_list: widths of the 3 x 3 convolutions; none by default.
        dropout: probability in [0, 1), of single values, before the last layer.

    Raises:
        InputError: if there is no class, for widths below 1, or for a dropout outside [0, 1).
    """

    kind = "pixel"
    answers = "classes"

    def __init__(
        self,
        channels: int,
        names: Sequence[str],
        *,
        channel_list: Sequence[int] | None = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(channels, names)
        widths = (channels, *checked_widths(channel_list, where="SegmentationHead channel_list"))
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())
                for inputs, outputs in pairwise(widths)
            )
        )
        self.dropout = dropout_layer(dropout, where=type(self).__name__)
        self.conv = nn.Conv2d(widths[-1], len(self.names), 1)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, K, H, W)``."""
        logits: Tensor = self.conv(self.dropout(self.blocks(self.maps(features))))
        return logits

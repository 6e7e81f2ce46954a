"""A neck that appends one more, narrower map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.features import Feature
from fusionlab.necks.base import Neck


class AddBottleneckLayer(Neck):
    """Appends a 1 x 1 convolution of the last map, with half of its channels, on the same grid.

    For decoders that take one map more than a backbone gives.

    Args:
        features: descriptions of the maps.

    Raises:
        InputError: for features that are no maps, or a last one of a single channel.
    """

    layouts: ClassVar[tuple[str, ...]] = ("NCHW",)

    def __init__(self, features: Sequence[Feature]) -> None:
        super().__init__(features)
        last = self.received[-1]
        if last.channels < 2:
            raise InputError(
                "AddBottleneckLayer appends a map with half of the last one's channels, but that "
                f"has {last.channels}. Leave the neck out."
            )
        half = last.channels // 2
        self.bottleneck = nn.Conv2d(last.channels, half, 1)
        self.features = (*self.received, Feature(half, last.stride))

    def convert(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """The maps, and ``(B, C // 2, h, w)`` from the last one."""
        return [*features, self.bottleneck(features[-1])]

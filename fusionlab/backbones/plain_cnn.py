"""A plain convolutional network: a 3 x 3 convolution, ReLU and a pooling per stage.

The stages of VGG with one convolution each: Simonyan & Zisserman, "Very Deep Convolutional Networks
for Large-Scale Image Recognition", 2014, arXiv:1409.1556. Small and without normalisation, it shows
what a fusion does rather than what a network can.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fusionlab.backbones.base import ImageBackbone
from fusionlab.errors import InputError
from fusionlab.features import Feature


class PlainCNN(ImageBackbone):
    """Per stage a 3 x 3 convolution (padding 1), ReLU and 2 x 2 max-pooling; a map after each.

    Args:
        bands: number of input channels.
        widths: channels of the stages; with those given, images of 64 x 64 pixels become maps of
            32 x 32, 16 x 16 and, last, 128 channels of 8 x 8.
        frozen: whether it stays as it is.

    Raises:
        InputError: unless there are one or more widths of 1 or more.
    """

    def __init__(
        self, bands: int, *, widths: Sequence[int] = (32, 64, 128), frozen: bool = False
    ) -> None:
        super().__init__(frozen=frozen)
        listed = isinstance(widths, Sequence) and not isinstance(widths, str)
        if not listed or not widths or not all(type(w) is int and w > 0 for w in widths):
            raise InputError(
                "PlainCNN widths is a list of one or more numbers of channels, one per stage, such "
                f"as [32, 64, 128]; got {widths!r}."
            )
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
            for inputs, outputs in pairwise((bands, *widths))
        )
        self.features = tuple(Feature(width, 2 ** (i + 1)) for i, width in enumerate(widths))
        self.multiple = 2 ** len(widths)
        if frozen:
            self.freeze()

    def maps(self, images: Tensor) -> list[Tensor]:
        """``(B, bands, H, W)`` to maps ``(B, widths[i], H / 2 ** (i + 1), W / 2 ** (i + 1))``."""
        found = []
        for stage in self.stages:
            images = stage(images)
            found.append(images)
        return found

    def parameter_layers(self) -> dict[str, int]:
        """The number of the stage, from 0."""
        return {name: int(name.split(".")[1]) for name, _ in self.named_parameters()}

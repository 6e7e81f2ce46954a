"""A neck that makes a pyramid by transposed convolutions, as is usual for plain transformers.

Its layers are those with which BEiT is given to UperNet: Bao et al., "BEiT: BERT Pre-Training of
Image Transformers", 2021, arXiv:2106.08254.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.features import Feature
from fusionlab.necks.to_pyramid import ToPyramid, max_pool, resampled


class LearnedInterpolateToPyramidal(ToPyramid):
    """Makes a pyramid from exactly four maps of one scale.

    The first becomes four times as fine, with a quarter of its channels (two transposed
    convolutions, with normalisation and GELU between them); the second twice as fine with half of
    its channels; the third stays; the fourth is max-pooled to half its resolution. Maps of a ViT
    with patches of 16 pixels become maps of strides 4, 8, 16 and 32.

    Args:
        features: descriptions of four maps, all of one stride.

    Raises:
        InputError: for another number of features, features that are no maps of one scale, or too
            few channels to divide; when applied, for images of a single cell a side.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        super().__init__(features)
        if len(self.received) != 4:
            raise InputError(
                f"LearnedInterpolateToPyramidal takes exactly four features, but gets "
                f"{len(self.received)}. Let the backbone give four layers, pick four with the neck "
                "SelectIndices (a position may be repeated), or use FeaturePyramid, which makes "
                "four scales from one map."
            )
        first, second, third, fourth = self.received
        if first.channels < 4 or second.channels < 2:
            raise InputError(
                "LearnedInterpolateToPyramidal gives the first map a quarter of its channels and "
                f"the second one half, but they have only {first.channels} and {second.channels}. "
                "Use InterpolateToPyramidal, which keeps channels."
            )
        half, quarter = first.channels // 2, first.channels // 4
        self.enlarge_by_4 = nn.Sequential(
            nn.ConvTranspose2d(first.channels, half, 2, stride=2),
            nn.BatchNorm2d(half),  # over 4 cells or more, also of a single sample
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        )
        self.enlarge_by_2 = nn.ConvTranspose2d(second.channels, second.channels // 2, 2, stride=2)
        self.features = (
            resampled(first, quarter, finer=4),
            resampled(second, second.channels // 2, finer=2),
            third,
            resampled(fourth, fourth.channels, coarser=2),
        )

    def convert(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Maps ``(B, C_i, h, w)`` to maps of ``4h x 4w``, ``2h x 2w``, ``h x w``, ``h/2 x w/2``."""
        first, second, third, fourth = features
        where, stride = "LearnedInterpolateToPyramidal (feature 3)", self.received[3].stride
        return [
            self.enlarge_by_4(first),
            self.enlarge_by_2(second),
            third,
            max_pool(fourth, 2, where=where, stride=stride, image_size=image_size),
        ]

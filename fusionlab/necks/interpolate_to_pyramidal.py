"""A neck that makes a pyramid by enlarging maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional as F

from fusionlab.errors import InputError
from fusionlab.features import Feature
from fusionlab.necks.base import at_least
from fusionlab.necks.to_pyramid import ToPyramid, resampled

Interpolation = Literal["nearest", "nearest-exact", "bilinear", "bicubic", "area"]


class InterpolateToPyramidal(ToPyramid):
    """Enlarges n maps of one scale: the first by scale_factor^n, the last by scale_factor.

    Four maps of a ViT with patches of 16 pixels become maps of strides 1, 2, 4 and 8: much memory
    for large images. `LearnedInterpolateToPyramidal` gives strides 4, 8, 16 and 32.

    Args:
        features: descriptions of the maps, all of one stride.
        scale_factor: how much finer a map becomes than the next one.
        mode: how is interpolated; names as in `torch.nn.functional.interpolate`, corners not
            aligned.

    Raises:
        InputError: for features that are no maps of one scale, a factor below 2, or an unknown
            mode.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        *,
        scale_factor: int = 2,
        mode: Interpolation = "nearest",
    ) -> None:
        super().__init__(features)
        factor = at_least(scale_factor, 2, where="InterpolateToPyramidal scale_factor")
        if mode not in get_args(Interpolation):
            raise InputError(
                f"InterpolateToPyramidal mode is one of {list(get_args(Interpolation))}, got "
                f"{mode!r}."
            )
        self.mode = mode
        self.scales = tuple(factor**i for i in range(len(self.received), 0, -1))
        self.features = tuple(
            resampled(feature, feature.channels, finer=scale)
            for feature, scale in zip(self.received, self.scales, strict=True)
        )

    def convert(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Maps ``(B, C_i, h, w)`` to ``(B, C_i, h * scale_i, w * scale_i)``."""
        return [
            F.interpolate(feature, scale_factor=float(scale), mode=self.mode)
            for feature, scale in zip(features, self.scales, strict=True)
        ]

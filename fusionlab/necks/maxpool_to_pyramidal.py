"""A neck that makes a pyramid by pooling maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusionlab.features import Feature
from fusionlab.necks.base import at_least
from fusionlab.necks.to_pyramid import ToPyramid, max_pool, resampled


class MaxpoolToPyramidal(ToPyramid):
    """Max-pools map i of several of one scale by kernel_size^i; the first stays as it is.

    Four maps of a ViT with patches of 16 pixels become maps of strides 16, 32, 64 and 128. Cells
    that fill no square are left out, so images should be padded to multiples of the last stride.

    Args:
        features: descriptions of the maps, all of one stride.
        kernel_size: how much coarser a map becomes than the one before.

    Raises:
        InputError: for features that are no maps of one scale, or a kernel below 2; when applied,
            for images so small that a map would vanish.
    """

    def __init__(self, features: Sequence[Feature], *, kernel_size: int = 2) -> None:
        super().__init__(features)
        kernel = at_least(kernel_size, 2, where="MaxpoolToPyramidal kernel_size")
        self.kernels = tuple(kernel**i for i in range(len(self.received)))
        self.features = tuple(
            resampled(feature, feature.channels, coarser=kernel)
            for feature, kernel in zip(self.received, self.kernels, strict=True)
        )

    def convert(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Maps ``(B, C_i, h, w)`` to ``(B, C_i, h // kernel_i, w // kernel_i)``."""
        first, *others = features
        pooled = [first]
        for i, maps in enumerate(others, 1):
            stride = self.received[i].stride
            where = f"MaxpoolToPyramidal (feature {i})"
            pooled.append(
                max_pool(maps, self.kernels[i], where=where, stride=stride, image_size=image_size)
            )
        return pooled

"""What necks that make a pyramid from maps of one scale have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from fusionlab.errors import InputError
from fusionlab.features import Feature
from fusionlab.necks.base import Neck


class ToPyramid(Neck):
    """Maps of one scale in, maps that get coarser from one to the next out.

    Args:
        features: descriptions of the maps, all of one stride. Strides that nobody knows are
            trusted.

    Raises:
        InputError: if they are no maps, or of different strides.
    """

    layouts: ClassVar[tuple[str, ...]] = ("NCHW",)

    def __init__(self, features: Sequence[Feature]) -> None:
        super().__init__(features)
        strides = [f.stride for f in self.received if f.stride is not None]
        if len(set(strides)) > 1:
            found = ", ".join(f"{stride:g}" for stride in strides)
            raise InputError(
                f"{type(self).__name__} makes a pyramid from maps of one scale, but gets the "
                f"strides [{found}]. If that is a pyramid already, leave this neck out; otherwise "
                "keep maps of one scale with the neck SelectIndices."
            )


def resampled(feature: Feature, channels: int, *, finer: int = 1, coarser: int = 1) -> Feature:
    """The description of a map on a grid so many times finer or coarser, with these channels."""
    stride = None if feature.stride is None else feature.stride * coarser / finer
    return Feature(channels, stride)


def max_pool(
    maps: Tensor, kernel_size: int, *, where: str, stride: float | None, image_size: Sequence[int]
) -> Tensor:
    """Maxima over squares, ``(B, C, h, w)`` to ``(B, C, h // kernel_size, w // kernel_size)``.

    Args:
        maps: what is pooled.
        kernel_size: side of the squares, in cells.
        where: what is asking, for the error message.
        stride: of the maps, pixels per cell, where it is known.
        image_size: rows and columns of the image, pixels.

    Raises:
        InputError: if nothing would be left.
    """
    rows, columns = maps.shape[-2:]
    if min(rows, columns) < kernel_size:
        pixels = "" if stride is None else f", i.e. {kernel_size * stride:g} pixels"
        raise InputError(
            f"{where} pools squares of {kernel_size} x {kernel_size} cells, but an image of "
            f"{image_size[0]} x {image_size[1]} pixels has a map of only {rows} x {columns} cells: "
            f"nothing would be left. Use images of at least {kernel_size} cells a side{pixels}, "
            "fewer features, or the neck InterpolateToPyramidal, which enlarges maps instead."
        )
    return F.max_pool2d(maps, kernel_size)

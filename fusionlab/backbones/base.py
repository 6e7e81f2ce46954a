"""What backbones for images have in common: described maps, sides they accept, freezing."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from fusionlab.component import Backbone
from fusionlab.errors import InputError
from fusionlab.features import Feature


class ImageBackbone(Backbone):
    """Normalised images ``(B, bands, H, W)`` in, a list of described tensors out.

    Subclasses implement `maps`, and set `features` and `multiple` when they are built.

    Args:
        frozen: whether it stays as it is: no gradient, no drift of statistics.

    Attributes:
        features: what comes out, before any image is seen.
        multiple: image sides must be multiples of this; who calls it pads.
        size: where only images of one height and width are taken, these; otherwise None.
        frozen: as given.
        trained: whether its weights came from elsewhere, so that they can be had again.
    """

    features: tuple[Feature, ...] = ()
    multiple: int = 1
    size: tuple[int, int] | None = None
    trained: bool = False

    def __init__(self, *, frozen: bool = False) -> None:
        super().__init__()
        self.frozen = frozen

    @property
    def out_channels(self) -> list[int]:
        """Widths of what comes out."""
        return [feature.channels for feature in self.features]

    def maps(self, images: Tensor) -> list[Tensor]:
        """What `forward` answers, for images whose sides fit."""
        raise NotImplementedError(f"{type(self).__name__} does not define maps().")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of normalised images, as `features` describes them.

        Args:
            images: ``(B, bands, H, W)``.

        Raises:
            InputError: if a side is no multiple of `multiple`, or the images are not of `size`.
        """
        height, width = images.shape[-2:]
        if self.size is not None and (height, width) != self.size:
            raise InputError(
                f"{self} takes images of {self.size[0]} x {self.size[1]} pixels only, but got "
                f"{height} x {width}. Pad or resize them, or build it for another `image_size:`."
            )
        if height % self.multiple or width % self.multiple:
            raise InputError(
                f"{self} takes images whose sides are multiples of {self.multiple}, but got "
                f"{height} x {width}. Pad them at the bottom and the right."
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.maps(images)

    def __str__(self) -> str:
        return type(self).__name__

    def freeze(self) -> None:
        """Takes the gradient from all its parameters; it stays in evaluation mode."""
        self.requires_grad_(False)
        self.frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switches mode, but stays in evaluation mode while frozen."""
        return super().train(mode and not self.frozen)

"""A linear layer over the channels of vectors and of maps alike."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fusionlab.errors import InputError


class ChannelLinear(nn.Linear):
    """`torch.nn.Linear` that also takes maps, as the 1x1 convolution with the same weights."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, D)`` to ``(B, out)``, or ``(B, D, H, W)`` to ``(B, out, H, W)``."""
        if input.ndim == 2:
            return super().forward(input)
        return F.conv2d(input, self.weight[:, :, None, None], self.bias)


def common_width(width: int | None, widths: list[int], *, where: str) -> int:
    """The width that features are projected to: as given, or the largest.

    Raises:
        InputError: if it is less than 1.
    """
    if width is None:
        return max(widths)
    if width < 1:
        raise InputError(f"{where} width must be 1 or more, got {width}.")
    return width

"""The expanding path of U-Net.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015,
arXiv:1505.04597.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fusionlab.decoders.base import Decoder
from fusionlab.decoders.blocks import conv_norm_relu, counts
from fusionlab.errors import InputError

Upsampling = Literal["transposed", "bilinear", "nearest"]


class UNet(Decoder):
    """From coarse to fine: double the resolution, append the encoder's map, convolve twice.

    Unlike the paper's, convolutions are padded (what comes out is as large as the finest map) and
    batch-normalised.

    Args:
        in_channels: widths of the maps, finest first, each twice as coarse as the one before.
        channels: width after each step, coarse to fine, one less than there are maps; by default
            256, halved at each step, but never below 16.
        upsampling: how the resolution is doubled: ``transposed`` is the paper's 2 x 2
            up-convolution, which also halves the channels; the others interpolate.

    Raises:
        InputError: if there are fewer than two maps, or not a width per step.
    """

    scales = (2, None)
    pyramid = True

    def __init__(
        self,
        in_channels: Sequence[int],
        /,
        *,
        channels: Sequence[int] | None = None,
        upsampling: Upsampling = "transposed",
    ) -> None:
        super().__init__(in_channels)
        if upsampling not in get_args(Upsampling):
            raise InputError(
                f"UNet upsampling is one of {list(get_args(Upsampling))}, got {upsampling!r}."
            )
        *skips, state = self.in_channels
        steps = len(skips)
        if channels is None:
            channels = [max(256 >> i, 16) for i in range(steps)]
        widths = counts(channels, where="UNet channels")
        if len(widths) != steps:
            raise InputError(
                f"UNet channels has one width per step from coarse to fine: {steps} for "
                f"{steps + 1} maps, got {widths}."
            )
        self.steps = nn.ModuleList()
        for skip, width in zip(reversed(skips), widths, strict=True):
            self.steps.append(UpStep(state, skip, width, upsampling))
            state = width
        self.out_channels = state

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h / 2^i, w / 2^i)`` to ``(B, out_channels, h, w)``."""
        *skips, state = features
        for step, skip in zip(self.steps, reversed(skips), strict=True):
            state = step(state, skip)
        return state


class UpStep(nn.Module):
    """One step of the expanding path.

    Args:
        inputs: width of the coarse state.
        skip: width of the encoder's map.
        outputs: width of the result.
        upsampling: see `UNet`.
    """

    def __init__(self, inputs: int, skip: int, outputs: int, upsampling: Upsampling) -> None:
        super().__init__()
        self.up: nn.Module
        if upsampling == "transposed":
            halved = max(inputs // 2, 1)
            self.up = nn.ConvTranspose2d(inputs, halved, 2, stride=2)
            inputs = halved
        else:
            self.up = nn.Upsample(scale_factor=2, mode=upsampling)
        self.convs = nn.Sequential(
            conv_norm_relu(inputs + skip, outputs), conv_norm_relu(outputs, outputs)
        )

    def forward(self, state: Tensor, skip: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` and ``(B, skip, 2h, 2w)`` to ``(B, outputs, 2h, 2w)``."""
        merged: Tensor = self.convs(torch.cat([self.up(state), skip], 1))
        return merged

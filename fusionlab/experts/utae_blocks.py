"""Parts of U-TAE: convolutional blocks, and the pooling of their maps by given weights.

Garnot & Landrieu, "Panoptic Segmentation of Satellite Image Time Series with Convolutional Temporal
Attention Networks", 2021, arXiv:2107.07933.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fusionlab.backbones.dates import put_back

ENCODER_GROUPS = 4
"""Groups of channels in the encoder's normalisation."""

Norm = Literal["group", "batch"]
"""Of single images in the encoder, where dates differ; of batches in the decoder."""


class Down(nn.Module):
    """A strided convolution, and two layers of which the second is added to the first.

    Args:
        inputs: channels given.
        outputs: channels that come out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shrink = conv_block([inputs, inputs], norm="group", kernel=4, stride=2)
        self.change = conv_block([inputs, outputs], norm="group")
        self.refine = conv_block([outputs, outputs], norm="group")

    def forward(self, maps: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H / 2, W / 2)``; sides even and at least 4."""
        state = self.change(self.shrink(maps))
        refined: Tensor = state + self.refine(state)
        return refined


class Up(nn.Module):
    """A transposed convolution, joined with a map of the encoder.

    Args:
        inputs: channels of the coarser map.
        skip: channels of the encoder's map.
        outputs: channels that come out.
    """

    def __init__(self, inputs: int, *, skip: int, outputs: int) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.enter = nn.Sequential(nn.Conv2d(skip, skip, 1), nn.BatchNorm2d(skip), nn.ReLU())
        self.join = conv_block([outputs + skip, outputs], norm="batch")
        self.refine = conv_block([outputs, outputs], norm="batch")

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` and ``(B, skip, 2 h, 2 w)`` to ``(B, outputs, 2 h, 2 w)``."""
        state = self.join(torch.cat([self.enlarge(coarse), self.enter(skip)], dim=1))
        refined: Tensor = state + self.refine(state)
        return refined


class ReflectedEdge(nn.Module):
    """Grows maps by one pixel on every side, which mirrors the one beside the edge.

    Built from copies, because the gradient of PyTorch's reflection is not deterministic on CUDA.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """``(N, C, H, W)``, sides at least 2, to ``(N, C, H + 2, W + 2)``."""
        maps = torch.cat([maps[..., 1:2, :], maps, maps[..., -2:-1, :]], dim=-2)
        return torch.cat([maps[..., 1:2], maps, maps[..., -2:-1]], dim=-1)


def conv_block(
    widths: Sequence[int], *, norm: Norm, kernel: int = 3, stride: int = 1
) -> nn.Sequential:
    """Convolutions with reflected edges, each followed by a normalisation and a ReLU.

    Args:
        widths: channels given to the first, and of every result.
        norm: which normalisation.
        kernel: side of the kernels.
        stride: of all convolutions.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [
            ReflectedEdge(),
            nn.Conv2d(inputs, outputs, kernel, stride=stride),
            nn.GroupNorm(ENCODER_GROUPS, outputs) if norm == "group" else nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def pool_dates(maps: Tensor, weights: Tensor, valid: Tensor) -> Tensor:
    """Weighted sum over dates; weights of a coarser grid are enlarged bilinearly.

    Args:
        maps: of the N valid dates of all samples, ``(N, groups * c, H, W)``.
        weights: of each date, for groups of channels, ``(N, groups, h, w)``.
        valid: ``(B, T)`` bool.

    Returns:
        ``(B, groups * c, H, W)``.
    """
    weights = F.interpolate(weights, maps.shape[-2:], mode="bilinear", align_corners=False)
    grouped = rearrange(maps, "n (groups c) h w -> n groups c h w", groups=weights.shape[1])
    weighted = rearrange(grouped * weights.to(maps.dtype)[:, :, None], "n g c h w -> n (g c) h w")
    return put_back(weighted, valid).sum(dim=1)

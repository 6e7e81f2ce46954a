"""UPerNet's decoder: pyramid pooling on top of a feature pyramid network.

Xiao et al., "Unified Perceptual Parsing for Scene Understanding", 2018, arXiv:1807.10221.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusionlab.decoders.base import Decoder
from fusionlab.decoders.blocks import conv_norm_relu, count, counts, resize


class UperNet(Decoder):
    """Pools the coarsest map, hands it down a feature pyramid, and fuses all levels at the finest.

    Batch normalisation of the globally pooled map cannot be learned from a single sample: there it
    uses its running statistics (`fusionlab.norms`), so a batch of one can be trained on.

    Args:
        in_channels: widths of the maps, finest first, each twice as coarse as the one before.
        channels: width of the pyramid and of what comes out; the paper's is 512.
        pool_sizes: sides of the grids that the coarsest map is averaged to.

    Raises:
        InputError: if there are fewer than two maps, no channel, or a grid without cells.
    """

    scales = (2, None)
    pyramid = True

    def __init__(
        self,
        in_channels: Sequence[int],
        /,
        *,
        channels: int = 256,
        pool_sizes: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        super().__init__(in_channels)
        self.out_channels = count(channels, where="UperNet channels")
        *finer, coarsest = self.in_channels
        self.pool = PyramidPooling(coarsest, channels, pool_sizes)
        self.laterals = nn.ModuleList(conv_norm_relu(width, channels, 1) for width in finer)
        self.smooth = nn.ModuleList(conv_norm_relu(channels, channels) for _ in finer)
        self.fuse = conv_norm_relu(len(self.in_channels) * channels, channels)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h / 2^i, w / 2^i)`` to ``(B, channels, h, w)``."""
        *finer, coarsest = features
        state = self.pool(coarsest)
        levels = [state]
        for lateral, smooth, maps in zip(
            reversed(self.laterals), reversed(self.smooth), reversed(finer), strict=True
        ):
            state = lateral(maps) + resize(state, maps.shape[-2:])
            levels.append(smooth(state))
        size = levels[-1].shape[-2:]
        fused: Tensor = self.fuse(torch.cat([resize(level, size) for level in levels[::-1]], 1))
        return fused


class PyramidPooling(nn.Module):
    """Averages over grids of several sizes, put beside the map itself, and one convolution.

    Args:
        inputs: width of the map.
        outputs: width of each branch and of the result.
        sizes: sides of the grids.

    Raises:
        InputError: if a grid has no cells.
    """

    def __init__(self, inputs: int, outputs: int, sizes: Sequence[int]) -> None:
        super().__init__()
        sizes = counts(sizes, where="pool_sizes (sides of grids)")
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), conv_norm_relu(inputs, outputs, 1))
            for size in sizes
        )
        self.merge = conv_norm_relu(inputs + len(sizes) * outputs, outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` to ``(B, outputs, h, w)``."""
        size = maps.shape[-2:]
        pooled = [resize(branch(maps), size) for branch in self.branches]
        merged: Tensor = self.merge(torch.cat([maps, *pooled], 1))
        return merged

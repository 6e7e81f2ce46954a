"""Linear probing of dense features: no decoder beyond normalisation and a projection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fusionlab.decoders.base import Decoder
from fusionlab.decoders.blocks import checked_index, count, resize
from fusionlab.norms import BatchNorm2d


class Linear(Decoder):
    """Hands a head the features themselves, so that the whole answer is linear in them.

    Args:
        in_channels: widths of the maps.
        index: which map it looks at, -1 the last; ``all`` for all of them, resized to the finest
            (bilinear) and concatenated.
        norm: whether features are batch-normalised first, which brings maps of different layers to
            one scale. In evaluation this is linear too.
        channels: width of a 1 x 1 projection, which bounds the rank of the answer; None for no
            projection, where the last layer of the head is the only one to be learned.

    Raises:
        InputError: if there is no such map, or a projection without channels.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        /,
        *,
        index: int | Literal["all"] = -1,
        norm: bool = True,
        channels: int | None = None,
    ) -> None:
        super().__init__(in_channels)
        number = len(self.in_channels)
        self.index = (
            None if index == "all" else checked_index(index, number, where="The decoder Linear")
        )
        width = sum(self.in_channels) if self.index is None else self.in_channels[self.index]
        self.norm = BatchNorm2d(width) if norm else nn.Identity()
        self.project: nn.Module = nn.Identity()
        if channels is not None:
            self.project = nn.Conv2d(width, count(channels, where="Linear channels"), 1)
        self.out_channels = width if channels is None else channels

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h_i, w_i)`` to ``(B, out_channels, h, w)``."""
        if self.index is None:
            size = max(tuple(maps.shape[-2:]) for maps in features)
            chosen = torch.cat([_fit(maps, size) for maps in features], 1)
        else:
            chosen = features[self.index]
        projected: Tensor = self.project(self.norm(chosen))
        return projected


def _fit(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    return maps if tuple(maps.shape[-2:]) == size else resize(maps, size)

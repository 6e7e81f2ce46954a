"""Values of variables at every pixel (canopy height, biomass, elevation…).

Learned upscaling: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
Sub-Pixel Convolutional Neural Network", 2016, arXiv:1609.05158; free of checkerboards from the
start: Aitken et al., "Checkerboard artifact free sub-pixel convolution", 2017, arXiv:1707.02937.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.heads.base import Head, checked_rate, checked_widths

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}
"""Last activations by name: 0 and more, 0 to 1, above 0, -1 to 1."""


class RegressionHead(Head):
    """Optional upscaling and 3 x 3 convolutions, dropout, and a 1 x 1 convolution to the values.

    Args:
        channels: width of the map.
        names: of the variables, one value each.
        learned_upscale_layers: number of layers that each double rows and columns.
        channel_list: widths of the 3 x 3 convolutions, each with batch normalisation and ReLU;
            none by default.
        batch_norm: whether those convolutions are normalised; otherwise they have a bias.
        dropout: probability in [0, 1), of whole channels, before the last layer.
        final_act: limits the values: ``relu``, ``sigmoid``, ``softplus``, ``tanh`` (also written
            as PyTorch's class, ``torch.nn.ReLU``); any value if not given.

    Attributes:
        upscale_factor: how many times finer the answer is than the map.

    Raises:
        InputError: if there is no name, for widths below 1, a negative number of layers, an unknown
            activation, or a dropout outside [0, 1); while training with normalisation, for a batch
            of one sample of one cell.
    """

    kind = "pixel"
    answers = "values"

    def __init__(
        self,
        channels: int,
        names: Sequence[str],
        *,
        learned_upscale_layers: int = 0,
        channel_list: Sequence[int] | None = (),
        batch_norm: bool = True,
        dropout: float = 0.0,
        final_act: str | None = None,
    ) -> None:
        super().__init__(channels, names)
        if type(learned_upscale_layers) is not int or learned_upscale_layers < 0:
            raise InputError(
                "RegressionHead learned_upscale_layers must be an integer of 0 or more, got "
                f"{learned_upscale_layers!r}."
            )
        self.upscale_factor = 2**learned_upscale_layers
        self.upscale = nn.Sequential(
            *(PixelShuffleUpscale(channels) for _ in range(learned_upscale_layers))
        )
        widths = (channels, *checked_widths(channel_list, where="RegressionHead channel_list"))
        self.blocks = nn.Sequential(
            *(_block(inputs, outputs, batch_norm) for inputs, outputs in pairwise(widths))
        )
        self.batch_norm = batch_norm and len(widths) > 1
        self.dropout = nn.Dropout2d(checked_rate(dropout, where="RegressionHead"))
        self.conv = nn.Conv2d(widths[-1], len(self.names), 1)
        self.activation = _activation(final_act)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to values ``(B, K, H * upscale_factor, W * upscale_factor)``."""
        enlarged = self.upscale(self.maps(features))
        if self.training and self.batch_norm and enlarged.numel() == self.channels:
            raise InputError(
                "RegressionHead normalises over batches, which cannot be trained on a single cell "
                f"of a single sample (features of the shape {tuple(features.shape)}). Use larger "
                "batches or images, `drop_last: true`, or `batch_norm: false`."
            )
        hidden = self.blocks(enlarged)
        values: Tensor = self.activation(self.conv(self.dropout(hidden)))
        return values


class PixelShuffleUpscale(nn.Module):
    """Doubles rows and columns: a 3 x 3 convolution to four times the channels, rearranged.

    The four values that one cell becomes are equal at first, so that training starts without a
    checkerboard.

    Args:
        channels: width of the map, before and after.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.norm = nn.BatchNorm2d(channels)  # over 4 cells or more, also of a single sample
        with torch.no_grad():
            for parameter in self.conv.parameters():
                parameter.copy_(parameter[::4].repeat_interleave(4, dim=0))

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, C, 2h, 2w)``."""
        enlarged: Tensor = self.norm(self.shuffle(self.conv(maps))).relu()
        return enlarged


def _block(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    norm = nn.BatchNorm2d(outputs) if batch_norm else nn.Identity()
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batch_norm)
    return nn.Sequential(conv, norm, nn.ReLU())


def _activation(name: str | None) -> nn.Module:
    if name is None:
        return nn.Identity()
    short = str(name).removeprefix("torch.").removeprefix("nn.").lower()
    if short not in ACTIVATIONS:
        raise InputError(
            f"RegressionHead final_act is one of {list(ACTIVATIONS)}, or left out, got {name!r}."
        )
    return ACTIVATIONS[short]()

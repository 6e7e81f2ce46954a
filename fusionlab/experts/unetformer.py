"""UNetFormer: a convolutional encoder with a decoder of global-local attention, for images.

Wang et al., "UNetFormer: A UNet-like Transformer for Efficient Semantic Segmentation of Remote
Sensing Urban Scene Imagery", 2022, arXiv:2109.08937.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fusionlab.backbones import TimmBackbone
from fusionlab.backbones.timm_backbone import PYRAMID
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert
from fusionlab.padding import pad_bottom_right, pad_to_multiple
from fusionlab.types import Raw, Schema, TimeSeries


class UNetFormer(Expert):
    """UNetFormer for images of any size and any number of bands.

    Images are padded to a multiple of 32 (more where the encoder needs it), feature maps to a
    multiple of the window, by reflection (by repeating the edge where there is too little to
    reflect); logits are cropped back. Where the sizes divide, nothing is padded and the numbers are
    those of the paper's implementation.

    Args:
        schema: what the data deliver.
        backbone: a timm encoder with feature maps at strides 4, 8, 16 and 32. The weights that timm
            has for the default (``resnet18.a1_in1k``) are licensed Apache-2.0.
        pretrained: False for random weights, True for timm's (downloaded once), or the path of a
            local weights file.
        restored: set in checkpoints, which hold the weights: `pretrained` is not asked again.
        decode_channels: width of the decoder, divisible by `heads`.
        window_size: side of the attention windows, in cells of each feature map.
        heads: attention heads.
        dropout: before the last layer of each head.
        auxiliary: whether there is an auxiliary head (on the sum of the three attention stages),
            which answers beside the main one while training.
        modality: see `Expert`, as for the arguments that follow.
        bands: the bands it looks at.
        scale: raw to physical units.
        mean: in physical units.
        std: in physical units.

    Raises:
        InputError: if the modality is a time series, the encoder or its weights cannot be had, or
            `decode_channels` does not divide by `heads`.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        backbone: str = "resnet18",
        pretrained: bool | str = False,
        restored: bool = False,
        decode_channels: int = 64,
        window_size: int = 8,
        heads: int = 8,
        dropout: float = 0.1,
        auxiliary: bool = True,
        modality: str | None = None,
        bands: Sequence[str] | None = None,
        scale: Sequence[float] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(schema, modality=modality, bands=bands, scale=scale, mean=mean, std=std)
        if self.schema.modalities[self.modality].temporal:
            raise InputError(
                f"UNetFormer takes images, but {self.modality!r} is a time series. Use an expert "
                "for series, such as TSViT, or name another `modality:`."
            )
        self.backbone = TimmBackbone(
            len(self.inputs), name=backbone, pretrained=pretrained, restored=restored
        )
        strides = [feature.stride for feature in self.backbone.features]
        if strides != list(PYRAMID):
            raise InputError(
                f"The encoder {backbone!r} gives feature maps at strides {strides}, but UNetFormer "
                f"needs four at strides {list(PYRAMID)}. Choose a convolutional or hierarchical "
                "encoder, such as 'resnet18', 'convnext_tiny' or 'swin_tiny_patch4_window7_224'."
            )
        self.decoder = UNetFormerDecoder(
            self.backbone.out_channels,
            self.num_outputs,
            decode_channels=decode_channels,
            window_size=window_size,
            heads=heads,
            dropout=dropout,
            auxiliary=auxiliary,
            bias=schema.regresses,
        )

    def describe(self) -> dict[str, Any]:
        """As every component, but never asking for weights that the checkpoint itself holds."""
        description = super().describe()
        description["init_args"]["restored"] = True
        return description

    def logits(self, values: Raw) -> Tensor | tuple[Tensor, Tensor]:
        """Logits of raw images, ``(B, C, H, W)`` to ``(B, K, H, W)``.

        Returns:
            The logits; while training with an auxiliary head, those of that head beside them.

        Raises:
            InputError: if given a time series, or one tile of at most 32 x 32 pixels to train on.
        """
        if isinstance(values, TimeSeries):
            raise InputError(
                f"UNetFormer takes images (B, C, H, W), but got a time series for "
                f"{self.modality!r}."
            )
        images = self.inputs(values)
        height, width = images.shape[-2:]
        images = pad_to_multiple(images, self.backbone.multiple)
        cells = images.shape[0] * images.shape[-2] * images.shape[-1] // PYRAMID[-1] ** 2
        if self.training and cells < 2:
            raise InputError(
                f"UNetFormer cannot train on a single tile of {height} x {width} pixels: its "
                "coarsest map has one cell, from which batch normalisation can learn nothing. Use "
                "a batch size of at least 2 (and drop a last batch of 1), or larger tiles."
            )
        answer = self.decoder(self.backbone(images), images.shape[-2:])
        if isinstance(answer, tuple):
            main, auxiliary = answer
            return main[..., :height, :width], auxiliary[..., :height, :width]
        cropped: Tensor = answer[..., :height, :width]
        return cropped


class UNetFormerDecoder(nn.Module):
    """The decoder alone: four feature maps in, logits out.

    Args:
        encoder_channels: of the maps at strides 4, 8, 16 and 32.
        num_outputs: number of classes, or of variables.
        decode_channels: see `UNetFormer`, as for the arguments that follow.
        window_size: side of the attention windows.
        heads: attention heads.
        dropout: before the last layer of each head.
        auxiliary: whether there is an auxiliary head.
        bias: whether the last layer of each head has one; the paper's, for classes, has none.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        num_outputs: int,
        *,
        decode_channels: int = 64,
        window_size: int = 8,
        heads: int = 8,
        dropout: float = 0.1,
        auxiliary: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        width = decode_channels
        channels4, channels8, channels16, channels32 = encoder_channels
        self.enter = _conv_norm(channels32, width, 1)
        self.attend32 = GlobalLocalBlock(width, heads=heads, window_size=window_size)
        self.merge16 = WeightedMerge(channels16, width)
        self.attend16 = GlobalLocalBlock(width, heads=heads, window_size=window_size)
        self.merge8 = WeightedMerge(channels8, width)
        self.attend8 = GlobalLocalBlock(width, heads=heads, window_size=window_size)
        self.merge4 = WeightedMerge(channels4, width)
        self.refine = FeatureRefinement(width)
        self.head = nn.Sequential(
            _conv_norm_act(width, width, 3),
            nn.Dropout2d(dropout),
            nn.Conv2d(width, num_outputs, 1, bias=bias),
        )
        self.auxiliary_head = (
            nn.Sequential(
                _conv_norm_act(width, width, 3),
                nn.Dropout(dropout),
                nn.Conv2d(width, num_outputs, 1, bias=bias),
            )
            if auxiliary
            else None
        )

    def forward(
        self, features: Sequence[Tensor], size: Sequence[int]
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits ``(B, K, *size)``, with auxiliary ones beside them while training.

        Args:
            features: maps at strides 4, 8, 16 and 32, ``(B, channels, h, w)``.
            size: height and width of the logits.
        """
        map4, map8, map16, map32 = features
        state32 = self.attend32(self.enter(map32))
        state16 = self.attend16(self.merge16(state32, map16))
        state8 = self.attend8(self.merge8(state16, map8))
        state4 = self.refine(self.merge4(state8, map4))
        logits = _resize(self.head(state4), size)
        if self.auxiliary_head is None or not self.training:
            return logits
        # The paper's implementation aligns corners here, and only here.
        total = state8
        for state in (state16, state32):
            total = total + F.interpolate(
                state, size=state8.shape[-2:], mode="bilinear", align_corners=True
            )
        return logits, _resize(self.auxiliary_head(total), size)


class WeightedMerge(nn.Module):
    """Learned weighted sum of an encoder map and the coarser decoder state."""

    def __init__(self, encoder_channels: int, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2))
        self.project = nn.Conv2d(encoder_channels, width, 1, bias=False)
        self.smooth = _conv_norm_act(width, width, 3)

    def forward(self, coarse: Tensor, encoded: Tensor) -> Tensor:
        """``(B, width, h', w')`` and ``(B, channels, h, w)`` to ``(B, width, h, w)``."""
        weights = F.relu(self.weights)
        weights = weights / (weights.sum() + 1e-8)
        merged = weights[0] * self.project(encoded) + weights[1] * _resize(
            coarse, encoded.shape[-2:]
        )
        smoothed: Tensor = self.smooth(merged)
        return smoothed


class FeatureRefinement(nn.Module):
    """Attention over positions and over channels at the finest scale, with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        reduced = max(width // 16, 1)
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.channel = nn.Sequential(
            nn.Conv2d(width, reduced, 1, bias=False),
            nn.ReLU6(),
            nn.Conv2d(reduced, width, 1, bias=False),
        )
        self.shortcut = _conv_norm(width, width, 1)
        self.project = _separable_conv(width, 3, padding=1)

    def forward(self, state: Tensor) -> Tensor:
        """``(B, width, h, w)`` to the same shape."""
        shortcut = self.shortcut(state)
        positions = self.position(state).sigmoid()
        channels = self.channel(state.mean((-2, -1), keepdim=True)).sigmoid()
        return F.relu6(self.project(positions * state + channels * state) + shortcut)


class GlobalLocalBlock(nn.Module):
    """A transformer block on maps: global-local attention, then a pointwise network."""

    def __init__(self, width: int, *, heads: int, window_size: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width)
        self.attention = GlobalLocalAttention(width, heads=heads, window_size=window_size)
        self.norm2 = nn.BatchNorm2d(width)
        self.mlp = nn.Sequential(
            nn.Conv2d(width, width * mlp_ratio, 1),
            nn.ReLU6(),
            nn.Conv2d(width * mlp_ratio, width, 1),
        )

    def forward(self, state: Tensor) -> Tensor:
        """``(B, width, h, w)`` to the same shape."""
        state = state + self.attention(self.norm1(state))
        refined: Tensor = state + self.mlp(self.norm2(state))
        return refined


class GlobalLocalAttention(nn.Module):
    """Attention within windows, mixed across windows by pooling, plus convolutions.

    Args:
        width: number of channels, divisible by `heads`.
        heads: attention heads.
        window_size: side of the windows.

    Raises:
        InputError: if `width` does not divide by `heads`, or the window is empty.
    """

    position: Tensor

    def __init__(self, width: int, *, heads: int, window_size: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise InputError(f"decode_channels ({width}) must be divisible by heads ({heads}).")
        if window_size < 1:
            raise InputError(f"window_size must be at least 1, got {window_size}.")
        self.heads = heads
        self.window = window_size
        # A kernel of even size reaches one cell further to the bottom and right.
        self.extra = 1 - window_size % 2
        self.reach = (window_size - 1 - self.extra) // 2
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.local3 = _conv_norm(width, width, 3)
        self.local1 = _conv_norm(width, width, 1)
        self.project = _separable_conv(width, window_size, padding=self.reach)
        self.position_bias = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.register_buffer("position", _relative_position(window_size), persistent=False)

    def forward(self, state: Tensor) -> Tensor:
        """``(B, width, h, w)`` to the same shape."""
        height, width = state.shape[-2:]
        mixed = self._mix_windows(self._attend_in_windows(state))
        mixed = mixed + self.local3(state) + self.local1(state)
        projected: Tensor = self.project(pad_bottom_right(mixed, self.extra, self.extra))
        return projected[..., :height, :width]

    def _attend_in_windows(self, state: Tensor) -> Tensor:
        height, width = state.shape[-2:]
        padded = pad_to_multiple(state, self.window)
        rows = padded.shape[-2] // self.window
        query, key, value = rearrange(
            self.qkv(padded),
            "b (qkv heads d) (rows i) (columns j) -> qkv (b rows columns) heads (i j) d",
            qkv=3,
            heads=self.heads,
            i=self.window,
            j=self.window,
        ).unbind(0)
        bias = rearrange(self.position_bias[self.position], "q k heads -> 1 heads q k")
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        attended = rearrange(
            attended,
            "(b rows columns) heads (i j) d -> b (heads d) (rows i) (columns j)",
            b=state.shape[0],
            rows=rows,
            i=self.window,
        )
        return attended[..., :height, :width]

    def _mix_windows(self, state: Tensor) -> Tensor:
        """Averages along columns plus averages along rows, over a window's length."""
        down = F.avg_pool2d(
            pad_bottom_right(state, self.extra, 0),
            (self.window, 1),
            stride=1,
            padding=(self.reach, 0),
        )
        across = F.avg_pool2d(
            pad_bottom_right(state, 0, self.extra),
            (1, self.window),
            stride=1,
            padding=(0, self.reach),
        )
        return down + across


def _relative_position(window: int) -> Tensor:
    """For each pair of cells of a window, the row of the bias table, ``(window², window²)``."""
    cells = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    offset = cells[:, None] - cells[None, :] + window - 1
    return offset[..., 0] * (2 * window - 1) + offset[..., 1]


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def _conv_norm(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


def _conv_norm_act(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(*_conv_norm(inputs, outputs, kernel), nn.ReLU6())


def _separable_conv(width: int, kernel: int, *, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, kernel, padding=padding, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 1, bias=False),
    )

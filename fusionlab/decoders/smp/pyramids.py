"""Decoders that bring the levels of a pyramid to one resolution and merge them there."""

from __future__ import annotations

from typing import Any, ClassVar

from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.pan.decoder import FPABlock, PANDecoder
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

from fusionlab.decoders.blocks import count, grow
from fusionlab.decoders.smp.base import SmpDecoder, hollow

_LEVELS = 4
"""Levels of these pyramids: strides 4 to 32 of an encoder that begins at stride 2."""


class SmpFPN(SmpDecoder):
    """Semantic FPN's decoder: a feature pyramid, its four levels summed (arXiv:1901.02446).

    Of more than four maps it looks at the coarsest four; what comes out is as fine as the finest of
    these. `segmentation_channels` must be divisible by 32.

    Options: `pyramid_channels`, `segmentation_channels`, `dropout`, `merge_policy`,
    `interpolation_mode`.
    """

    scales = (_LEVELS, None)
    pyramid = True
    wrapped = FPNDecoder

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        channels = [0, *self.in_channels]
        decoder: Any = self._wrap(
            encoder_channels=channels, encoder_depth=len(self.in_channels), **options
        )
        self.out_channels = decoder.out_channels
        return decoder  # type: ignore[no-any-return]

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h_i, w_i)`` to ``(B, out_channels, h, w)``."""
        decoded: Tensor = self.decoder(features)
        return decoded


class SmpUPerNet(SmpDecoder):
    """UPerNet's decoder: pyramid pooling on a feature pyramid (arXiv:1807.10221).

    Unlike `fusionlab.decoders.UperNet` it layer-normalises the maps first. Of more than four
    maps it looks at the coarsest four; what comes out is as fine as the finest of these.

    Options: `decoder_channels`, `use_norm`.
    """

    scales = (2, None)
    pyramid = True
    wrapped = UPerNetDecoder
    defaults: ClassVar[dict[str, Any]] = {"decoder_channels": 256}

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        where = f"{self.title()} decoder_channels"
        self.out_channels = count(options["decoder_channels"], where=where)
        channels = self.in_channels[-_LEVELS:]
        return self._wrap(
            encoder_channels=[0, 0, *channels], encoder_depth=len(channels) + 1, **options
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h_i, w_i)`` to ``(B, decoder_channels, h, w)``."""
        maps = features[-_LEVELS:]
        decoded: Tensor = self.decoder([maps[0], maps[0], *maps])  # it skips the first two
        return decoded


class SmpPAN(SmpDecoder):
    """Pyramid attention network's decoder (arXiv:1805.10180).

    Of more than four maps it looks at the coarsest four; what comes out is as fine as the finest of
    these. Its attention halves the coarsest map three times: a map of fewer than eight cells a side
    is grown by repeating its edge, for the attention only.

    Options: `decoder_channels`, `interpolation_mode`.
    """

    scales = (2, None)
    pyramid = True
    wrapped = PANDecoder
    defaults: ClassVar[dict[str, Any]] = {"decoder_channels": 32}

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        where = f"{self.title()} decoder_channels"
        self.out_channels = count(options["decoder_channels"], where=where)
        channels = self.in_channels[-_LEVELS:]
        decoder: Any = self._wrap(
            encoder_channels=[0, 0, *channels], encoder_depth=len(channels) + 1, **options
        )
        decoder.fpa = RoomyAttention(channels[-1], self.out_channels)
        return decoder  # type: ignore[no-any-return]

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h_i, w_i)`` to ``(B, decoder_channels, h, w)``."""
        maps = features[-_LEVELS:]
        decoded: Tensor = self.decoder([maps[0], maps[0], *maps])  # it skips the first two
        return decoded


class RoomyAttention(FPABlock):  # type: ignore[misc]
    """The library's feature pyramid attention, also for maps too small to be halved three times."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` to ``(B, outputs, h, w)``."""
        rows, columns = x.shape[-2:]
        attended: Tensor = super().forward(grow(x, 8, 8))
        return attended[..., :rows, :columns]


class SmpSegformer(SmpDecoder):
    """SegFormer's decoder: all maps projected, resized and merged pointwise (arXiv:2105.15203).

    They are resized to a quarter of the image's resolution, or to that of the finest map if it is
    coarser. It takes maps of any strides, those of a plain ViT included.

    Options: `segmentation_channels`.
    """

    wrapped = SegformerDecoder
    defaults: ClassVar[dict[str, Any]] = {"segmentation_channels": 256}

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        where = f"{self.title()} segmentation_channels"
        self.out_channels = count(options["segmentation_channels"], where=where)
        # The depth is only checked, to be at least 3.
        return self._wrap(encoder_channels=[0, *self.in_channels], encoder_depth=5, **options)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h_i, w_i)`` to ``(B, segmentation_channels, h, w)``."""
        levels = self._levels()
        at = levels.index(min(levels))
        # The decoder resizes to a quarter of the first map, which is meant to be the image.
        rows, columns = (_image_size(size, levels[at]) for size in features[at].shape[-2:])
        image = hollow(features[at], rows, columns)
        decoded: Tensor = self.decoder([image, *features])
        return decoded


def _image_size(size: int, level: int) -> int:
    """Of the image that a map of `size` cells belongs to; of one at stride 4 if it is coarser."""
    if level >= 2:
        return 4 * size
    return max(size << level if level >= 0 else size >> -level, 4)

"""Decoders that look around on one coarse map: pyramid pooling and atrous convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Any, ClassVar

from segmentation_models_pytorch.decoders.deeplabv3.decoder import (
    DeepLabV3Decoder,
    DeepLabV3PlusDecoder,
)
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder
from torch import Tensor, nn

from fusionlab.decoders.blocks import checked_index, count, counts
from fusionlab.decoders.smp.base import SmpDecoder
from fusionlab.errors import InputError
from fusionlab.features import Feature


class OneMap(SmpDecoder):
    """What these decoders share: the option `index`, which of the maps they look at.

    By default it is the last. (The library's PSPNet and DeepLabV3 cut the encoder at stride 8.)
    """

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the keywords that configure it: the library's, and ``index``."""
        return *super().options(), "index"

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h_i, w_i)`` to ``(B, out_channels, h_index, w_index)``."""
        decoded: Tensor = self.decoder([features[self.index]])
        return decoded

    def _choose(self, index: int) -> int:
        """Width of the map; sets `index`."""
        where = f"The decoder {self.title()}"
        self.index = checked_index(index, len(self.in_channels), where=where)
        return self.in_channels[self.index]


class SmpPSPNet(OneMap):
    """PSPNet's decoder: averages over grids of 1, 2, 3 and 6 cells a side (arXiv:1612.01105).

    Options: `index`, `use_norm`, `out_channels`, `dropout`.
    """

    wrapped = PSPDecoder
    defaults: ClassVar[dict[str, Any]] = {"index": -1, "out_channels": 512}

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        width = self._choose(options.pop("index"))
        if width % 4:
            raise InputError(
                f"{self.title()} splits the channels of its map among four branches, but map "
                f"{self.index} of {list(self.in_channels)} channels has {width}. Choose another "
                "`index`, or another decoder."
            )
        self.out_channels = count(options["out_channels"], where=f"{self.title()} out_channels")
        return self._wrap(encoder_channels=[width], **options)


class SmpDeepLabV3(OneMap):
    """DeepLabV3's decoder: atrous convolutions at several rates (arXiv:1706.05587).

    Options: `index`, `out_channels`, `atrous_rates`, `aspp_separable`, `aspp_dropout`.
    """

    wrapped = DeepLabV3Decoder
    initialised = False
    defaults: ClassVar[dict[str, Any]] = {
        "index": -1,
        "out_channels": 256,
        "atrous_rates": (12, 24, 36),
        "aspp_separable": False,
        "aspp_dropout": 0.5,
    }

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        width = self._choose(options.pop("index"))
        self.out_channels = count(options["out_channels"], where=f"{self.title()} out_channels")
        counts(options["atrous_rates"], where=f"{self.title()} atrous_rates")
        return self._wrap(in_channels=width, **options)


class SmpDeepLabV3Plus(SmpDecoder):
    """DeepLabV3+'s decoder: atrous convolutions, and a finer map's details (arXiv:1802.02611).

    It looks at the coarsest map and, of the finer ones, at that whose stride is nearest to 4; what
    comes out is as fine as the latter. The library's encoders stop at stride 16; so do those of
    timm with ``output_stride=16``, but any two strides do.

    Options: `out_channels`, `atrous_rates`, `aspp_separable`, `aspp_dropout`.
    """

    scales = (2, None)
    wrapped = DeepLabV3PlusDecoder
    initialised = False
    defaults: ClassVar[dict[str, Any]] = {
        "out_channels": 256,
        "atrous_rates": (12, 24, 36),
        "aspp_separable": True,
        "aspp_dropout": 0.5,
    }

    @classmethod
    def check(cls, features: Sequence[Feature]) -> None:
        """Whether it can be built for these features.

        Raises:
            InputError: if not; names the neck that would help.
        """
        super().check(features)
        strides = [feature.stride for feature in features if feature.stride is not None]
        if len(strides) < len(features):
            raise InputError(
                f"The decoder {cls.title()} must know the strides of its maps, but the backbone "
                "or a neck does not tell. Use a backbone that has `features`, or another decoder."
            )
        if min(strides) == max(strides):
            cls._refuse_strides(strides)

    @classmethod
    def _refuse_strides(cls, strides: list[float]) -> None:
        raise InputError(
            f"The decoder {cls.title()} wants a coarse map and a finer one, but all are of stride "
            f"{strides[0]:g}: a plain ViT gives one scale; add the neck "
            "LearnedInterpolateToPyramidal (learned) or InterpolateToPyramidal."
        )

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        strides = self.strides
        number = len(strides)
        self.coarse = max(range(number), key=lambda i: (strides[i], i))
        finer = [i for i in range(number) if strides[i] < strides[self.coarse]]
        self.fine = min(finer, key=lambda i: abs(log2(strides[i] / 4)))
        self.out_channels = count(options["out_channels"], where=f"{self.title()} out_channels")
        counts(options["atrous_rates"], where=f"{self.title()} atrous_rates")
        channels = [0, 0, self.in_channels[self.fine], self.in_channels[self.coarse]]
        decoder: Any = self._wrap(
            encoder_channels=channels, encoder_depth=len(channels) - 1, output_stride=16, **options
        )
        # The library's knows factors of 2 and 4 only.
        factor = strides[self.coarse] / strides[self.fine]
        decoder.up = nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=True)
        return decoder  # type: ignore[no-any-return]

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h_i, w_i)`` to ``(B, out_channels, h, w)``."""
        fine, coarse = features[self.fine], features[self.coarse]
        decoded: Tensor = self.decoder([fine, fine, fine, coarse])  # it skips the first two
        return decoded

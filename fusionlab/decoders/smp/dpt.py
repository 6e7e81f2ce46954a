"""The decoder of dense prediction transformers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from math import isclose, log2
from typing import Any, ClassVar

from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from torch import Tensor, nn

from fusionlab.decoders.blocks import count, counts, grow
from fusionlab.decoders.smp.base import SmpDecoder
from fusionlab.errors import InputError
from fusionlab.features import Feature

_WIDTHS = (256, 512, 1024, 1024)


class SmpDPT(SmpDecoder):
    """DPT's decoder: layers of a ViT made a pyramid, merged from coarse to fine (arXiv:2103.13413).

    It makes strides 4, 8, 16, … of its maps itself, by transposed and strided convolutions: of a
    plain ViT's, and of any whose strides differ by powers of two. Patches of 14 pixels count as 16,
    so that all is 14/16 finer. What comes out is of half the image's resolution. Maps that do not
    divide evenly are grown by repeating their edge, and the result is cropped.

    Prefix tokens do not come as far as a decoder, so `readout` is "ignore" by default; "cat" then
    projects each map pointwise, and "add" does nothing.

    Options: `readout`, `intermediate_channels` (one per map), `fusion_channels`.
    """

    wrapped = DPTDecoder
    defaults: ClassVar[dict[str, Any]] = {"readout": "ignore", "fusion_channels": 256}

    @classmethod
    def check(cls, features: Sequence[Feature]) -> None:
        """Whether it can be built for these features.

        Raises:
            InputError: if not, for maps whose strides are unknown or differ by other factors than
                powers of two.
        """
        super().check(features)
        strides = [feature.stride for feature in features if feature.stride is not None]
        if len(strides) < len(features):
            raise InputError(
                f"The decoder {cls.title()} must know the strides of its maps, but the backbone "
                "or a neck does not tell. Use a backbone that has `features`, or another decoder."
            )
        ratios = [stride / 2 ** round(log2(stride)) for stride in strides]
        if not all(isclose(ratio, ratios[0], rel_tol=1e-3) for ratio in ratios):
            raise InputError(
                f"The decoder {cls.title()} takes maps whose strides are equal or differ by powers "
                f"of two, but they are {strides}. Keep those that fit with the neck SelectIndices."
            )

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        levels = self._levels()
        number = len(levels)
        where = f"{self.title()} fusion_channels"
        self.out_channels = count(options["fusion_channels"], where=where)
        default = [*_WIDTHS, *repeat(_WIDTHS[-1], number)][:number]
        where = f"{self.title()} intermediate_channels"
        widths = counts(options.setdefault("intermediate_channels", default), where=where)
        if len(widths) != number:
            raise InputError(f"{where} has one width per map: {number}, got {widths}.")
        return self._wrap(
            encoder_out_channels=list(self.in_channels),
            encoder_output_strides=[2.0**level for level in levels],
            encoder_has_prefix_tokens=False,
            **options,
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h_i, w_i)`` to ``(B, fusion_channels, H / 2, W / 2)``."""
        levels = self._levels()
        # All sizes are whole if the image's divides by the coarsest grid that is made or given.
        unit = max(len(levels) + 1, *levels)
        coarsest = levels.index(max(levels))
        sizes = [_shift(size, levels[coarsest]) for size in features[coarsest].shape[-2:]]
        whole = [-(-size >> unit) << unit for size in sizes]
        grown = [
            grow(maps, *(_shift(size, -level) for size in whole))
            for maps, level in zip(features, levels, strict=True)
        ]
        decoded: Tensor = self.decoder(grown, [None] * len(grown))
        rows, columns = ((size + 1) // 2 for size in sizes)
        return decoded[..., :rows, :columns]


def _shift(size: int, level: int) -> int:
    return size << level if level >= 0 else size >> -level

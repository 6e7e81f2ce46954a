"""Decoders that climb from the coarsest map to the image's resolution, doubling at each step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, ClassVar

from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder
from segmentation_models_pytorch.decoders.manet.decoder import MAnetDecoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder
from torch import Tensor, nn

from fusionlab.decoders.blocks import count, counts
from fusionlab.decoders.smp.base import SmpDecoder, hollow
from fusionlab.errors import InputError

_WIDTHS = (256, 128, 64, 32, 16)
"""`decoder_channels` of the library's models, coarse to fine."""


class Climbing(SmpDecoder):
    """What these decoders share: how many steps they take.

    Maps whose finest is of stride 4 take one step more than maps whose finest is of stride 2, the
    last ones without a map to look at: what comes out has the image's resolution, or that of the
    finest map where that is as fine or finer. Where a list of `decoder_channels` is shorter than
    that, the remaining steps are left out, and what comes out is coarser. By default there are five
    steps, or fewer where fewer suffice, or as many as there are maps to look at.
    """

    scales = (2, None)
    pyramid = True

    bare_steps: ClassVar[int | None] = None
    """Most steps without a map to look at; None for any number."""

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h / 2^i, w / 2^i)`` to ``(B, out_channels, H, W)``."""
        finest = features[0]
        rows, columns = finest.shape[-2:]
        absent = range(max(self.bare, 1), 0, -1)
        ghosts = [hollow(finest, rows << i, columns << i) for i in absent]
        decoded: Tensor = self.decoder([*ghosts, *features])
        return decoded

    def _place(self) -> tuple[int, int]:
        """The fewest and the most steps."""
        skips = len(self.in_channels) - 1
        bare = max(self._levels()[0], 0)
        return skips, skips + (bare if self.bare_steps is None else min(bare, self.bare_steps))

    def _encoder(self, steps: int) -> dict[str, Any]:
        """Arguments about the encoder; sets `bare`, the number of steps without a map."""
        self.bare = steps - (len(self.in_channels) - 1)
        channels = [0] * max(self.bare, 1) + list(self.in_channels)
        return {"encoder_channels": channels, "n_blocks": steps}

    def _widths(self, given: Sequence[int] | None) -> list[int]:
        fewest, most = self._place()
        if given is None:
            steps = min(most, max(len(_WIDTHS), fewest))
            return [*_WIDTHS, *repeat(_WIDTHS[-1], steps)][:steps]
        widths = counts(given, where=f"{self.title()} decoder_channels")
        if not fewest <= len(widths) <= most:
            numbers = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            strides = ", ".join(f"{stride:g}" for stride in self.strides)
            raise InputError(
                f"{self.title()} decoder_channels has one width per doubling, coarse to fine: "
                f"{numbers} for maps of strides [{strides}], got {widths}."
            )
        return widths


class SmpUnet(Climbing):
    """U-Net's decoder: append the encoder's map, convolve twice (arXiv:1505.04597).

    Options: `decoder_channels`, `use_norm`, `attention_type`, `add_center_block`,
    `interpolation_mode`.
    """

    wrapped = UnetDecoder

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        widths = self._widths(options.pop("decoder_channels", None))
        self.out_channels = widths[-1]
        decoder = self._wrap(decoder_channels=widths, **self._encoder(len(widths)), **options)
        if self.bare:
            blocks: Any = decoder.blocks
            # The library calls it only where there is a map. Idle parameters would stop DDP.
            blocks[-1].attention1 = nn.Identity()
        return decoder


class SmpMAnet(Climbing):
    """MA-Net's decoder: attention over positions, then over channels at each step.

    Fan et al., "MA-Net: A Multi-Scale Attention Network for Liver and Tumor Segmentation", 2020,
    IEEE Access 8.

    The first attention compares all positions of the coarsest map with each other: memory grows
    with the fourth power of its side.

    Options: `decoder_channels`, `reduction`, `use_norm`, `pab_channels`, `interpolation_mode`.
    """

    wrapped = MAnetDecoder

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        widths = self._widths(options.pop("decoder_channels", None))
        self.out_channels = widths[-1]
        return self._wrap(decoder_channels=widths, **self._encoder(len(widths)), **options)


class SmpLinknet(Climbing):
    """LinkNet's decoder: transposed convolutions, the encoder's maps added (arXiv:1707.03718).

    It always climbs to the image's resolution. Where the finest map has that already, what comes
    out is as wide as that map, and `prefinal_channels` is not used.

    Options: `prefinal_channels`, `use_norm`.
    """

    wrapped = LinknetDecoder
    defaults: ClassVar[dict[str, Any]] = {"prefinal_channels": 32}

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        prefinal = count(options["prefinal_channels"], where=f"{self.title()} prefinal_channels")
        if min(self.in_channels) < 4:
            raise InputError(
                f"{self.title()} works on a quarter of the channels of each map: it takes maps of "
                f"4 or more, got {list(self.in_channels)}."
            )
        encoder = self._encoder(self._place()[1])
        self.out_channels = prefinal if self.bare else self.in_channels[0]
        return self._wrap(**encoder, **options)


class SmpUnetPlusPlus(Climbing):
    """U-Net++'s decoder: nested, densely connected steps (arXiv:1807.10165).

    Its last step never looks at a map. It takes at most two such steps, so that maps whose finest
    is of stride 8 come out at stride 2.

    Options: `decoder_channels`, `use_norm`, `attention_type`, `interpolation_mode`, `center`.
    """

    wrapped = UnetPlusPlusDecoder
    bare_steps = 2

    def _place(self) -> tuple[int, int]:
        fewest, most = super()._place()
        return fewest + 1, max(most, fewest + 1)

    def _construct(self, **options: Any) -> nn.Module:  # noqa: ANN401
        widths = self._widths(options.pop("decoder_channels", None))
        self.out_channels = widths[-1]
        decoder = self._wrap(decoder_channels=widths, **self._encoder(len(widths)), **options)
        blocks: Any = decoder.blocks
        last: Any = blocks[name := f"x_0_{len(widths) - 1}"]
        # The library calls it only where there is a map. Idle parameters would stop DDP.
        last.attention1 = nn.Identity()
        if self._levels()[0] < 1:
            # The finest map has the image's resolution: the last step does not double it.
            blocks[name] = nn.Sequential(last.conv1, last.conv2, last.attention2)
        return decoder

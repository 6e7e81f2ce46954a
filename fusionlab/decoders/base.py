"""The contract of decoders: from several maps of an image to one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import pairwise
from math import isclose
from typing import ClassVar

from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.features import Feature

_SURROUNDINGS = frozenset({"strides", "num_classes"})
"""Arguments that whoever builds a decoder supplies; all other keywords are options."""

_MAKE_PYRAMID = (
    "add the neck LearnedInterpolateToPyramidal (learned) or InterpolateToPyramidal over four of "
    "its layers"
)


class Decoder(nn.Module):
    """Maps of one image at one or several scales in, one map out.

    The first argument is given by position, everything else by keyword. Maps are ``(B, C, h, w)``,
    in the order of the backbone (finest or shallowest first), and their sizes divide the (padded)
    image's exactly. What comes out has whatever resolution the decoder gives; the caller resizes.

    Args:
        in_channels: widths of the maps.

    Attributes:
        scales: how many maps it takes, at least and at most (None: any number).
        pyramid: whether each map must be twice as coarse as the one before.
        includes_head: whether it answers logits itself, and then takes ``num_classes=``.
        out_channels: width of what comes out.

    Raises:
        InputError: if it takes more or fewer maps than are given, or a width is not positive.
    """

    scales: ClassVar[tuple[int, int | None]] = (1, None)
    pyramid: ClassVar[bool] = False
    includes_head: ClassVar[bool] = False
    out_channels: int

    def __init__(self, in_channels: Sequence[int], /) -> None:
        super().__init__()
        self.in_channels = tuple(in_channels)
        if not all(width > 0 for width in self.in_channels):
            raise InputError(
                f"The decoder {self.title()} takes maps of one or more channels, got the widths "
                f"{list(self.in_channels)}."
            )
        self._check_number(len(self.in_channels))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``(B, in_channels[i], h_i, w_i)`` to one map ``(B, out_channels, h, w)``."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward().")

    @classmethod
    def title(cls) -> str:
        """Its name in error messages."""
        return cls.__name__

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the keywords that configure it."""
        parameters = inspect.signature(cls).parameters.values()
        named = (p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        return tuple(name for name in named if name not in _SURROUNDINGS)

    @classmethod
    def check(cls, features: Sequence[Feature]) -> None:
        """Whether it can be built for these features. Strides that nobody knows are trusted.

        Raises:
            InputError: if not; names the neck that would help.
        """
        layouts = [feature.layout for feature in features]
        if any(layout != "NCHW" for layout in layouts):
            raise InputError(
                f"The decoder {cls.title()} takes maps (NCHW), but gets features laid out as "
                f"{layouts}. Turn tokens (NLC) into maps with the neck ReshapeTokensToImage, and "
                "other orders with PermuteDims."
            )
        cls._check_number(len(features))
        strides = [feature.stride for feature in features]
        known = [stride for stride in strides if stride is not None]
        if cls.pyramid and len(known) == len(strides) and not _doubling(known):
            cls._refuse_strides(known)

    @classmethod
    def _check_number(cls, number: int) -> None:
        least, most = cls.scales
        if number < least:
            raise InputError(
                f"The decoder {cls.title()} takes {least} or more maps, but gets {number}. Let the "
                "backbone give more layers; if it is a plain ViT, whose maps are all of one scale, "
                f"{_MAKE_PYRAMID}. The decoders FCN and Linear take a single map."
            )
        if most is not None and number > most:
            raise InputError(
                f"The decoder {cls.title()} takes at most {most} maps, but gets {number}. Keep "
                "some of them with the neck SelectIndices."
            )

    @classmethod
    def _refuse_strides(cls, strides: list[float]) -> None:
        found = [f"{stride:g}" for stride in strides]
        wants = f"The decoder {cls.title()} wants a pyramid: each map twice as coarse as the one "
        if len(set(found)) == 1:
            raise InputError(
                f"{wants}before it. All maps are of stride {found[0]}: a plain ViT gives one "
                f"scale; {_MAKE_PYRAMID}."
            )
        raise InputError(
            f"{wants}before it, finest first, but the strides are [{', '.join(found)}]. Keep those "
            "that fit, in order, with the neck SelectIndices, or let the backbone give others "
            "(one that was told an output stride gives its last maps at one scale)."
        )


def _doubling(strides: Sequence[float]) -> bool:
    return all(isclose(coarse, 2 * fine, rel_tol=1e-3) for fine, coarse in pairwise(strides))

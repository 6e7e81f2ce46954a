"""What flows from a backbone through necks to a decoder: several tensors, described in advance."""

from __future__ import annotations

from typing import NamedTuple


class Feature(NamedTuple):
    """One of the tensors, as it is known before any image is seen.

    Attributes:
        channels: its width.
        stride: pixels of the image per step of the tensor's grid, 0.5 for a grid twice as fine as
            the image; None where nobody knows.
        layout: its axes, a letter each: N samples, C channels, H rows, W columns, L tokens.
            ``NCHW`` is a map, ``NLC`` a sequence of tokens.
    """

    channels: int
    stride: float | None = None
    layout: str = "NCHW"

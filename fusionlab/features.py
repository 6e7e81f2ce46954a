"""What flows from a backbone through necks to a decoder: several tensors, described in advance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fusionlab.errors import InputError


class Feature(NamedTuple):
    """One of the tensors, as it is known before any image is seen.

    Attributes:
        channels: its width.
        stride: pixels of the image per step of the tensor's grid, 0.5 for a grid twice as fine as
            the image; None where nobody knows.
        layout: its axes, a letter each: N samples, C channels, H rows, W columns, L tokens.
            ``NCHW`` is a map, ``NLC`` a sequence of tokens, ``NC`` an embedding.
    """

    channels: int
    stride: float | None = None
    layout: str = "NCHW"


def checked_map_size(size: Any, *, where: str) -> tuple[int, int]:  # noqa: ANN401
    """Rows and columns of maps that become vectors: two numbers, or one for both.

    Raises:
        InputError: unless these are integers of 1 or more.
    """
    listed = isinstance(size, Sequence) and not isinstance(size, str)
    sides = tuple(size) if listed else (size, size)
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise InputError(
            f"{where} is the number of rows and columns of the maps, such as 8 or [8, 12]; got "
            f"{size!r}."
        )
    return sides[0], sides[1]


def flattened(
    maps: Tensor, channels: int, size: tuple[int, int], *, where: str, instead: str
) -> Tensor:
    """Maps as vectors: channel by channel, in each row by row.

    Args:
        maps: ``(B, channels, *size)``.
        channels: their width.
        size: rows and columns that they must have.
        where: what flattens them, for the error message.
        instead: a part that takes maps of any size, for the error message.

    Returns:
        ``(B, channels * rows * columns)``.

    Raises:
        InputError: for tensors of another shape.
    """
    if maps.shape[1:] != (channels, *size):
        expected = f"(B, {channels}, {size[0]}, {size[1]})"
        sized = maps.ndim == 4 and maps.shape[1] == channels
        advice = (
            f"Say `size: [{maps.shape[2]}, {maps.shape[3]}]` if all images are of this size, crop "
            f"or resize them in the data, or use {instead}, which takes any."
            if sized
            else f"Take it from a part that gives such maps, or use {instead}."
        )
        raise InputError(
            f"{where} flattens maps of the shape {expected}, got {tuple(maps.shape)}. {advice}"
        )
    return maps.flatten(1)

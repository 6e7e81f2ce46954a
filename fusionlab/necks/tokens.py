"""How tokens of a transformer lie on the image: prefix tokens, dates, and a grid of patches."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, isclose, isqrt

from fusionlab.errors import InputError
from fusionlab.necks.base import at_least

_MANY = 64  # more prefix tokens than any network has


def prefix_length(prefix_tokens: int | None, remove_cls_token: bool | None, *, where: str) -> int:
    """Number of tokens before those of the patches, from either way of saying it; 1 by default.

    Args:
        prefix_tokens: class, register and other tokens that come first.
        remove_cls_token: True for one such token, False for none.
        where: what is asking, for error messages.

    Raises:
        InputError: if the number is negative, or the two contradict each other.
    """
    if prefix_tokens is None:
        return 0 if remove_cls_token is False else 1
    prefix = at_least(prefix_tokens, 0, where=f"{where} prefix_tokens")
    if remove_cls_token is not None and remove_cls_token != (prefix > 0):
        raise InputError(
            f"{where}: prefix_tokens {prefix} and remove_cls_token {remove_cls_token} contradict "
            "each other. Say only prefix_tokens: how many tokens come before those of the patches."
        )
    return prefix


def exact_grid(stride: float, image_size: Sequence[int]) -> tuple[int, int] | None:
    """Rows and columns of cells of this stride, or None where they do not fill the image exactly.

    Args:
        stride: pixels per cell.
        image_size: rows and columns, pixels.
    """
    rows, columns = (round(side / stride) for side in image_size)
    if isclose(rows * stride, image_size[0]) and isclose(columns * stride, image_size[1]):
        return rows, columns
    return None


def token_grid(
    tokens: int,
    *,
    prefix: int,
    dates: int,
    stride: float | None,
    image_size: Sequence[int],
    where: str,
) -> tuple[int, int]:
    """Rows and columns of patches.

    Where the stride is unknown, patches are taken to be squares that fill the image exactly. Then
    the image's sides, divided by their greatest common divisor, give the grid but for a common
    factor, which the number of tokens decides: there is one answer or none.

    Args:
        tokens: number of tokens of a sample, prefix tokens included.
        prefix: how many of them are prefix tokens.
        dates: how many grids follow each other.
        stride: pixels per token, where it is known.
        image_size: rows and columns of the image, pixels.
        where: what is asking, for error messages.

    Raises:
        InputError: if the tokens do not fill such a grid; says what would fit.
    """
    if stride is not None:
        grid = exact_grid(stride, image_size)
        if grid is None:
            raise InputError(
                f"{where}: an image of {image_size[0]} x {image_size[1]} pixels is not filled by "
                f"patches of {stride:g} pixels. Pad images to multiples of it before the backbone."
            )
    else:
        common = gcd(*image_size)
        rows, columns = (side // common for side in image_size)
        factor = isqrt(max(tokens - prefix, 0) // (dates * rows * columns))
        grid = (factor * rows, factor * columns)
    cells = grid[0] * grid[1]
    if cells and tokens == prefix + dates * cells:
        return grid
    patches = f"square patches{'' if stride is None else f' of {stride:g} pixels'}"
    raise InputError(
        f"{where}: {tokens} tokens, without {prefix} prefix token(s) and over {dates} date(s), "
        f"fill no grid of {patches} on an image of {image_size[0]} x {image_size[1]} pixels. "
        f"{_advice(tokens, prefix, dates, cells, stride)}"
    )


def _advice(tokens: int, prefix: int, dates: int, cells: int, stride: float | None) -> str:
    if cells and tokens > prefix and (tokens - prefix) % cells == 0:
        fits = (tokens - prefix) // cells
        return f"`effective_time_dim: {fits}` would fit. Does the network have as many dates?"
    left = tokens - dates * cells
    if cells and 0 <= left <= _MANY:
        return f"`prefix_tokens: {left}` would fit. Does the network have as many?"
    if stride is None:
        return (
            "Say prefix_tokens, effective_time_dim and, if images are not padded to whole patches "
            "or patches are no squares, use a backbone that gives maps."
        )
    return "Check prefix_tokens, effective_time_dim and the stride that the backbone states."

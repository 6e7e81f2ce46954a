"""Smooth random fields, small blurs and index compression, in plain numpy.

Nothing here goes through BLAS, so results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Int = NDArray[np.int32]
Bool = NDArray[np.bool_]


def _spline(size: int, wavelength: float, phase: float) -> tuple[Int, Float]:
    """Indices (4, size) and weights (4, size) of a uniform cubic B-spline."""
    position = np.arange(size) / wavelength + phase
    cell = np.floor(position).astype(np.int32)
    t = position - cell
    weights = np.stack(
        [
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        ]
    )
    return cell + np.arange(4, dtype=np.int32)[:, None], weights.astype(np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], wavelength: float) -> Float:
    """Smooth noise with mean 0 and standard deviation about 1.

    Args:
        rng: Source of the random lattice.
        shape: Height and width of the field.
        wavelength: Lattice spacing in pixels, at least 1.

    Returns:
        Field of the given shape, float32.
    """
    wavelength = max(wavelength, 1.0)
    phase = rng.random(2)
    rows, row_weights = _spline(shape[0], wavelength, phase[0])
    cols, col_weights = _spline(shape[1], wavelength, phase[1])
    lattice = rng.standard_normal((int(rows.max()) + 1, int(cols.max()) + 1), dtype=np.float32)
    half = np.zeros((shape[0], lattice.shape[1]), dtype=np.float32)
    for index, weight in zip(rows, row_weights, strict=True):
        half += weight[:, None] * lattice[index]
    field: Float = np.zeros(shape, dtype=np.float32)
    for index, weight in zip(cols, col_weights, strict=True):
        field += weight[None] * half[:, index]
    # The B-spline's mean energy is 0.479 per axis.
    field /= np.float32(0.479)
    return field


def smoothstep(values: Float, low: float, high: float) -> Float:
    """Cubic ramp from 0 at `low` to 1 at `high`."""
    t: Float = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blur(image: Float, weight: float) -> Float:
    """Three-tap blur along the last two axes.

    Args:
        image: Array (..., H, W).
        weight: Share of each of the two neighbours, 0 to 1/3.

    Returns:
        Blurred array of the same shape; the edges are repeated.
    """
    share = np.float32(weight)
    for axis in (-1, -2):
        before = np.roll(image, 1, axis)
        after = np.roll(image, -1, axis)
        edge: list[Any] = [slice(None)] * image.ndim
        edge[axis] = 0
        before[tuple(edge)] = image[tuple(edge)]
        edge[axis] = -1
        after[tuple(edge)] = image[tuple(edge)]
        image = (1 - 2 * share) * image + share * (before + after)
    return image


def enlarge(image: Float, factor: int) -> Float:
    """Bilinear enlargement of (..., H, W) by a whole factor."""
    if factor == 1:
        return image
    for axis in (-1, -2):
        size = image.shape[axis]
        position = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.minimum(position.astype(np.int32), size - 2)
        shape = [1] * image.ndim
        shape[axis] = -1
        t = (position - low).astype(np.float32).reshape(shape)
        image = (1 - t) * np.take(image, low, axis) + t * np.take(image, low + 1, axis)
    return image


def compress(*keys: NDArray[Any]) -> tuple[Int, int]:
    """Numbers the distinct combinations of integer keys from 0.

    Args:
        *keys: Integer arrays of one shape with small value ranges.

    Returns:
        The number of each element's combination, and how many combinations there are.
    """
    code = np.zeros(keys[0].shape, dtype=np.int64)
    for key in keys:
        if key.size:
            low = int(key.min())
            code = code * (int(key.max()) - low + 1) + (key - low)
    if not code.size:
        return code.astype(np.int32), 0
    seen = np.zeros(int(code.max()) + 1, dtype=bool)
    seen[code] = True
    number = np.cumsum(seen, dtype=np.int32) - 1
    return number[code], int(number[-1]) + 1

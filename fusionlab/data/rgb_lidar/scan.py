"""From depths and angles to points: the four channels of a LiDAR scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

RANGE = 50.0
"""Depths from here on, metres, are no returns."""


def xyza(depth: Floats, azimuth: Floats, zenith: Floats) -> Floats:
    """Points of scans, and whether there is one.

    ``x = d sin(-az) cos(-ze)``, ``y = d cos(-az) cos(-ze)``, ``z = d sin(-ze)``, ``a = d < 50``.
    Pulses that do not come back keep the point of their depth; a depth that is not finite gives NaN
    coordinates, which experts take for the mean.

    Args:
        depth: ``(..., rows, columns)``, metres.
        azimuth: ``(rows,)``, radians.
        zenith: ``(columns,)``, radians.

    Returns:
        float32 ``(..., 4, rows, columns)``: x, y, z in metres and a, 0 or 1.
    """
    az = azimuth.astype(np.float64)[:, None]
    ze = zenith.astype(np.float64)[None, :]
    directions = np.stack(
        np.broadcast_arrays(np.sin(-az) * np.cos(-ze), np.cos(-az) * np.cos(-ze), np.sin(-ze))
    ).astype(np.float32)
    points = np.empty((*depth.shape[:-2], 4, *depth.shape[-2:]), np.float32)
    known = np.where(np.isfinite(depth), depth, np.float32(np.nan))[..., None, :, :]
    np.multiply(known, directions, out=points[..., :3, :, :])
    points[..., 3, :, :] = depth < RANGE
    return points


def nearest(count: int, size: int) -> NDArray[np.int64]:
    """Which of `count` rows or columns lies nearest to each of `size`, by their middles."""
    middles = (np.arange(size) + 0.5) * count / size
    return np.floor(middles).astype(np.int64).clip(0, count - 1)

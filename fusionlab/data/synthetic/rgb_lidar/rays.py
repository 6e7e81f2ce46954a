"""Rays and what they hit: spheres, cubes in any pose, and level ground, on whole arrays at once.

All is seen from one point, the origin, where the camera and the scanner are. Axes are those of the
scans: x points up, y ahead, z to the left. Rows run from top to bottom, columns from left to right.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

HALF_VIEW = float(np.deg2rad(24.0))
"""From the middle of the view to its edge, for the camera and the scanner."""


class Hits(NamedTuple):
    """Where rays meet the surface of a body.

    Attributes:
        distance: ``(n, rays)`` along the ray, metres; inf where they miss it.
        facing: ``(n, rays)`` cosine between the surface's normal and the light there; 0 where they
            miss it.
    """

    distance: Floats
    facing: Floats


def scan_angles(size: int) -> tuple[Floats, Floats]:
    """Azimuth of every row and zenith of every column of a scan, ``(size,)`` each, radians.

    Both grow from minus to plus half the view, in the middle of equal steps. The scanner lies on
    its side: azimuth turns it from up to down, zenith from left to right, as pixels are counted.
    """
    angles = (np.arange(size, dtype=np.float64) + 0.5) / size * 2 - 1
    both = (angles * HALF_VIEW).astype(np.float32)
    return both, both.copy()


def scan_rays(azimuth: Floats, zenith: Floats) -> Floats:
    """Directions of length 1, ``(rows * columns, 3)``: where distance times direction is the point.

    Args:
        azimuth: ``(rows,)``, radians.
        zenith: ``(columns,)``, radians.
    """
    a, z = azimuth.astype(np.float64)[:, None], zenith.astype(np.float64)[None, :]
    x, y, z = np.broadcast_arrays(np.sin(-a) * np.cos(-z), np.cos(-a) * np.cos(-z), np.sin(-z))
    return np.stack((x, y, z), axis=-1).reshape(-1, 3).astype(np.float32)


def camera_rays(size: int) -> Floats:
    """Directions of length 1 through the pixels of a pinhole camera, ``(size * size, 3)``."""
    steps = ((np.arange(size) + 0.5) / size * 2 - 1) * np.tan(HALF_VIEW)
    up, left = np.meshgrid(-steps, -steps, indexing="ij")
    rays = np.stack((up, np.ones_like(up), left), axis=-1).reshape(-1, 3)
    unit: Floats = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).astype(np.float32)
    return unit


def hit_spheres(rays: Floats, center: Floats, radius: Floats, light: Floats) -> Hits:
    """Where rays from the origin meet spheres.

    Args:
        rays: ``(rays, 3)`` directions.
        center: ``(n, 3)``.
        radius: ``(n,)``.
        light: ``(n, 3)`` direction towards the light.
    """
    along = center @ rays.T
    inside = along**2 - (np.square(center).sum(axis=1) - radius**2)[:, None]
    hit = (inside > 0) & (along > 0)
    distance = along - np.sqrt(np.maximum(inside, 0))
    facing = distance * (light @ rays.T) - np.einsum("nk,nk->n", center, light)[:, None]
    return Hits(
        np.where(hit, distance, np.inf).astype(np.float32),
        np.where(hit, facing / radius[:, None], 0).astype(np.float32),
    )


def hit_cubes(rays: Floats, center: Floats, half: Floats, rotation: Floats, light: Floats) -> Hits:
    """Where rays from the origin meet cubes.

    Args:
        rays: ``(rays, 3)`` directions.
        center: ``(n, 3)``.
        half: ``(n,)`` half of an edge.
        rotation: ``(n, 3, 3)``, whose columns are the directions of a cube's edges.
        light: ``(n, 3)`` direction towards the light.
    """
    directions = rays @ rotation
    origin = np.einsum("nk,nkj->nj", -center, rotation)[:, None]
    near, far, axis = _slabs(origin, directions, half)
    hit = (near < far) & (near > 0)
    # The normal of the face that is met points against the ray along one edge.
    towards = np.take_along_axis(directions, axis[..., None], axis=2)[..., 0]
    lit = np.einsum("nk,nkj->nj", light, rotation)
    facing = -np.sign(towards) * np.take_along_axis(lit, axis.reshape(len(lit), -1), axis=1)
    return Hits(
        np.where(hit, near, np.inf).astype(np.float32),
        np.where(hit, facing, 0).astype(np.float32),
    )


def hit_ground(rays: Floats, depth: Floats) -> Floats:
    """Distances ``(n, rays)`` to level ground; inf where rays do not go down.

    Args:
        rays: ``(rays, 3)`` directions.
        depth: ``(n,)`` how far the ground lies below the origin; inf for none.
    """
    down = -rays[:, 0]
    slope = np.where(down > 1e-6, down, np.nan)
    return np.nan_to_num(depth[:, None] / slope, nan=np.inf, posinf=np.inf).astype(np.float32)


def shaded_by_spheres(
    points: Floats, center: Floats, radius: Floats, light: Floats
) -> NDArray[np.bool_]:
    """Which points ``(n, rays, 3)`` a sphere hides from the light."""
    offset = points - center[:, None]
    along = np.einsum("nrk,nk->nr", offset, light)
    inside = along**2 - np.square(offset).sum(axis=2) + (radius**2)[:, None]
    hidden: NDArray[np.bool_] = (inside > 0) & (along < 0)
    return hidden


def shaded_by_cubes(
    points: Floats, center: Floats, half: Floats, rotation: Floats, light: Floats
) -> NDArray[np.bool_]:
    """Which points ``(n, rays, 3)`` a cube hides from the light."""
    origin = ((points - center[:, None]) @ rotation).astype(np.float32)
    directions: Floats = np.einsum("nk,nkj->nj", light, rotation)[:, None]
    near, far, _ = _slabs(origin, directions, half)
    hidden: NDArray[np.bool_] = (near < far) & (far > 0)
    return hidden


def _slabs(
    origin: Floats, directions: Floats, half: Floats
) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Where rays enter and leave cubes along their own edges, and through which pair of faces."""
    safe = np.where(np.abs(directions) < 1e-6, 1e-6, directions).astype(np.float32)
    middle: Floats = -origin / safe
    reach: Floats = np.abs(half[:, None, None] / safe)
    entering = middle - reach
    axis = entering.argmax(axis=2)
    near: Floats = np.take_along_axis(entering, axis[..., None], axis=2)[..., 0]
    return near, (middle + reach).min(axis=2), axis

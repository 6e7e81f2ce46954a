"""What the camera and the scanner make of a scene: RGBA images, and depths with drop-outs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.rgb_lidar.rays import (
    Floats,
    camera_rays,
    hit_ground,
    scan_angles,
    scan_rays,
)
from fusionlab.data.synthetic.rgb_lidar.scenes import Scenes

RANGE = 50.0
"""What lies farther away, or as far, sends nothing back; metres."""
GHOSTS = (1.0, 8.0)
"""Distances between which rain and dust send pulses back, metres."""
NO_RETURN = 60.0
"""Depth of a pulse that does not come back, metres: beyond the range."""


def render_images(scenes: Scenes, size: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """RGBA images ``(n, 4, size, size)``; they are opaque everywhere.

    Args:
        scenes: what to show.
        size: rows and columns.
        generator: source of noise and patterns.
    """
    rays = camera_rays(size)
    n = len(scenes)
    hits = scenes.hit(rays)
    ground = hit_ground(rays, scenes.ground_depth)
    on_object = hits.distance < ground
    on_ground = ~on_object & np.isfinite(ground)

    height = np.clip(rays[:, 0] / rays[:, 0].max(), 0, 1)[None, :, None]
    sky = height * scenes.sky[:, None, 0] + (1 - height) * scenes.sky[:, None, 1]
    pattern = 1 + scenes.texture[:, None] * _patterns(generator, n, size)
    ambient = scenes.ambient[:, None]
    lit = ambient + (1 - ambient) * np.maximum(hits.facing, 0)

    # Only rays that reach the ground are followed on to the light.
    points = np.where(on_ground, ground, 0)[..., None] * rays
    shadow = scenes.shaded(points.astype(np.float32))
    sunny = ambient + (1 - ambient) * np.where(shadow, 0, np.maximum(scenes.light[:, :1], 0))
    colors = np.where(
        on_object[..., None],
        scenes.albedo[:, None] * lit[..., None],
        np.where(
            on_ground[..., None],
            scenes.ground[:, None] * (sunny * pattern)[..., None],
            sky * pattern[..., None],
        ),
    )
    colors = colors * scenes.exposure[:, None, None]
    noise = generator.standard_normal(colors.shape, np.float32)
    colors = colors + scenes.image_noise[:, None, None] * noise
    pixels = np.full((n, 4, size * size), 255, np.uint8)
    pixels[:, :3] = np.moveaxis((colors * 255).round().clip(0, 255), 2, 1)
    return pixels.reshape(n, 4, size, size)


def render_scans(scenes: Scenes, size: int, generator: np.random.Generator) -> Floats:
    """Depths ``(n, size, size)``, metres; `NO_RETURN` where nothing comes back.

    Rain and dust send a few pulses back before they reach anything.

    Args:
        scenes: what to scan.
        size: rows and columns, at the angles of `scan_angles`.
        generator: source of noise, drop-outs and ghosts.
    """
    exact = exact_depths(scenes, size)
    noise = generator.standard_normal(exact.shape, np.float32)
    depth = exact + scenes.range_noise[:, None, None] * noise
    back = generator.random(exact.shape, np.float32) < scenes.returns[:, None, None]
    back &= (exact < RANGE) & (depth < RANGE) & (depth > 0)
    scans = np.where(back, depth, NO_RETURN)
    ghosts = generator.uniform(*GHOSTS, exact.shape)
    early = generator.random(exact.shape, np.float32) < scenes.ghosts[:, None, None]
    return np.where(early & (ghosts < exact), ghosts, scans).astype(np.float32)


def exact_depths(scenes: Scenes, size: int) -> Floats:
    """Distances ``(n, size, size)`` without noise; inf where there is nothing to hit."""
    rays = scan_rays(*scan_angles(size))
    nearest = np.minimum(scenes.hit(rays).distance, hit_ground(rays, scenes.ground_depth))
    return nearest.reshape(len(scenes), size, size)


def _patterns(generator: np.random.Generator, n: int, size: int) -> Floats:
    """Smooth patterns ``(n, size * size)`` about 0: a few waves, each of its own direction."""
    rows, columns = np.mgrid[:size, :size].reshape(2, -1).astype(np.float32) / size
    waves = generator.uniform(-5, 5, (n, 3, 2)).astype(np.float32)
    phase = generator.uniform(0, 2 * np.pi, (n, 3, 1)).astype(np.float32)
    angle = 2 * np.pi * (waves[..., :1] * rows + waves[..., 1:] * columns) + phase
    pattern: Floats = np.sin(angle).mean(axis=1)
    return pattern

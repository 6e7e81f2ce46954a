"""Scenes: an object, the light, the ground and the background, and how well each sensor sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.rgb_lidar.config import RgbLidarConfig
from fusionlab.data.synthetic.rgb_lidar.rays import (
    HALF_VIEW,
    Floats,
    Hits,
    hit_cubes,
    hit_spheres,
    shaded_by_cubes,
    shaded_by_spheres,
)

Shape = Literal["cubes", "spheres"]
SHAPES: tuple[Shape, ...] = ("cubes", "spheres")

EDGE = float(np.sqrt(np.pi / 6))
"""Half an edge of a cube in units of the radius of the sphere that covers as much of the view, on
average over all poses: a quarter of a convex body's surface. Size tells nothing about the class."""

SPREAD = 0.25
"""How far objects lie from the middle of the view, in units of the room that there is."""
TILT = float(np.deg2rad(12.0))
"""The most that objects are tilted out of level; they are turned any way."""


@dataclass(frozen=True)
class Scenes:
    """A number of scenes of one shape.

    Attributes:
        shape: of all objects.
        center: ``(n, 3)`` middle of the object, metres.
        radius: ``(n,)`` of a sphere, or of the sphere that looks as large as the cube, metres.
        rotation: ``(n, 3, 3)`` pose; columns are the directions of a cube's edges.
        light: ``(n, 3)`` direction towards the light.
        ambient: ``(n,)`` share of the light that comes from everywhere; 1 is flat shading.
        albedo: ``(n, 3)`` colour of the object, 0 to 1.
        ground: ``(n, 3)`` colour of the ground.
        sky: ``(n, 2, 3)`` colours of the background at the top and at the horizon.
        ground_depth: ``(n,)`` how far the ground lies below the sensors; inf where there is none.
        exposure: ``(n,)`` factor on all colours.
        image_noise: ``(n,)`` standard deviation of a pixel.
        texture: ``(n,)`` contrast of the patterns on ground and background.
        range_noise: ``(n,)`` standard deviation of a distance, metres.
        returns: ``(n,)`` share of the pulses that come back.
        ghosts: ``(n,)`` share of the pulses that come back from rain or dust on their way.
        hard_image: ``(n,)`` whether the image was drawn to be hard.
        hard_scan: ``(n,)`` whether the scan was drawn to be hard.
    """

    shape: Shape
    center: Floats
    radius: Floats
    rotation: Floats
    light: Floats
    ambient: Floats
    albedo: Floats
    ground: Floats
    sky: Floats
    ground_depth: Floats
    exposure: Floats
    image_noise: Floats
    texture: Floats
    range_noise: Floats
    returns: Floats
    ghosts: Floats
    hard_image: NDArray[np.bool_]
    hard_scan: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.center)

    def hit(self, rays: Floats) -> Hits:
        """Where rays ``(rays, 3)`` from the sensors meet the objects."""
        if self.shape == "spheres":
            return hit_spheres(rays, self.center, self.radius, self.light)
        return hit_cubes(rays, self.center, EDGE * self.radius, self.rotation, self.light)

    def shaded(self, points: Floats) -> NDArray[np.bool_]:
        """Which points ``(n, rays, 3)`` the objects hide from the light."""
        if self.shape == "spheres":
            return shaded_by_spheres(points, self.center, self.radius, self.light)
        half = EDGE * self.radius
        return shaded_by_cubes(points, self.center, half, self.rotation, self.light)


def draw_scenes(
    generator: np.random.Generator, shape: Shape, number: int, config: RgbLidarConfig
) -> Scenes:
    """Scenes at random: pose, size, place, colours, light, ground, and the state of the sensors.

    Args:
        generator: source of randomness.
        shape: of all objects.
        number: of scenes.
        config: how many of them are hard for one sensor or the other.
    """

    def uniform(low: float, high: float, *shape: int) -> Floats:
        return generator.uniform(low, high, (number, *shape)).astype(np.float32)

    radius = uniform(0.8, 1.05)
    # The object is in view as a whole: cubes reach 1.25 times as far as spheres of their size.
    distance = uniform(3.5, 4.3)
    room = np.maximum(HALF_VIEW - np.arcsin(1.26 * radius / distance), 0)
    up, left = SPREAD * room * uniform(-1, 1), SPREAD * room * uniform(-1, 1)
    center = distance[:, None] * _directions(up, left)
    light = _directions(uniform(0.35, 1.2), np.pi + uniform(-1.1, 1.1))
    lowest = -center[:, 0] + 1.26 * radius
    ground_depth = np.where(uniform(0, 1) < 0.7, np.maximum(lowest, 0.6) + uniform(0, 0.8), np.inf)

    hard_image = generator.random(number) < config.hard_images
    dark = hard_image & (generator.random(number) < 0.5)
    pale = hard_image & ~dark
    hard_scan = generator.random(number) < config.hard_scans
    flat = pale | (generator.random(number) < 0.1)
    albedo = _bright(uniform(0, 1, 3))
    sky, ground = _muted(uniform(0, 1, 2, 3)), _muted(uniform(0, 1, 3))
    # Little contrast: everything has about the colour of the object.
    albedo = np.where(pale[:, None], _muted(uniform(0, 1, 3)) + 0.1, albedo)
    near = albedo[:, None] + np.sign(uniform(-1, 1, 3, 3)) * uniform(0.04, 0.16, 3, 3)
    sky = np.where(pale[:, None, None], near[:, :2], sky)
    ground = np.where(pale[:, None], near[:, 2], ground)
    return Scenes(
        shape=shape,
        center=center.astype(np.float32),
        radius=radius,
        rotation=_poses(uniform(0, 2 * np.pi), TILT * uniform(0, 1), uniform(0, 2 * np.pi)),
        light=light,
        ambient=np.where(flat, 1, uniform(0.15, 0.5)).astype(np.float32),
        albedo=albedo.astype(np.float32),
        ground=ground.astype(np.float32),
        sky=sky.astype(np.float32),
        ground_depth=ground_depth.astype(np.float32),
        exposure=np.where(dark, uniform(0.1, 0.3), uniform(0.6, 1.1)).astype(np.float32),
        image_noise=np.where(hard_image, uniform(0.015, 0.05), uniform(0.005, 0.03)),
        texture=np.where(pale, uniform(0, 0.05), uniform(0, 0.25)),
        range_noise=np.where(hard_scan, uniform(0.1, 0.4), uniform(0.005, 0.04)),
        returns=np.where(hard_scan, uniform(0.02, 0.12), uniform(0.85, 1)),
        ghosts=np.where(hard_scan, uniform(0.02, 0.06), uniform(0, 0.004)),
        hard_image=hard_image,
        hard_scan=hard_scan,
    )


def _directions(up: Floats, left: Floats) -> Floats:
    """Directions of length 1 by their angles above the horizon and to the left."""
    found = np.stack((np.sin(up), np.cos(up) * np.cos(left), np.cos(up) * np.sin(left)), axis=1)
    return found.astype(np.float32)


def _bright(draw: Floats) -> Floats:
    """Strong colours ``(..., 3)``: one channel near 1, the others anything."""
    found: Floats = 0.35 + 0.65 * draw / draw.max(axis=-1, keepdims=True)
    return found


def _muted(draw: Floats) -> Floats:
    """Greyish colours ``(..., 3)`` of medium brightness, in which every channel is about alike."""
    found: Floats = 0.15 + 0.25 * draw[..., :1] + 0.1 * draw
    return found


def _poses(yaw: Floats, tilt: Floats, towards: Floats) -> Floats:
    """Rotations ``(n, 3, 3)``: about the upright axis, then tilted about a level one.

    Args:
        yaw: ``(n,)``, radians.
        tilt: ``(n,)``, radians.
        towards: ``(n,)`` where the level axis points, radians.
    """
    turned, level, tilted = (
        _about(axis, angle) for axis, angle in ((0, yaw), (0, towards), (1, tilt))
    )
    back = np.swapaxes(level, 1, 2)
    return (level @ tilted @ back @ turned).astype(np.float32)


def _about(axis: int, angle: Floats) -> Floats:
    """Rotations ``(n, 3, 3)`` about one of the three axes."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    found = np.zeros((len(angle), 3, 3), np.float32)
    found[:, axis, axis] = 1
    found[:, first, first] = found[:, second, second] = np.cos(angle)
    found[:, second, first] = np.sin(angle)
    found[:, first, second] = -np.sin(angle)
    return found

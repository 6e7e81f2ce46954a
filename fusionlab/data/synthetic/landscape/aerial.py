"""The aerial camera: red, green, blue, near infrared and height above ground in 8 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.landscape.canvas import Canvas
from fusionlab.data.synthetic.landscape.covers import AERIAL_BANDS, materials, states
from fusionlab.data.synthetic.landscape.domain import Domain
from fusionlab.data.synthetic.landscape.noise import Float, blur, enlarge, smooth_noise

HEIGHT_UNIT = 0.2
"""Metres per unit of band 5; 255 means 51 m or more."""

_WHITE = np.array([0.36, 0.31, 0.28, 0.80], dtype=np.float32)[:, None, None]
_HAZE = np.array([165, 175, 190, 150], dtype=np.float32)[:, None, None]
_SHADE = np.array([0.30, 0.34, 0.42, 0.26], dtype=np.float32)[:, None, None]


def render_aerial(
    canvas: Canvas, domain: Domain, rng: np.random.Generator, factor: int
) -> NDArray[np.uint8]:
    """Photographs a canvas.

    Args:
        canvas: The map of the zone, or the part of it that is photographed.
        domain: Camera, sun and colours.
        rng: Source of the camera's noise.
        factor: Aerial pixels per drawn pixel.

    Returns:
        Image (5, H * factor, W * factor), uint8: R, G, B, NIR and height in `HEIGHT_UNIT`.
    """
    table, segment = canvas.segments, canvas.segment
    day = np.array([domain.aerial_day], dtype=np.int32)
    green, dry = states(table, day, aerial_day=domain.aerial_day, season_shift=domain.season_shift)
    leaf, ground = materials(table, dry, domain.palette)
    cover = np.clip(green[:, 0][segment] * canvas.green, 0, 1)
    grain = _grain(canvas, rng)
    height = blur(canvas.height, 0.2)
    light = grain * _relief(height, canvas.pixel, domain)
    shadow = blur(_shadow(canvas.height, canvas.pixel, domain), 0.2)

    image = np.empty((5, canvas.shape[0] * factor, canvas.shape[1] * factor), dtype=np.uint8)
    scene = np.empty((4, *canvas.shape), dtype=np.float32)
    for band, source in enumerate(AERIAL_BANDS):
        below = ground[:, 0, source][segment]
        scene[band] = below + cover * (leaf[:, 0, source][segment] - below)
    scene *= light * (1 - shadow * (1 - _SHADE))
    # A tone curve that keeps both dark woods and bright roofs within 8 bits.
    tone = 255 * np.clip(scene * domain.gain[:, None, None] / _WHITE, 0, 1) ** np.float32(0.6)
    tone = enlarge(blur((1 - domain.haze) * tone + domain.haze * _HAZE, domain.blur), factor)
    tone += domain.noise * rng.standard_normal(tone.shape, dtype=np.float32)
    image[:4] = np.clip(np.rint(tone), 0, 255)

    units = enlarge(height, factor) / HEIGHT_UNIT
    units += 0.6 * rng.standard_normal(units.shape, dtype=np.float32)
    image[4] = np.clip(np.rint(units), 0, 255)
    return image


def _grain(canvas: Canvas, rng: np.random.Generator) -> Float:
    """Brightness texture: coarse on bare surfaces, ripples on water, faint elsewhere."""
    table = canvas.segments
    strength = np.full(len(table.cover), 0.04, dtype=np.float32)
    strength[table.of_pattern("rough")] = 0.13
    strength[table.of_pattern("canopy")] = 0.10
    strength[table.of_pattern("water")] = 0.02
    fine = smooth_noise(rng, canvas.shape, max(1.2, 1.6 / canvas.pixel))
    grain: Float = np.exp(strength[canvas.segment] * fine)
    return grain


def _relief(height: Float, pixel: float, domain: Domain) -> Float:
    """Light on slopes that face the sun, dark on those that turn away, 0.78 to 1.22."""
    down, right = np.gradient(height, np.float32(pixel))
    east, north = np.sin(domain.sun_azimuth), np.cos(domain.sun_azimuth)
    facing = -(right * np.float32(east) - down * np.float32(north))
    light: Float = 1 + np.float32(0.22) * np.tanh(facing).astype(np.float32)
    return light


def _shadow(height: Float, pixel: float, domain: Domain) -> Float:
    """Share of each pixel in cast shadow, found by walking towards the sun."""
    slope = np.tan(domain.sun_elevation)
    east, north = np.sin(domain.sun_azimuth), np.cos(domain.sun_azimuth)
    shade = np.zeros(height.shape, dtype=np.float32)
    rows, cols = height.shape
    stride = max(pixel, 0.8)
    for step in range(1, int(24 / slope / stride) + 1):
        reach = step * stride
        down, right = round(-reach * north / pixel), round(reach * east / pixel)
        if abs(down) >= rows or abs(right) >= cols:
            break
        here = (slice(max(0, -down), rows - max(0, down)),
                slice(max(0, -right), cols - max(0, right)))  # fmt: skip
        there = (slice(max(0, down), rows + min(0, down)),
                 slice(max(0, right), cols + min(0, right)))  # fmt: skip
        # A metre of slack keeps canopies from shading themselves.
        hidden = height[there] > height[here] + np.float32(reach * slope + 1.0)
        np.maximum(shade[here], hidden, out=shade[here])
    return shade

"""The two sensors: Sentinel-2 reflectance and Sentinel-1 backscatter of the same land."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.bigearthnet.constants import GSD, S1_BANDS, S2_BANDS
from fusionlab.data.synthetic.bigearthnet.covers import COVERS, OPTICAL, RADAR, SPECTRA
from fusionlab.data.synthetic.bigearthnet.land import PIXEL, Land
from fusionlab.data.synthetic.bigearthnet.look import Look
from fusionlab.data.synthetic.landscape.noise import Float, blur, smooth_noise, smoothstep

SPECKLE_LOOKS = 4.4
"""Equivalent number of looks of Sentinel-1's IW GRD products of high resolution."""
_SHADOW = (9, 6)
"""Rows and columns from a shadow to the cloud that throws it."""
_FLOOR = 10**-3.3
"""Noise-equivalent sigma nought, linear."""
_RAYLEIGH = np.linspace(1, 0, len(S2_BANDS), dtype=np.float32) ** 3


def render_sentinel2(
    land: Land, look: Look, rng: np.random.Generator, *, snow: bool = False, cloud: bool = False
) -> dict[str, NDArray[np.uint16]]:
    """Looks at the land as Sentinel-2 does.

    Args:
        land: The map, (H, W) at 10 m.
        look: Season and colours of the place.
        rng: Source of what differs between patches and pixels.
        snow: Whether snow lies.
        cloud: Whether a cloud and its shadow lie over part of it.

    Returns:
        Reflectance times 10,000 per band, each on its own grid (10, 20 or 60 m); sides that are no
        whole number of pixels are rounded up.
    """
    looks = [OPTICAL[COVERS[index].optical] for index in land.cover]
    stray = _column([COVERS[index].green for index in land.cover])
    summer = _column([kind.summer for kind in looks])
    winter = _column([kind.winter for kind in looks])
    share = winter + np.float32(look.leafy) * (summer - winter) + stray
    share = share + 0.08 * rng.standard_normal(len(looks), dtype=np.float32)
    green = share[land.segment]
    green += _column([kind.parcels for kind in looks])[land.segment] * land.parcel
    green += _texture(land, rng, [(kind.grain, kind.texture) for kind in looks])
    green = np.clip(green, 0, 1)

    light = np.exp(0.14 * rng.standard_normal((len(looks), 1), dtype=np.float32))
    leaf = light * np.array([SPECTRA[kind.leaf] for kind in looks], dtype=np.float32) * look.leaf
    ground = light * np.array([SPECTRA[kind.ground] for kind in looks], np.float32) * look.ground
    clear = green * _per_pixel(leaf, land) + (1 - green) * _per_pixel(ground, land)

    gain = np.exp(0.05 * rng.standard_normal() + 0.03 * rng.standard_normal() * (_RAYLEIGH - 0.5))
    haze = np.float32(rng.gamma(2.0, 0.0025)) * _RAYLEIGH
    clear = clear * gain.astype(np.float32)[:, None, None] + haze[:, None, None]
    if snow:
        depth = smooth_noise(rng, land.shape, 30) + np.float32(rng.uniform(0.2, 1.2))
        dry = _column([kind.ground not in ("lake", "sea") for kind in looks])[land.segment]
        clear += 0.9 * dry * smoothstep(depth, 0, 0.8) * (_spectrum("snow") - clear)
    if cloud:
        # Clouds outside the patch throw shadows into it.
        wide = land.shape[0] + _SHADOW[0], land.shape[1] + _SHADOW[1]
        field = smooth_noise(rng, wide, 40) + 0.3 * smooth_noise(rng, wide, 10)
        opacity = smoothstep(field, 0.2, 1.0)
        clear *= 1 - 0.5 * opacity[_SHADOW[0] :, _SHADOW[1] :]
        clear += opacity[: land.shape[0], : land.shape[1]] * (_spectrum("cloud") - clear)
    clear = blur(clear, 0.08)
    return {band: _digital(clear[i], GSD[band], rng) for i, band in enumerate(S2_BANDS)}


def render_sentinel1(
    land: Land, look: Look, rng: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """Looks at the land as Sentinel-1 does.

    Args:
        land: The map, (H, W) at 10 m.
        look: What the place adds.
        rng: Source of moisture, angle of incidence and speckle.

    Returns:
        Sigma nought in decibel of VV and VH, (H, W) at 10 m.
    """
    looks = [RADAR[COVERS[index].radar] for index in land.cover]
    stray = _column([COVERS[index].decibel for index in land.cover])
    # What raises or lowers both polarisations: moisture, roughness, the angle of incidence.
    both = stray + 0.9 * rng.standard_normal(len(looks), dtype=np.float32)
    common = both[land.segment]
    common += _column([kind.parcels for kind in looks])[land.segment] * land.parcel
    common += _texture(land, rng, [(kind.grain, kind.texture) for kind in looks])
    # Sigma nought falls by about 0.1 dB per degree; a scene spans 30 to 46 degrees.
    angle = rng.uniform(-8, 8) + np.linspace(-0.04, 0.04, land.shape[1])
    common += np.float32(0.4 * rng.standard_normal()) - (0.1 * angle).astype(np.float32)
    corners = _column([kind.corners for kind in looks])[land.segment]
    common += np.where(rng.random(land.shape, dtype=np.float32) < corners, np.float32(8), 0)

    bands = {}
    for index, name in enumerate(S1_BANDS):
        level = _column([(kind.vv, kind.vh)[index] for kind in looks])
        level = level + 0.6 * rng.standard_normal(len(looks), dtype=np.float32)
        power = 10 ** ((level[land.segment] + common + look.decibel[index]) / 10)
        speckle = rng.standard_gamma(SPECKLE_LOOKS, land.shape, dtype=np.float32) / SPECKLE_LOOKS
        seen = blur((power + _FLOOR) * speckle, 0.05)
        bands[name] = (10 * np.log10(seen)).astype(np.float32)
    return bands


def _column(values: Sequence[float]) -> Float:
    """A number per piece of land."""
    return np.array(values, dtype=np.float32)


def _spectrum(name: str) -> Float:
    """A spectrum shaped (12, 1, 1)."""
    return np.array(SPECTRA[name], dtype=np.float32)[:, None, None]


def _per_pixel(table: Float, land: Land) -> Float:
    """Spectra of the pieces of land (S, 12) as an image (12, H, W)."""
    image: Float = np.ascontiguousarray(table.T)[:, land.segment]
    return image


def _texture(land: Land, rng: np.random.Generator, kinds: list[tuple[float, float]]) -> Float:
    """Smooth noise (H, W), for each piece of land with its own grain (metres) and strength."""
    field = np.zeros(land.shape, dtype=np.float32)
    for grain in sorted({grain for grain, _ in kinds}):
        strength = _column([s if g == grain else 0.0 for g, s in kinds])[land.segment]
        field += strength * smooth_noise(rng, land.shape, grain / PIXEL)
    return field


def _digital(band: Float, gsd: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Averages a band (H, W) at 10 m over its own pixels and adds the sensor's noise."""
    factor = round(gsd / PIXEL)
    pad = [(0, -size % factor) for size in band.shape]
    padded = np.pad(band, pad, mode="edge")
    rows, columns = padded.shape[0] // factor, padded.shape[1] // factor
    mean: NDArray[Any] = padded.reshape(rows, factor, columns, factor).mean((1, 3))
    noise = rng.standard_normal((2, rows, columns), dtype=np.float32)
    mean = mean * (1 + 0.012 * noise[0]) + 0.0015 * noise[1]
    digital: NDArray[np.uint16] = np.clip(np.rint(mean * 10_000), 1, 16_000).astype(np.uint16)
    return digital

"""Sentinel-2 over the same scene: a year of 10 m acquisitions with clouds, snow and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.landscape.canvas import Canvas
from fusionlab.data.synthetic.landscape.covers import COVERS, SPECTRA, Cover, materials, states
from fusionlab.data.synthetic.landscape.domain import Domain
from fusionlab.data.synthetic.landscape.noise import Float, blur, smooth_noise, smoothstep

PIXEL = 10.0
"""Metres."""
_COARSE = [3, 4, 5, 7, 8, 9]
"""Positions of the bands that the satellite measures at 20 m."""


@dataclass(frozen=True)
class Series:
    """A year of acquisitions.

    Attributes:
        data: Surface reflectance times 10000 (T, 10, H, W), uint16.
        masks: Snow and cloud probability in percent (T, 2, H, W), uint8.
        days: Day of the year of each acquisition (T,).
        products: Product name of each acquisition.
    """

    data: NDArray[np.uint16]
    masks: NDArray[np.uint8]
    days: NDArray[np.int32]
    products: list[str]


def render_series(
    canvas: Canvas, domain: Domain, rng: np.random.Generator, shape: tuple[int, int]
) -> Series:
    """Looks at a canvas from orbit on all of the domain's days.

    Args:
        canvas: The map of the zone's super-area.
        domain: Colours, season, weather and days.
        rng: Source of weather and noise.
        shape: Height and width of the super-area in 10 m pixels.

    Returns:
        The series.
    """
    days = domain.s2_days
    count = len(days)
    clear = _reflectance(canvas, domain, days, shape)
    clear *= _illumination(rng, days)
    snow = _snow(rng, domain, days, shape)
    hold = _area_mean(
        canvas, np.array([COVERS[c].snow_holds for c in Cover], dtype=np.float32)[
            canvas.segments.cover
        ][:, None], shape,
    )[:, 0].reshape(shape)  # fmt: skip
    lying = (snow * hold)[:, None]
    clear += lying * (_spectrum("snow") - clear)
    clear = blur(clear, 0.1)
    clear[:, _COARSE] = _twenty_metres(clear[:, _COARSE])

    cloud, shade = _clouds(rng, domain, days, shape)
    seen = clear * (1 - 0.55 * shade[:, None])
    bright = np.exp(0.12 * rng.standard_normal((count, 1, 1, 1))).astype(np.float32)
    seen += cloud[:, None] * (bright * _spectrum("cloud") - seen)
    grain = rng.standard_normal(seen.shape, dtype=np.float32)
    seen = seen * (1 + 0.015 * grain) + 0.004 * rng.standard_normal(seen.shape, dtype=np.float32)
    return Series(
        data=np.clip(np.rint(seen * 10_000), 1, 16_000).astype(np.uint16),
        masks=np.stack([_probability(rng, snow * (1 - cloud), 0.0),
                        _probability(rng, cloud, 0.1)], axis=1),
        days=days,
        products=[_product(domain, int(day)) for day in days],
    )  # fmt: skip


def _spectrum(name: str) -> Float:
    """A spectrum shaped (10, 1, 1)."""
    return np.array(SPECTRA[name], dtype=np.float32)[:, None, None]


def _cells(canvas: Canvas, shape: tuple[int, int]) -> NDArray[np.int64]:
    """The 10 m pixel of each drawn pixel (H, W)."""
    row = np.minimum(canvas.y / PIXEL, shape[0] - 1).astype(np.int64)
    col = np.minimum(canvas.x / PIXEL, shape[1] - 1).astype(np.int64)
    cells: NDArray[np.int64] = row[:, None] * shape[1] + col[None]
    return cells


def _area_mean(
    canvas: Canvas, values: Float, shape: tuple[int, int], *, weigh: bool = False
) -> Float:
    """Averages a per-segment table (S, K) over 10 m pixels to (cells, K).

    Args:
        canvas: The map.
        values: One row per segment.
        shape: Height and width in 10 m pixels.
        weigh: Weight by the canvas' green factor.
    """
    stride = len(canvas.segments.cover)
    code = (_cells(canvas, shape) * stride + canvas.segment).ravel()
    length = shape[0] * shape[1] * stride
    area = np.bincount(code, minlength=length)
    pairs = np.flatnonzero(area)
    cell, segment = np.divmod(pairs, stride)
    total = np.bincount(cell, weights=area[pairs], minlength=shape[0] * shape[1])
    weight: NDArray[Any] = area
    if weigh:
        weight = np.bincount(code, weights=canvas.green.ravel(), minlength=length)
    share = (weight[pairs] / total[cell]).astype(np.float32)
    start = np.searchsorted(cell, np.arange(shape[0] * shape[1]))
    return np.add.reduceat(share[:, None] * values[segment], start, axis=0)


def _reflectance(
    canvas: Canvas, domain: Domain, days: NDArray[np.int32], shape: tuple[int, int]
) -> Float:
    """Area-averaged surface reflectance (T, 10, H, W) without weather."""
    green, dry = states(
        canvas.segments, days, aerial_day=domain.aerial_day, season_shift=domain.season_shift
    )
    leaf, ground = materials(canvas.segments, dry, domain.palette)
    size = len(green), len(days) * 10
    below = _area_mean(canvas, ground.reshape(size), shape)
    above = (green[..., None] * (leaf - ground)).reshape(size)
    cells = below + _area_mean(canvas, above, shape, weigh=True)
    return np.ascontiguousarray(cells.T).reshape(len(days), 10, *shape)


def _illumination(rng: np.random.Generator, days: NDArray[np.int32]) -> Float:
    """Gain per date and band (T, 10, 1, 1): sun, view angle and atmospheric correction."""
    season = 1 + 0.05 * np.cos(2 * np.pi * (days - 172) / 365)
    view = np.exp(0.035 * rng.standard_normal(len(days)))
    slope = 0.03 * rng.standard_normal((len(days), 1)) * np.linspace(1, -1, 10)
    gain = (season * view)[:, None] * np.exp(slope)
    return gain.astype(np.float32)[..., None, None]


def _twenty_metres(image: Float) -> Float:
    """Averages (T, C, H, W) over 2 x 2 pixels and repeats the result on the 10 m grid."""
    height, width = image.shape[-2:]
    padded = np.pad(image, ((0, 0), (0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    mean = (padded[..., ::2, ::2] + padded[..., 1::2, ::2]
            + padded[..., ::2, 1::2] + padded[..., 1::2, 1::2]) / 4  # fmt: skip
    return mean.repeat(2, axis=-2).repeat(2, axis=-1)[..., :height, :width].astype(np.float32)


def _snow(
    rng: np.random.Generator, domain: Domain, days: NDArray[np.int32], shape: tuple[int, int]
) -> Float:
    """Share of open ground under snow (T, H, W); only in winter."""
    winter = (days < 65) | (days > 335)
    falls = (rng.random(len(days)) < domain.snow) & winter
    snow = np.zeros((len(days), *shape), dtype=np.float32)
    for when in np.flatnonzero(falls):
        depth = smooth_noise(rng, shape, 25) * 0.4 + np.float32(rng.uniform(-0.2, 1.2))
        snow[when] = smoothstep(depth, 0, 0.8)
    return snow


def _clouds(
    rng: np.random.Generator, domain: Domain, days: NDArray[np.int32], shape: tuple[int, int]
) -> tuple[Float, Float]:
    """Opacity of clouds and strength of their shadows, each (T, H, W), 0 to 1."""
    cloud = np.zeros((len(days), *shape), dtype=np.float32)
    shade = np.zeros_like(cloud)
    # Clouds outside the zone throw shadows into it.
    reach = 8
    wide = shape[0] + 2 * reach, shape[1] + 2 * reach
    draw = rng.random(len(days))
    for when in range(len(days)):
        field = smooth_noise(rng, wide, 22) + 0.5 * smooth_noise(rng, wide, 7)
        if draw[when] < domain.cloudiness:
            threshold = rng.uniform(-3.2, -0.3)
        elif draw[when] < domain.cloudiness + 0.25:
            threshold = rng.uniform(0.6, 1.8)
        else:
            continue
        opacity = smoothstep(field, threshold, threshold + 0.6)
        cloud[when] = opacity[reach : reach + shape[0], reach : reach + shape[1]]
        down, right = reach + int(rng.integers(3, 9)), reach + int(rng.integers(-6, 7))
        shadow = opacity[down : down + shape[0], right : right + shape[1]]
        shade[when] = shadow * (1 - cloud[when])
    return cloud, shade


def _probability(rng: np.random.Generator, truth: Float, missed: float) -> NDArray[np.uint8]:
    """An imperfect detector's probability in percent.

    Args:
        rng: Source of the errors.
        truth: Opacity or share (T, H, W).
        missed: Chance that a date's mask is much too low.
    """
    count = len(truth)
    power = rng.uniform(0.5, 1.1, (count, 1, 1))
    strength = np.where(rng.random((count, 1, 1)) < missed, 0.35, 1.0)
    error = np.stack([smooth_noise(rng, (truth.shape[1], truth.shape[2]), 4) for _ in truth])
    false = np.where(rng.random((count, 1, 1)) < 0.2, smoothstep(error, 1.2, 2.5) * 0.5, 0)
    value = strength * truth**power + false + 0.05 * error * (truth > 0.02)
    percent: NDArray[np.uint8] = np.clip(np.rint(100 * value), 0, 100).astype(np.uint8)
    return percent


def _product(domain: Domain, day: int) -> str:
    """The name ESA would give the product."""
    date = domain.date(day).strftime("%Y%m%d")
    satellite = "AB"[(day // 5) % 2]
    baseline = {2018: "N0208", 2019: "N0213", 2020: "N0214"}.get(domain.year, "N0300")
    return (
        f"S2{satellite}_MSIL2A_{date}T105021_{baseline}_R{domain.s2_orbit:03d}_"
        f"{domain.s2_tile}_{date}T135921"
    )

"""The flights that take the images, and the year of weather and growth around each site.

One calendar moves both: in cold places growth begins later, in the image as in the series.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.geo_multimodal.geography import (
    SOUTH,
    Site,
    mean_precipitation,
    mean_temperature,
)
from fusionlab.data.synthetic.geo_multimodal.scenes import Scene
from fusionlab.data.synthetic.landscape.config import LandscapeConfig
from fusionlab.data.synthetic.landscape.covers import (
    BANDS,
    COVERS,
    Cover,
    Segments,
    materials,
    states,
)
from fusionlab.data.synthetic.landscape.domain import Domain, draw_domain
from fusionlab.data.synthetic.landscape.noise import smoothstep

WEEKS = 52
SEASONS = {"spring": (78, 142), "summer": (155, 240), "autumn": (262, 312)}
"""First and last day of the year of flights in each season; none are flown in winter."""
_SEASON_SHARES = (0.35, 0.4, 0.25)
_FLIGHTS = 40
_YEARS = (2018, 2019, 2020, 2021)
_DAYS_PER_DEGREE = 2.5
"""By how many days growth is later where the mean of the year is 1 °C lower."""
_SURROUNDINGS = 0.45
"""Share of a pixel of the satellite that lies outside the image."""
_RED, _NIR = BANDS.index("B04"), BANDS.index("B08")
_SNOW = (0.85, 0.80)
"""Reflectance of snow in red and near infrared."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Weeks:
    """A year at a site, a value per week; NaN where there is none.

    Attributes:
        dates: First day of each week.
        ndvi: Normalised difference vegetation index of a pixel of some 250 m, which holds the
            ground that the image shows and nearly as much around it. Hidden by clouds in some
            weeks, and low where snow lies.
        temperature: Mean of the week, °C, of a cell of some 25 km that may lie much higher or lower
            than the site.
        precipitation: Sum of the week in that cell, mm.
    """

    dates: tuple[dt.date, ...]
    ndvi: Floats
    temperature: Floats
    precipitation: Floats


@lru_cache(maxsize=_FLIGHTS * len(_YEARS))
def _look(seed: int, number: int, year: int) -> Domain:
    return draw_domain(LandscapeConfig(seed=seed), f"D{number:03d}_{year}")


def choose_seasons(rng: np.random.Generator, number: int) -> list[str]:
    """Different seasons in which a site is photographed."""
    names = list(SEASONS)
    order = rng.choice(len(names), len(names), replace=False, p=_SEASON_SHARES)
    return [names[i] for i in order[:number]]


def draw_flight(rng: np.random.Generator, seed: int, site: Site, season: str) -> Domain:
    """Camera, sun, colours and date of an image, and how late growth is there in that year."""
    look = _look(seed, int(rng.integers(_FLIGHTS)), int(rng.choice(_YEARS)))
    first, last = SEASONS[season]
    day = dt.date(look.year, 1, 1) + dt.timedelta(days=int(rng.integers(first, last + 1)) - 1)
    late = _DAYS_PER_DEGREE * (10.5 - site.temperature) + 4 * rng.standard_normal()
    return dataclasses.replace(look, aerial_date=day, season_shift=float(late))


def draw_weeks(
    rng: np.random.Generator, site: Site, flight: Domain, scene: Scene, *, clouded: float
) -> Weeks:
    """The weather of the year of a flight, and what grew in it.

    Args:
        rng: Source of weather, clouds and noise.
        site: Where it is.
        flight: Says the year and how late growth is.
        scene: What grows.
        clouded: See `GeoMultimodalConfig`.
    """
    days = np.arange(WEEKS) * 7 + int(rng.integers(1, 7))
    middle = days + 3.0
    cell = site.weather_elevation
    swing = 7.5 + 0.3 * site.longitude
    warmth = np.cos(2 * np.pi * (middle - 201) / 365)
    spell = np.zeros(WEEKS)
    for week, change in enumerate(1.6 * rng.standard_normal(WEEKS)):
        spell[week] = 0.6 * spell[week - 1] * (week > 0) + change
    mean = float(mean_temperature(site.latitude, cell)) + 0.8 * rng.standard_normal()
    temperature = mean + swing * warmth + spell
    # Dry summers in the south, wet ones in the north.
    dry = float(np.clip(0.5 - 0.12 * (site.latitude - SOUTH), -0.25, 0.5))
    usual = float(mean_precipitation(site.longitude, cell)) / WEEKS * (1 - dry * warmth)
    rain = usual * rng.gamma(0.9, 1 / 0.9, WEEKS) * np.exp(0.1 * rng.standard_normal())

    here = temperature + site.temperature - mean  # the site is not as high as its cell
    snow = smoothstep((-here).astype(np.float32), -0.5, 2.5).astype(np.float64)
    ndvi = _vegetation_index(scene, flight, middle.round().astype(np.int32), snow)
    ndvi += 0.02 * rng.standard_normal(WEEKS)
    haze = rng.random(WEEKS) < 0.04  # thin clouds that nobody noticed
    ndvi = np.where(haze, 0.5 * ndvi, ndvi)
    hidden = rng.random(WEEKS) < np.clip(clouded * (0.6 + 0.8 * rain / usual), 0, 0.95)
    year = dt.date(flight.year, 1, 1)
    return Weeks(
        dates=tuple(year + dt.timedelta(days=int(day) - 1) for day in days),
        ndvi=np.where(hidden, np.nan, ndvi.clip(-1, 1)),
        temperature=_with_outages(rng, temperature),
        precipitation=_with_outages(rng, rain),
    )


def green_on(scene: Scene, flight: Domain, segment: int) -> tuple[float, float]:
    """Green share, and dry share of the rest, of a segment on the day of the flight."""
    day = np.array([flight.aerial_day], dtype=np.int32)
    green, dry = states(
        _only(scene.canvas.segments, np.array([segment])), day,
        aerial_day=flight.aerial_day, season_shift=flight.season_shift,
    )  # fmt: skip
    return float(green[0, 0]), float(dry[0, 0])


def _vegetation_index(
    scene: Scene, flight: Domain, days: NDArray[np.int32], snow: Floats
) -> Floats:
    """Index of the mean reflectance of what the image shows and of what is around it, by day."""
    shown, counts = np.unique(scene.canvas.segment[scene.inside], return_counts=True)
    share = np.append(
        (1 - _SURROUNDINGS) * counts / counts.sum(),
        np.full(len(scene.around), _SURROUNDINGS / len(scene.around)),
    )
    table = _only(scene.canvas.segments, np.append(shown, scene.around))
    green, dry = states(table, days, aerial_day=flight.aerial_day, season_shift=flight.season_shift)
    leaf, ground = materials(table, dry, flight.palette)
    holds = np.array([COVERS[c].snow_holds for c in Cover])[table.cover]
    lying = holds[:, None] * snow
    red, nir = (
        share @ ((1 - lying) * (g + green * (up - g)) + lying * white)
        for up, g, white in (
            (leaf[..., band], ground[..., band], white)
            for band, white in zip((_RED, _NIR), _SNOW, strict=True)
        )
    )
    index: Floats = (nir - red) / (nir + red)
    return index


def _only(segments: Segments, numbers: NDArray[Any]) -> Segments:
    return Segments(
        **{f.name: getattr(segments, f.name)[numbers] for f in dataclasses.fields(Segments)}
    )


def _with_outages(rng: np.random.Generator, values: Floats) -> Floats:
    """Values of a station that is out of order for some weeks in some years."""
    begin, length = int(rng.integers(WEEKS)), int(rng.integers(2, 9))
    out = np.arange(WEEKS)
    broken = (out >= begin) & (out < begin + length) & (rng.random() < 0.35)
    return np.where(broken, np.nan, values)

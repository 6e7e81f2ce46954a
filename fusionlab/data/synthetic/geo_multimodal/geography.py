"""A country: terrain and climate, and sites in it where each land use can be found.

Elevation comes from smooth noise. The mean temperature falls by 0.55 °C per degree of latitude and
by 6 °C per kilometre of height; it rains more in the mountains and in the west. A site is drawn
from all of the country with a probability that follows its use's niche, so a use says something of
the climate and the climate something of the use, and neither is a code for the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.geo_multimodal.uses import CLASSES, USES, suitability
from fusionlab.data.synthetic.landscape.config import generator
from fusionlab.data.synthetic.landscape.noise import smooth_noise, smoothstep

Floats = NDArray[np.float64]

SOUTH, NORTH, WEST, EAST = 42.0, 51.0, -2.0, 10.0
CELL = 0.05
"""Degrees of latitude and longitude of a cell of the terrain, about 5 km."""
_WEATHER_CELLS = 5
"""Cells of the terrain, in each direction, that share one series of the weather."""
_LAPSE = 6.0e-3
"""°C by which the air is colder per metre of height."""


@dataclass(frozen=True)
class Site:
    """A place.

    Attributes:
        name: Such as ``site-00042``.
        use: Name of its land use.
        split: ``train``, ``val`` or ``test``; all images of a site are in one split.
        latitude: Degrees north.
        longitude: Degrees east.
        elevation: Metres above the sea.
        weather_elevation: Mean elevation of the coarse cell that the weather is known for, metres.
        temperature: Mean of the year at the site, °C.
        precipitation: Sum of the year at the site, mm.
    """

    name: str
    use: str
    split: str
    latitude: float
    longitude: float
    elevation: float
    weather_elevation: float
    temperature: float
    precipitation: float


def mean_temperature(latitude: Floats | float, elevation: Floats | float) -> Floats:
    """Mean temperature of the year, °C, without local differences."""
    return np.asarray(15.2 - 0.55 * (np.asarray(latitude) - SOUTH) - _LAPSE * np.asarray(elevation))


def mean_precipitation(longitude: Floats | float, elevation: Floats | float) -> Floats:
    """Precipitation of the year, mm, without local differences."""
    return np.asarray(690 - 16 * (np.asarray(longitude) - WEST) + 0.42 * np.asarray(elevation))


@dataclass(frozen=True)
class Country:
    """Places where sites may lie, N of them.

    Attributes:
        conditions: ``temperature``, ``precipitation``, ``elevation`` and ``relief``, each ``(N,)``.
        latitude: ``(N,)``.
        longitude: ``(N,)``.
        weather_elevation: See `Site`, ``(N,)``.
        chances: For each use, the probability of each place ``(N,)``, summed up for drawing.
    """

    conditions: dict[str, Floats]
    latitude: Floats
    longitude: Floats
    weather_elevation: Floats
    chances: dict[str, Floats]


@cache
def draw_country(seed: int) -> Country:
    """The country of a seed."""
    rng = generator(seed, "country")
    shape = round((NORTH - SOUTH) / CELL), round((EAST - WEST) / CELL)
    ridges = smooth_noise(rng, shape, 42) + 0.5 * smooth_noise(rng, shape, 14)
    hills = smoothstep(smooth_noise(rng, shape, 25), -0.5, 1.8)
    terrain = 40 + 260 * hills + 1700 * smoothstep(ridges, 0.1, 2.4)
    k = _WEATHER_CELLS
    coarse = terrain.reshape(shape[0] // k, k, shape[1] // k, k).mean(axis=(1, 3))
    coarse = coarse.repeat(k, 0).repeat(k, 1)

    row, column = (index.ravel() for index in np.indices(shape))
    steep = (5 + 0.2 * terrain).ravel().astype(np.float64)
    relief = steep * np.exp(0.5 * rng.standard_normal(row.size))
    elevation = np.maximum(terrain.ravel() + relief * rng.standard_normal(row.size), 2)
    latitude = NORTH - (row + rng.random(row.size)) * CELL
    longitude = WEST + (column + rng.random(row.size)) * CELL
    conditions = {
        "temperature": mean_temperature(latitude, elevation) + 0.5 * rng.standard_normal(row.size),
        "precipitation": mean_precipitation(longitude, elevation)
        * np.exp(0.1 * rng.standard_normal(row.size)),
        "elevation": elevation,
        "relief": relief,
    }
    chances = {}
    for name, use in USES.items():
        fit = suitability(use.niche, conditions)
        chances[name] = np.cumsum(fit) / fit.sum()
    return Country(conditions, latitude, longitude, coarse.ravel().astype(np.float64), chances)


def draw_site(seed: int, number: int) -> Site:
    """A site by its number: uses take turns, and the splits share the sites of each use evenly.

    Args:
        seed: of the set.
        number: from 0.
    """
    country = draw_country(seed)
    rng = generator(seed, "site", number)
    use = CLASSES[number % len(CLASSES)]
    last = len(country.latitude) - 1
    place = min(int(np.searchsorted(country.chances[use], rng.random())), last)
    # Several sites may be drawn in one place; they are not the same site.
    near = rng.uniform(-0.4, 0.4, 2) * CELL
    height = float(country.conditions["elevation"][place] + 4 * rng.standard_normal())
    return Site(
        name=f"site-{number:05d}",
        use=use,
        split=_split(number // len(CLASSES)),
        latitude=float(country.latitude[place] + near[0]),
        longitude=float(country.longitude[place] + near[1]),
        elevation=max(height, 1.0),
        weather_elevation=float(country.weather_elevation[place]),
        temperature=float(country.conditions["temperature"][place] + 0.3 * rng.standard_normal()),
        precipitation=float(
            country.conditions["precipitation"][place] * np.exp(0.05 * rng.standard_normal())
        ),
    )


def _split(turn: int) -> str:
    """Of every twenty turns twelve train, three validate and five test."""
    position = (7 * turn) % 20
    return "train" if position < 12 else "val" if position < 15 else "test"

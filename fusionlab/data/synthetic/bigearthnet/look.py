"""What differs between places, days and acquisitions: soils, plants, light, moisture, geometry."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np

from fusionlab.data.synthetic.landscape.config import generator
from fusionlab.data.synthetic.landscape.noise import Float

_BANDS = 12


@dataclass(frozen=True)
class Look:
    """What a block of patches (a split of a tile) has in common.

    Attributes:
        leafy: How far leaves are out, 0 in winter to 1 in summer.
        leaf: Factors on the spectra of what is green (12,).
        ground: Factors on the spectra of the rest (12,).
        decibel: Added to VV and VH (2,).
    """

    leafy: float
    leaf: Float
    ground: Float
    decibel: Float


def draw_look(seed: int, place: str, split: str, date: dt.date) -> Look:
    """Draws the look of a block: most of it is the place's, little the split's.

    Args:
        seed: The set's seed.
        place: Name of the Sentinel-2 product.
        split: Which block of it.
        date: Day of acquisition.
    """
    leaf, ground = np.zeros(_BANDS), np.zeros(_BANDS)
    decibel = np.zeros(2)
    for keys, strength in (((place,), 1.0), ((place, split), 0.5)):
        rng = generator(seed, *keys, "look")
        slope = np.linspace(-1, 1, _BANDS)
        leaf += strength * (0.03 * rng.standard_normal() + 0.02 * slope * rng.standard_normal())
        ground += strength * (0.05 * rng.standard_normal() + 0.03 * slope * rng.standard_normal())
        decibel += strength * 0.25 * rng.standard_normal(2)
    day = date.timetuple().tm_yday
    leafy = np.interp(day, [1, 85, 135, 260, 325, 366], [0.0, 0.1, 1.0, 1.0, 0.0, 0.0])
    return Look(
        leafy=float(leafy),
        leaf=np.exp(leaf).astype(np.float32),
        ground=np.exp(ground).astype(np.float32),
        decibel=decibel.astype(np.float32),
    )

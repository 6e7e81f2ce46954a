"""How the classes look to each sensor.

A class is a pair of looks: one of `OPTICAL`, which Sentinel-2 sees, and one of `RADAR`, which
Sentinel-1 sees. Two classes never share both. Values are of the size that is usual in Europe, and
pairs are such as are known to be confused: urban and industrial roofs, meadows and marshes, young
and old broad-leaved wood look alike from above; spruce, beech and houses between trees scatter
C-band alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.bigearthnet.constants import CLASSES, CORINE

# Surface reflectance in B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12.
SPECTRA: dict[str, tuple[float, ...]] = {
    "grass": (0.018, 0.028, 0.062, 0.030, 0.098, 0.30, 0.39, 0.42, 0.44, 0.45, 0.20, 0.09),
    "broad_leaf": (0.014, 0.021, 0.044, 0.022, 0.07, 0.23, 0.30, 0.32, 0.34, 0.35, 0.155, 0.065),
    "needle": (0.010, 0.014, 0.026, 0.016, 0.042, 0.12, 0.15, 0.165, 0.175, 0.18, 0.075, 0.032),
    "two_leaves": (0.012, 0.018, 0.036, 0.020, 0.058, 0.18, 0.23, 0.25, 0.265, 0.27, 0.12, 0.05),
    "branches": (0.030, 0.040, 0.055, 0.068, 0.095, 0.13, 0.15, 0.165, 0.175, 0.18, 0.20, 0.14),
    "litter": (0.020, 0.026, 0.034, 0.040, 0.056, 0.08, 0.09, 0.10, 0.108, 0.11, 0.11, 0.07),
    "dry_grass": (0.050, 0.070, 0.110, 0.150, 0.19, 0.22, 0.24, 0.26, 0.28, 0.28, 0.34, 0.25),
    "soil": (0.055, 0.075, 0.105, 0.135, 0.155, 0.172, 0.185, 0.20, 0.215, 0.22, 0.29, 0.26),
    "roofs": (0.095, 0.112, 0.126, 0.142, 0.15, 0.158, 0.165, 0.174, 0.18, 0.18, 0.205, 0.19),
    "sand": (0.170, 0.215, 0.275, 0.325, 0.355, 0.375, 0.385, 0.395, 0.405, 0.41, 0.45, 0.40),
    "lake": (0.030, 0.036, 0.052, 0.036, 0.030, 0.021, 0.019, 0.016, 0.014, 0.012, 0.006, 0.004),
    "sea": (0.046, 0.050, 0.032, 0.014, 0.010, 0.008, 0.007, 0.006, 0.005, 0.004, 0.002, 0.002),
    "snow": (0.90, 0.90, 0.89, 0.87, 0.86, 0.85, 0.84, 0.82, 0.80, 0.70, 0.13, 0.09),
    "cloud": (0.55, 0.56, 0.55, 0.55, 0.56, 0.57, 0.58, 0.59, 0.60, 0.45, 0.40, 0.30),
}


@dataclass(frozen=True)
class Optical:
    """What Sentinel-2 sees.

    Attributes:
        leaf: Spectrum of the green part.
        ground: Spectrum of the rest.
        summer: Green share of the surface in full leaf.
        winter: Green share in winter.
        parcels: By how much the green share differs from parcel to parcel, 0 where none are.
        texture: Standard deviation of the green share from place to place.
        grain: Metres over which the texture varies.
    """

    leaf: str
    ground: str
    summer: float
    winter: float
    parcels: float = 0.0
    texture: float = 0.06
    grain: float = 60.0


@dataclass(frozen=True)
class Radar:
    """What Sentinel-1 sees.

    Attributes:
        vv: Mean sigma nought of VV at the middle of the swath, decibel.
        vh: That of VH.
        parcels: By how many decibels parcels differ, 0 where none are.
        texture: Standard deviation in decibel from place to place, without speckle.
        grain: Metres over which the texture varies.
        corners: Share of pixels in which walls send the beam back.
    """

    vv: float
    vh: float
    parcels: float = 0.0
    texture: float = 0.5
    grain: float = 60.0
    corners: float = 0.0


OPTICAL: dict[str, Optical] = {
    "built": Optical("grass", "roofs", 0.30, 0.20, texture=0.16, grain=30),
    "crops": Optical("grass", "soil", 0.42, 0.26, parcels=0.5),
    "orchard": Optical("broad_leaf", "dry_grass", 0.60, 0.34, texture=0.12, grain=30),
    "grass": Optical("grass", "dry_grass", 0.82, 0.60, texture=0.05, grain=120),
    "deciduous": Optical("broad_leaf", "branches", 0.90, 0.16),
    "evergreen": Optical("needle", "litter", 0.86, 0.84),
    "mosaic": Optical("two_leaves", "litter", 0.80, 0.52, texture=0.10, grain=80),
    "steppe": Optical("grass", "dry_grass", 0.34, 0.22, texture=0.08, grain=90),
    "sand": Optical("grass", "sand", 0.05, 0.03, texture=0.03),
    "lake": Optical("grass", "lake", 0.02, 0.0, texture=0.01),
    "sea": Optical("grass", "sea", 0.01, 0.0, texture=0.005),
}
RADAR: dict[str, Radar] = {
    "strong": Radar(-4.0, -11.5, texture=1.2, grain=40, corners=0.04),
    "canopy": Radar(-8.2, -13.6),
    "shrub": Radar(-11.0, -17.4, texture=0.7, grain=80),
    "field": Radar(-13.4, -21.0, parcels=1.2),
    "smooth": Radar(-19.0, -27.0, texture=0.7, grain=150),
}


@dataclass(frozen=True)
class Cover:
    """A class or an unlabelled code: its two looks, and how far it strays from them.

    Attributes:
        optical: Key of `OPTICAL`.
        radar: Key of `RADAR`.
        green: Added to the green share.
        decibel: Added to VV and VH.
        codes: CORINE codes it stands for.
    """

    optical: str
    radar: str
    green: float = 0.0
    decibel: float = 0.0
    codes: tuple[int, ...] = ()


def _codes(name: str) -> tuple[int, ...]:
    return tuple(code for code, label in CORINE.items() if label == name)


_LOOKS: dict[str, tuple[str, str, float, float]] = {
    "Agro-forestry areas": ("orchard", "field", 0.01, 0.3),
    "Arable land": ("crops", "field", -0.01, 0.1),
    "Beaches, dunes, sands": ("sand", "smooth", 0.0, 1.0),
    "Broad-leaved forest": ("deciduous", "canopy", 0.01, 0.0),
    "Coastal wetlands": ("steppe", "smooth", -0.01, 0.3),
    "Complex cultivation patterns": ("crops", "shrub", 0.02, 0.0),
    "Coniferous forest": ("evergreen", "canopy", 0.0, -0.1),
    "Industrial or commercial units": ("built", "strong", -0.03, 0.0),
    "Inland waters": ("lake", "smooth", 0.0, -0.3),
    "Inland wetlands": ("grass", "smooth", -0.02, 0.2),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (
        "mosaic", "shrub", -0.01, -0.2,
    ),
    "Marine waters": ("sea", "smooth", 0.0, 0.0),
    "Mixed forest": ("mosaic", "canopy", 0.01, 0.0),
    "Moors, heathland and sclerophyllous vegetation": ("evergreen", "shrub", -0.02, 0.1),
    "Natural grassland and sparsely vegetated areas": ("steppe", "field", 0.01, -0.1),
    "Pastures": ("grass", "field", 0.01, -0.2),
    "Permanent crops": ("orchard", "canopy", -0.01, -0.2),
    "Transitional woodland, shrub": ("deciduous", "shrub", -0.02, 0.2),
    "Urban fabric": ("built", "canopy", 0.03, 0.2),
}  # fmt: skip
COVERS: tuple[Cover, ...] = (
    *(Cover(*_LOOKS[name], codes=_codes(name)) for name in CLASSES),
    # What lies outside the 19 classes.
    Cover("built", "shrub", codes=(122, 124)),
    Cover("sand", "field", codes=(131, 132, 332)),
    Cover("grass", "canopy", codes=(141, 142)),
    Cover("steppe", "shrub", codes=(133, 334, 999)),
    Cover("sand", "smooth", codes=(423,)),
)
"""The 19 classes in the order of `CLASSES`, then what belongs to none."""
OUTSIDE: NDArray[np.int64] = np.arange(len(CLASSES), len(COVERS))
"""Positions in `COVERS` of what belongs to none of the classes."""


def reflectance_alike() -> tuple[tuple[str, str], ...]:
    """Pairs of classes that Sentinel-2 hardly tells apart, but Sentinel-1 does."""
    return tuple((a, b) for a, b in combinations(CLASSES, 2) if _LOOKS[a][0] == _LOOKS[b][0])


def radar_alike() -> tuple[tuple[str, str], ...]:
    """Pairs of classes that Sentinel-1 hardly tells apart, but Sentinel-2 does."""
    return tuple((a, b) for a, b in combinations(CLASSES, 2) if _LOOKS[a][1] == _LOOKS[b][1])

"""What grows or lies on the ground: covers, their spectra and their calendars.

A cover is finer than a label (wheat and maize are both agricultural land). Both sensors are
rendered from the same reflectances, so an aerial image and a Sentinel-2 series agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.landscape.config import LandCover
from fusionlab.data.synthetic.landscape.noise import Float

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
AERIAL_BANDS = (2, 1, 0, 6)
"""Positions in `BANDS` of what the aerial camera sees as red, green, blue, near infrared."""

# Surface reflectance per band of BANDS.
SPECTRA: dict[str, tuple[float, ...]] = {
    "crop": (0.028, 0.062, 0.030, 0.098, 0.30, 0.39, 0.42, 0.44, 0.20, 0.09),
    "broadleaf": (0.021, 0.044, 0.022, 0.070, 0.23, 0.30, 0.32, 0.34, 0.155, 0.065),
    "needle": (0.021, 0.044, 0.022, 0.064, 0.21, 0.29, 0.32, 0.33, 0.115, 0.045),
    "shrub": (0.026, 0.050, 0.030, 0.080, 0.21, 0.27, 0.29, 0.31, 0.17, 0.085),
    "dry": (0.070, 0.110, 0.150, 0.190, 0.22, 0.24, 0.26, 0.28, 0.34, 0.25),
    "branches": (0.040, 0.055, 0.068, 0.095, 0.13, 0.15, 0.165, 0.175, 0.20, 0.14),
    "soil_bright": (0.110, 0.150, 0.190, 0.215, 0.235, 0.25, 0.27, 0.285, 0.35, 0.31),
    "soil_dark": (0.050, 0.070, 0.092, 0.110, 0.12, 0.13, 0.14, 0.15, 0.22, 0.20),
    "rubble": (0.130, 0.175, 0.225, 0.245, 0.26, 0.27, 0.285, 0.30, 0.36, 0.33),
    "gravel": (0.155, 0.180, 0.200, 0.215, 0.225, 0.235, 0.245, 0.255, 0.30, 0.29),
    "asphalt": (0.090, 0.100, 0.108, 0.114, 0.12, 0.122, 0.125, 0.128, 0.14, 0.13),
    "tile": (0.085, 0.110, 0.160, 0.175, 0.185, 0.19, 0.20, 0.21, 0.25, 0.23),
    "slate": (0.085, 0.092, 0.098, 0.104, 0.11, 0.112, 0.116, 0.12, 0.135, 0.125),
    "water": (0.042, 0.050, 0.033, 0.027, 0.019, 0.017, 0.015, 0.013, 0.006, 0.004),
    "pool": (0.230, 0.230, 0.110, 0.080, 0.045, 0.04, 0.035, 0.03, 0.012, 0.009),
    "plastic": (0.260, 0.270, 0.265, 0.270, 0.29, 0.30, 0.31, 0.32, 0.27, 0.22),
    "mineral": (0.140, 0.150, 0.155, 0.160, 0.165, 0.17, 0.175, 0.18, 0.20, 0.19),
    "snow": (0.900, 0.890, 0.870, 0.860, 0.85, 0.84, 0.82, 0.80, 0.13, 0.09),
    "cloud": (0.560, 0.550, 0.550, 0.560, 0.57, 0.58, 0.59, 0.60, 0.40, 0.30),
}

Calendar = tuple[tuple[int, float], ...]
Pattern = Literal["plain", "field", "canopy", "shrub", "rows", "trees", "rough", "water"]


class Cover(IntEnum):
    """Ground covers."""

    TILE_ROOF = 0
    SLATE_ROOF = auto()
    FLAT_ROOF = auto()
    GRAVEL = auto()
    ASPHALT = auto()
    RUBBLE = auto()
    WATER = auto()
    CONIFER = auto()
    BROADLEAF = auto()
    SHRUB = auto()
    VINE = auto()
    LAWN = auto()
    MEADOW = auto()
    WHEAT = auto()
    MAIZE = auto()
    RAPESEED = auto()
    PLOWED = auto()
    POOL = auto()
    SNOW = auto()
    CLEAR_CUT = auto()
    MIXED_WOOD = auto()
    PLANTATION = auto()
    GREENHOUSE = auto()
    OTHER = auto()


@dataclass(frozen=True)
class CoverType:
    """One cover's label, materials and year.

    Attributes:
        label: Value in the mask.
        leaf: Spectrum of the green part.
        ground: Spectrum below it; `soil` is the parcel's own mixture of bright and dark soil.
        green: Green share of the surface at days of the year.
        dry: Share of dry matter in what is not green, at days of the year.
        pattern: How the green part is spread at high resolution.
        snow_holds: Share of the surface that snow hides when it lies.
    """

    label: LandCover
    ground: str
    leaf: str = "crop"
    green: Calendar = ((1, 0.0),)
    dry: Calendar = ((1, 0.0),)
    pattern: Pattern = "plain"
    snow_holds: float = 0.9


_SUMMER_GREEN: Calendar = (
    (1, 0.06), (90, 0.08), (125, 0.86), (150, 0.9), (268, 0.9), (300, 0.55), (322, 0.08),
)  # fmt: skip
_SHRUBS: Calendar = (
    (1, 0.10), (100, 0.12), (140, 0.38), (175, 0.46), (265, 0.44), (300, 0.22), (330, 0.10),
)  # fmt: skip
_EVERGREEN: Calendar = ((1, 0.86), (90, 0.87), (170, 0.9), (268, 0.9), (330, 0.87))
_HALF_EVERGREEN: Calendar = (
    (1, 0.46), (90, 0.48), (125, 0.87), (170, 0.9), (268, 0.9), (300, 0.7), (322, 0.47),
)  # fmt: skip

COVERS: dict[Cover, CoverType] = {
    Cover.TILE_ROOF: CoverType(LandCover.BUILDING, "tile"),
    Cover.SLATE_ROOF: CoverType(LandCover.BUILDING, "slate"),
    Cover.FLAT_ROOF: CoverType(LandCover.BUILDING, "asphalt"),
    Cover.GRAVEL: CoverType(LandCover.PERVIOUS_SURFACE, "gravel", pattern="rough"),
    Cover.ASPHALT: CoverType(LandCover.IMPERVIOUS_SURFACE, "asphalt", snow_holds=0.5),
    Cover.RUBBLE: CoverType(
        LandCover.BARE_SOIL, "rubble", green=((1, 0.03), (150, 0.05)), pattern="rough"
    ),
    Cover.WATER: CoverType(LandCover.WATER, "water", pattern="water", snow_holds=0.0),
    Cover.CONIFER: CoverType(
        LandCover.CONIFEROUS, "branches", "needle", _EVERGREEN, pattern="canopy", snow_holds=0.35
    ),
    Cover.BROADLEAF: CoverType(
        LandCover.DECIDUOUS, "branches", "broadleaf", _SUMMER_GREEN, pattern="canopy",
        snow_holds=0.5,
    ),
    Cover.SHRUB: CoverType(
        LandCover.BRUSHWOOD, "soil", "shrub", _SHRUBS, ((1, 0.5),), "shrub", 0.7
    ),
    Cover.VINE: CoverType(LandCover.VINEYARD, "soil", "shrub", _SHRUBS, ((1, 0.5),), "rows", 0.7),
    Cover.LAWN: CoverType(
        LandCover.HERBACEOUS, "soil", "crop",
        ((1, 0.5), (80, 0.55), (115, 0.75), (150, 0.75), (205, 0.55), (245, 0.52), (290, 0.65)),
        ((1, 0.5),), "field",
    ),
    Cover.MEADOW: CoverType(
        LandCover.HERBACEOUS, "soil", "crop",
        ((1, 0.52), (65, 0.55), (110, 0.82), (145, 0.8), (165, 0.55), (200, 0.6), (240, 0.52),
         (290, 0.66), (340, 0.56)),
        ((1, 0.5),), "field",
    ),
    Cover.WHEAT: CoverType(
        LandCover.AGRICULTURAL_LAND, "soil", "crop",
        ((1, 0.22), (60, 0.35), (100, 0.8), (140, 0.95), (168, 0.7), (190, 0.15), (205, 0.04),
         (290, 0.05), (335, 0.18)),
        ((1, 0.05), (160, 0.3), (190, 0.9), (215, 0.6), (250, 0.15)), "field",
    ),
    Cover.MAIZE: CoverType(
        LandCover.AGRICULTURAL_LAND, "soil", "crop",
        ((1, 0.04), (128, 0.04), (152, 0.25), (182, 0.9), (235, 0.92), (268, 0.4), (288, 0.04)),
        ((1, 0.15), (250, 0.3), (275, 0.7), (320, 0.3)), "field",
    ),
    Cover.RAPESEED: CoverType(
        LandCover.AGRICULTURAL_LAND, "soil", "crop",
        ((1, 0.5), (70, 0.6), (105, 0.88), (150, 0.85), (178, 0.4), (195, 0.03), (250, 0.04),
         (282, 0.35), (330, 0.5)),
        ((1, 0.05), (170, 0.4), (190, 0.9), (220, 0.4), (260, 0.1)), "field",
    ),
    Cover.PLOWED: CoverType(
        LandCover.PLOWED_LAND, "soil", "crop",
        ((1, 0.06), (255, 0.06), (285, 0.3), (318, 0.32), (340, 0.06)),
        ((1, 0.05),), "field",
    ),
    Cover.POOL: CoverType(LandCover.SWIMMING_POOL, "pool", snow_holds=0.2),
    Cover.SNOW: CoverType(LandCover.SNOW, "snow", pattern="rough"),
    Cover.CLEAR_CUT: CoverType(
        LandCover.CLEAR_CUT, "soil", "shrub",
        ((1, 0.1), (120, 0.15), (170, 0.25), (260, 0.22), (320, 0.1)), ((1, 0.7),), "rough",
    ),
    Cover.MIXED_WOOD: CoverType(
        LandCover.MIXED, "branches", "broadleaf", _HALF_EVERGREEN, pattern="canopy",
        snow_holds=0.4,
    ),
    Cover.PLANTATION: CoverType(
        LandCover.LIGNEOUS, "soil", "broadleaf",
        ((1, 0.15), (95, 0.15), (130, 0.5), (270, 0.5), (320, 0.15)), ((1, 0.5),), "trees", 0.6,
    ),
    Cover.GREENHOUSE: CoverType(LandCover.GREENHOUSE, "plastic", snow_holds=0.3),
    Cover.OTHER: CoverType(LandCover.OTHER, "mineral", pattern="rough"),
}  # fmt: skip

LABELS: NDArray[np.uint8] = np.array([COVERS[c].label for c in Cover], dtype=np.uint8)
ALIKE_FIELDS = (Cover.MEADOW, Cover.WHEAT, Cover.MAIZE, Cover.RAPESEED, Cover.PLOWED)
"""Covers that are drawn from one distribution of looks on the aerial date."""

ANCHOR_DAYS = 16.0
"""Days over which a field's look on the aerial date bends its calendar (standard deviation)."""


@dataclass
class Segments:
    """The things a zone is drawn from: each parcel, and shared variants of smaller covers.

    All arrays have length S. `green_then` and `dry_then` are the state on the aerial date of
    covers in `ALIKE_FIELDS`, NaN elsewhere. `canopy` is height in metres, `angle` radians,
    `spacing` metres between rows, `rows` and `mottle` the strength of texture.
    """

    cover: NDArray[np.int32]
    brightness: Float
    soil: Float
    amplitude: Float
    shift: Float
    green_then: Float
    dry_then: Float
    canopy: Float
    angle: Float
    spacing: Float
    rows: Float
    mottle: Float

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Mask value of each segment."""
        return LABELS[self.cover]

    def of_pattern(self, pattern: Pattern) -> NDArray[np.bool_]:
        """Whether each segment spreads its green in that way."""
        return np.array([COVERS[c].pattern == pattern for c in Cover])[self.cover]


@dataclass(frozen=True)
class Palette:
    """A domain's colours: factors (10,) on the spectra of leaves, soil and everything else."""

    leaf: Float
    soil: Float
    built: Float


def states(
    segments: Segments, days: NDArray[np.int32], *, aerial_day: int, season_shift: float
) -> tuple[Float, Float]:
    """Green share and dry share of every segment on every day.

    Args:
        segments: The S segments.
        days: Days of the year (T,), from 1.
        aerial_day: Day of the year of the aerial image.
        season_shift: Days by which the domain's season is late.

    Returns:
        Green share (S, T), and dry share of the rest (S, T), each 0 to 1.
    """
    green = np.zeros((len(segments.cover), len(days)), dtype=np.float32)
    dry = np.zeros_like(green)
    every = np.append(days, aerial_day)
    for cover in np.unique(segments.cover):
        kind, chosen = COVERS[Cover(cover)], segments.cover == cover
        when = every[None] - segments.shift[chosen, None] - np.float32(season_shift)
        values = [
            np.interp(when, [day for day, _ in nodes], [share for _, share in nodes], period=365)
            for nodes in (kind.green, kind.dry)
        ]
        values[0] = values[0] * segments.amplitude[chosen, None]
        pull = np.exp(-0.5 * ((every - aerial_day) / ANCHOR_DAYS) ** 2)
        for value, then, out in zip(
            values, (segments.green_then, segments.dry_then), (green, dry), strict=True
        ):
            gap = np.nan_to_num(then[chosen, None] - value[:, -1:], nan=0.0)
            out[chosen] = np.clip(value + gap * pull, 0, 0.97)[:, :-1]
    return green, dry


def materials(segments: Segments, dry: Float, palette: Palette) -> tuple[Float, Float]:
    """Reflectance of each segment's green part and of what lies below it.

    Args:
        segments: The S segments.
        dry: Dry share of what is not green (S, T).
        palette: The domain's colours.

    Returns:
        Leaf (S, 1, 10) and ground (S, T, 10) reflectance.
    """
    spectra = {name: np.array(values, dtype=np.float32) for name, values in SPECTRA.items()}
    leaf = np.stack([spectra[COVERS[c].leaf] for c in Cover])[segments.cover] * palette.leaf
    ground = np.stack(
        [spectra[COVERS[c].ground if COVERS[c].ground != "soil" else "dry"] for c in Cover]
    )[segments.cover]
    mix = segments.soil[:, None]
    soil = (mix * spectra["soil_bright"] + (1 - mix) * spectra["soil_dark"]) * palette.soil
    on_soil = np.array([COVERS[c].ground == "soil" for c in Cover])[segments.cover]
    below = np.where(on_soil[:, None], soil, ground * palette.built)[:, None]
    share = dry[..., None]
    below = share * spectra["dry"] + (1 - share) * below
    light = segments.brightness[:, None, None]
    return leaf[:, None] * light, below * light

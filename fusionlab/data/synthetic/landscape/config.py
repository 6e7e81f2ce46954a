"""What a synthetic landscape is made of: label values, domain names and the sizes to generate."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, Literal

import numpy as np

TRAIN_DOMAINS = (
    "D006_2020", "D007_2020", "D008_2019", "D009_2019", "D013_2020", "D016_2020",
    "D017_2018", "D021_2020", "D023_2020", "D030_2021", "D032_2019", "D033_2021",
    "D034_2021", "D035_2020", "D038_2021", "D041_2021", "D044_2020", "D046_2019",
    "D049_2020", "D051_2019", "D052_2019", "D055_2018", "D060_2021", "D063_2019",
    "D070_2020", "D072_2019", "D074_2020", "D078_2021", "D080_2021", "D081_2020",
    "D086_2020", "D091_2021",
)  # fmt: skip
VAL_DOMAINS = (
    "D004_2021", "D014_2020", "D029_2021", "D031_2019", "D058_2020", "D066_2021",
    "D067_2021", "D077_2021",
)  # fmt: skip
TEST_DOMAINS = (
    "D015_2020", "D022_2021", "D026_2020", "D036_2020", "D061_2020", "D064_2021",
    "D068_2021", "D069_2020", "D071_2020", "D084_2021",
)  # fmt: skip

Split = Literal["train", "val", "test"]


class LandCover(IntEnum):
    """The 19 label values of FLAIR #2 masks."""

    BUILDING = 1
    PERVIOUS_SURFACE = 2
    IMPERVIOUS_SURFACE = 3
    BARE_SOIL = 4
    WATER = 5
    CONIFEROUS = 6
    DECIDUOUS = 7
    BRUSHWOOD = 8
    VINEYARD = 9
    HERBACEOUS = 10
    AGRICULTURAL_LAND = 11
    PLOWED_LAND = 12
    SWIMMING_POOL = 13
    SNOW = 14
    CLEAR_CUT = 15
    MIXED = 16
    LIGNEOUS = 17
    GREENHOUSE = 18
    OTHER = 19


@dataclass(frozen=True, kw_only=True)
class LandscapeConfig:
    """Sizes and seed of a synthetic landscape.

    Attributes:
        seed: The only source of randomness; equal configurations give equal bytes.
        train_domains: Number of training domains, taken from `TRAIN_DOMAINS` in order.
        val_domains: Number of validation domains, taken from `VAL_DOMAINS` in order.
        test_domains: Number of test domains, taken from `TEST_DOMAINS` in order.
        train_zones: Zones (one Sentinel-2 super-area each) per training domain.
        val_zones: Zones per validation domain.
        test_zones: Zones per test domain.
        patches_per_zone: Aerial patches per zone, cut from one contiguous block.
        patch_size: Width and height of a patch in pixels.
        pixel_size: Aerial pixel size in metres (the real data have 0.2).
        margin: Metres of super-area around the block of patches. With the default a 40 x 40
            Sentinel-2 crop around a centroid fits.
        short_margin: Metres of super-area on one side of each zone, drawn at random; with the
            default the crops along that side reach over the edge, as some real ones do.
        min_dates: Fewest Sentinel-2 acquisitions of a domain in its calendar year.
        max_dates: Most Sentinel-2 acquisitions of a domain in its calendar year.
        classes: `all` draws all 19 labels, `common` only 1 to 13.
    """

    seed: int = 0
    train_domains: int = 6
    val_domains: int = 2
    test_domains: int = 2
    train_zones: int = 4
    val_zones: int = 3
    test_zones: int = 3
    patches_per_zone: int = 10
    patch_size: int = 512
    pixel_size: float = 0.2
    margin: float = 160.0
    short_margin: float = 100.0
    min_dates: int = 20
    max_dates: int = 30
    classes: Literal["all", "common"] = "all"

    def __post_init__(self) -> None:
        """Refuses sizes that cannot be drawn.

        Raises:
            ValueError: If a size is out of range; the message names the field.
        """
        for split, names in zip(
            ("train", "val", "test"), (TRAIN_DOMAINS, VAL_DOMAINS, TEST_DOMAINS), strict=True
        ):
            count = getattr(self, f"{split}_domains")
            if not 0 <= count <= len(names):
                raise ValueError(f"{split}_domains must be 0 to {len(names)}, found {count}")
            if getattr(self, f"{split}_zones") < 1:
                raise ValueError(f"{split}_zones must be at least 1")
        for name in ("patches_per_zone", "patch_size", "pixel_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, found {getattr(self, name)}")
        if self.pixel_size > 5:
            raise ValueError(f"pixel_size must be at most 5 m, found {self.pixel_size}")
        if min(self.margin, self.short_margin) < 0:
            raise ValueError("margin and short_margin must not be negative")
        if not 1 <= self.min_dates <= self.max_dates <= 73:
            raise ValueError(
                "dates must satisfy 1 <= min_dates <= max_dates <= 73 (one every five days), "
                f"found {self.min_dates} to {self.max_dates}"
            )
        if self.classes not in ("all", "common"):
            raise ValueError(f"classes must be 'all' or 'common', found {self.classes!r}")

    def domains(self, split: Split) -> tuple[str, ...]:
        """Names of the domains of one split."""
        names = {"train": TRAIN_DOMAINS, "val": VAL_DOMAINS, "test": TEST_DOMAINS}[split]
        count: int = getattr(self, f"{split}_domains")
        return names[:count]

    def zones(self, split: Split) -> int:
        """Number of zones in each domain of one split."""
        count: int = getattr(self, f"{split}_zones")
        return count

    @property
    def geometry_factor(self) -> int:
        """Aerial pixels per drawn pixel: real masks are constant over 2 x 2 pixels of 0.2 m."""
        return 2 if self.pixel_size <= 0.25 and self.patch_size % 2 == 0 else 1

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready primitives."""
        return asdict(self)


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """A random generator that depends on nothing but the seed and the keys.

    Args:
        seed: The landscape's seed.
        *keys: What the numbers are for, such as a domain, a zone and a purpose.

    Returns:
        An independent generator for that purpose, so that no order of work matters.
    """
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    return np.random.default_rng([seed, *words])

"""Where and when: Sentinel-2 products, their grids, and the patches that are cut from them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from fusionlab.data.bigearthnet.constants import PATCH_METRES
from fusionlab.data.synthetic.bigearthnet.config import BigEarthNetConfig
from fusionlab.data.synthetic.landscape.config import generator

SPLITS = ("train", "validation", "test")
_GRID = 91
"""Patches along a side of a Sentinel-2 tile."""
_SNOW_MONTHS = (11, 12, 1, 2, 3)


@dataclass(frozen=True)
class Tile:
    """A Sentinel-2 product and the Sentinel-1 scenes that lie over it.

    Attributes:
        name: Product name in BigEarthNet v2, ``S2A_MSIL2A_<time>_N9999_R<orbit>_T<mgrs>``.
        country: The country.
        scenes: Names of Sentinel-1 scenes, ``S1A_IW_GRDH_1SDV_<time>``.
    """

    name: str
    country: str
    scenes: tuple[str, ...]

    @property
    def mgrs(self) -> str:
        """The tile of the military grid, such as ``33UWP``."""
        return self.name[-5:]

    @property
    def date(self) -> dt.date:
        """Day of acquisition."""
        return dt.datetime.strptime(self.name.split("_")[2], "%Y%m%dT%H%M%S").date()

    @property
    def epsg(self) -> int:
        """EPSG code of the tile's zone of UTM north."""
        return 32600 + int(self.mgrs[:2])

    @property
    def corner(self) -> tuple[int, int]:
        """Easting and northing of the upper left corner, metres.

        The letters of the 100 km square say it, up to 2000 km in northing, which the band of
        latitude decides; Sentinel-2 moves the corner to whole 60 m, to the west and to the north.
        """
        zone, band, column, row = int(self.mgrs[:2]), *self.mgrs[2:]
        easting = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")[zone % 3].index(column) + 1
        rows = "ABCDEFGHJKLMNPQRSTUV"
        northing = (rows.index(row) - (0 if zone % 2 else 5)) % 20 + 1
        # A band is 8 degrees of latitude, 889 km; the square's top lies near its middle.
        middle = ("CDEFGHJKLMNPQRSTUVWX".index(band) * 8 - 76) * 111.0 / 100
        northing += 20 * round((middle - northing) / 20)
        return easting * 100_000 // 60 * 60, -(-northing * 100_000 // 60) * 60


TILES: tuple[Tile, ...] = tuple(
    Tile(name, country, tuple(f"{scene[:3]}_IW_GRDH_1SDV_{scene[4:]}" for scene in scenes.split()))
    for name, country, scenes in (
        ("S2A_MSIL2A_20180506T100031_N9999_R122_T33UWP", "Austria",
         "S1A_20180503T165046 S1A_20180507T050948"),
        ("S2B_MSIL2A_20170709T094029_N9999_R036_T35VNL", "Finland", "S1B_20170709T043159"),
        ("S2A_MSIL2A_20171121T112351_N9999_R037_T29SND", "Portugal",
         "S1A_20171121T183515 S1A_20171122T063450"),
        ("S2A_MSIL2A_20180225T114351_N9999_R123_T29UPU", "Ireland",
         "S1A_20180224T064726 S1B_20180225T063817"),
        ("S2B_MSIL2A_20170914T093029_N9999_R136_T34TEP", "Serbia",
         "S1A_20170913T043755 S1A_20170914T162451"),
        ("S2B_MSIL2A_20170829T105019_N9999_R051_T31UER", "Belgium",
         "S1A_20170829T055029 S1B_20170828T055807"),
        ("S2B_MSIL2A_20170927T094019_N9999_R036_T35ULB", "Lithuania",
         "S1A_20170925T043501 S1A_20170928T161125"),
        ("S2B_MSIL2A_20180515T112109_N9999_R037_T29SND", "Portugal",
         "S1A_20180515T182713 S1B_20180515T063356"),
        ("S2A_MSIL2A_20170617T113321_N9999_R080_T29UPU", "Ireland",
         "S1A_20170615T181403 S1A_20170617T064724"),
        ("S2A_MSIL2A_20170818T103021_N9999_R108_T32TMT", "Switzerland",
         "S1A_20170819T053446 S1B_20170818T054218"),
        ("S2B_MSIL2A_20170924T093019_N9999_R136_T35VPK", "Finland",
         "S1A_20170925T043256 S1A_20170927T153234"),
        ("S2B_MSIL2A_20171219T095409_N9999_R079_T33TWN", "Austria",
         "S1A_20171217T164218 S1B_20171220T050912"),
        ("S2A_MSIL2A_20180508T104031_N9999_R008_T31UGR", "Luxembourg", "S1A_20180508T055029"),
        ("S2A_MSIL2A_20171208T093351_N9999_R136_T34TEN", "Kosovo",
         "S1A_20171207T162425 S1B_20171206T163204"),
    )
)  # fmt: skip
NEW_PLACE = Tile(
    "S2B_MSIL2A_20170808T094029_N9999_R036_T35ULA", "Lithuania",
    ("S1A_IW_GRDH_1SDV_20170808T043459",),
)  # fmt: skip
"""Where the rasters to be mapped lie: no patch is there."""


@dataclass(frozen=True)
class Patch:
    """One patch of 1200 m x 1200 m.

    Attributes:
        tile: The product it is cut from.
        split: ``train``, ``validation`` or ``test``.
        column: Its place from the west of the tile, from 0.
        row: Its place from the north of the tile, from 0.
        scene: The Sentinel-1 scene.
        snow: Whether snow lies on it.
        cloud: Whether a cloud hides part of it.
    """

    tile: Tile
    split: str
    column: int
    row: int
    scene: str
    snow: bool = False
    cloud: bool = False

    @cached_property
    def patch_id(self) -> str:
        """Name of the Sentinel-2 patch; the place has two digits."""
        return f"{self.tile.name}_{self.column:02d}_{self.row:02d}"

    @property
    def s1_name(self) -> str:
        """Name of the Sentinel-1 patch; the place is not padded."""
        return f"{self.scene}_{self.tile.mgrs}_{self.column}_{self.row}"

    @property
    def s2v1_name(self) -> str:
        """Name in BigEarthNet v1: no orbit, no tile, no leading zeros of place and hour."""
        satellite, level, time = self.tile.name.split("_")[:3]
        day, hour = time.split("T")
        return f"{satellite}_{level}_{day}T{hour.lstrip('0')}_{self.column}_{self.row}"

    @property
    def clean(self) -> bool:
        """Whether it belongs to the main table."""
        return not (self.snow or self.cloud)

    def transform(self, gsd: float) -> Affine:
        """Pixel corner to UTM at a ground sampling distance in metres."""
        left, top = self.tile.corner
        return Affine(
            gsd, 0, left + self.column * PATCH_METRES, 0, -gsd, top - self.row * PATCH_METRES
        )


def plan(config: BigEarthNetConfig) -> list[Patch]:
    """All patches of a set, ordered by name.

    Args:
        config: How many, and the seed.
    """
    tiles = TILES[: config.tiles]
    patches: list[Patch] = []
    for number, split in enumerate(SPLITS):
        clean = getattr(config, split)
        hidden = len(range(number, config.snow_cloud, len(SPLITS)))
        for index, tile in enumerate(tiles):
            rng = generator(config.seed, tile.name, split, "places")
            cells = rng.permutation(_cells(split))
            count = len(range(index, clean, len(tiles)))
            # From the other end: few patches with snow or cloud are not all of the first tile.
            extra = len(range(len(tiles) - 1 - index, hidden, len(tiles)))
            snowy = tile.date.month in _SNOW_MONTHS
            for place, (column, row) in enumerate(cells[: count + extra]):
                patches.append(
                    Patch(
                        tile, split, int(column), int(row),
                        tile.scenes[int(rng.integers(len(tile.scenes)))],
                        snow=place >= count and snowy, cloud=place >= count and not snowy,
                    )
                )  # fmt: skip
    return sorted(patches, key=lambda patch: patch.patch_id)


def _cells(split: str) -> NDArray[np.int64]:
    """Places (N, 2) of a split in a tile: a square inside a ring inside a ring."""
    column, row = np.divmod(np.arange(_GRID**2), _GRID)
    off = np.maximum(np.abs(column - _GRID // 2), np.abs(row - _GRID // 2))
    inside = {"train": off > 34, "validation": (off > 24) & (off <= 34), "test": off <= 24}[split]
    return np.stack([column[inside], row[inside]], axis=1)

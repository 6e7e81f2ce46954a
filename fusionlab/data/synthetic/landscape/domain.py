"""How one domain differs from another: colours, camera, season, parcels, mixture of covers."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.landscape.config import LandscapeConfig, generator
from fusionlab.data.synthetic.landscape.covers import Palette
from fusionlab.data.synthetic.landscape.noise import Float

CAMERAS = ("UCE-M3-f120-s06", "UCE-M3-f120-s07", "UCE-M3-f100", "CAMERA#017", "CAMERA#020")


@dataclass(frozen=True)
class Domain:
    """A domain's look and calendar.

    Attributes:
        name: Such as `D006_2020`.
        year: Calendar year of the aerial image and the Sentinel-2 series.
        origin: Easting and northing (EPSG:2154, metres, whole tens) near which its zones lie.
        aerial_date: Day of the aerial flight.
        sun_azimuth: Direction of the sun at the flight, radians clockwise from north.
        sun_elevation: Height of the sun at the flight, radians.
        time: Local time of the flight as the metadata write it.
        camera: Camera name.
        altitude: Height above sea level, metres.
        palette: Colours of leaves, soil and buildings.
        gain: Camera gain per aerial band (4,).
        haze: Share of the aerial image that is haze.
        blur: Neighbour share of the camera's three-tap blur.
        noise: Standard deviation of the camera noise, digital numbers.
        season_shift: Days by which the vegetation is late.
        block: Size of the blocks between roads, metres.
        parcel: Smallest side of parcels, metres.
        tile_share: Share of buildings with a tiled roof.
        snow: Chance that snow lies on a winter acquisition.
        cloudiness: Chance that an acquisition is mostly cloud.
        favour: Factors by which parcels of a cover group are more frequent than usual.
        s2_days: Days of the year of the Sentinel-2 acquisitions (T,).
        s2_tile: MGRS tile in the product names.
        s2_orbit: Relative orbit in the product names.
    """

    name: str
    year: int
    origin: tuple[float, float]
    aerial_date: dt.date
    sun_azimuth: float
    sun_elevation: float
    time: str
    camera: str
    altitude: float
    palette: Palette
    gain: Float
    haze: float
    blur: float
    noise: float
    season_shift: float
    block: float
    parcel: float
    tile_share: float
    snow: float
    cloudiness: float
    favour: dict[str, float]
    s2_days: NDArray[np.int32]
    s2_tile: str
    s2_orbit: int

    @property
    def aerial_day(self) -> int:
        """Day of the year of the flight."""
        return self.aerial_date.timetuple().tm_yday

    def date(self, day: int) -> dt.date:
        """The date of a day of this domain's year."""
        return dt.date(self.year, 1, 1) + dt.timedelta(days=int(day) - 1)


def draw_domain(config: LandscapeConfig, name: str) -> Domain:
    """Draws the look of a domain.

    Args:
        config: The landscape's configuration.
        name: Domain name with its year.

    Returns:
        The domain, the same for the same seed and name.
    """
    rng = generator(config.seed, name, "domain")
    year = int(name[-4:])

    def factors(spread: float, tilt: float) -> Float:
        slope = rng.normal(0, tilt) * np.linspace(-1, 1, 10)
        values = np.exp(rng.normal(0, spread) + slope + rng.normal(0, spread / 4, 10))
        return values.astype(np.float32)

    aerial_date = dt.date(year, 1, 1) + dt.timedelta(days=int(rng.integers(165, 240)))
    count = int(rng.integers(config.min_dates, config.max_dates + 1))
    grid = np.arange(int(rng.integers(1, 5)), 366, 5)[:73]
    hour = int(rng.integers(9, 15))
    return Domain(
        name=name,
        year=year,
        origin=(
            float(rng.integers(30_000, 95_000) * 10),
            float(rng.integers(625_000, 695_000) * 10),
        ),
        aerial_date=aerial_date,
        sun_azimuth=float(np.deg2rad(120 + (hour - 9) * 24 + rng.uniform(-8, 8))),
        sun_elevation=float(np.deg2rad(rng.uniform(42, 60))),
        time=f"{hour:02d}h{int(rng.integers(0, 60)):02d}",
        camera=CAMERAS[int(rng.integers(len(CAMERAS)))],
        altitude=float(np.round(rng.uniform(5, 900), 2)),
        palette=Palette(leaf=factors(0.08, 0.04), soil=factors(0.14, 0.08),
                        built=factors(0.06, 0.02)),
        gain=np.exp(rng.normal(0, 0.10) + rng.normal(0, 0.05, 4)).astype(np.float32),
        haze=float(rng.uniform(0, 0.14)),
        blur=float(rng.uniform(0, 0.22)),
        noise=float(rng.uniform(1.0, 4.0)),
        season_shift=float(rng.normal(0, 7)),
        block=float(rng.uniform(160, 220)),
        parcel=float(rng.uniform(52, 74)),
        tile_share=float(rng.uniform(0.15, 0.75)),
        snow=float(rng.uniform(0, 0.5)),
        cloudiness=float(rng.uniform(0.15, 0.35)),
        favour={
            group: float(np.exp(rng.normal(0, 0.35)))
            for group in ("herbaceous", "crops", "plowed", "conifer", "broadleaf", "vine", "shrub")
        },
        s2_days=np.sort(rng.choice(grid, min(count, len(grid)), replace=False)).astype(np.int32),
        s2_tile="T31" + "".join(rng.choice(list("TUV"), 1)) + "".join(
            rng.choice(list("CDEFGH"), 2)
        ),
        s2_orbit=int(rng.choice([8, 51, 94, 108, 137])),
    )  # fmt: skip

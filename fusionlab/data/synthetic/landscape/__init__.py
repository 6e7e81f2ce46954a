"""Synthetic landscapes in the layout of FLAIR #2, for demonstrations and tests without data.

One map per zone is seen by an aerial camera and by a year of Sentinel-2. Some classes differ
only in time (crops, meadows and plowed land; coniferous and deciduous woods), others only in
space (roofs and asphalt; vine rows and scrub), so neither sensor suffices alone.
"""

from fusionlab.data.synthetic.landscape.config import (
    TEST_DOMAINS,
    TRAIN_DOMAINS,
    VAL_DOMAINS,
    LandCover,
    LandscapeConfig,
)
from fusionlab.data.synthetic.landscape.write import Landscape, Tile, write_flair2, write_tile

__all__ = [
    "TEST_DOMAINS",
    "TRAIN_DOMAINS",
    "VAL_DOMAINS",
    "LandCover",
    "Landscape",
    "LandscapeConfig",
    "Tile",
    "write_flair2",
    "write_tile",
]

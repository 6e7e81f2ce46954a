"""Synthetic patches in the layout of BigEarthNet v2, for demonstrations and tests without data.

Every class has a look to Sentinel-2 and a look to Sentinel-1. Several classes share the one,
several others the other, and no two share both: neither sensor suffices alone.
"""

from fusionlab.data.synthetic.bigearthnet.config import DEFAULT_CLASSES, BigEarthNetConfig
from fusionlab.data.synthetic.bigearthnet.covers import radar_alike, reflectance_alike
from fusionlab.data.synthetic.bigearthnet.write import (
    BigEarthNetSet,
    NewPlace,
    write_bigearthnet,
    write_rasters,
)

__all__ = [
    "DEFAULT_CLASSES",
    "BigEarthNetConfig",
    "BigEarthNetSet",
    "NewPlace",
    "radar_alike",
    "reflectance_alike",
    "write_bigearthnet",
    "write_rasters",
]

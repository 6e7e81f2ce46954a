"""Synthetic images with captions, site tables and weekly series, and the land use to be told.

A country with terrain and climate; sites in it where each of twelve land uses can be found; an
image of each site from the landscape simulator, a caption of what is in it, and a year of weather
and growth. Land uses come in pairs that look alike, and what separates a pair is known by another
source, so every source adds to what the others say.
"""

from fusionlab.data.synthetic.geo_multimodal.config import GeoMultimodalConfig
from fusionlab.data.synthetic.geo_multimodal.sheet import contact_sheet
from fusionlab.data.synthetic.geo_multimodal.uses import CLASSES
from fusionlab.data.synthetic.geo_multimodal.write import GeoMultimodalSet, write_geo_multimodal

__all__ = [
    "CLASSES",
    "GeoMultimodalConfig",
    "GeoMultimodalSet",
    "contact_sheet",
    "write_geo_multimodal",
]

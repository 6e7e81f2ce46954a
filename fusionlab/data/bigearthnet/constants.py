"""Facts about BigEarthNet: bands, band sets, classes, CORINE codes, colours and statistics.

BigEarthNet v2 is described in "reBEN: Refined BigEarthNet Dataset for Remote Sensing Image
Analysis" (Clasen et al., 2024, arXiv:2407.03653), v1 in "BigEarthNet-MM: A Large Scale Multi-Modal
Multi-Label Benchmark Archive for Remote Sensing Image Classification and Retrieval" (Sumbul et al.,
2021, arXiv:2105.07921).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

PATCH_METRES = 1200
"""Width and height of a patch on the ground."""

S1_BANDS = ("VV", "VH")
"""Backscatter (sigma nought) of Sentinel-1 in decibel, float32."""

S2_BANDS = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12",
)  # fmt: skip
"""Reflectance times 10,000 of Sentinel-2 level 2A, uint16. Level 2A has no B10."""

BANDS = (*S1_BANDS, *S2_BANDS)

GSD = MappingProxyType(
    {
        **dict.fromkeys((*S1_BANDS, "B02", "B03", "B04", "B08"), 10),
        **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20),
        **dict.fromkeys(("B01", "B09"), 60),
    }
)
"""Ground sampling distance of each band, metres."""

SIZE = MappingProxyType({band: PATCH_METRES // gsd for band, gsd in GSD.items()})
"""Rows and columns of each band."""

_10M_20M = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")

BAND_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "S1": S1_BANDS,
        "RGB": ("B04", "B03", "B02"),
        "10m": ("B02", "B03", "B04", "B08"),
        "20m": ("B05", "B06", "B07", "B8A", "B11", "B12"),
        "60m": ("B01", "B09"),
        "10m_20m": _10M_20M,
        "S2": S2_BANDS,
        "S1_10m_20m": (*S1_BANDS, *_10M_20M),
        "ALL": BANDS,
    }
)
"""Band sets by the names under which they are published. The reBEN paper's own input of Sentinel-2
is ``10m_20m``, that of both sensors ``S1_10m_20m``."""

MODALITIES: Mapping[str, tuple[str, ...]] = MappingProxyType({"s1": S1_BANDS, "s2": _10M_20M})
"""What is delivered by default."""

SPLITS: Mapping[str, str] = MappingProxyType(
    {"train": "train", "val": "validation", "test": "test"}
)
"""The name of each split in the metadata."""

COUNTRIES = (
    "Austria", "Belgium", "Finland", "Ireland", "Kosovo", "Lithuania", "Luxembourg", "Portugal",
    "Serbia", "Switzerland",
)  # fmt: skip

SEASONS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"winter": (12, 1, 2), "spring": (3, 4, 5), "summer": (6, 7, 8), "autumn": (9, 10, 11)}
)
"""Calendar months of the meteorological seasons, by which Sentinel-2's acquisition is judged."""


class Corine(NamedTuple):
    """A land-cover class of level 3 of the CORINE Land Cover nomenclature.

    Attributes:
        name: as BigEarthNet v1 writes it in its label files.
        label: the class of the 19 that it belongs to, None where it is left out.
    """

    name: str
    label: str | None


_CODES = {
    111: Corine("Continuous urban fabric", "Urban fabric"),
    112: Corine("Discontinuous urban fabric", "Urban fabric"),
    121: Corine("Industrial or commercial units", "Industrial or commercial units"),
    122: Corine("Road and rail networks and associated land", None),
    123: Corine("Port areas", None),
    124: Corine("Airports", None),
    131: Corine("Mineral extraction sites", None),
    132: Corine("Dump sites", None),
    133: Corine("Construction sites", None),
    141: Corine("Green urban areas", None),
    142: Corine("Sport and leisure facilities", None),
    211: Corine("Non-irrigated arable land", "Arable land"),
    212: Corine("Permanently irrigated land", "Arable land"),
    213: Corine("Rice fields", "Arable land"),
    221: Corine("Vineyards", "Permanent crops"),
    222: Corine("Fruit trees and berry plantations", "Permanent crops"),
    223: Corine("Olive groves", "Permanent crops"),
    231: Corine("Pastures", "Pastures"),
    241: Corine("Annual crops associated with permanent crops", "Permanent crops"),
    242: Corine("Complex cultivation patterns", "Complex cultivation patterns"),
    243: Corine(
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
    ),
    244: Corine("Agro-forestry areas", "Agro-forestry areas"),
    311: Corine("Broad-leaved forest", "Broad-leaved forest"),
    312: Corine("Coniferous forest", "Coniferous forest"),
    313: Corine("Mixed forest", "Mixed forest"),
    321: Corine("Natural grassland", "Natural grassland and sparsely vegetated areas"),
    322: Corine("Moors and heathland", "Moors, heathland and sclerophyllous vegetation"),
    323: Corine("Sclerophyllous vegetation", "Moors, heathland and sclerophyllous vegetation"),
    324: Corine("Transitional woodland/shrub", "Transitional woodland, shrub"),
    331: Corine("Beaches, dunes, sands", "Beaches, dunes, sands"),
    332: Corine("Bare rock", None),
    333: Corine("Sparsely vegetated areas", "Natural grassland and sparsely vegetated areas"),
    334: Corine("Burnt areas", None),
    335: Corine("Glaciers and perpetual snow", None),
    411: Corine("Inland marshes", "Inland wetlands"),
    412: Corine("Peatbogs", "Inland wetlands"),
    421: Corine("Salt marshes", "Coastal wetlands"),
    422: Corine("Salines", "Coastal wetlands"),
    423: Corine("Intertidal flats", None),
    511: Corine("Water courses", "Inland waters"),
    512: Corine("Water bodies", "Inland waters"),
    521: Corine("Coastal lagoons", "Marine waters"),
    522: Corine("Estuaries", "Marine waters"),
    523: Corine("Sea and ocean", "Marine waters"),
    999: Corine("No data", None),
}

CORINE: Mapping[int, str] = MappingProxyType(
    {code: entry.label for code, entry in _CODES.items() if entry.label is not None}
)
"""Class name of each CORINE code that belongs to one of the 19 classes."""

UNLABELLED = tuple(code for code, entry in _CODES.items() if entry.label is None)
"""Codes that reference maps hold and that belong to no class; 0 is nodata."""

V1_LABELS: Mapping[str, str | None] = MappingProxyType(
    {entry.name: entry.label for code, entry in _CODES.items() if code not in (335, 999)}
)
"""The 43 class names of v1 and the class of the 19 that each belongs to, None if it is left out."""

CLASSES_PAPER = (
    "Urban fabric",
    "Industrial or commercial units",
    "Arable land",
    "Permanent crops",
    "Pastures",
    "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Agro-forestry areas",
    "Broad-leaved forest",
    "Coniferous forest",
    "Mixed forest",
    "Natural grassland and sparsely vegetated areas",
    "Moors, heathland and sclerophyllous vegetation",
    "Transitional woodland, shrub",
    "Beaches, dunes, sands",
    "Inland wetlands",
    "Coastal wetlands",
    "Inland waters",
    "Marine waters",
)
"""The 19 classes in the order of the paper, which follows the CORINE nomenclature."""

CLASSES = tuple(sorted(CLASSES_PAPER))
"""The 19 classes in alphabetical order: that of the outputs of all published BIFOLD checkpoints."""

COLORS: Mapping[str, str] = MappingProxyType(
    {
        "Urban fabric": "#e6004d",
        "Industrial or commercial units": "#cc4df2",
        "Arable land": "#f2ee8a",
        "Permanent crops": "#e68000",
        "Pastures": "#c8d848",
        "Complex cultivation patterns": "#ffc83d",
        "Land principally occupied by agriculture, with significant areas of natural vegetation": (
            "#c79a3a"
        ),
        "Agro-forestry areas": "#f2cca6",
        "Broad-leaved forest": "#5fd400",
        "Coniferous forest": "#00802b",
        "Mixed forest": "#2fb34a",
        "Natural grassland and sparsely vegetated areas": "#b5e08c",
        "Moors, heathland and sclerophyllous vegetation": "#8fa65c",
        "Transitional woodland, shrub": "#6b7f2a",
        "Beaches, dunes, sands": "#d9d0c0",
        "Inland wetlands": "#8c8cf0",
        "Coastal wetlands": "#c0b3f5",
        "Inland waters": "#00b4e6",
        "Marine waters": "#1f5fb4",
    }
)
"""Colour of each class: close to CORINE's own, moved apart where those hardly differ."""


class Statistics(NamedTuple):
    """Mean and standard deviation of a band, in the unit of the data."""

    mean: float
    std: float


def _statistics() -> dict[str, dict[str, Statistics]]:
    content = json.loads(Path(__file__).with_name("statistics.json").read_text(encoding="utf-8"))
    return {
        key: {band: Statistics(*values) for band, values in table["bands"].items()}
        for key, table in content.items()
    }


STATISTICS: Mapping[str, Mapping[str, Statistics]] = MappingProxyType(_statistics())
"""Published statistics per band: ``v2_nearest`` (those of the bands as they lie on disk, too),
``v2_bilinear`` and ``v1``. The file ``statistics.json`` says where they come from."""

"""Facts about FLAIR #2: bands, statistics, classes, domains and the names of its folders.

FLAIR #2 is described in "FLAIR #2: textural and temporal information for semantic segmentation
from multi-source optical imagery" (Garioud et al., 2023, arXiv:2305.14467).
"""

from __future__ import annotations

from types import MappingProxyType

from fusionlab.types import Modality

AERIAL = Modality(
    bands=("red", "green", "blue", "nir", "height"),
    gsd=0.2,
    # The fifth band is height above ground (surface minus terrain model), 0.2 m per unit.
    scale=(1.0, 1.0, 1.0, 1.0, 0.2),
    # The configuration of the FLAIR #1 baseline gives 53.26 and 79.3 units for the height.
    mean=(105.08, 110.87, 101.82, 106.38, 53.26 * 0.2),
    std=(52.17, 45.38, 44.0, 39.69, 79.3 * 0.2),
)
"""Aerial orthophoto, uint8 counts. Statistics: the published configuration of FLAIR #1 (RGB, near
infrared, elevation), whose elevation is turned into metres here."""

SENTINEL2 = Modality(
    bands=("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
    gsd=10.0,
    mean=(438.372070, 614.055664, 588.409607, 942.843323, 1769.931641,
          2049.551514, 2193.291992, 2235.556641, 1568.226807, 997.732483),
    std=(607.026855, 603.296814, 684.568848, 738.432678, 1100.456055,
         1275.805420, 1369.371704, 1356.544067, 1070.161255, 813.527649),
    temporal=True,
)  # fmt: skip
"""Sentinel-2 level 2A, reflectance times 10,000. Nobody published statistics for FLAIR #2's series;
these are those of the training split of BigEarthNet v2 (reBEN, arXiv:2407.03653; values of
lhackel-tub/ConfigILM), European level 2A scenes in the same unit."""

CLASSES_19 = (
    "building", "pervious_surface", "impervious_surface", "bare_soil", "water", "coniferous",
    "deciduous", "brushwood", "vineyard", "herbaceous_vegetation", "agricultural_land",
    "plowed_land", "swimming_pool", "snow", "clear_cut", "mixed", "ligneous", "greenhouse", "other",
)  # fmt: skip
"""Class names; the value in a mask is the index plus 1."""

COLORS_19 = (
    "#db0e9a", "#938e7b", "#f80c00", "#a97101", "#1553ae", "#194a26", "#46e483", "#f3a60d",
    "#660082", "#55ff00", "#fff30d", "#e4df7c", "#3de6eb", "#ffffff", "#8ab3a0", "#6b714f",
    "#c5dc42", "#9999ff", "#000000",
)  # fmt: skip

CLASSES_13 = (*CLASSES_19[:12], "other")
"""The baseline's classes: mask values from 13 on are `other`."""

COLORS_13 = (*COLORS_19[:12], "#000000")

SCORED_CLASSES = CLASSES_19[:12]
"""The classes over which the challenge averages the IoU."""

SPECTRAL_BANDS = AERIAL.bands[:4]
"""All bands but the height above ground, which must not be an input where it is to be learned."""

TREE_CLASSES = ("coniferous", "deciduous", "mixed", "ligneous")
"""Classes of woody vegetation other than brushwood, which is shrubs."""

SATURATED_HEIGHT = 255
"""Units of the fifth band that mean 51 m or more, and often an artefact over water."""

VAL_DOMAINS = MappingProxyType(
    {
        "flair2": ("D004", "D014", "D029", "D031", "D058", "D066", "D067", "D077"),
        "flair1": ("D004", "D014", "D029", "D031", "D058", "D066", "D067", "D070"),
    }
)
"""The published validation domains: `flair2` as on the data set's page, `flair1` as in the lists of
FLAIR #1. They differ in one domain. FLAIR #2's own baseline draws its split at random."""

FOLDER_NAMES = MappingProxyType(
    {
        "aerial_train": ("flair_aerial_train", "flair_2_toy_aerial_train", "train/aerial"),
        "sen_train": ("flair_sen_train", "flair_2_toy_sen_train", "train/sen"),
        "labels_train": ("flair_labels_train", "flair_2_toy_labels_train", "train/labels"),
        "aerial_test": ("flair_2_aerial_test", "flair_2_toy_aerial_test", "test/aerial"),
        "sen_test": ("flair_2_sen_test", "flair_2_toy_sen_test", "test/sen"),
        "labels_test": ("flair_2_labels_test", "flair_2_toy_labels_test", "test/labels"),
    }
)
"""Where each part lies below the root: as published, as in the toy data set, renamed."""

CENTROIDS_PATTERN = "*centroids_sp_to_patch*.json"
"""Published with a dash or an underscore in front, depending on the archive."""

"""Models: how experts, alignment and fusion are composed."""

from fusionlab.models.align import Alignment, CentreCrop, Footprint
from fusionlab.models.contrastive import ContrastiveModel
from fusionlab.models.early import EarlyFusion
from fusionlab.models.feature import FeatureFusion
from fusionlab.models.late import LateFusion
from fusionlab.models.zero_shot import ZeroShot

__all__ = [
    "Alignment",
    "CentreCrop",
    "ContrastiveModel",
    "EarlyFusion",
    "FeatureFusion",
    "Footprint",
    "LateFusion",
    "ZeroShot",
]

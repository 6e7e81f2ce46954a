"""Models: how experts, alignment and fusion are composed."""

from fusionlab.models.align import Alignment, CentreCrop, Footprint
from fusionlab.models.early import EarlyFusion
from fusionlab.models.feature import FeatureFusion
from fusionlab.models.late import LateFusion

__all__ = ["Alignment", "CentreCrop", "EarlyFusion", "FeatureFusion", "Footprint", "LateFusion"]

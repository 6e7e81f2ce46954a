"""Models: how experts, alignment and fusion are composed."""

from fusionlab.models.align import Alignment, CentreCrop, Footprint
from fusionlab.models.feature import FeatureFusion
from fusionlab.models.late import LateFusion

__all__ = ["Alignment", "CentreCrop", "FeatureFusion", "Footprint", "LateFusion"]

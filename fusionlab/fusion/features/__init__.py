"""Operators that fuse the features of several experts into one tensor."""

from fusionlab.fusion.features.attention import Attention
from fusionlab.fusion.features.base import FeatureOperator, FeatureOperatorFactory, FusedFeatures
from fusionlab.fusion.features.concat import Concat
from fusionlab.fusion.features.gated import Gated
from fusionlab.fusion.features.projection import Projection
from fusionlab.fusion.features.weighted import Weighted

__all__ = [
    "Attention",
    "Concat",
    "FeatureOperator",
    "FeatureOperatorFactory",
    "FusedFeatures",
    "Gated",
    "Projection",
    "Weighted",
]

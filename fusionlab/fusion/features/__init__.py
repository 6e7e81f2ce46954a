"""Operators that fuse the features of several experts into one tensor."""

from fusionlab.fusion.features.add import Add
from fusionlab.fusion.features.aff import AFF
from fusionlab.fusion.features.attention import Attention
from fusionlab.fusion.features.base import (
    FeatureOperator,
    FeatureOperatorFactory,
    FusedFeatures,
    TokenOperator,
)
from fusionlab.fusion.features.bilinear import LowRankBilinear
from fusionlab.fusion.features.concat import Concat
from fusionlab.fusion.features.cross_attention import CrossAttention
from fusionlab.fusion.features.film import FiLM
from fusionlab.fusion.features.gated import Gated
from fusionlab.fusion.features.hadamard import Hadamard
from fusionlab.fusion.features.iaff import IterativeAFF
from fusionlab.fusion.features.matmul import MatMul
from fusionlab.fusion.features.projection import Projection
from fusionlab.fusion.features.weighted import Weighted

__all__ = [
    "AFF",
    "Add",
    "Attention",
    "Concat",
    "CrossAttention",
    "FeatureOperator",
    "FeatureOperatorFactory",
    "FiLM",
    "FusedFeatures",
    "Gated",
    "Hadamard",
    "IterativeAFF",
    "LowRankBilinear",
    "MatMul",
    "Projection",
    "TokenOperator",
    "Weighted",
]

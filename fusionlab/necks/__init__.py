"""Necks: from what a backbone gives to what a decoder or a head takes."""

from fusionlab.necks.add_bottleneck_layer import AddBottleneckLayer
from fusionlab.necks.aggregate_tokens import AggregateTokens
from fusionlab.necks.base import Neck, NeckFactory
from fusionlab.necks.feature_pyramid import FeaturePyramid
from fusionlab.necks.flatten import Flatten
from fusionlab.necks.interpolate_to_pyramidal import InterpolateToPyramidal
from fusionlab.necks.learned_interpolate_to_pyramidal import LearnedInterpolateToPyramidal
from fusionlab.necks.maxpool_to_pyramidal import MaxpoolToPyramidal
from fusionlab.necks.permute_dims import PermuteDims
from fusionlab.necks.reshape_tokens_to_image import ReshapeTokensToImage
from fusionlab.necks.select_indices import SelectIndices
from fusionlab.registry import Registry

NECKS = Registry("neck")
"""All necks by name."""

for neck in (
    AddBottleneckLayer,
    AggregateTokens,
    FeaturePyramid,
    Flatten,
    InterpolateToPyramidal,
    LearnedInterpolateToPyramidal,
    MaxpoolToPyramidal,
    PermuteDims,
    ReshapeTokensToImage,
    SelectIndices,
):
    NECKS.register(neck)

__all__ = [
    "NECKS",
    "AddBottleneckLayer",
    "AggregateTokens",
    "FeaturePyramid",
    "Flatten",
    "InterpolateToPyramidal",
    "LearnedInterpolateToPyramidal",
    "MaxpoolToPyramidal",
    "Neck",
    "NeckFactory",
    "PermuteDims",
    "ReshapeTokensToImage",
    "SelectIndices",
]

"""Heads: from embeddings or maps to class logits, or to values of variables."""

from fusionlab.heads.base import Head, HeadFactory, Kind
from fusionlab.heads.classification import ClassificationHead
from fusionlab.heads.flatten import FlattenHead
from fusionlab.heads.linear import LinearHead
from fusionlab.heads.mlp import MLPHead
from fusionlab.heads.regression import RegressionHead
from fusionlab.heads.segmentation import SegmentationHead
from fusionlab.registry import Registry

HEADS = Registry("head")
"""All heads by name."""

for head in (
    ClassificationHead,
    FlattenHead,
    LinearHead,
    MLPHead,
    RegressionHead,
    SegmentationHead,
):
    HEADS.register(head)

__all__ = [
    "HEADS",
    "ClassificationHead",
    "FlattenHead",
    "Head",
    "HeadFactory",
    "Kind",
    "LinearHead",
    "MLPHead",
    "RegressionHead",
    "SegmentationHead",
]

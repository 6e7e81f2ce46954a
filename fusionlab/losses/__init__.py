"""Losses, by what the target says: one class is right, any number of them, or values."""

from fusionlab.losses.base import ClassWeights, Loss, LossFactory
from fusionlab.losses.contrastive import (
    ContrastiveLoss,
    ContrastiveLossFactory,
    Embedded,
    InfoNCE,
    SigmoidContrastive,
    all_pairs,
    mean_over_pairs,
    stacked,
)
from fusionlab.losses.exclusive import CrossEntropy, Dice, Focal, Lovasz
from fusionlab.losses.multilabel import AsymmetricLoss, BinaryCrossEntropy, MultilabelLoss
from fusionlab.losses.regression import (
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    RegressionLoss,
)
from fusionlab.losses.weighted_sum import WeightedSum

__all__ = [
    "AsymmetricLoss",
    "BinaryCrossEntropy",
    "ClassWeights",
    "ContrastiveLoss",
    "ContrastiveLossFactory",
    "CrossEntropy",
    "Dice",
    "Embedded",
    "Focal",
    "Huber",
    "InfoNCE",
    "Loss",
    "LossFactory",
    "Lovasz",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "MultilabelLoss",
    "RegressionLoss",
    "SigmoidContrastive",
    "WeightedSum",
    "all_pairs",
    "mean_over_pairs",
    "stacked",
]

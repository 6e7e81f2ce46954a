"""Losses over class logits, by what the target says: one class is right, or any number of them."""

from fusionlab.losses.base import ClassWeights, Loss, LossFactory
from fusionlab.losses.exclusive import CrossEntropy, Dice, Focal, Lovasz
from fusionlab.losses.multilabel import AsymmetricLoss, BinaryCrossEntropy, MultilabelLoss
from fusionlab.losses.weighted_sum import WeightedSum

__all__ = [
    "AsymmetricLoss",
    "BinaryCrossEntropy",
    "ClassWeights",
    "CrossEntropy",
    "Dice",
    "Focal",
    "Loss",
    "LossFactory",
    "Lovasz",
    "MultilabelLoss",
    "WeightedSum",
]

"""Mixing of training samples with one another, inputs and targets alike."""

from fusionlab.data.mixing.base import Mixing
from fusionlab.data.mixing.cutmix import CutMix
from fusionlab.data.mixing.mixup import MixUp
from fusionlab.data.mixing.plan import Plan

__all__ = ["CutMix", "MixUp", "Mixing", "Plan"]

"""Experts: networks that each look at one modality."""

from fusionlab.experts.base import Expert, ExpertFactory
from fusionlab.experts.frozen import FrozenExpert, PretrainedExpert
from fusionlab.experts.tsvit import TSViT
from fusionlab.experts.unetformer import UNetFormer

__all__ = ["Expert", "ExpertFactory", "FrozenExpert", "PretrainedExpert", "TSViT", "UNetFormer"]

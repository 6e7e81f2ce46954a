"""Operators that fuse the decisions of several experts into one."""

from fusionlab.fusion.attentional import Attentional
from fusionlab.fusion.average import Average
from fusionlab.fusion.base import Fused, Fusion, FusionFactory
from fusionlab.fusion.class_weighted import ClassWeighted
from fusionlab.fusion.concat import Concat
from fusionlab.fusion.fixed_weighted import FixedWeighted
from fusionlab.fusion.gated import Gated
from fusionlab.fusion.modality_weighted import ModalityWeighted
from fusionlab.fusion.ms_cam import MSCAM

__all__ = [
    "MSCAM",
    "Attentional",
    "Average",
    "ClassWeighted",
    "Concat",
    "FixedWeighted",
    "Fused",
    "Fusion",
    "FusionFactory",
    "Gated",
    "ModalityWeighted",
]

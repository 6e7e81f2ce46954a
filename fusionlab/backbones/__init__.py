"""Backbones: networks that turn normalised images into a list of described tensors.

A backbone is any module with ``out_channels: list[int]`` that takes images ``(B, bands, H, W)`` and
returns a list of tensors; it is built as ``cls(bands, **options)``. It should also have
``features`` and ``multiple``, see `ImageBackbone`; of others they are found by `probe`.
"""

from fusionlab.backbones.base import ImageBackbone
from fusionlab.backbones.plain_cnn import PlainCNN
from fusionlab.backbones.probe import known_features, known_multiple, probe
from fusionlab.backbones.smp_backbone import SmpBackbone
from fusionlab.backbones.sources import SmpSource, TimmSource
from fusionlab.backbones.timm_backbone import TimmBackbone
from fusionlab.registry import Registry

BACKBONES = Registry("backbone", sources=(TimmSource(), SmpSource()))
"""All backbones: ``BACKBONES.build("resnet18", bands)``, ``BACKBONES.list("*dinov3*")``."""

BACKBONES.register(PlainCNN)
BACKBONES.register(TimmBackbone)
BACKBONES.register(SmpBackbone)

__all__ = [
    "BACKBONES",
    "ImageBackbone",
    "PlainCNN",
    "SmpBackbone",
    "TimmBackbone",
    "known_features",
    "known_multiple",
    "probe",
]

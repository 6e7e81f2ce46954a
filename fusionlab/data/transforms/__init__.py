"""Transforms of whole samples, which keep every modality and the target in step.

They draw from PyTorch's generator, which the DataLoader seeds differently in each worker and
Lightning's ``seed_everything`` makes reproducible.
"""

from fusionlab.data.transforms.base import SampleTransform
from fusionlab.data.transforms.chain import Chain
from fusionlab.data.transforms.d4 import D4, RandomD4
from fusionlab.data.transforms.dropout import ModalityDropout
from fusionlab.data.transforms.spatial_crop import SpatialCrop
from fusionlab.data.transforms.spectral_shift import SpectralShift
from fusionlab.data.transforms.synonyms import SynonymReplacement

__all__ = [
    "D4",
    "Chain",
    "ModalityDropout",
    "RandomD4",
    "SampleTransform",
    "SpatialCrop",
    "SpectralShift",
    "SynonymReplacement",
]

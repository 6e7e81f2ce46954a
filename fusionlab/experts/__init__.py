"""Experts: networks that each look at one modality."""

from fusionlab.experts.base import Expert, ExpertFactory
from fusionlab.experts.bifold import BifoldExpert
from fusionlab.experts.encoder_decoder import EncoderDecoder
from fusionlab.experts.frozen import FrozenExpert, PretrainedExpert
from fusionlab.experts.timm_expert import TimmExpert
from fusionlab.experts.tsvit import TSViT
from fusionlab.experts.unetformer import UNetFormer
from fusionlab.experts.utae import UTAE

__all__ = [
    "UTAE",
    "BifoldExpert",
    "EncoderDecoder",
    "Expert",
    "ExpertFactory",
    "FrozenExpert",
    "PretrainedExpert",
    "TSViT",
    "TimmExpert",
    "UNetFormer",
]

"""Experts: networks that each look at one modality."""

from fusionlab.experts.base import Expert, ExpertFactory
from fusionlab.experts.bifold import BifoldExpert
from fusionlab.experts.clip_text import ClipTextExpert
from fusionlab.experts.encoder_decoder import EncoderDecoder
from fusionlab.experts.frozen import FrozenExpert, PretrainedExpert
from fusionlab.experts.series import SeriesExpert
from fusionlab.experts.tabular import TabularExpert
from fusionlab.experts.text import TextExpert
from fusionlab.experts.timm_expert import TimmExpert
from fusionlab.experts.tsvit import TSViT
from fusionlab.experts.unetformer import UNetFormer
from fusionlab.experts.utae import UTAE

__all__ = [
    "UTAE",
    "BifoldExpert",
    "ClipTextExpert",
    "EncoderDecoder",
    "Expert",
    "ExpertFactory",
    "FrozenExpert",
    "PretrainedExpert",
    "SeriesExpert",
    "TSViT",
    "TabularExpert",
    "TextExpert",
    "TimmExpert",
    "UNetFormer",
]

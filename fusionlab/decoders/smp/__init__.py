"""The decoders of segmentation-models-pytorch, under the library's own names."""

from fusionlab.decoders.smp.base import SmpDecoder
from fusionlab.decoders.smp.context import SmpDeepLabV3, SmpDeepLabV3Plus, SmpPSPNet
from fusionlab.decoders.smp.dpt import SmpDPT
from fusionlab.decoders.smp.pyramids import SmpFPN, SmpPAN, SmpSegformer, SmpUPerNet
from fusionlab.decoders.smp.unets import SmpLinknet, SmpMAnet, SmpUnet, SmpUnetPlusPlus

SMP_DECODERS: dict[str, type[SmpDecoder]] = {
    "DPT": SmpDPT,
    "DeepLabV3": SmpDeepLabV3,
    "DeepLabV3Plus": SmpDeepLabV3Plus,
    "FPN": SmpFPN,
    "Linknet": SmpLinknet,
    "MAnet": SmpMAnet,
    "PAN": SmpPAN,
    "PSPNet": SmpPSPNet,
    "Segformer": SmpSegformer,
    "UPerNet": SmpUPerNet,
    "Unet": SmpUnet,
    "UnetPlusPlus": SmpUnetPlusPlus,
}
"""By the name of the library's model whose decoder it is."""

__all__ = [
    "SMP_DECODERS",
    "SmpDPT",
    "SmpDecoder",
    "SmpDeepLabV3",
    "SmpDeepLabV3Plus",
    "SmpFPN",
    "SmpLinknet",
    "SmpMAnet",
    "SmpPAN",
    "SmpPSPNet",
    "SmpSegformer",
    "SmpUPerNet",
    "SmpUnet",
    "SmpUnetPlusPlus",
]

"""Decoders: from a backbone's maps at several scales to one map that a head can classify."""

from fusionlab.decoders.base import Decoder
from fusionlab.decoders.fcn import FCN
from fusionlab.decoders.linear import Linear
from fusionlab.decoders.smp import SMP_DECODERS
from fusionlab.decoders.unet import UNet
from fusionlab.decoders.uper_net import UperNet
from fusionlab.registry import Library, Registry

DECODERS = Registry("decoder", sources=(Library("smp", SMP_DECODERS),))
"""All decoders: ``UperNet`` is this package's own, ``smp/UPerNet`` the library's."""

for decoder in (FCN, Linear, UNet, UperNet):
    DECODERS.register(decoder)

__all__ = [
    "DECODERS",
    "FCN",
    "SMP_DECODERS",
    "Decoder",
    "Linear",
    "UNet",
    "UperNet",
]

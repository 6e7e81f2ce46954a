"""Every backbone with every decoder: it works, or is refused when built, with what would work."""

from functools import cache

import pytest
import torch
from torch import nn

from fusionlab.backbones import BACKBONES
from fusionlab.decoders import DECODERS
from fusionlab.errors import InputError
from fusionlab.factory import build_model

BANDS = 4
SIZES = ((64, 64), (70, 102))  # the other one is neither square nor a multiple of 32
PYRAMIDS = (
    "resnet18", "regnety_002", "efficientnet_b0", "mobilenetv3_small_100", "convnext_atto",
    "convnext_tiny.dinov3_lvd1689m", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "hrnet_w18_small",
    "smp/mit_b0", "smp/resnet18",
)  # fmt: skip
PLAIN = (
    "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224",
    "vit_small_patch16_dinov3.lvd1689m",
)  # fmt: skip
QUICK = ("test_resnet", "test_convnext", "test_vit")
NECK = "LearnedInterpolateToPyramidal"
NARROW = {"Unet": [32, 16, 8, 8, 8], "UnetPlusPlus": [32, 16, 8, 8, 8], "MAnet": [32, 16, 8, 8, 8]}
ALL_DECODERS = [entry.full_name for entry in DECODERS.list()]
ONE_SCALE = ("FCN", "Linear", "DPT", "DeepLabV3", "PSPNet", "Segformer")
"""Decoders that take what a plain transformer gives as it is."""


PARTS = {"backbone", "decoder", "head"}


@cache
def backbone(name: str) -> nn.Module:
    return BACKBONES.build(name, BANDS)


def network(encoder: str, decoder: str, *, necks: tuple[str, ...] = ()) -> nn.Module:
    options = {}
    source, _, name = decoder.partition("/")
    if source == "smp" and name in NARROW:
        options["decoder_decoder_channels"] = NARROW[name]
    return build_model(
        "segmentation", backbone(encoder), decoder,
        bands=BANDS, num_classes=3, necks=necks, **options,
    )  # fmt: skip


def runs(model: nn.Module) -> None:
    """Forward and backward at every size; an answer for every pixel, a gradient everywhere."""
    model.train()
    for size in SIZES:
        model.zero_grad()
        logits = model(torch.randn(2, BANDS, *size))
        assert logits.shape == (2, 3, *size)
        assert logits.isfinite().all()
        (logits * torch.randn_like(logits)).sum().backward()
        # Of the backbone too: processes that train together wait for every gradient.
        parameters = dict(model.named_parameters())
        learned = {name: p for name, p in parameters.items() if p.requires_grad}
        # Not every decoder looks at what the neck learns.
        assert {name.partition(".")[0] for name in learned} - {"necks"} == PARTS
        missing = [name for name, p in learned.items() if p.grad is None]
        assert missing == []
        assert all(p.grad.isfinite().all() for p in learned.values())


def check(encoder: str, decoder: str, *, plain: bool) -> None:
    decodes_one_scale = decoder.partition("/")[2] in ONE_SCALE
    if plain and not decodes_one_scale:
        with pytest.raises(InputError, match=NECK):
            network(encoder, decoder)
    else:
        runs(network(encoder, decoder))
    if plain:
        runs(network(encoder, decoder, necks=(NECK,)))


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ALL_DECODERS)
@pytest.mark.parametrize("encoder", QUICK)
def test_small_pairs(encoder, decoder):
    check(encoder, decoder, plain=encoder == "test_vit")


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ALL_DECODERS)
@pytest.mark.parametrize("encoder", [*PYRAMIDS, *PLAIN])
def test_pairs(encoder, decoder):
    check(encoder, decoder, plain=encoder in PLAIN)


def test_there_is_nothing_left_out():
    assert len(ALL_DECODERS) == len(DECODERS.own) + 12
    assert len(PYRAMIDS) + len(PLAIN) >= 12

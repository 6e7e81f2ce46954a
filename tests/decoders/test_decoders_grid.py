"""Every decoder on every kind of feature list: it runs and learns, or is refused beforehand."""

import copy
import pickle
import re
from math import log2

import pytest
import torch

from fusionlab.decoders import DECODERS, SMP_DECODERS
from fusionlab.errors import InputError
from fusionlab.features import Feature

WIDTHS5 = (16, 24, 40, 64, 96)
LISTS = {
    "encoder from stride 4": (WIDTHS5[1:], (4, 8, 16, 32)),
    "encoder from stride 2": (WIDTHS5, (2, 4, 8, 16, 32)),
    "plain ViT": ((48,) * 4, (16,) * 4),
    "ViT, learned pyramid": ((16, 32, 64, 64), (4, 8, 16, 32)),
    "ViT, interpolated pyramid": ((48,) * 4, (1, 2, 4, 8)),
    "ViT of patch 14, learned pyramid": ((16, 32, 64, 64), (3.5, 7, 14, 28)),
    "ViT, pooled pyramid": ((48,) * 4, (16, 32, 64, 128)),
    "dilated encoder": (WIDTHS5[1:], (4, 8, 16, 16)),
    "one map": ((48,), (16,)),
}
FLAT = {"plain ViT", "dilated encoder", "one map"}
NARROW = {
    "FCN": {"channels": 8},
    "Linear": {},
    "UNet": {},
    "UperNet": {"channels": 8},
    "smp/DPT": {"fusion_channels": 8},
    "smp/DeepLabV3": {"out_channels": 8},
    "smp/DeepLabV3Plus": {"out_channels": 8},
    "smp/FPN": {"pyramid_channels": 8, "segmentation_channels": 32},
    "smp/Linknet": {"prefinal_channels": 8},
    "smp/MAnet": {"pab_channels": 8},
    "smp/PAN": {"decoder_channels": 8},
    "smp/PSPNet": {"out_channels": 8},
    "smp/Segformer": {"segmentation_channels": 8},
    "smp/UPerNet": {"decoder_channels": 8},
    "smp/Unet": {"attention_type": "scse"},
    "smp/UnetPlusPlus": {"attention_type": "scse"},
}
ALL = DECODERS.own | {f"smp/{name}": cls for name, cls in SMP_DECODERS.items()}
ANYTHING = {"FCN", "Linear", "smp/DPT", "smp/DeepLabV3", "smp/PSPNet", "smp/Segformer"}
IDLE_UNITS = re.compile(r"\.(SE_.l|cSE|fpa)\.")
"""Layers whose few hidden units (one for these widths) may all be cut off by a ReLU."""


def build(name, label, **options):
    widths, strides = LISTS[label]
    if name.startswith("smp/"):
        options["strides"] = strides
    skips = len(widths) - 1
    bare = min(round(log2(strides[0])), 2)
    if name == "UNet":
        options["channels"] = [16] * skips
    elif name == "smp/DPT":
        options["intermediate_channels"] = [8] * len(widths)
    elif name in {"smp/Unet", "smp/MAnet"}:
        options["decoder_channels"] = [16] * (skips + bare)
    elif name == "smp/UnetPlusPlus":
        options["decoder_channels"] = [16] * (skips + max(bare, 1))
    return ALL[name](widths, **(NARROW[name] | options))


def maps(label, height, width, batch=1):
    """As large as a backbone gives for an image padded to its largest stride."""
    widths, strides = LISTS[label]
    multiple = max(strides)
    height, width = (int(-(-size // multiple) * multiple) for size in (height, width))
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, w, int(height / s), int(width / s), generator=generator)
        for w, s in zip(widths, strides, strict=True)
    ]


def features(label):
    return [Feature(w, s) for w, s in zip(*LISTS[label], strict=True)]


def fits(name, label):
    if name == "smp/DeepLabV3Plus":
        return label not in {"plain ViT", "one map"}
    return name in ANYTHING or label not in FLAT


def test_the_grid_holds_every_decoder():
    assert set(NARROW) == set(ALL)
    assert all(cls.title() == name for name, cls in ALL.items())


@pytest.mark.parametrize("label", LISTS)
@pytest.mark.parametrize("name", ALL)
def test_runs_and_learns_or_is_refused(name, label):
    if not fits(name, label):
        with pytest.raises(InputError, match=f"The decoder {name} .*(Interpolate|SelectIndices)"):
            ALL[name].check(features(label))
        return
    ALL[name].check(features(label))
    for (height, width), batch in (((64, 64), 1), ((96, 160), 2)):
        torch.manual_seed(0)
        decoder = build(name, label)
        answer = decoder(maps(label, height, width, batch))
        assert answer.shape[:2] == (batch, decoder.out_channels)
        rows, columns = maps(label, height, width)[0].shape[-2:]
        assert answer.shape[-2] * columns == answer.shape[-1] * rows
        answer.square().mean().backward()
        gradients = {key: value.grad for key, value in decoder.named_parameters()}
        assert [key for key, value in gradients.items() if value is None] == []
        assert all(value.isfinite().all() for value in gradients.values())
        if min(maps(label, height, width)[-1].shape[-2:]) > 1:
            still = {
                key
                for key, value in gradients.items()
                if value.ndim > 1 and not value.any() and not IDLE_UNITS.search(key)
            }
            assert still == set()


@pytest.mark.parametrize("name", ALL)
def test_evaluation_treats_samples_apart_and_survives_copies(name):
    label = "encoder from stride 4"
    torch.manual_seed(0)
    decoder = build(name, label).double().eval()
    batch = [m.double() for m in maps(label, 64, 64, 2)]
    with torch.no_grad():
        both = decoder(batch)
        second = decoder([m[1:] for m in batch])
        torch.testing.assert_close(both[1:], second)
        for twin in (copy.deepcopy(decoder), pickle.loads(pickle.dumps(decoder))):
            assert torch.equal(twin(batch), both)


@pytest.mark.parametrize("name", ["smp/Unet", "smp/UPerNet", "smp/DPT", "smp/PAN", "UperNet"])
def test_exports(name):
    label = "encoder from stride 4"
    torch.manual_seed(0)
    decoder = build(name, label).eval()
    inputs = maps(label, 64, 64)
    with torch.no_grad():
        exported = torch.export.export(decoder, (inputs,), strict=False).module()
        torch.testing.assert_close(exported(inputs), decoder(inputs))


def test_an_image_so_small_that_every_branch_has_one_cell_can_be_trained_on():
    label = "encoder from stride 4"
    for name in ALL:
        if name == "smp/FPN":
            decoder = build(name, label, segmentation_channels=32)
        else:
            decoder = build(name, label)
        answer = decoder(maps(label, 32, 32))
        answer.square().mean().backward()
        assert answer.isfinite().all()

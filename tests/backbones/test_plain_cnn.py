"""PlainCNN: the small network of the fusion study."""

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

from fusionlab.backbones import BACKBONES, PlainCNN, probe
from fusionlab.errors import InputError
from fusionlab.factory import build_model


def network(**options) -> PlainCNN:
    torch.manual_seed(0)
    return PlainCNN(4, **options)


def test_it_is_found_by_name_and_describes_itself():
    backbone = BACKBONES.build("PlainCNN", 4)
    assert isinstance(backbone, PlainCNN)
    assert backbone.features == probe(backbone, 4)
    assert backbone.out_channels == [32, 64, 128]
    assert [feature.stride for feature in backbone.features] == [2, 4, 8]
    assert sum(p.numel() for p in backbone.parameters()) == 93_536
    assert sum(p.numel() for p in PlainCNN(8).parameters()) == 94_688


def test_maps_by_the_formula():
    backbone, images = network(widths=[3, 5]), torch.randn(2, 4, 8, 12)
    expected = images
    for stage, found in zip(backbone.stages, backbone(images), strict=True):
        convolved = F.conv2d(expected, stage[0].weight, stage[0].bias, padding=1)
        expected = convolved.clamp(min=0).unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
        torch.testing.assert_close(found, expected)
    assert backbone.multiple == 4
    with pytest.raises(InputError, match="multiples of 4, but got 8 x 14"):
        backbone(torch.randn(1, 4, 8, 14))


def test_copies_are_the_same_and_frozen_ones_stay():
    backbone, images = network(frozen=True), torch.randn(2, 4, 16, 16)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not backbone.train().training
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert all(map(torch.equal, twin(images), backbone(images)))


def test_layers_are_counted_from_the_input():
    layers = network().parameter_layers()
    assert set(layers) == {name for name, _ in network().named_parameters()}
    assert {name: layers[name] for name in ("stages.0.0.weight", "stages.2.0.bias")} == {
        "stages.0.0.weight": 0, "stages.2.0.bias": 2,
    }  # fmt: skip


def test_decoders_take_its_pyramid():
    model = build_model("segmentation", "PlainCNN", "UNet", bands=4, num_classes=3)
    assert model(torch.randn(2, 4, 21, 30)).shape == (2, 3, 21, 30)


@pytest.mark.parametrize("widths", [[], [0], "32", 32, [32.0], [True], None])
def test_widths_are_numbers_of_channels(widths):
    with pytest.raises(InputError, match="PlainCNN widths is a list"):
        PlainCNN(4, widths=widths)

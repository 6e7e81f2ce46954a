"""Layers of the encoders inside segmentation networks, as timm counts those of whole models."""

from functools import partial
from itertools import pairwise

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

from fusionlab.backbones import TimmBackbone
from fusionlab.experts import UNetFormer
from fusionlab.tasks import SegmentationTask
from fusionlab.types import Modality, Schema

SCHEMA = Schema({"aerial": Modality(("r", "g", "b", "nir"), 0.2)}, ("wood", "road"), gsd=0.2)


@pytest.mark.parametrize(
    "backbone", ["resnet18", "convnext_atto", "test_efficientnet", "caformer_s18"]
)
def test_layers_are_those_of_timm(backbone):
    pyramid = TimmBackbone(4, name=backbone)
    layers = pyramid.parameter_layers()
    assert layers.keys() == {name for name, _ in pyramid.named_parameters()}
    network = timm.create_model(backbone, num_classes=4)
    names = {id(p): name.replace(".", "_") for name, p in network.named_parameters()}
    groups = param_groups_layer_decay(network, layer_decay=0.5)
    expected = {names[id(p)]: g["lr_scale"] for g in groups for p in g["params"]}
    last = max(layers.values())
    for name, layer in layers.items():
        flat = name.removeprefix("body.").replace(".", "_")
        assert 0.5 ** (last + 1 - layer) == expected[flat], name


@pytest.mark.parametrize(
    ("backbone", "depths"),
    [
        ("resnet18", ("conv1", "layer1.0", "layer2.1", "layer3.0", "layer4.1")),
        ("convnext_atto", ("stem", "stages.0", "stages.1", "stages.2.blocks.5", "stages.3")),
    ],
)
def test_learning_rates_fall_towards_the_stem(backbone, depths):
    task = SegmentationTask(
        SCHEMA,
        partial(UNetFormer, backbone=backbone),
        optimizer=partial(torch.optim.SGD, lr=1.0),
        layer_decay=0.8,
    )
    groups = task.configure_optimizers().param_groups
    names = {id(p): name for name, p in task.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert rates.keys() == {name for name, p in task.named_parameters() if p.requires_grad}
    found = [
        {rate for name, rate in rates.items() if name.startswith(f"model.backbone.body.{part}.")}
        for part in depths
    ]
    assert all(rates_of_part for rates_of_part in found)
    for below, above in pairwise(found):
        assert max(below) < min(above)
    assert max(found[-1]) == pytest.approx(0.8)
    decoder = {rate for name, rate in rates.items() if ".backbone." not in name}
    assert decoder == {1.0}


def test_counting_layers_leaves_random_numbers_alone():
    pyramid = TimmBackbone(4, name="resnet18")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    pyramid.parameter_layers()
    assert torch.equal(torch.rand(2), expected)

"""What own decoders compute, and the layers that accept single values."""

import pytest
import torch
from torch import nn

from fusionlab.decoders import FCN, Linear, UNet, UperNet
from fusionlab.decoders.smp import SmpUnet, SmpUPerNet
from fusionlab.errors import InputError
from fusionlab.norms import (
    BatchNorm2d,
    GroupNorm,
    InstanceNorm2d,
    accept_single_values,
)


def pyramid(widths=(8, 12, 16, 20), rows=2, columns=3, batch=2):
    steps = range(len(widths) - 1, -1, -1)
    return [
        torch.randn(batch, w, rows << i, columns << i) for w, i in zip(widths, steps, strict=True)
    ]


def awake(module):
    """Normalisation that does something, in training and in evaluation."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 1.5)
    return module


@pytest.mark.parametrize("training", [True, False])
def test_unet_equals_another_implementation(training):
    torch.manual_seed(0)
    maps = pyramid()
    theirs = awake(SmpUnet([8, 12, 16, 20], strides=[1, 2, 4, 8], decoder_channels=[16, 12, 8]))
    ours = UNet([8, 12, 16, 20], channels=[16, 12, 8], upsampling="nearest")
    values = list(theirs.state_dict().values())
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    expected = theirs.train(training)(maps)
    torch.testing.assert_close(ours.train(training)(maps), expected)


@pytest.mark.parametrize("training", [True, False])
def test_uper_net_equals_another_implementation(training):
    torch.manual_seed(0)
    maps = pyramid()
    theirs = awake(SmpUPerNet([8, 12, 16, 20], decoder_channels=8))
    normalised = [
        norm(m) for norm, m in zip(theirs.decoder.feature_norms, maps, strict=True)
    ]  # theirs alone does that
    ours = UperNet([8, 12, 16, 20], channels=8)
    pairs = [
        (ours.pool.branches, theirs.decoder.psp.blocks),
        (ours.pool.merge, theirs.decoder.psp.out_conv),
        (ours.laterals, theirs.decoder.fpn_lateral_blocks[::-1]),
        (ours.smooth, theirs.decoder.fpn_conv_blocks[::-1]),
        (ours.fuse, theirs.decoder.fusion_block),
    ]
    for own, other in pairs:
        values = list(other.state_dict().values())
        own.load_state_dict(dict(zip(own.state_dict(), values, strict=True)))
    expected = theirs.train(training)(maps)
    torch.testing.assert_close(ours.train(training)(normalised), expected)


@pytest.mark.parametrize("index", [-1, 1, "all"])
def test_linear_is_linear_in_the_features(index):
    torch.manual_seed(0)
    decoder = awake(Linear([8, 12, 16, 20], index=index, channels=5)).eval()
    one, two = pyramid(), pyramid()
    middle = [0.25 * a + 0.75 * b for a, b in zip(one, two, strict=True)]
    with torch.no_grad():
        expected = 0.25 * decoder(one) + 0.75 * decoder(two)
        torch.testing.assert_close(decoder(middle), expected, rtol=1e-4, atol=1e-5)


def test_linear_hands_over_the_features_themselves():
    maps = pyramid()
    assert Linear([8, 12, 16, 20], index=1, norm=False)(maps) is maps[1]
    every = Linear([8, 12, 16, 20], index="all", norm=False)
    assert every.out_channels == 56
    assert list(every.parameters()) == []
    joined = every(maps)
    assert torch.equal(joined[:, :8], maps[0])
    constant = every([torch.full_like(m, i) for i, m in enumerate(maps)])
    assert constant[0, :, 5, 7].tolist() == [0.0] * 8 + [1.0] * 12 + [2.0] * 16 + [3.0] * 20


def test_fcn_looks_at_one_map():
    torch.manual_seed(0)
    decoder = FCN([8, 12, 16, 20], index=1, channels=6, num_convs=3).eval()
    maps = pyramid()
    answer = decoder(maps)
    changed = [m if i == 1 else m + 1 for i, m in enumerate(maps)]
    assert torch.equal(decoder(changed), answer)
    assert not torch.equal(decoder([m + 1 for m in maps]), answer)
    assert answer.shape == (2, 6, *maps[1].shape[-2:])
    assert sum(isinstance(m, nn.Conv2d) for m in decoder.modules()) == 3


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear", "nearest"])
def test_unet_sees_every_map_at_the_finest_resolution(upsampling):
    torch.manual_seed(0)
    decoder = UNet([8, 12, 16, 20], upsampling=upsampling)
    maps = [m.requires_grad_() for m in pyramid()]
    answer = decoder(maps)
    assert answer.shape == (2, 64, *maps[0].shape[-2:])
    answer.square().mean().backward()
    assert all(m.grad.any() for m in maps)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FCN([8, 8], index=2), r"index 2, but gets 2 map"),
        (lambda: FCN([8, 8], num_convs=0), "decoder Linear has none"),
        (lambda: FCN([8, 0]), "one or more channels"),
        (lambda: FCN([8], channels=0), "FCN channels must be an integer of 1 or more, got 0"),
        (lambda: Linear([8], index=-2), "index -2, but gets 1 map"),
        (lambda: UNet([8]), "takes 2 or more maps.*LearnedInterpolateToPyramidal"),
        (lambda: UNet([8, 8, 8], channels=[16]), "2 for 3 maps"),
        (lambda: UNet([8, 8], channels=16), "a list of integers, got 16"),
        (lambda: UNet([8, 8], upsampling="cubic"), "transposed"),
        (lambda: UperNet([8, 8], pool_sizes=[0]), "pool_sizes"),
    ],
)
def test_mistakes_are_explained(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_norms_are_those_of_pytorch_where_these_work():
    torch.manual_seed(0)
    values = torch.randn(3, 8, 2, 2)
    theirs = awake(nn.Sequential(nn.BatchNorm2d(8), nn.InstanceNorm2d(8), nn.GroupNorm(2, 8)))
    ours = nn.Sequential(BatchNorm2d(8), InstanceNorm2d(8), GroupNorm(2, 8))
    ours.load_state_dict(theirs.state_dict())
    for training in (True, False):
        expected = theirs.train(training)(values)
        assert torch.equal(ours.train(training)(values), expected)
    assert torch.equal(ours[0].running_var, theirs[0].running_var)


def test_a_single_value_is_normalised_as_in_evaluation():
    torch.manual_seed(0)
    value = torch.randn(1, 8, 1, 1)
    norm = awake(BatchNorm2d(8))
    before = {key: tensor.clone() for key, tensor in norm.state_dict().items()}
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.BatchNorm2d(8)(value)
    assert torch.equal(norm.train()(value), norm.eval()(value))
    assert all(torch.equal(before[key], tensor) for key, tensor in norm.state_dict().items())
    without = BatchNorm2d(8, track_running_stats=False)
    torch.testing.assert_close(without(value), value, rtol=1e-4, atol=1e-4)
    assert torch.equal(InstanceNorm2d(8)(value), value)
    affine = InstanceNorm2d(8, affine=True)
    nn.init.constant_(affine.weight, 2.0)
    assert torch.equal(affine(value), 2 * value)
    grouped = awake(GroupNorm(8, 8))
    assert torch.equal(grouped(value), grouped(torch.cat([value, value]))[:1])


def test_layers_are_replaced_with_their_settings_and_values():
    inner = nn.BatchNorm2d(4, eps=0.1, momentum=None)
    nn.init.constant_(inner.weight, 3.0)
    module = nn.Sequential(nn.Sequential(inner), nn.BatchNorm2d(4, affine=False))
    accept_single_values(module)
    replaced = module[0][0]
    assert isinstance(replaced, BatchNorm2d)
    assert (replaced.eps, replaced.momentum) == (0.1, None)
    assert replaced.weight.tolist() == [3.0] * 4
    assert isinstance(module[1], BatchNorm2d)
    assert module[1].weight is None

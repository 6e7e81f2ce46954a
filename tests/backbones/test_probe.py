"""Modules that say no more of themselves than their channels."""

import pytest
import torch
from torch import nn

from fusionlab.backbones import TimmBackbone, known_features, known_multiple, probe
from fusionlab.errors import InputError
from fusionlab.features import Feature


class Maps(nn.Module):
    """Somebody's backbone."""

    def __init__(self, bands=4, out_channels=(8, 16)):
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(bands, 8, 4, stride=4), nn.BatchNorm2d(8))
        self.coarse = nn.Conv2d(8, 16, 2, stride=2)
        self.out_channels = list(out_channels)

    def forward(self, images):
        fine = self.fine(images)
        return [fine, self.coarse(fine)]


class Changed(Maps):
    """The same with another answer."""

    def __init__(self, change, **options):
        super().__init__(**options)
        self.change = change

    def forward(self, images):
        return self.change(super().forward(images))


class OneSize(Maps):
    def forward(self, images):
        assert images.shape[-2:] == (224, 224)
        return super().forward(images)


class Multiples(Maps):
    multiple = 24

    def forward(self, images):
        if images.shape[-1] % 24 or images.shape[-2] % 24:
            raise ValueError("24!")
        return super().forward(images)


def test_strides_and_channels_are_found():
    assert probe(Maps(), 4) == (Feature(8, 4), Feature(16, 8))


def test_nothing_changes():
    module = Maps().train()
    module.coarse.eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    random = torch.random.get_rng_state()
    probe(module, 4)
    assert (module.training, module.fine.training, module.coarse.training) == (True, True, False)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)


@pytest.mark.parametrize(
    ("change", "layout", "strides"),
    [
        (lambda maps: [m.permute(0, 2, 3, 1) for m in maps], "NHWC", (4, 8)),
        (lambda maps: [m.flatten(2).transpose(1, 2) for m in maps], "NLC", (4, 8)),
        (lambda maps: [m.flatten(2) for m in maps], "NCL", (4, 8)),
        (lambda maps: [m.mean((2, 3)) for m in maps], "NC", (None, None)),
    ],
)
def test_layouts_are_found(change, layout, strides):
    found = probe(Changed(change), 4)
    assert found == tuple(Feature(c, s, layout) for c, s in zip((8, 16), strides, strict=True))


def test_tokens_before_those_of_the_patches():
    model = TimmBackbone(4, name="test_vit", layout="NLC", out_indices=[-1])
    assert probe(model, 4) == model.features == (Feature(64, 16, "NLC"),)


def test_rows_and_columns_that_disagree_have_no_stride():
    assert probe(Changed(lambda maps: [maps[0][:, :, ::2], maps[1]]), 4)[0] == Feature(8, None)


def test_a_grid_finer_than_the_image():
    finer = Changed(lambda maps: [nn.functional.interpolate(m, scale_factor=8.0) for m in maps])
    assert [feature.stride for feature in probe(finer, 4)] == [0.5, 1]


@pytest.mark.parametrize("kind", [OneSize, Multiples])
def test_a_size_that_it_takes_is_tried(kind):
    assert [feature.stride for feature in probe(kind(), 4)] == [4, 8]


def test_its_own_type_of_numbers():
    assert probe(Maps().double(), 4)[0] == Feature(8, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (tuple, "Changed answers with a tuple of Tensor.*list of tensors"),
        (lambda maps: maps[0], "Changed answers with a Tensor.*list of tensors"),
        (lambda maps: dict(enumerate(maps)), "answers with a dict"),
        (lambda maps: [maps], "a list of list"),
        (lambda maps: maps[:1], r"announces 2 tensors \(out_channels \[8, 16\]\).*with 1"),
        (
            lambda maps: maps[::-1],
            r"Tensor 0 of the backbone Changed.*\[2, 16, 8, 12\].*8 channels",
        ),
        (lambda maps: [m[:1] for m in maps], r"\[1, 8, 16, 24\] for 2 images"),
        (lambda maps: [m[0, 0, 0] for m in maps], r"has the shape \[24\]"),
    ],
)
def test_broken_contracts_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        probe(Changed(change), 4)


@pytest.mark.parametrize("channels", [None, 8, [], ["8"], [0, 1]])
def test_channels_must_be_announced(channels):
    module = Maps()
    module.out_channels = channels
    with pytest.raises(InputError, match=r"`out_channels`.*Maps"):
        probe(module, 4)


def test_images_that_it_does_not_take():
    with pytest.raises(InputError, match="Maps takes no images of 3 bands") as error:
        probe(Maps(bands=4), 3)
    assert isinstance(error.value.__cause__, RuntimeError)


def test_what_a_backbone_says_itself_counts():
    module = Maps()
    assert known_features(module, 4) == probe(module, 4)
    assert known_multiple(module, known_features(module, 4)) == 8
    module.features = (Feature(8, 3), Feature(16, 5))
    module.multiple = 30
    assert known_features(module, 4) is module.features
    assert known_multiple(module, module.features) == 30


def test_layers_called_features_are_no_description():
    module = Maps()
    module.features = nn.Sequential()  # as in many networks
    assert known_features(module, 4) == (Feature(8, 4), Feature(16, 8))

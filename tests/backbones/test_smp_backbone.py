"""SmpBackbone: encoders of segmentation-models-pytorch."""

import copy
import pickle

import pytest
import segmentation_models_pytorch as smp
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from fusionlab.backbones import SmpBackbone
from fusionlab.errors import InputError
from fusionlab.padding import pad_to_multiple


def images(height=64, width=96, *, bands=4):
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(2, bands, height, width, generator=generator)


def published(name="resnet18", weights="imagenet", *, depth=5):
    """A state dict as the library publishes it."""
    torch.manual_seed(1)
    return smp.encoders.get_encoder(name, depth=depth).state_dict()


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("resnet18", [64, 64, 128, 256, 512], [2, 4, 8, 16, 32]),
        ("mit_b0", [32, 64, 160, 256], [4, 8, 16, 32]),
        pytest.param(
            "vgg11", [64, 128, 256, 512, 512, 512], [1, 2, 4, 8, 16, 32], marks=pytest.mark.slow
        ),
        pytest.param(
            "mobilenet_v2", [16, 24, 32, 96, 1280], [2, 4, 8, 16, 32], marks=pytest.mark.slow
        ),
        pytest.param(
            "inceptionv4", [64, 192, 384, 1024, 1536], [2, 4, 8, 16, 32], marks=pytest.mark.slow
        ),
        pytest.param("dpn68", [10, 144, 320, 704, 832], [2, 4, 8, 16, 32], marks=pytest.mark.slow),
        pytest.param(
            "timm-efficientnet-b0",
            [32, 24, 40, 112, 320],
            [2, 4, 8, 16, 32],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "mobileone_s0", [48, 48, 128, 256, 1024], [2, 4, 8, 16, 32], marks=pytest.mark.slow
        ),
    ],
)
def test_images_give_what_was_said(name, channels, strides):
    model = SmpBackbone(4, name=name).eval()
    assert model.out_channels == channels
    assert [feature.stride for feature in model.features] == strides
    for size in ((64, 64), (70, 102)):
        padded = pad_to_multiple(images(*size), model.multiple)
        with torch.no_grad():
            maps = model(padded)
        height, width = padded.shape[-2:]
        assert [tuple(each.shape) for each in maps] == [
            (2, c, height // s, width // s) for c, s in zip(channels, strides, strict=True)
        ]


def test_maps_are_those_of_the_encoder():
    model = SmpBackbone(4, name="mit_b0").eval()
    with torch.no_grad():
        image, nothing, *expected = model.encoder(images())
        assert torch.equal(image, images())
        assert nothing.numel() == 0
        assert all(map(torch.equal, model(images()), expected))


@pytest.mark.parametrize(
    ("options", "strides", "multiple"),
    [
        ({"depth": 3}, [2, 4, 8], 8),
        ({"depth": 1}, [2], 2),
        ({"output_stride": 16}, [2, 4, 8, 16, 16], 16),
    ],
)
def test_depth_and_dilation(options, strides, multiple):
    model = SmpBackbone(4, name="resnet18", **options)
    assert [feature.stride for feature in model.features] == strides
    assert model.multiple == multiple
    assert model.eval()(images())[-1].shape[-2:] == (64 // strides[-1], 96 // strides[-1])


@pytest.mark.parametrize("options", [{}, {"depth": 2}])
def test_what_gets_a_gradient_asks_for_it_and_nothing_else(options):
    torch.manual_seed(0)
    model = SmpBackbone(4, name="resnet18", **options).train()
    asking = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    model.requires_grad_(True)
    sum(each.square().sum() for each in model(images())).backward()
    assert asking == {
        key for key, parameter in model.named_parameters() if parameter.grad is not None
    }


def test_layers_are_stages():
    layers = SmpBackbone(4, name="resnet18").parameter_layers()
    assert layers["encoder.conv1.weight"] == 0
    for stage in (1, 2, 3, 4):
        assert {v for k, v in layers.items() if f"layer{stage}." in k} == {stage}


def test_frozen_means_frozen():
    model = SmpBackbone(4, name="resnet18", frozen=True).train()
    before = copy.deepcopy(model.state_dict())
    assert not any(each.requires_grad for each in model(images()))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_copies_and_pickles_answer_the_same():
    model = SmpBackbone(4, name="mit_b0").eval()
    with torch.no_grad():
        expected = model(images())
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert all(map(torch.equal, other(images()), expected))


def test_exported_answers_the_same():
    model = SmpBackbone(4, name="resnet18").eval()
    program = torch.export.export(model, (images(),)).module()
    with torch.no_grad():
        for given, wanted in zip(program(images()), model(images()), strict=True):
            torch.testing.assert_close(given, wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mit_b9"}, "similar names: .*mit_b0"),
        ({"name": "tu-resnet18"}, "TimmBackbone with the name 'resnet18'"),
        ({"depth": 6}, "1 to 5 stages"),
        ({"name": "mit_b0", "depth": 1}, "larger `depth`"),
        ({"name": "vgg11", "output_stride": 8}, "cannot have depth 5 and output_stride 8"),
        ({"output_stride": 4}, "cannot have depth 5 and output_stride 4"),
        ({"weights": "imagnet"}, r"no weights named 'imagnet'.*\['imagenet'"),
    ],
)
def test_refused_at_construction(options, message):
    with pytest.raises(InputError, match=message):
        SmpBackbone(4, **({"name": "resnet18"} | options))


def test_sides_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match=r"resnet18.*multiples of 32.*got 64 x 90"):
        SmpBackbone(4, name="resnet18")(images(64, 90))


class TestWeights:
    @pytest.fixture
    def offline(self, monkeypatch, tmp_path):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")

    def test_hub_out_of_reach_is_explained(self, offline, tmp_path):
        with pytest.raises(InputError, match="could not be reached") as error:
            SmpBackbone(3, name="mit_b0", weights="imagenet")
        for advice in (
            "smp-hub/mit_b0.imagenet",
            "`weights: null`",
            "`weights: /path",
            str(tmp_path),
        ):
            assert advice in str(error.value)

    def test_cached_weights_need_no_connection(self, offline, tmp_path):
        revision = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]["revision"]
        snapshot = tmp_path / "models--smp-hub--resnet18.imagenet" / "snapshots" / revision
        snapshot.mkdir(parents=True)
        weights = published()
        save_file(weights, snapshot / "model.safetensors")
        model = SmpBackbone(5, name="resnet18", weights="imagenet")
        assert torch.equal(model.encoder.layer4[0].conv1.weight, weights["layer4.0.conv1.weight"])
        torch.testing.assert_close(
            model.encoder.conv1.weight[:, 3], weights["conv1.weight"][:, 0] * 3 / 5
        )
        assert model.trained

    def test_local_file(self, tmp_path):
        path = tmp_path / "w.safetensors"
        weights = published("mit_b0")
        save_file(weights, path)
        model = SmpBackbone(3, name="mit_b0", weights=str(path))
        assert all(torch.equal(v, weights[k]) for k, v in model.encoder.state_dict().items())

    def test_file_of_another_encoder_is_refused(self, tmp_path):
        path = tmp_path / "w.safetensors"
        save_file(published("resnet18"), path)
        with pytest.raises(InputError, match=r"w\.safetensors are not those of .*mit_b0"):
            SmpBackbone(3, name="mit_b0", weights=str(path))

    def test_a_checkpoint_that_holds_them_does_not_need_them_again(self):
        assert SmpBackbone(3, name="mit_b0", weights="imagenet", restored=True).trained

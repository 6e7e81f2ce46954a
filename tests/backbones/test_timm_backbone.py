"""TimmBackbone: what it says, timm's own numbers, and what it refuses."""

import copy
import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm_networks import DINOV3, awake

from fusionlab.backbones import TimmBackbone
from fusionlab.component import Backbone
from fusionlab.errors import InputError
from fusionlab.experts.timm_body import TimmBody
from fusionlab.features import Feature
from fusionlab.padding import pad_to_multiple

HIERARCHICAL = ["test_resnet", "test_convnext", "test_efficientnet", "test_byobnet"]
PLAIN = ["test_vit", "test_vit2", "small_dinov3"]
ENCODERS = [
    *HIERARCHICAL,
    *PLAIN,
    "resnet18",
    "pvt_v2_b0",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "convnext_tiny",
            "convnext_tiny.dinov3_lvd1689m",
            "efficientnet_b0",
            "eva02_tiny_patch14_224",
            "fastvit_t8",
            "hrnet_w18_small",
            "mambaout_femto",
            "maxvit_pico_rw_256",
            "mobilenetv3_small_050",
            "mobilevitv2_050",
            "samvit_base_patch16",
            "swin_tiny_patch4_window7_224",
            "swinv2_tiny_window8_256",
            "vgg11",
            "vit_small_patch14_dinov2",
            "vit_small_patch16_dinov3",
            "vit_tiny_patch16_224",
            "xcit_nano_12_p16_224",
        )
    ),
]


def images(height=64, width=96, *, batch=2, bands=5):
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(batch, bands, height, width, generator=generator)


def backbone(name="test_resnet", bands=5, **options):
    torch.manual_seed(0)
    return awake(TimmBackbone(bands, name=name, **options)).eval()


def layout_of(module):
    return [(feature.channels, feature.stride) for feature in module.features]


class TestDescription:
    @pytest.mark.parametrize("name", ENCODERS)
    def test_images_give_what_was_said(self, name):
        torch.manual_seed(0)
        model = TimmBackbone(5, name=name).eval()
        assert model.out_channels == [feature.channels for feature in model.features]
        for size in ((64, 64), (70, 102)):
            padded = pad_to_multiple(images(*size, batch=1), model.multiple)
            with torch.no_grad():
                maps = model(padded)
            assert isinstance(maps, list)
            height, width = padded.shape[-2:]
            assert [tuple(each.shape) for each in maps] == [
                (1, channels, height // stride, width // stride)
                for channels, stride in layout_of(model)
            ]
            assert all(each.isfinite().all() for each in maps)

    @pytest.mark.parametrize(
        ("name", "options", "expected", "multiple"),
        [
            ("resnet18", {}, [(64, 4), (128, 8), (256, 16), (512, 32)], 32),
            ("resnet18", {"out_indices": [0, -1]}, [(64, 2), (512, 32)], 32),
            ("resnet18", {"out_indices": [1]}, [(64, 4)], 4),
            ("resnet18", {"output_stride": 8}, [(64, 4), (128, 8), (256, 8), (512, 8)], 8),
            ("shvit_s1", {}, [(128, 16), (224, 32), (320, 64)], 64),
            ("test_vit", {"out_indices": [1, 3]}, [(64, 16)] * 2, 16),
            ("test_vit", {"layout": "NLC", "out_indices": [-1]}, [(64, 16)], 16),
            ("mobilevitv2_050", {}, [(64, 4), (128, 8), (192, 16), (256, 32)], 64),
        ],
    )
    def test_known_before_any_image(self, name, options, expected, multiple):
        model = TimmBackbone(4, name=name, **options)
        assert layout_of(model) == expected
        assert model.multiple == multiple
        assert model.training

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            (DINOV3, (2, 5, 8, 11)),
            ("mixer_s32_224", (1, 3, 5, 7)),
            ("test_vit", (0, 2, 3, 5)),
            ("small_dinov3", (0, 1)),
        ],
    )
    def test_plain_networks_are_looked_at_in_four_blocks(self, name, expected):
        size = {"image_size": 64} if name == "mixer_s32_224" else {}
        model = TimmBackbone(3, name=name, **size)
        assert model.indices == expected
        assert len(set(model.features)) == 1


class TestNumbers:
    @pytest.mark.parametrize(
        "name",
        [*HIERARCHICAL, *(pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow),)],
    )
    def test_maps_are_those_of_timm(self, name):
        model = backbone(name)
        options = {"strict_img_size": False} if "swin" in name else {}
        reference = timm.create_model(
            name, features_only=True, in_chans=5, out_indices=model.indices, **options
        )
        ours = {key.replace(".", "_"): value for key, value in model.body.state_dict().items()}
        own = reference.state_dict()
        assert {key.replace(".", "_") for key in own} <= ours.keys()
        reference.load_state_dict({key: ours[key.replace(".", "_")] for key in own})
        with torch.no_grad():
            expected = reference.eval()(images())
            if "swin" in name:
                expected = [each.permute(0, 3, 1, 2) for each in expected]
            for given, wanted in zip(model(images()), expected, strict=True):
                torch.testing.assert_close(given, wanted)

    @pytest.mark.parametrize("name", PLAIN)
    def test_last_map_is_what_the_network_ends_with(self, name):
        # Also in test_vit2, which normalises what it averaged, as BEiT and EVA-02 do.
        body = awake(TimmBody(name, bands=5)).eval()
        model = backbone(name)
        weights = body.network.state_dict()
        if "fc_norm.weight" in weights:
            weights = {key.replace("fc_norm.", "norm."): v for key, v in weights.items()}
        model.body.load_state_dict({k: weights[k] for k in model.body.state_dict()})
        with torch.no_grad():
            torch.testing.assert_close(model(images())[-1], body.maps(images()))

    def test_without_the_last_normalisation(self):
        raw, normed = backbone("test_vit", norm=False), backbone("test_vit")
        shared = raw.body.state_dict()
        assert normed.body.state_dict().keys() - shared.keys() == {"norm.weight", "norm.bias"}
        normed.body.load_state_dict(shared, strict=False)
        with torch.no_grad():
            for given, wanted in zip(raw(images()), normed(images()), strict=True):
                tokens = normed.body.norm(given.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
                torch.testing.assert_close(tokens, wanted)

    @pytest.mark.parametrize(("name", "prefix"), [("test_vit", 1), ("small_dinov3", 5)])
    def test_tokens_hold_the_maps_behind_class_and_register_tokens(self, name, prefix):
        maps, tokens = backbone(name), backbone(name, layout="NLC")
        tokens.load_state_dict(maps.state_dict())
        assert tokens.prefix_tokens == prefix
        assert tokens.features == (Feature(maps.out_channels[0], 16, "NLC"),) * len(maps.features)
        with torch.no_grad():
            for sequence, grid in zip(tokens(images()), maps(images()), strict=True):
                assert sequence.shape == (2, prefix + 4 * 6, maps.out_channels[0])
                patches = sequence[:, prefix:].transpose(1, 2).unflatten(2, (4, 6))
                assert torch.equal(patches, grid)

    def test_tokens_of_networks_without_a_class_token(self):
        options = {"name": "mixer_s32_224", "image_size": 64, "out_indices": [0]}
        maps, tokens = backbone(**options), backbone(**options, layout="NLC")
        tokens.load_state_dict(maps.state_dict())
        assert tokens.prefix_tokens == 0
        expected = maps(images(64, 64))[0].flatten(2).transpose(1, 2)
        assert torch.equal(tokens(images(64, 64))[0], expected)

    def test_place_is_kept(self):
        # A change at one place changes the map most there: rows and columns are not mixed up.
        model = backbone("test_vit")
        changed = images()
        changed[..., 16:32, 64:80] += 3
        with torch.no_grad():
            difference = (model(changed)[0] - model(images())[0]).abs().sum(1)
        assert (difference.flatten(1).argmax(1) == 1 * 6 + 4).all()

    def test_a_sample_does_not_depend_on_the_others(self):
        model = backbone("test_convnext")
        with torch.no_grad():
            for whole, alone in zip(model(images()), model(images()[:1]), strict=True):
                torch.testing.assert_close(whole[:1], alone)


class TestTraining:
    @pytest.mark.parametrize(
        "name",
        [
            *HIERARCHICAL,
            *PLAIN,
            *(
                pytest.param(n, marks=pytest.mark.slow)
                for n in ("efficientvit_m0", "hrnet_w18_small")
            ),
        ],
    )
    @pytest.mark.parametrize("options", [{}, {"out_indices": [1]}])
    def test_what_gets_a_gradient_asks_for_it_and_nothing_else(self, name, options):
        torch.manual_seed(0)
        model = TimmBackbone(5, name=name, **options).train()
        asking = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
        model.requires_grad_(True)
        sum(each.square().sum() for each in model(images(128, 192))).backward()
        given = {key for key, parameter in model.named_parameters() if parameter.grad is not None}
        assert asking == given != set()

    def test_what_follows_the_last_map_is_left_out(self):
        assert not any(
            key.startswith("body.layer3") for key in backbone(out_indices=[2]).state_dict()
        )
        shallow = backbone("test_vit", out_indices=[0, 1]).state_dict()
        assert not any(key.startswith("body.blocks.2") for key in shallow)

    @pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
    def test_frozen_means_frozen(self, name):
        model = backbone(name, frozen=True, drop_path_rate=0.5).train()
        before = copy.deepcopy(model.state_dict())
        first, second = model(images()), model(images())
        assert not any(each.requires_grad for each in first)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert not any(part.training for part in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    def test_frozen_later(self):
        model = backbone().train()
        model(images())
        model.freeze()
        before = copy.deepcopy(model.state_dict())
        model.train()(images())
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    def test_without_freezing_statistics_drift(self):
        model = backbone().train()
        before = copy.deepcopy(model.state_dict())
        model(images())
        assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())

    @pytest.mark.parametrize("name", [*HIERARCHICAL, *PLAIN, "poolformer_s12"])
    def test_layers_as_in_the_whole_network(self, name):
        model = TimmBackbone(5, name=name)
        assert isinstance(model, Backbone)
        layers = model.parameter_layers()
        assert layers.keys() == {key for key, _ in model.named_parameters()}
        whole = TimmBody(name, bands=5).parameter_layers()
        whole |= {key.replace(".fc_norm.", ".norm."): layer for key, layer in whole.items()}
        expected = {key: whole["network." + key.removeprefix("body.")] for key in layers}
        if name != "poolformer_s12":  # whose layers timm counts by what is there
            assert layers == expected
        assert min(layers.values()) == 0

    def test_drop_path_reaches_the_network(self):
        model = backbone("test_resnet", drop_path_rate=0.9).train()
        assert not torch.equal(model(images())[-1], model(images())[-1])


class TestCopies:
    @pytest.mark.parametrize("name", ["test_resnet", "small_dinov3"])
    def test_copies_and_pickles_answer_the_same(self, name):
        model = backbone(name)
        sides = (model.multiple, 2 * model.multiple)
        with torch.no_grad():
            expected = model(images(*sides))
            for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
                assert all(map(torch.equal, other(images(*sides)), expected))

    @pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
    def test_exported_answers_the_same(self, name):
        model = backbone(name)
        program = torch.export.export(model, (images(),)).module()
        with torch.no_grad():
            for given, wanted in zip(program(images()), model(images()), strict=True):
                torch.testing.assert_close(given, wanted)


class TestSizes:
    def test_networks_of_one_size_must_be_told_it(self):
        with pytest.raises(InputError, match=r"one size only.*`image_size: 224`"):
            TimmBackbone(5, name="mixer_s32_224")

    def test_networks_of_one_size_take_no_other(self):
        model = backbone("mixer_s32_224", image_size=64)
        assert model.size == (64, 64)
        assert model.multiple == 64
        assert model(images(64, 64))[0].shape[-2:] == (2, 2)
        with pytest.raises(InputError, match=r"mixer_s32_224.*64 x 64 pixels only.*got 64 x 128"):
            model(images(64, 128))

    @pytest.mark.slow
    def test_windows_that_divide_one_size(self):
        model = backbone("maxvit_pico_rw_256", image_size=64)
        assert (model.multiple, model.size) == (64, None)
        assert model(images(64, 128))[-1].shape[-2:] == (2, 4)

    @pytest.mark.parametrize(("name", "multiple"), [("test_resnet", 32), ("test_vit", 16)])
    def test_sides_that_do_not_divide_are_refused(self, name, multiple):
        with pytest.raises(InputError, match=f"{name}.*multiples of {multiple}.*got 64 x 90"):
            backbone(name)(images(64, 90))


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"name": "resnet_18"}, "similar names: .*resnet18"),
            ({"name": "resnet18.nowhere"}, "resnet18.a1_in1k"),
            ({"out_indices": [5]}, r"5 maps, at strides \[2, 4, 8, 16, 32\].*0 to 4"),
            ({"out_indices": [-6]}, "-1 to -5"),
            ({"out_indices": []}, "does not fit"),
            ({"out_indices": [2, 1]}, "from the first map to the last"),
            ({"out_indices": [-1, 4]}, "each once"),
            ({"name": "test_vit", "out_indices": [12]}, "6 blocks"),
            ({"norm": True}, "no normalisation that fits all its maps"),
            ({"layout": "NLC"}, r"plain transformer.*strides \[2, 4, 8, 16, 32\]"),
            ({"layout": "NHWC"}, r"\['NCHW', 'NLC'\]"),
            ({"name": "test_vit", "output_stride": 8}, "no output_stride"),
            ({"name": "vgg11", "drop_path_rate": 0.1}, "no drop_path_rate"),
            ({"name": "test_vit", "image_size": 50}, "48 or 64"),
            pytest.param(
                {"name": "inception_v3"}, "cannot be used as a backbone", marks=pytest.mark.slow
            ),
            ({"name": "pit_ti_224"}, "cannot be used as a backbone"),
        ],
    )
    def test_at_construction(self, options, message):
        with pytest.raises(InputError, match=message):
            TimmBackbone(5, **({"name": "test_resnet"} | options))

    def test_networks_of_which_timm_gives_no_maps(self, monkeypatch):
        # Until timm 1.0.30: HRNet, DenseNet, VGG and others.
        monkeypatch.delattr(timm.models.resnet.ResNet, "forward_intermediates")
        with pytest.raises(InputError, match=r"gives no feature maps of 'test_resnet'.*1\.0\.31"):
            TimmBackbone(5, name="test_resnet")


class TestPretrained:
    @pytest.fixture(params=["test_resnet", "test_convnext", "test_vit", "small_dinov3"])
    def name(self, request):
        return request.param

    def write(self, name, path, **options):
        torch.manual_seed(1)
        network = awake(timm.create_model(name, **options)).eval()
        save_file(network.state_dict(), path)
        return network

    def test_local_file_with_a_classifier(self, name, tmp_path):
        path = tmp_path / "w.safetensors"
        network = self.write(name, path)
        model = TimmBackbone(3, name=name, pretrained=str(path)).eval()
        given = network.state_dict()
        assert all(torch.equal(v, given[k]) for k, v in model.body.state_dict().items())
        assert model.trained

    def test_more_bands_by_repetition(self, tmp_path):
        path = tmp_path / "w.safetensors"
        network = self.write("test_resnet", path)
        model = TimmBackbone(5, name="test_resnet", pretrained=str(path))
        torch.testing.assert_close(
            model.body.conv1[0].weight[:, 3], network.conv1[0].weight[:, 0] * 3 / 5
        )

    def test_a_checkpoint_that_holds_them_does_not_need_them_again(self):
        model = TimmBackbone(3, name="test_resnet", pretrained="/nowhere.pt", restored=True)
        assert model.trained
        assert not TimmBackbone(3, name="test_resnet").trained

    def test_file_of_another_network_is_refused(self, tmp_path):
        path = tmp_path / "w.safetensors"
        self.write("test_vit", path)
        with pytest.raises(InputError, match=r"w\.safetensors"):
            TimmBackbone(3, name="test_resnet", pretrained=str(path))

    def test_missing_file(self):
        with pytest.raises(InputError, match="does not exist"):
            TimmBackbone(3, name="test_resnet", pretrained="/nowhere/weights.safetensors")

"""`build_model`: parts by name, class or module; options to the right part; misfits refused."""

import copy
import pickle

import pytest
import torch
from torch import nn

from fusionlab.backbones import TimmBackbone
from fusionlab.decoders import UperNet
from fusionlab.encoder_decoder import centred, covering
from fusionlab.errors import InputError
from fusionlab.factory import build_model
from fusionlab.heads import ClassificationHead, RegressionHead, SegmentationHead

SMALL = {"decoder_channels": 16}


class Patches(nn.Module):
    """A backbone that says no more of itself than it must."""

    def __init__(self, bands, width=6):
        super().__init__()
        self.out_channels = [width]
        self.conv = nn.Conv2d(bands, width, 4, 4)

    def forward(self, images):
        return [self.conv(images)]


class Whole(nn.Module):
    """A decoder that answers logits itself."""

    includes_head = True
    out_channels = 3

    def __init__(self, channels, num_classes, strides=None):
        super().__init__()
        self.strides = strides
        self.conv = nn.Conv2d(channels[-1], num_classes, 1)

    def forward(self, features):
        return self.conv(features[-1])


class TestOptions:
    def test_prefixes_say_whose_option_it_is(self):
        model = build_model(
            "segmentation", "test_resnet", "smp/Unet", num_classes=3,
            backbone_out_indices=[1, 2, 3, 4], decoder_decoder_channels=[16, 8, 8, 8],
            head_channel_list=[12],
        )  # fmt: skip
        assert model.decoder.out_channels == 8
        assert [m.out_channels for m in model.head.modules() if isinstance(m, nn.Conv2d)] == [12, 3]

    def test_a_mapping_says_the_same(self):
        by_prefix = build_model("segmentation", "test_resnet", "UperNet", num_classes=3, **SMALL)
        by_mapping = build_model(
            "segmentation", {"name": "timm/test_resnet"}, {"name": "UperNet", "channels": 16},
            num_classes=3,
        )  # fmt: skip
        shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (by_prefix, by_mapping)]
        assert shapes[0] == shapes[1]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"depth": 3, "haed_dropout": 0.1}, r"\['depth', 'haed_dropout'\].*backbone_…"),
            ({"backbone_pretraind": True}, r"'test_resnet' has no option 'pretraind'.*pretrained"),
            ({"decoder_chanels": 3}, r"UperNet.* no option 'chanels'. Did you mean channels"),
            ({"head_droput": 0.1}, r"SegmentationHead.* 'droput'. Did you mean dropout"),
            ({"necks": [{"name": "SelectIndices", "index": [1]}]}, "no option 'index'"),
            ({"necks": [{"indices": [1]}]}, r"A neck is a name or \{name"),
            (
                {"aux_decoders": {"a": {"decodr": "FCN"}}},
                r"a has \['decodr'\].*decoder",
            ),
            ({"aux_decoders": {"a.b": {}}}, "without dots"),
            ({"aux_decoders": {"a": {"weight": -1}}}, "weight is a number of 0 or more"),
            ({"aux_decoders": {"a": {"decoder": "UNett"}}}, "aux_decoders.a: There is no decoder"),
        ],
    )
    def test_what_nothing_uses_is_named(self, options, message):
        with pytest.raises(InputError, match=message):
            build_model("segmentation", "test_resnet", "UperNet", num_classes=3, **options)

    def test_an_option_said_twice(self):
        with pytest.raises(InputError, match=r"\['channels'\] is given twice.*decoder_channels"):
            build_model(
                "segmentation", "test_resnet", {"name": "UperNet", "channels": 8},
                num_classes=3, decoder_channels=16,
            )  # fmt: skip

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("segmentatoin", "test_resnet", "UperNet"), "Did you mean segmentation"),
            (("segmentation", "resnt18", "UperNet"), "no backbone 'resnt18'.*timm/resnet18"),
            (("segmentation", "test_resnet", "UperNot"), "no decoder 'UperNot'.*UperNet"),
            (("segmentation", "nowhere/resnet18", "UperNet"), "no source 'nowhere'"),
            (("segmentation", 3, "UperNet"), "a class or a module; got int"),
        ],
    )
    def test_unknown_names(self, arguments, message):
        with pytest.raises(InputError, match=message):
            build_model(*arguments, num_classes=3)


class TestTasks:
    @pytest.mark.parametrize(
        ("task", "head", "shape"),
        [
            ("segmentation", SegmentationHead, (2, 3, 40, 56)),
            ("regression", RegressionHead, (2, 3, 40, 56)),
            ("classification", ClassificationHead, (2, 3)),
            ("scalar_regression", ClassificationHead, (2, 3)),
        ],
    )
    def test_each_has_its_head(self, task, head, shape):
        model = build_model(task, "test_resnet", "UperNet", num_classes=3, **SMALL).eval()
        assert isinstance(model.head, head)
        assert model(torch.randn(2, 3, 40, 56)).shape == shape

    def test_whole_samples_need_no_decoder(self):
        model = build_model("classification", "test_vit", num_classes=4).eval()
        assert model.decoder is None
        assert model(torch.randn(2, 3, 50, 30)).shape == (2, 4)

    def test_the_number_of_classes(self):
        with pytest.raises(InputError, match="needs the number of classes"):
            build_model("segmentation", "test_resnet", "UperNet")
        assert build_model("regression", "test_resnet", "UperNet").head.names == ("value",)
        named = build_model("segmentation", "test_resnet", "UperNet", names=["wood", "road"])
        assert named.head.names == ("wood", "road")
        with pytest.raises(InputError, match="num_classes is 3, but there are 2 names"):
            build_model("segmentation", "test_resnet", "UperNet", names=["a", "b"], num_classes=3)

    @pytest.mark.parametrize(
        ("task", "head", "wanted"),
        [
            ("segmentation", "ClassificationHead", "SegmentationHead"),
            ("regression", "LinearHead", "RegressionHead"),
            ("classification", "SegmentationHead", "ClassificationHead"),
            ("segmentation", "RegressionHead", "SegmentationHead"),
            ("regression", "SegmentationHead", "RegressionHead"),
        ],
    )
    def test_a_head_for_the_wrong_task(self, task, head, wanted):
        with pytest.raises(InputError, match=f"{head} is a head for .*use {wanted}"):
            build_model(task, "test_resnet", "UperNet", num_classes=3, head=head)

    def test_tokens_are_no_pixels(self):
        tokens = {"name": "test_vit", "layout": "NLC"}
        with pytest.raises(InputError, match="ReshapeTokensToImage"):
            build_model("segmentation", tokens, num_classes=3)
        with pytest.raises(InputError, match="ReshapeTokensToImage"):
            build_model("segmentation", tokens, "UperNet", num_classes=3)
        model = build_model(
            "segmentation", tokens, "Linear", num_classes=3, necks=["ReshapeTokensToImage"]
        ).eval()
        assert model(torch.randn(1, 3, 50, 40)).shape == (1, 3, 50, 40)

    @pytest.mark.parametrize("decoder", ["UNet", "smp/Unet", "smp/FPN"])
    def test_one_scale_where_a_pyramid_is_wanted(self, decoder):
        with pytest.raises(InputError, match="LearnedInterpolateToPyramidal"):
            build_model("segmentation", "test_vit", decoder, num_classes=3)


class TestReadyParts:
    def test_modules_and_classes(self):
        backbone = TimmBackbone(5, name="test_resnet")
        decoder = UperNet(backbone.out_channels, channels=16)
        model = build_model("segmentation", backbone, decoder, bands=5, num_classes=3)
        assert model.backbone is backbone
        assert model.decoder is decoder
        classes = build_model("segmentation", Patches, "Linear", bands=5, num_classes=3).eval()
        assert classes(torch.randn(1, 5, 18, 30)).shape == (1, 3, 18, 30)

    def test_what_is_ready_takes_no_options(self):
        with pytest.raises(InputError, match="built already"):
            build_model("segmentation", Patches(3), "Linear", num_classes=3, backbone_width=3)

    def test_a_decoder_that_includes_the_head(self):
        model = build_model("segmentation", "test_resnet", Whole, num_classes=3).eval()
        assert model.head is None
        assert model.decoder.strides == [f.stride for f in model.features]
        assert model(torch.randn(1, 3, 40, 40)).shape == (1, 3, 40, 40)
        with pytest.raises(InputError, match="includes the head"):
            build_model("segmentation", "test_resnet", Whole, num_classes=3, head_dropout=0.1)

    def test_parts_that_cannot_work_together_are_found_when_built(self):
        class Wrong(Whole):
            includes_head = False

            def __init__(self, channels):
                super().__init__([channels[-1] + 1], 3)

        with pytest.raises(InputError, match=r"TimmBackbone → Wrong → SegmentationHead.*together"):
            build_model("segmentation", "test_resnet", Wrong, num_classes=3)

    def test_a_decoder_that_does_not_say_its_width(self):
        with pytest.raises(InputError, match="int `out_channels`"):
            build_model("segmentation", "test_resnet", nn.Identity(), num_classes=3)

    def test_another_number_of_logits_than_classes(self):
        with pytest.raises(InputError, match="answers 3 channels, but 5 are wanted"):
            build_model("segmentation", Patches, Whole([6], 3), num_classes=5)


@pytest.fixture
def deep():
    """A network with two auxiliary decoders."""
    return build_model(
        "segmentation", "test_resnet", "UperNet", num_classes=3,
        aux_decoders={
            "deep": {
                "decoder": {"name": "FCN", "index": 2, "channels": 8, "num_convs": 1},
                "head": {"channel_list": [5]},
                "weight": 0.2,
            },
            "plain": {},
        },
        **SMALL,
    )  # fmt: skip


class TestAuxiliary:
    def test_they_answer_while_training(self, deep):
        images = torch.randn(2, 3, 40, 56)
        answer = deep.train().answer(images)
        assert {n: tuple(v.shape) for n, v in answer.auxiliary.items()} == {
            "deep": (2, 3, 40, 56), "plain": (2, 3, 40, 56),
        }  # fmt: skip
        assert deep.eval().answer(images).auxiliary == {}

    def test_each_has_its_own_head_and_weight(self, deep):
        assert (deep.weight("deep"), deep.weight("plain")) == (0.2, None)
        widths = [m.out_channels for m in deep.auxiliary["deep"].head.modules()
                  if isinstance(m, nn.Conv2d)]  # fmt: skip
        assert widths == [5, 3]


class TestSizes:
    def test_an_answer_does_not_depend_on_what_is_behind_the_edge(self):
        """A network of single pixels answers a padded image as it answers the image."""

        class Pixels(Patches):
            multiple = 16

            def __init__(self, bands):
                super().__init__(bands)
                self.conv = nn.Conv2d(bands, 6, 1)

        model = build_model("segmentation", Pixels, num_classes=3).eval()
        images = torch.randn(2, 3, 21, 37)
        direct = model.head(model.backbone(images)[0])
        torch.testing.assert_close(model(images), direct)

    def test_a_network_of_one_size_gets_images_of_it(self):
        fixed = {"name": "mixer_s32_224", "image_size": 224, "out_indices": [1]}
        model = build_model("segmentation", fixed, "Linear", num_classes=2).eval()
        assert model(torch.randn(1, 3, 60, 80)).shape == (1, 2, 60, 80)

    def test_without_rescaling_an_answer_keeps_its_grid(self):
        model = build_model(
            "segmentation", "test_resnet", "UperNet", num_classes=3, rescale=False, **SMALL
        ).eval()
        stride = model.features[0].stride
        assert model.answer_stride == stride
        logits = model(torch.randn(1, 3, 64, 96))
        assert logits.shape == (1, 3, 64 // stride, 96 // stride)

    def test_covering_keeps_places(self):
        """A ramp over a padded image, cut to the image, is the ramp over the image."""
        columns = (torch.arange(16) + 0.5) * 4  # of 64 columns, of which 50 are the image's
        ramp = columns.expand(1, 1, 8, 16)
        cut = covering(ramp, (32, 50), (32, 64))
        step = 50 / cut.shape[-1]
        expected = (torch.arange(cut.shape[-1]) + 0.5) * step
        torch.testing.assert_close(cut[0, 0, 3], expected)
        assert covering(ramp, (32, 64), (32, 64)) is ramp

    def test_copies_and_pickles_answer_the_same(self):
        model = build_model("segmentation", "test_convnext", "UperNet", num_classes=3, **SMALL)
        images = torch.randn(1, 3, 40, 56)
        answer = model.eval()(images)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(images), answer)


def learning(model: nn.Module, *answers: torch.Tensor) -> list[str]:
    """Parameters that wait for a gradient and get none."""
    model.zero_grad()
    sum((answer * torch.randn_like(answer)).sum() for answer in answers).backward()
    return [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


class TestWhatNothingDependsOn:
    """Processes that train together would wait for its gradient for ever."""

    @pytest.mark.parametrize(
        "parts",
        [
            {"decoder": {"name": "FCN", "index": 0}},
            {"decoder": "UNet", "necks": [{"name": "SelectIndices", "indices": [0, 1]}]},
            {"decoder": {"name": "FCN", "index": 1}, "dates": "attention"},
        ],
    )
    def test_is_not_trained(self, parts):
        model = build_model("segmentation", "resnet18", num_classes=3, **parts).train()
        given = (torch.randn(2, 3, 64, 64),)
        if "dates" in parts:
            dates = torch.arange(4).view(2, 2)
            given = (torch.randn(2, 2, 3, 64, 64), dates, torch.ones_like(dates).bool())
        assert learning(model, model(*given)) == []
        assert not all(p.requires_grad for p in model.parameters())

    def test_but_for_auxiliary_decoders(self):
        model = build_model(
            "segmentation", "resnet18", {"name": "FCN", "index": 0}, 3,
            aux_decoders={"deep": {"decoder": "FCN"}},
        ).train()  # fmt: skip
        answer = model.answer(torch.randn(2, 3, 64, 64))
        assert learning(model, answer.logits, *answer.auxiliary.values()) == []
        assert all(p.requires_grad for p in model.parameters())


class Announces(nn.Module):
    """A decoder that is wider than it says."""

    out_channels = 7

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels[-1], 9, 1)

    def forward(self, features):
        return self.conv(features[-1])


class TestAuxiliaryDecoders:
    def test_are_tried_before_training(self):
        with pytest.raises(
            InputError, match=r"maps \(B, 7, H, W\), got features of the shape \(2, 9"
        ):
            build_model("segmentation", "test_resnet", "UNet", 3,
                        aux_decoders={"a": {"decoder": Announces}})  # fmt: skip

    def test_answer_for_as_many_classes(self):
        ready = Whole([256], 6)
        with pytest.raises(InputError, match=r"aux_decoders.a: .* 6 channels, but 3 are wanted"):
            build_model("segmentation", "resnet18", "UNet", 3,
                        backbone_out_indices=[1, 2, 3],
                        aux_decoders={"a": {"decoder": ready}})  # fmt: skip

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ([{"decoder": "FCN"}], "named.*got a list"),
            ({"a": None}, r"aux_decoders.a is a mapping"),
            ({"keys": {}}, "cannot be called 'keys'"),
            ({"a": {"weight": "much"}}, "number of 0 or more, got 'much'"),
        ],
    )
    def test_mistakes(self, given, message):
        with pytest.raises(InputError, match=message):
            build_model("segmentation", "test_resnet", "UNet", 3, aux_decoders=given)


class TestValuesOfAnotherKind:
    @pytest.mark.parametrize(
        "given",
        [
            {"backbone_out_indices": 3},
            {"head_dropout": "much"},
            {"decoder": {"name": "Linear", "index": None}},
        ],
    )
    def test_are_one_message(self, given):
        options = {"decoder": "UNet", **given}
        with pytest.raises(InputError):
            build_model("segmentation", "test_resnet", num_classes=3, **options)

    def test_what_follows_from_the_network_is_not_said(self):
        with pytest.raises(InputError, match=r"\['num_classes'\] of the decoder Whole follow"):
            build_model("segmentation", "test_resnet", Whole, 3, decoder_num_classes=5)

    def test_samples_are_not_answered_by_maps(self):
        with pytest.raises(InputError, match="an answer for the whole sample has the shape"):
            build_model("classification", "test_resnet", Whole, 3)


@pytest.mark.parametrize(
    "necks", ["LearnedInterpolateToPyramidal", {"name": "LearnedInterpolateToPyramidal"}]
)
def test_one_neck_needs_no_list(necks):
    model = build_model("segmentation", "test_vit", "UperNet", 3, necks=necks, **SMALL)
    assert len(model.necks) == 1
    assert len(build_model("segmentation", "test_resnet", "UperNet", 3, necks=None).necks) == 0


@pytest.mark.parametrize("side", [38, 64, 70, 100])
def test_an_answer_that_is_not_resized_lies_where_it_belongs(side):
    """A backbone that hands on positions: each cell is where its middle is, around the centre."""
    ramp = torch.arange(-(-side // 4) * 4.0)
    coarse = ramp.view(-1, 4).mean(1)
    maps = torch.stack([coarse[:, None].expand(-1, len(coarse)),
                        coarse.expand(len(coarse), -1)])[None]  # fmt: skip
    cut = centred(maps, (side, side), (len(ramp), len(ramp)))
    count = side // 4
    assert cut.shape == (1, 2, count, count)
    middle = (side - 1) / 2 + 4 * (torch.arange(count) + 0.5 - count / 2)
    inside = (middle >= coarse[0]) & (middle <= coarse[-1])
    torch.testing.assert_close(cut[0, 0, inside, 0], middle[inside])
    torch.testing.assert_close(cut[0, 1, 0, inside], middle[inside])


def test_one_size_and_no_resizing_exclude_each_other():
    options = {"backbone_image_size": 224, "rescale": False}
    with pytest.raises(InputError, match=r"one size only.*Leave `rescale` out"):
        build_model("segmentation", "beit_base_patch16_224", "Linear", 3, **options)


def test_networks_are_built_where_nothing_is_differentiated():
    with torch.no_grad():
        model = build_model("segmentation", "resnet18", {"name": "FCN", "index": 1}, 3)
    assert any(p.requires_grad for p in model.backbone.parameters())
    assert not all(p.requires_grad for p in model.backbone.parameters())

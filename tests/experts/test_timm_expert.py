"""TimmExpert against plain timm, and what it promises beyond it."""

import copy
import pickle
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from timm_networks import BARE, CLASSES, DINOV3, NETWORKS, S2, SCHEMA, expert, normalised, raw

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.experts import FrozenExpert, TimmExpert
from fusionlab.experts.base import ExpertFactory
from fusionlab.experts.timm_body import TimmBody
from fusionlab.fusion import Attentional, Average, ClassWeighted, Concat, Gated
from fusionlab.heads import LinearHead, MLPHead
from fusionlab.models import LateFusion
from fusionlab.types import Modality, Schema, TimeSeries


def plain(model, backbone, **options):
    """The same network as timm builds it, with the same weights."""
    network = timm.create_model(backbone, in_chans=5, num_classes=0, **options).eval()
    network.load_state_dict(model.body.network.state_dict())
    return network


class TestParity:
    """The embedding is the one that timm gives."""

    @pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_efficientnet"])
    def test_convolutional(self, backbone):
        model = expert(backbone)
        with torch.no_grad():
            expected = plain(model, backbone)(normalised(raw()))
            assert torch.equal(model.features(raw()), expected)
            assert torch.equal(model.logits(raw()), model.head.linear(expected))
        assert model.embedding_dim == expected.shape[1]

    @pytest.mark.parametrize(("pooling", "timm_pooling"), [("token", "token"), ("average", "avg")])
    @pytest.mark.parametrize("backbone", ["test_vit", "small_dinov3", DINOV3])
    def test_transformers(self, backbone, pooling, timm_pooling):
        model = expert(backbone, BARE, pooling=pooling)
        network = plain(model, backbone, dynamic_img_size=True)
        network.reset_classifier(0, timm_pooling)
        with torch.no_grad():
            torch.testing.assert_close(model.features(raw()), network(normalised(raw())))

    def test_norm_behind_the_average(self):
        model = expert("test_vit2", pooling="average")  # fc_norm, no class token, pool = 'avg'
        network = plain(model, "test_vit2", dynamic_img_size=True)
        assert isinstance(network.norm, torch.nn.Identity)
        with torch.no_grad():
            torch.testing.assert_close(model.features(raw()), network(normalised(raw())))

    def test_both_is_one_after_the_other(self):
        model = expert("small_dinov3", BARE, pooling="both")
        alone = {}
        for pooling in ("token", "average"):
            alone[pooling] = TimmExpert(BARE, backbone="small_dinov3", pooling=pooling)
            alone[pooling].load_state_dict(model.state_dict())
            alone[pooling].eval()
        with torch.no_grad():
            both = model.features(raw())
            expected = [alone[pooling].features(raw()) for pooling in ("token", "average")]
        torch.testing.assert_close(both, torch.cat(expected, dim=1))
        assert model.embedding_dim == both.shape[1] == 96

    @pytest.mark.parametrize(
        ("backbone", "pooling"),
        [
            ("test_vit", "token"),
            ("small_dinov3", "token"),  # as its authors do; timm averages
            ("test_vit2", "average"),  # has no class token
            ("eva02_tiny_patch14_224", "average"),  # normalises what was averaged
            ("vit_tiny_patch16_224", "token"),
            ("test_resnet", "average"),
            ("test_vit3", "average"),  # timm: attention
        ],
    )
    def test_default_pooling(self, backbone, pooling):
        with torch.device("meta"):  # nothing is computed here
            assert TimmBody(backbone, bands=3).pooling == pooling

    def test_attention_pooling_leaves_nothing_behind(self):
        assert timm.create_model("test_vit3").attn_pool is not None
        names = TimmBody("test_vit3", bands=3).state_dict()
        assert not [name for name in names if "attn_pool" in name]


class TestMaps:
    """Feature maps keep the places of the image."""

    @pytest.mark.parametrize("backbone", NETWORKS)
    def test_average_of_the_map_is_the_embedding(self, backbone):
        norm_behind = backbone in ("test_convnext", "test_vit2")
        model = expert(backbone, BARE, pooling="average")
        with torch.no_grad():
            maps, embedding = model.features(raw(), pooled=False), model.features(raw())
        assert maps.shape[:2] == embedding.shape
        if not norm_behind:
            torch.testing.assert_close(maps.mean((-2, -1)), embedding)

    def test_patches_lie_where_they_were(self):
        # Without position embeddings and attention a patch depends on nothing but itself.
        model = expert("test_vit", BARE)
        network = model.body.network
        with torch.no_grad():
            network.pos_embed.zero_()
            for block in network.blocks:
                block.attn.proj.weight.zero_()
            values = raw(40, 72).float()  # grows to 48 x 80
            maps = model.features(values, pooled=False)
            assert maps.shape == (2, 64, 3, 5)
            changed = values.clone()
            changed[:, :, 16:32, 48:64] += 100
            moved = (model.features(changed, pooled=False) - maps).abs().amax(dim=(0, 1)) > 1e-4
        assert moved.nonzero().tolist() == [[1, 3]]

    def test_channels_last_networks(self):
        model = TimmExpert(BARE, backbone="swin_tiny_patch4_window7_224").eval()
        with torch.no_grad():
            assert model.features(raw(72, 120, batch=1), pooled=False).shape == (1, 768, 3, 4)

    def test_networks_without_a_map_say_so(self):
        model = TimmExpert(BARE, backbone="xcit_nano_12_p8_224").eval()
        assert model.features(raw(batch=1)).shape == (1, 128)
        with pytest.raises(InputError, match="no feature map"):
            model.features(raw(batch=1), pooled=False)


class TestSizes:
    @pytest.mark.parametrize("size", [(120, 120), (33, 70), (32, 32), (5, 9)])
    @pytest.mark.parametrize("backbone", ["test_vit", "small_dinov3", "test_resnet"])
    def test_any_size(self, backbone, size):
        with torch.no_grad():
            assert expert(backbone).logits(raw(*size)).isfinite().all()

    def test_too_small_images_are_refused(self):
        model = expert("test_convnext")
        with torch.no_grad():
            assert model.logits(raw(32, 33)).isfinite().all()
            with pytest.raises(InputError, match=r"16 x 20 pixels.*image_size: 32"):
                model.logits(raw(16, 20))

    @pytest.mark.parametrize("backbone", ["test_vit", "small_dinov3"])
    def test_padding_is_the_mean_at_the_bottom_and_the_right(self, backbone):
        model = expert(backbone, BARE)
        padded = F.pad(raw(40, 56).float(), (0, 8, 0, 8), value=float("nan"))  # NaN: the mean
        with torch.no_grad():
            torch.testing.assert_close(model.features(raw(40, 56)), model.features(padded))

    def test_resized_to_one_size(self):
        model = expert("test_resnet", BARE, image_size=32)
        with torch.no_grad():
            small = F.interpolate(
                normalised(raw(48, 64)), (32, 32), mode="bilinear", antialias=True
            )
            assert torch.equal(model.features(raw(48, 64)), model.body(small))
            large = F.interpolate(normalised(raw(24, 20)), (32, 32), mode="bilinear")
            assert torch.equal(model.features(raw(24, 20)), model.body(large))
            same = normalised(raw(32, 32))
            assert torch.equal(model.features(raw(32, 32)), model.body(same))

    def test_networks_of_one_size_need_to_know_it(self):
        with pytest.raises(InputError, match=r"particular sizes only.*image_size: 160"):
            TimmExpert(SCHEMA, backbone="test_vit_relpos")
        model = expert("test_vit_relpos", image_size=160)
        with torch.no_grad():
            assert model.logits(raw()).shape == (2, 4)

    def test_a_network_is_built_for_its_size(self):
        assert expert("test_vit", image_size=64).body.network.pos_embed.shape[1] == 1 + 16

    @pytest.mark.parametrize("size", [0, -32])
    @pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
    def test_a_size_has_pixels(self, backbone, size):
        with pytest.raises(InputError, match=rf"image_size.*at least 1, got {size}\."):
            TimmExpert(SCHEMA, backbone=backbone, image_size=size)

    def test_impossible_sizes_are_refused(self):
        with pytest.raises(InputError, match=r"120 is no multiple.*16 pixels.*112 or 128"):
            TimmExpert(SCHEMA, backbone="test_vit", image_size=120)
        with pytest.raises(InputError, match="cannot take images of 100 x 100"):
            TimmExpert(SCHEMA, backbone="dla34", image_size=100)


class TestHead:
    def test_one_linear_layer_by_default(self):
        head = expert().head
        assert isinstance(head, LinearHead)
        assert isinstance(head.norm, torch.nn.Identity)
        assert head.dropout.p == 0

    def test_another_one(self):
        model = expert(head=partial(MLPHead, hidden=7))
        assert model.logits(raw()).shape == (2, 4)

    def test_none_for_data_without_classes(self):
        model = expert(schema=BARE, head=partial(MLPHead, hidden=7))
        assert model.head is None
        assert "head" not in model.describe()["init_args"]
        with pytest.raises(InputError, match="without classes"):
            model.logits(raw())

    @pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit"])
    def test_dropout_comes_before_the_head(self, backbone):
        model = expert(backbone, drop_rate=0.75).train()
        model.body.eval()
        for module in model.body.modules():
            if isinstance(module, torch.nn.Dropout):
                module.train()
        model.body.network.training = True  # ResNets ask the network itself
        zeros = (model.features(raw(batch=8)) == 0).float().mean()
        assert 0.6 < zeros < 0.9

    @pytest.mark.parametrize("option", ["drop_path_rate"])
    def test_options_a_network_lacks_are_refused(self, option):
        with pytest.raises(InputError, match=f"densenet121.*no {option}"):
            TimmExpert(SCHEMA, backbone="densenet121", **{option: 0.1})


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"backbone": "resnet_50"}, "similar names: .*resnet50"),
            ({"backbone": "resnet18.nowhere"}, "resnet18.a1_in1k"),
            ({"backbone": "test_resnet", "pooling": "token"}, "class token.*Leave pooling out"),
            ({"backbone": "test_vit2", "pooling": "both"}, "pooling: average"),
            ({"backbone": "bat_resnext26ts"}, "particular sizes only.*another backbone"),
            ({"backbone": "test_resnet", "bands": ["B99"]}, "B99"),
        ],
    )
    def test_unusable_backbones(self, options, message):
        with pytest.raises(InputError, match=message):
            TimmExpert(SCHEMA, **options)

    def test_a_time_series_is_refused(self):
        temporal = Schema({"s2": Modality(("red",), gsd=10.0, temporal=True)}, CLASSES)
        with pytest.raises(InputError, match="time series"):
            TimmExpert(temporal, backbone="test_resnet")
        series = TimeSeries(torch.zeros(1, 2, 5, 8, 8), torch.zeros(1, 2), torch.ones(1, 2))
        with pytest.raises(InputError, match="time series"):
            expert().logits(series)


class TestDescription:
    @pytest.mark.parametrize("schema", [SCHEMA, BARE], ids=["classes", "bare"])
    @pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
    def test_described_model_is_the_same_model(self, backbone, schema):
        options = {
            "statistics": "weights",
            "value_range": (0, 3000),
            "bands": ("B04", "B03", "B02"),
        }
        model = expert(backbone, schema, image_size=32, frozen=True, **options)
        again = build(model.describe(), ExpertFactory, schema, where="test").eval()
        again.load_state_dict(model.state_dict())
        ask = "logits" if schema.classes else "features"
        with torch.no_grad():
            assert torch.equal(getattr(again, ask)(raw()), getattr(model, ask)(raw()))

    def test_copies_and_pickles_answer_the_same(self):
        for backbone in ("test_vit", "test_resnet"):
            model = expert(backbone, frozen=True)
            for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
                with torch.no_grad():
                    assert torch.equal(other.logits(raw()), model.logits(raw()))

    def test_bf16_autocast(self):
        for backbone in ("test_vit", "test_convnext"):
            model = expert(backbone, image_size=32)
            with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
                logits = model.logits(raw())
            torch.testing.assert_close(logits.float(), model.logits(raw()), atol=0.1, rtol=0.1)

    @pytest.mark.slow
    @pytest.mark.parametrize("backbone", NETWORKS)
    def test_compiles_as_one_graph(self, backbone):
        model = expert(backbone)
        compiled = torch.compile(model.logits, fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            torch.testing.assert_close(compiled(raw(40, 56)), model.logits(raw(40, 56)))


class TestTogether:
    """In fusions, and as a frozen expert."""

    @pytest.fixture
    def batch(self):
        available = torch.tensor([True, True, False])
        return {
            "inputs": {"s1": raw(batch=3, bands=2).float() / 400 - 20, "s2": raw(batch=3)},
            "available": {"s1": available, "s2": torch.ones(3, dtype=torch.bool)},
            "target": torch.randint(0, 2, (3, 4)).float(),
            "sample_id": ["a", "b", "c"],
        }

    @pytest.fixture
    def schema(self):
        s1 = Modality(("VV", "VH"), gsd=10.0, mean=(-12.6, -19.4), std=(5.1, 5.6))
        return Schema({"s1": s1, "s2": S2}, CLASSES, target="multilabel")

    @pytest.mark.parametrize("fusion", [Average, ClassWeighted, Gated, Concat, Attentional])
    def test_late_fusion_of_decisions(self, fusion, batch, schema):
        torch.manual_seed(0)
        experts = {
            "s1": partial(TimmExpert, backbone="test_resnet"),
            "s2": partial(TimmExpert, backbone="test_vit", frozen=True),
        }
        model = LateFusion(schema, experts=experts, fusion=fusion).eval()
        with torch.no_grad():
            output = model(batch)
            assert output.logits.shape == (3, 4)
            # Where S1 is missing, what lies in its place does not matter.
            other = {**batch, "inputs": {**batch["inputs"], "s1": batch["inputs"]["s1"].clone()}}
            other["inputs"]["s1"][2] = 7
            torch.testing.assert_close(model(other).logits, output.logits)
            shares = model.explain(batch).shares
        torch.testing.assert_close(shares["s1"] + shares["s2"], torch.ones(3))
        assert shares["s1"][2] == 0
        model.train()(batch).logits.square().mean().backward()
        assert not any(p.grad is not None for p in model.expert("s2").body.parameters())
        assert all(p.grad is not None for p in model.expert("s1").parameters())

    def test_frozen_expert_from_a_checkpoint(self, tmp_path):
        model = expert("test_vit")
        content = {
            "state_dict": {f"model.{k}": v for k, v in model.state_dict().items()},
            "hyper_parameters": {"model": model.describe(), "trained_on": SCHEMA.to_dict()},
        }
        torch.save(content, tmp_path / "expert.ckpt")
        frozen = FrozenExpert(SCHEMA, checkpoint=str(tmp_path / "expert.ckpt"))
        with torch.no_grad():
            assert torch.equal(frozen.logits(raw()), model.logits(raw()))
            assert torch.equal(frozen.features(raw()), model.features(raw()))
        assert frozen.embedding_dim == model.embedding_dim
        turned = Schema({"s2": S2}, CLASSES[::-1], target=SCHEMA.target)
        other = FrozenExpert(turned, checkpoint=str(tmp_path / "expert.ckpt"))
        assert torch.equal(other.logits(raw()), frozen.logits(raw()).flip(1))

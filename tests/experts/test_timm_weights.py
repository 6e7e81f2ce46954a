"""Weights of TimmExpert: their statistics, freezing, layers, files and the hub."""

import copy
import time

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from timm.optim import param_groups_layer_decay
from timm_networks import (
    BANDS,
    BARE,
    CLASSES,
    DINOV3,
    NETWORKS,
    S2,
    SCHEMA,
    WITH_TOKEN,
    awake,
    expert,
    raw,
)

from fusionlab.checkpoints import fill_stripped, fingerprint, strip_weights
from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.experts import TimmExpert
from fusionlab.experts.base import ExpertFactory
from fusionlab.experts.timm_body import TimmBody
from fusionlab.types import Modality, Schema


def small_body(name, **options):
    return TimmBody("small_dinov3", **options)


class TestStatistics:
    RGB = ("B04", "B03", "B02")

    @pytest.mark.parametrize(
        ("backbone", "mean", "std"),
        [
            (DINOV3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ("vit_large_patch16_dinov3.sat493m", (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)),
        ],
    )
    def test_those_of_the_weights(self, backbone, mean, std, monkeypatch):
        low, high = 500.0, 3000.0
        # Only the name of the weights counts here, so that the network may be a small one.
        monkeypatch.setattr("fusionlab.experts.timm_expert.TimmBody", small_body)
        model = TimmExpert(
            BARE,
            backbone=backbone,
            bands=self.RGB,
            statistics="weights",
            value_range=(low, high),
        )
        values = raw()
        unit = ((values.float()[:, [2, 1, 0]] - low) / (high - low)).clamp(0, 1)
        expected = (unit - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
        torch.testing.assert_close(model.inputs(values), expected, atol=1e-5, rtol=1e-5)

    def test_they_travel_with_the_weights(self):
        options = {"backbone": "test_vit", "bands": self.RGB, "statistics": "weights"}
        model = expert(schema=BARE, value_range=(0, 3000), **options)
        other = TimmExpert(BARE, value_range=(0, 10000), **options).eval()
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            assert torch.equal(other.features(raw()), model.features(raw()))
        torch.testing.assert_close(model.inputs.mean.flatten(), torch.full((3,), 1500.0))

    def test_nodata_is_the_mean_and_no_extreme(self):
        model = expert(
            "test_vit", BARE, bands=self.RGB, statistics="weights", value_range=(0, 3000)
        )
        values = raw().float()
        values[..., 0, 0] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0, 1.0])
        assert (model.inputs(values)[..., 0, 0] == 0).all()

    def test_data_in_another_encoding(self):
        reflectance = Schema({"s2": Modality(BANDS, 10.0, scale=(1e4,) * 5)})
        options = {"bands": self.RGB, "statistics": "weights", "value_range": (0, 3000)}
        model = expert(schema=BARE, **options)
        values = raw().float()
        with torch.no_grad():
            expected = model.features(values)
            model.rebind(reflectance)
            torch.testing.assert_close(model.features(values / 1e4), expected)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"statistics": "weights", "bands": RGB}, "needs value_range"),
            ({"statistics": "weights", "value_range": (0, 1)}, "red, green and blue.* 5 bands"),
            (
                {"statistics": "weights", "value_range": (0, 1), "bands": RGB[::-1]},
                r"in this order.*bands: \[B04, B03, B02\]",
            ),
            ({"statistics": "weights", "value_range": (1, 1), "bands": RGB}, "lower to a higher"),
            (
                {"statistics": "weights", "value_range": (0, 1), "bands": RGB, "std": [1, 1, 1]},
                "its own mean and std",
            ),
            ({"value_range": (0, 1)}, "nothing uses it"),
        ],
    )
    def test_contradictions_are_refused(self, options, message):
        with pytest.raises(InputError, match=message):
            TimmExpert(SCHEMA, backbone="test_resnet", **options)

    def test_bands_by_name_in_any_order(self):
        model = expert(bands=("B11", "B04"))
        turned = Schema({"s2": S2.select(BANDS[::-1], where="test")}, CLASSES)
        with torch.no_grad():
            expected = model.logits(raw())
            model.rebind(turned)
            assert torch.equal(model.logits(raw().flip(1)), expected)
        with pytest.raises(InputError, match="B01"):
            expert(bands=("B01",))


class TestFrozen:
    @pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
    def test_nothing_of_the_backbone_moves(self, backbone):
        model = expert(backbone, frozen=True, drop_path_rate=0.5).train()
        before = copy.deepcopy(model.body.state_dict())
        head = model.head.linear.weight.clone()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.1)
        for _ in range(3):
            model.logits(raw()).square().mean().backward()
            optimizer.step()
        assert all(
            torch.equal(value, before[key]) for key, value in model.body.state_dict().items()
        )
        assert not torch.equal(model.head.linear.weight, head)
        assert not any(module.training for module in model.body.modules())
        assert model.head.training
        assert not model.features(raw()).requires_grad

    def test_without_freezing_statistics_drift(self):
        model = expert().train()
        before = copy.deepcopy(model.body.state_dict())
        model.logits(raw())
        after = model.body.state_dict()
        assert any(not torch.equal(after[k], v) for k, v in before.items() if "running" in k)

    @pytest.mark.parametrize(
        ("backbone", "pooling"),
        [
            *((backbone, None) for backbone in NETWORKS),
            *((backbone, how) for backbone in WITH_TOKEN for how in ("average", "both")),
        ],
    )
    def test_every_parameter_gets_a_gradient(self, backbone, pooling):
        model = expert(backbone, pooling=pooling).train()
        model.logits(raw(64, 64)).square().sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_digest_only_where_answers_stay_the_same(self):
        frozen = expert(schema=BARE, frozen=True)
        digest = frozen.fingerprint()
        assert digest is not None
        assert copy.deepcopy(frozen).fingerprint() == digest
        changed = {k: v + 1 for k, v in frozen.state_dict().items()}
        frozen.load_state_dict(changed)
        assert frozen.fingerprint() != digest
        assert expert(frozen=True).fingerprint() is None  # its head learns
        assert expert(schema=BARE).fingerprint() is None


class TestLayers:
    """Layers are counted as timm's own layer-wise decay of the learning rate does."""

    @pytest.mark.parametrize("backbone", [*NETWORKS, "test_efficientnet", "poolformer_s12"])
    def test_as_timm(self, backbone):
        body = TimmBody(backbone, bands=3)
        network = timm.create_model(backbone, num_classes=4)
        names = {id(p): name for name, p in network.named_parameters()}
        groups = param_groups_layer_decay(network, layer_decay=0.5)
        expected = {names[id(p)]: g["lr_scale"] for g in groups for p in g["params"]}
        layers = body.parameter_layers()
        assert layers.keys() == {name for name, _ in body.named_parameters()}
        last = max(layers.values())
        ours = {k.removeprefix("network."): 0.5 ** (last + 1 - v) for k, v in layers.items()}
        # A normalisation behind the last block counts as part of it, not of the classifier.
        behind = {key for key in ours if key.startswith(("fc_norm", "head.norm"))}
        assert {ours[key] for key in behind} <= {0.5}
        assert {k: v for k, v in ours.items() if k not in behind} == {
            k: v for k, v in expected.items() if k in ours and k not in behind
        }
        assert min(layers.values()) == 0


class TestPretrained:
    """Weights: local files, the cache, and a hub out of reach."""

    @pytest.fixture(params=["test_resnet", "test_convnext", "test_vit", "test_vit2"])
    def backbone(self, request):
        return request.param

    def write(self, backbone, path, *, keep=lambda key: True, **options):
        torch.manual_seed(1)
        network = awake(timm.create_model(backbone, **options)).eval()
        save_file({k: v for k, v in network.state_dict().items() if keep(k)}, path)
        return network

    def test_local_file_with_a_classifier(self, backbone, tmp_path):
        network = self.write(backbone, tmp_path / "w.safetensors")
        path = str(tmp_path / "w.safetensors")
        bands = ("B04", "B03", "B02")
        model = TimmExpert(SCHEMA, backbone=backbone, bands=bands, pretrained=path).eval()
        loaded = model.body.network.state_dict()
        assert all(torch.equal(v, network.state_dict()[k]) for k, v in loaded.items())
        left = network.state_dict().keys() - loaded.keys()
        assert {key.rpartition(".")[2] for key in left} == {"weight", "bias"}
        # The checkpoint of the trained model holds them, so it does not ask for the file again.
        assert model.describe()["init_args"]["restored"] is True

    def test_more_bands_by_repetition(self, tmp_path):
        network = self.write("test_resnet", tmp_path / "w.safetensors")
        path = str(tmp_path / "w.safetensors")
        model = TimmExpert(SCHEMA, backbone="test_resnet", pretrained=path)
        first, given = model.body.network.conv1[0].weight, network.conv1[0].weight
        torch.testing.assert_close(first[:, 3], given[:, 0] * 3 / 5)

    def test_position_embeddings_for_another_size(self, tmp_path):
        self.write("test_vit", tmp_path / "w.safetensors")
        path = str(tmp_path / "w.safetensors")
        model = TimmExpert(SCHEMA, backbone="test_vit", pretrained=path, image_size=64)
        expected = timm.create_model(
            "test_vit",
            pretrained=True,
            pretrained_cfg_overlay={"file": path},
            in_chans=5,
            img_size=64,
        )
        torch.testing.assert_close(model.body.network.pos_embed, expected.pos_embed)

    @pytest.mark.parametrize("pooling", ["token", "average"])
    def test_every_tensor_is_used_whatever_the_pooling(self, tmp_path, pooling):
        network = self.write("test_vit", tmp_path / "w.safetensors", num_classes=0)
        path = str(tmp_path / "w.safetensors")
        model = TimmExpert(SCHEMA, backbone="test_vit", pretrained=path, pooling=pooling)
        assert torch.equal(model.body.network.norm.weight, network.norm.weight)
        assert model.body.network.state_dict().keys() == network.state_dict().keys()

    def test_a_classifier_of_as_many_classes_is_announced(self, tmp_path):
        path = str(tmp_path / "w.safetensors")
        self.write("test_resnet", path, num_classes=4)
        with pytest.warns(UserWarning, match="4 classes.*left out"):
            TimmExpert(SCHEMA, backbone="test_resnet", pretrained=path)

    def test_file_of_half_a_network_is_refused(self, backbone, tmp_path):
        path = str(tmp_path / "w.safetensors")
        self.write(backbone, path, keep=lambda key: "bias" not in key)
        with pytest.raises(InputError, match=r"w\.safetensors.*missing"):
            TimmExpert(SCHEMA, backbone=backbone, pretrained=path)

    def test_file_with_something_more_is_refused(self, tmp_path):
        path = str(tmp_path / "w.safetensors")
        weights = timm.create_model("test_resnet").state_dict()
        save_file({**weights, "extra.weight": torch.ones(1)}, path)
        with pytest.raises(InputError, match=r"left over \(extra\.weight\)"):
            TimmExpert(SCHEMA, backbone="test_resnet", pretrained=path)

    @pytest.mark.parametrize(
        ("wanted", "given"), [("test_vit", "test_resnet"), ("test_resnet", "test_vit")]
    )
    def test_file_of_another_network_is_refused(self, wanted, given, tmp_path):
        path = str(tmp_path / "w.safetensors")
        self.write(given, path)
        with pytest.raises(InputError, match=r"w\.safetensors"):
            TimmExpert(SCHEMA, backbone=wanted, pretrained=path)

    def test_missing_file(self):
        with pytest.raises(InputError, match="does not exist"):
            TimmExpert(SCHEMA, backbone="test_resnet", pretrained="/nowhere/weights.safetensors")

    def test_hub_out_of_reach_is_explained_at_once(self, monkeypatch, tmp_path):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        start = time.perf_counter()
        with (
            pytest.warns(UserWarning, match=r"dinov3-license.*strip_frozen"),
            pytest.raises(InputError, match="could not be reached") as error,
        ):
            TimmExpert(SCHEMA, backbone=DINOV3, pretrained=True)
        assert time.perf_counter() - start < 10
        for advice in (DINOV3, str(tmp_path), "pretrained: false", "hf download timm/"):
            assert advice in str(error.value)

    def test_cached_weights_need_no_connection(self, monkeypatch, tmp_path):
        folder = tmp_path / "models--timm--test_resnet.r160_in1k"
        (folder / "snapshots" / "abc").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
        network = self.write("test_resnet", folder / "snapshots" / "abc" / "model.safetensors")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        model = TimmExpert(BARE, backbone="test_resnet", pretrained=True, frozen=True)
        assert torch.equal(
            model.body.network.layer4[0].conv1.weight, network.layer4[0].conv1.weight
        )
        # A checkpoint without frozen weights asks for them again, one with them does not.
        assert model.restorable == ("body",)
        assert model.describe()["init_args"]["restored"] is True
        model.stripped = True
        again = build(model.describe(), ExpertFactory, BARE, where="test")
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())

    def test_a_checkpoint_without_the_frozen_backbone(self, tmp_path):
        path = str(tmp_path / "w.safetensors")
        self.write("test_resnet", path)
        model = TimmExpert(SCHEMA, backbone="test_resnet", pretrained=path, frozen=True).eval()
        model.stripped = True
        left_out = {f"{part}.": fingerprint(model.body.state_dict()) for part in model.restorable}
        kept = dict(model.state_dict())
        strip_weights(kept, left_out)
        assert {name.partition(".")[0] for name in kept} == {"inputs", "head"}
        again = build(model.describe(), ExpertFactory, SCHEMA, where="test").eval()
        again.load_state_dict(fill_stripped(kept, left_out, again, where="test"))
        with torch.no_grad():
            assert torch.equal(again.logits(raw()), model.logits(raw()))

    @pytest.mark.parametrize("options", [{"frozen": True}, {"frozen": False}])
    def test_only_what_can_be_had_again_is_left_out(self, options, tmp_path):
        path = str(tmp_path / "w.safetensors")
        self.write("test_resnet", path)
        assert expert(**options).restorable == ()
        model = expert(pretrained=path, **options)
        model.stripped = True
        assert model.describe()["init_args"]["restored"] is not options["frozen"]

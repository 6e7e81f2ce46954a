"""UNetFormer against the reference's numbers, and what it promises beyond them."""

import copy
import pickle
import time

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from fusionlab.backbones import hub_weights
from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.experts.base import ExpertFactory
from fusionlab.experts.unetformer import UNetFormer, UNetFormerDecoder
from fusionlab.types import Modality, Output, Schema, TimeSeries

AERIAL = Modality(
    ("red", "green", "blue", "nir", "height"), gsd=0.2, mean=(110.0,) * 5, std=(50.0,) * 5
)
CLASSES = [f"class {i}" for i in range(13)]
SCHEMA = Schema({"aerial": AERIAL}, CLASSES)
SMALL = {"backbone": "test_resnet", "decode_channels": 16, "window_size": 4, "heads": 4}

REFERENCE_NAMES = {
    "pre_conv": "enter",
    "b4": "attend32",
    "b3": "attend16",
    "b2": "attend8",
    "p3": "merge16",
    "p2": "merge8",
    "p1.weights": "merge4.weights",
    "p1.pre_conv": "merge4.pre_conv",
    "p1.post_conv": "merge4.post_conv",
    "p1.pa.0": "refine.position",
    "p1.ca.1.0": "refine.channel.0",
    "p1.ca.3.0": "refine.channel.2",
    "p1.shortcut": "refine.shortcut",
    "p1.proj": "refine.project",
    "aux_head.conv_out.0": "auxiliary_head.2",
    "aux_head.conv": "auxiliary_head.0",
    "segmentation_head.2.0": "head.2",
    "segmentation_head": "head",
}
REFERENCE_PARTS = {
    "pre_conv.0": "project",
    "post_conv": "smooth",
    "attn.relative_position_bias_table": "attention.position_bias",
    "attn.qkv.0": "attention.qkv",
    "attn.local1": "attention.local3",
    "attn.local2": "attention.local1",
    "attn.proj": "attention.project",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}


def from_reference(state_dict):
    """The reference decoder's weights under our names; its index tables are computed here."""
    renamed = {}
    for key, value in state_dict.items():
        if key.endswith("relative_position_index"):
            continue
        start = next(name for name in REFERENCE_NAMES if key.startswith(name))
        rest = key.removeprefix(start).removeprefix(".")
        for name, ours in REFERENCE_PARTS.items():
            rest = rest.replace(name, ours) if start != "pre_conv" else rest
        new = f"{REFERENCE_NAMES[start]}.{rest}".rstrip(".")
        new = new.replace("merge4.pre_conv.0", "merge4.project")
        renamed[new.replace("merge4.post_conv", "merge4.smooth")] = value
    return renamed


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return UNetFormer(SCHEMA, **SMALL).eval()


@pytest.fixture(scope="module")
def reference(shared):
    return torch.load(shared / "golden/unetformer_decoder.pt", weights_only=True)


def reference_decoder(reference):
    config = reference["config"]
    decoder = UNetFormerDecoder(
        config["encoder_channels"],
        config["num_classes"],
        decode_channels=config["decode_channels"],
        window_size=config["window_size"],
        dropout=config["dropout"],
    )
    decoder.load_state_dict(from_reference(reference["state_dict"]))
    return decoder


@pytest.mark.shared
def test_decoder_gives_the_reference_numbers(reference):
    decoder = reference_decoder(reference)
    *features, height, width = reference["inputs"]
    main, auxiliary = decoder.train()(features, (height, width))
    # A pass in training moves the batch statistics, so evaluate with a fresh one.
    logits = reference_decoder(reference).eval()(features, (height, width))
    expected = {"eval": (logits,), "train": (main, auxiliary)}
    for mode, given in expected.items():
        wanted = reference["outputs"][mode]
        for ours, theirs in zip(given, wanted if mode == "train" else (wanted,), strict=True):
            # In float64 we differ from the stored float32 numbers by 2.2e-5: their own rounding.
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=5e-5)


@pytest.mark.shared
def test_relative_positions_are_the_reference_ones(reference):
    decoder = reference_decoder(reference)
    expected = reference["state_dict"]["b4.attn.relative_position_index"]
    assert torch.equal(decoder.attend32.attention.position, expected)


@pytest.mark.parametrize(
    ("bands", "classes", "auxiliary", "count"),
    [(5, 13, True, 11_732_062), (3, 6, True, 11_724_894), (3, 13, False, 11_687_966)],
)
def test_parameter_count_is_the_published_one(bands, classes, auxiliary, count):
    modality = AERIAL.select(AERIAL.bands[:bands], where="test")
    model = UNetFormer(Schema({"aerial": modality}, CLASSES[:classes]), auxiliary=auxiliary)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("size", [(256, 256), (250, 250), (37, 91), (16, 16), (1, 5), (33, 64)])
def test_any_size_gives_logits_of_that_size(small, size):
    with torch.no_grad():
        logits = small.logits(torch.rand(2, 5, *size) * 255)
    assert logits.shape == (2, 13, *size)
    assert logits.isfinite().all()


def test_full_window_of_500_pixels_works():
    with torch.inference_mode():
        logits = UNetFormer(SCHEMA).eval().logits(torch.rand(1, 5, 500, 500) * 255)
    assert logits.shape == (1, 13, 500, 500)


def test_images_are_padded_by_their_mirror_image(small):
    mirrored = torch.rand(1, 5, 128, 128) * 255
    mirrored[..., 100:] = mirrored[..., 71:99].flip(-1)
    with torch.no_grad():
        torch.testing.assert_close(
            small.logits(mirrored[..., :100]), small.logits(mirrored)[..., :100]
        )


@pytest.mark.parametrize("window", [1, 5, 7, 8])
def test_windows_of_any_size_keep_the_map_size(window):
    decoder = UNetFormerDecoder((4, 8, 8, 8), 3, decode_channels=8, window_size=window, heads=2)
    maps = [torch.rand(1, c, 48 // s, 80 // s) for c, s in ((4, 1), (8, 2), (8, 4), (8, 8))]
    assert decoder.eval()(maps, (190, 320)).shape == (1, 3, 190, 320)


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    model = UNetFormer(SCHEMA, **SMALL).train()
    for block in model.backbone.modules():
        if hasattr(block, "bn3"):  # timm starts every residual branch at zero
            torch.nn.init.ones_(block.bn3.weight)
        if hasattr(block, "bn2"):
            torch.nn.init.ones_(block.bn2.weight)
    output = model({"inputs": {"aerial": torch.rand(2, 5, 64, 96) * 255}})
    (output.logits.square().mean() + 0.4 * output.auxiliary[0].logits.square().mean()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_auxiliary_logits_only_while_training(small):
    images = torch.rand(2, 5, 50, 70) * 255
    model = copy.deepcopy(small)
    main, auxiliary = model.train().logits(images)
    assert main.shape == auxiliary.shape == (2, 13, 50, 70)
    assert model.eval()({"inputs": {"aerial": images}}).auxiliary == ()
    without = UNetFormer(SCHEMA, **SMALL, auxiliary=False).train()
    assert isinstance(without.logits(images), torch.Tensor)


def test_one_tile_trains_unless_it_has_a_single_cell():
    model = UNetFormer(SCHEMA, **SMALL).train()
    main, _ = model.logits(torch.rand(1, 5, 32, 33))
    assert main.isfinite().all()
    with pytest.raises(InputError, match="batch size of at least 2"):
        model.logits(torch.rand(1, 5, 32, 32))
    assert isinstance(model.eval().logits(torch.rand(1, 5, 32, 32)), torch.Tensor)


@pytest.mark.parametrize("training", [True, False])
def test_bf16_autocast(training):
    model = UNetFormer(SCHEMA, **SMALL).train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = model.logits(torch.rand(2, 5, 50, 70) * 255)
    logits = answer[0] if training else answer
    assert logits.shape == (2, 13, 50, 70)
    assert logits.isfinite().all()


def test_copies_and_pickles_answer_the_same(small):
    images = torch.rand(1, 5, 40, 40) * 255
    with torch.no_grad():
        expected = small.logits(images)
        for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
            assert torch.equal(other.logits(images), expected)


def test_described_model_is_the_same_model(small):
    description = small.describe()
    again = build(description, ExpertFactory, SCHEMA, where="test").eval()
    again.load_state_dict(small.state_dict())
    images = torch.rand(1, 5, 40, 40) * 255
    with torch.no_grad():
        assert torch.equal(again.logits(images), small.logits(images))


@pytest.mark.slow
def test_compiles_as_one_graph(small):
    compiled = torch.compile(small.logits, fullgraph=True, backend="aot_eager")
    images = torch.rand(1, 5, 50, 70) * 255
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), small.logits(images))


def test_answers_as_a_model(small):
    output = small({"inputs": {"aerial": torch.zeros(1, 5, 32, 32)}})
    assert isinstance(output, Output)
    assert output.weights is None


def test_a_time_series_is_refused(small):
    temporal = Schema({"s2": Modality(("red",), gsd=10.0, temporal=True)}, CLASSES)
    with pytest.raises(InputError, match="time series"):
        UNetFormer(temporal)
    with pytest.raises(InputError, match="time series"):
        small.logits(TimeSeries(torch.zeros(1, 2, 5, 8, 8), torch.zeros(1, 2), torch.ones(1, 2)))


@pytest.mark.parametrize("name", ["test_convnext", "swin_tiny_patch4_window7_224", "selecsls42"])
def test_other_encoders(name):
    # No stage at stride 2, channels last and a fixed size, a stage too many: timm's differ.
    model = UNetFormer(SCHEMA, **SMALL | {"backbone": name}).eval()
    with torch.no_grad():
        assert model.logits(torch.rand(1, 5, 40, 70)).shape == (1, 13, 40, 70)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shvit_s1", r"strides \[16, 32, 64\].*\[4, 8, 16, 32\]"),
        ("test_vit", r"strides \[16, 16, 16, 16\].*\[4, 8, 16, 32\]"),
        ("beit_base_patch16_224", "images of one size only"),
        ("resnet_18", "similar names: .*resnet18"),
        ("resnet18.nowhere", "resnet18.a1_in1k"),
        ("hf-hub:timm/resnet18.a1_in1k", "no model"),
    ],
)
def test_unusable_encoders_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        UNetFormer(SCHEMA, backbone=name)


def test_impossible_decoder_is_refused():
    with pytest.raises(InputError, match=r"decode_channels \(60\).*heads \(8\)"):
        UNetFormer(SCHEMA, backbone="test_resnet", decode_channels=60)


class TestPretrained:
    """Weights: local files, the cache, and a hub out of reach."""

    @pytest.fixture
    def weights(self):
        torch.manual_seed(1)
        return timm.create_model("test_resnet").state_dict()

    @pytest.fixture
    def offline(self, monkeypatch, tmp_path):
        """No connection, an empty cache, and whatever is asked for counted."""
        asked = []

        class Session:
            def head(self, url, *, timeout):
                asked.append((url, timeout))
                raise OSError("Name or service not known")

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(hub_weights, "get_session", Session)
        return asked

    def test_nothing_is_fetched_by_default(self, offline):
        UNetFormer(SCHEMA, **SMALL)
        assert offline == []

    def test_the_default_weights_are_permissive(self):
        assert timm.get_pretrained_cfg("resnet18").license in {"apache-2.0", "mit", "bsd-3-clause"}

    def test_hub_out_of_reach_is_explained_at_once(self, offline):
        start = time.perf_counter()
        with pytest.raises(InputError, match="could not be reached") as error:
            UNetFormer(SCHEMA, **SMALL, pretrained=True)
        assert time.perf_counter() - start < 10  # timm alone keeps trying for 46 s
        for advice in (
            "timm/test_resnet.r160_in1k",
            "pretrained: false",
            ".safetensors",
            "hf download",
        ):
            assert advice in str(error.value)
        assert isinstance(error.value.__cause__, OSError)
        assert len(offline) == 1

    def test_failing_download_is_explained(self, offline, monkeypatch):
        class Session:
            def head(self, url, *, timeout):
                pass

        def hub_down(*args, **kwargs):
            raise ConnectionError("reset by peer")

        monkeypatch.setattr(hub_weights, "get_session", Session)
        monkeypatch.setattr(hub_weights, "hf_hub_download", hub_down)
        with pytest.raises(InputError, match="reset by peer"):
            UNetFormer(SCHEMA, **SMALL, pretrained=True)

    def test_cached_weights_need_no_connection(self, offline, weights, monkeypatch, tmp_path):
        path = tmp_path / "model.safetensors"
        save_file(weights, path)
        monkeypatch.setattr(hub_weights, "try_to_load_from_cache", lambda *_, **__: str(path))
        model = UNetFormer(SCHEMA, **SMALL, pretrained=True)
        ours = model.backbone.body.layer1[0].conv1.weight
        assert torch.equal(ours, weights["layer1.0.conv1.weight"])
        assert offline == []

    def test_local_file(self, offline, weights, tmp_path):
        path = tmp_path / "weights.safetensors"
        save_file(weights, path)
        model = UNetFormer(SCHEMA, **SMALL, pretrained=str(path))
        assert torch.equal(model.backbone.body.bn1.weight, weights["bn1.weight"])
        # Five bands from three: repeated, and scaled by 3/5 so that activations keep their size.
        first = model.backbone.body.conv1[0].weight
        torch.testing.assert_close(first[:, 3], weights["conv1.0.weight"][:, 0] * 3 / 5)
        # The checkpoint of the trained model holds them, so it does not ask for the file again.
        path.unlink()
        build(model.describe(), ExpertFactory, SCHEMA, where="test")

    def test_local_file_of_another_encoder(self, tmp_path):
        weights = timm.create_model("test_convnext").state_dict()
        save_file(weights, tmp_path / "w.safetensors")
        small = SMALL | {"backbone": "test_convnext"}
        model = UNetFormer(SCHEMA, **small, pretrained=str(tmp_path / "w.safetensors"))
        ours = model.backbone.body.state_dict()
        assert torch.equal(ours["stem.1.weight"], weights["stem.1.weight"])

    @pytest.mark.parametrize("keep", ["layer1", "nothing"])
    def test_file_that_does_not_fill_the_encoder_is_refused(self, weights, tmp_path, keep):
        part = {k: v for k, v in weights.items() if k.startswith(keep)} or {"x": torch.ones(1)}
        save_file(part, tmp_path / "w.safetensors")
        with pytest.raises(InputError, match=r"w\.safetensors"):
            UNetFormer(SCHEMA, **SMALL, pretrained=str(tmp_path / "w.safetensors"))

    def test_missing_file(self):
        with pytest.raises(InputError, match="does not exist"):
            UNetFormer(SCHEMA, **SMALL, pretrained="/nowhere/weights.safetensors")

    def test_no_published_weights(self):
        names = timm.list_models("resnet*")
        name = next(n for n in names if not timm.get_pretrained_cfg(n).has_weights)
        with pytest.raises(InputError, match="publishes no weights"):
            UNetFormer(SCHEMA, **SMALL | {"backbone": name}, pretrained=True)

    def test_non_commercial_weights_are_announced(self, offline):
        name = "resnet18.fb_swsl_ig1b_ft_in1k"
        with pytest.warns(UserWarning, match=r"cc-by-nc-4\.0"), pytest.raises(InputError):
            UNetFormer(SCHEMA, **SMALL | {"backbone": name}, pretrained=True)

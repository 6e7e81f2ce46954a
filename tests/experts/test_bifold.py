"""BifoldExpert against timm's own classifier on the same input, in files as its authors write."""

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.experts import BifoldExpert, FrozenExpert, TimmExpert
from fusionlab.experts.base import ExpertFactory
from fusionlab.experts.bifold import BAND_ORDERS, CLASSES, STATISTICS
from fusionlab.fusion import ClassWeighted
from fusionlab.heads import LinearHead, MLPHead
from fusionlab.models import FeatureFusion, LateFusion
from fusionlab.types import Modality, Schema

BANDS = ("B12", "B11", "B8A", "B08", "B07", "B06", "B05", "B04", "B03", "B02", "B01")
S1 = Modality(("VV", "VH"), gsd=10.0)
S2 = Modality(BANDS, gsd=10.0, mean=(1.0,) * 11, std=(2.0,) * 11)  # ignored: weights bring theirs
BOTH = Modality((*BANDS, "VV", "VH"), gsd=10.0)
SCHEMA = Schema({"s2": S2}, CLASSES, target="multilabel")


def raw(modality=S2, size=120):
    generator = torch.Generator().manual_seed(0)
    shape = (2, len(modality.bands), size, size)
    return torch.randint(0, 4000, shape, generator=generator).to(torch.uint16)


def publish(path, *, backbone="test_resnet", bands=10, **options):
    """Writes weights as the authors do; returns the network."""
    torch.manual_seed(0)
    network = timm.create_model(backbone, in_chans=bands, num_classes=19, **options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    named = {f"model.vision_encoder.{key}": v for key, v in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(named, path)
    return network


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def normalised(values, delivered, wanted):
    """Bands picked one by one, as the published code does."""
    planes = [
        (values[:, delivered.index(band)].float() - STATISTICS[band][0]) / STATISTICS[band][1]
        for band in wanted
    ]
    return torch.stack(planes, dim=1)


@pytest.mark.parametrize(
    ("version", "sensors", "modality", "wanted"),
    [
        ("0.1.1", "s1", S1, "VH VV"),
        ("0.2.0", "s1", S1, "VV VH"),
        ("0.1.1", "s2", S2, "B02 B03 B04 B08 B05 B06 B07 B11 B12 B8A"),
        ("0.2.0", "s2", S2, "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12"),
        ("0.1.1", "all", BOTH, "B02 B03 B04 B08 B05 B06 B07 B11 B12 B8A VH VV"),
        ("0.2.0", "all", BOTH, "VV VH B02 B03 B04 B05 B06 B07 B08 B8A B11 B12"),
    ],
)
def test_logits_of_the_network_itself(path, version, sensors, modality, wanted):
    bands = tuple(wanted.split())
    network = publish(path, bands=len(bands))
    model = BifoldExpert(
        Schema({"data": modality}, CLASSES, target="multilabel"),
        backbone="test_resnet",
        sensors=sensors,
        version=version,
        pretrained=str(path),
    ).eval()
    values = raw(modality)
    with torch.no_grad():
        expected = network(normalised(values, modality.bands, bands))
        assert torch.equal(model.logits(values), expected)


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext", "mixer_s16_224"])
def test_other_networks(path, backbone):
    """Transformers were built for 120 pixels, so their position embeddings are."""
    size = 128 if backbone == "test_vit" else 120
    sized = {} if backbone == "test_convnext" else {"img_size": size}
    network = publish(path, backbone=backbone, **sized)
    model = BifoldExpert(SCHEMA, backbone=backbone, pretrained=str(path), image_size=size).eval()
    values = raw(size=size)
    with torch.no_grad():
        expected = network(normalised(values, BANDS, BAND_ORDERS["0.2.0"]["s2"]))
        torch.testing.assert_close(model.logits(values), expected)


def test_classes_are_matched_by_name(path):
    network = publish(path)
    classes = [CLASSES[18], CLASSES[0], CLASSES[7]]
    few = Schema({"s2": S2}, classes, target="multilabel")
    model = BifoldExpert(few, backbone="test_resnet", pretrained=str(path)).eval()
    values = raw()
    with torch.no_grad():
        expected = network(normalised(values, BANDS, BAND_ORDERS["0.2.0"]["s2"]))
        torch.testing.assert_close(model.logits(values), expected[:, [18, 0, 7]])


def test_the_classifier_is_left_out_where_it_does_not_fit(path):
    publish(path)
    other = Schema({"s2": S2}, [*CLASSES[1:], "Glaciers"], target="multilabel")
    with pytest.warns(UserWarning, match=r"\['Glaciers'\]"):
        BifoldExpert(other, backbone="test_resnet", pretrained=str(path))
    for head in (LinearHead, MLPHead):  # with a normalisation of its own
        with pytest.warns(UserWarning, match="does not fit"):
            BifoldExpert(SCHEMA, backbone="test_resnet", pretrained=str(path), head=head)


def test_bands_of_another_version_are_refused(path):
    publish(path)
    old = BAND_ORDERS["0.1.1"]["s2"]
    with pytest.raises(InputError, match=r"\['B02', .*'B05', .*\['B02', .*'B08', 'B05'"):
        BifoldExpert(SCHEMA, backbone="test_resnet", pretrained=str(path), bands=old)
    BifoldExpert(SCHEMA, backbone="test_resnet", pretrained=str(path), bands=old, version="0.1.1")
    few = Schema({"s2": S2.select(BANDS[1:], where="test")}, CLASSES)
    with pytest.raises(InputError, match=r"B12.*are missing"):
        BifoldExpert(few, backbone="test_resnet", pretrained=str(path))
    with pytest.raises(InputError, match=r"'0\.3\.0'.*'0\.2\.0'"):
        BifoldExpert(SCHEMA, version="0.3.0")


def test_weights_for_other_sensors_are_refused(path):
    publish(path, bands=2)
    with pytest.raises(InputError, match=r"conv1\.0\.weight: file \(.*2, 3, 3\)"):
        BifoldExpert(SCHEMA, backbone="test_resnet", pretrained=str(path))


def test_fetched_from_the_hub(monkeypatch, tmp_path):
    repository = "models--BIFOLD-BigEarthNetv2-0--test_resnet-s2-v0.2.0"
    network = publish(tmp_path / repository / "snapshots" / "abc" / "model.safetensors")
    (tmp_path / repository / "refs").mkdir()
    (tmp_path / repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    model = BifoldExpert(SCHEMA, backbone="test_resnet", frozen=True)
    assert torch.equal(model.head.linear.weight, network.fc.weight)
    with pytest.raises(InputError, match=r"BIFOLD-BigEarthNetv2-0/test_resnet-s2-v0\.1\.1"):
        BifoldExpert(SCHEMA, backbone="test_resnet", version="0.1.1")
    # Its description asks the hub again only if the checkpoint lacks the weights.
    assert model.describe()["init_args"]["restored"] is True
    model.stripped = True
    assert model.describe()["init_args"]["restored"] is False


def test_described_model_is_the_same_model(path):
    publish(path)
    model = BifoldExpert(SCHEMA, backbone="test_resnet", pretrained=str(path)).eval()
    path.unlink()
    again = build(model.describe(), ExpertFactory, SCHEMA, where="test").eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(again.logits(raw()), model.logits(raw()))


def test_in_fusions(path, tmp_path):
    publish(path)
    publish(tmp_path / "s1.safetensors", bands=2)
    schema = Schema({"s1": S1, "s2": S2}, CLASSES, target="multilabel")

    def s1(given):
        file = str(tmp_path / "s1.safetensors")
        return BifoldExpert(given, backbone="test_resnet", sensors="s1", pretrained=file)

    def s2(given):
        return BifoldExpert(given, backbone="test_resnet", pretrained=str(path), frozen=True)

    def frozen_s2(given):
        return FrozenExpert(given, expert=s2)

    batch = {
        "inputs": {"s1": raw(S1), "s2": raw()},
        "available": {"s1": torch.tensor([False, True]), "s2": torch.tensor([True, True])},
    }
    alone = s2(schema.only("s2")).eval()
    for second in (s2, frozen_s2):
        model = LateFusion(schema, experts={"s1": s1, "s2": second}, fusion=ClassWeighted).eval()
        with torch.no_grad():
            torch.testing.assert_close(model(batch).logits[0], alone.logits(raw())[0])
        features = FeatureFusion(schema, experts={"s1": s1, "s2": second}).eval()
        with torch.no_grad():
            torch.testing.assert_close(
                features(batch).embeddings["s2"], alone.features(raw()), atol=1e-5, rtol=1e-5
            )


def test_the_plain_expert_reads_the_same_file(path):
    network = publish(path)
    bare = SCHEMA.without_outputs()
    model = TimmExpert(
        bare, backbone="test_resnet", pretrained=str(path), bands=BAND_ORDERS["0.2.0"]["s2"]
    )
    assert torch.equal(model.body.network.bn1.weight, network.bn1.weight)


def test_constants_are_those_of_the_data():
    constants = pytest.importorskip("fusionlab.data.bigearthnet.constants")
    assert constants.CLASSES == CLASSES
    published = constants.STATISTICS["v2_nearest"]
    for band, (mean, std) in STATISTICS.items():
        assert published[band].mean == pytest.approx(mean)
        assert published[band].std == pytest.approx(std)

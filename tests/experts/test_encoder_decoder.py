"""EncoderDecoder: experts for every task, images and series, whole and for their features."""

from functools import partial

import pytest
import torch

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.experts import EncoderDecoder, Expert, ExpertFactory, FrozenExpert
from fusionlab.types import Modality, Schema, TimeSeries

BANDS = ("B02", "B03", "B04", "B08")
IMAGES = {"s2": Modality(BANDS, 10.0, mean=(10.0,) * 4, std=(4.0,) * 4)}
SERIES = {"s2": Modality(BANDS, 10.0, temporal=True)}
CLASSES = ("wood", "road", "water")


def schema(target="segmentation", modalities=IMAGES):
    if "regression" in target:
        return Schema(modalities, variables=("height",), units=("m",), target=target, gsd=10.0)
    return Schema(modalities, CLASSES, target=target, gsd=10.0)


def images(*shape):
    return torch.randint(0, 20, shape).float()


def small(given=None, **options) -> EncoderDecoder:
    options = {"backbone": "test_resnet", "decoder": {"name": "UperNet", "channels": 16}} | options
    return EncoderDecoder(given or schema(), **options)


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        ("segmentation", (2, 3, 40, 56)),
        ("regression", (2, 1, 40, 56)),
        ("multiclass", (2, 3)),
        ("multilabel", (2, 3)),
        ("scalar_regression", (2, 1)),
    ],
)
def test_what_it_answers_follows_from_the_target(target, shape):
    expert = small(schema(target)).eval()
    assert expert.logits(images(2, 4, 40, 56)).shape == shape
    assert expert.gsd == 10.0


def test_bands_and_statistics_are_those_of_every_expert():
    expert = small(bands=["B08", "B02"]).eval()
    raw = images(1, 4, 32, 32)
    other = raw.clone()
    other[:, 1:3] += 100  # bands that it does not look at
    assert torch.equal(expert.logits(raw), expert.logits(other))
    with pytest.raises(InputError, match="B99"):
        small(bands=["B99"])


def test_auxiliary_decoders_add_to_the_loss_of_training():
    expert = small(aux_decoders={"deep": {"weight": 0.3}, "other": {"decoder": "Linear"}})
    output = expert.train().answer(images(2, 4, 40, 56))
    assert [(a.name, a.weight, tuple(a.logits.shape)) for a in output.auxiliary] == [
        ("deep", 0.3, (2, 3, 40, 56)),
        ("other", None, (2, 3, 40, 56)),
    ]
    assert expert.eval().answer(images(2, 4, 40, 56)).auxiliary == ()


class TestSeries:
    def series(self, dates=3):
        valid = torch.ones(2, dates, dtype=torch.bool)
        return TimeSeries(images(2, dates, 4, 24, 40), torch.arange(dates).repeat(2, 1), valid)

    @pytest.mark.parametrize("dates", [None, "mean", "max", "attention"])
    def test_each_date_is_seen_and_padding_is_not(self, dates):
        expert = small(schema(modalities=SERIES), dates=dates).eval()
        series = self.series()
        padded = TimeSeries(
            torch.cat([series.values, torch.full_like(series.values[:, :1], 1e6)], 1),
            torch.cat([series.dates, torch.full_like(series.dates[:, :1], 9999)], 1),
            torch.cat([series.valid, torch.zeros_like(series.valid[:, :1])], 1),
        )
        logits = expert.logits(series)
        assert logits.shape == (2, 3, 24, 40)
        torch.testing.assert_close(expert.logits(padded), logits, rtol=0, atol=1e-6)

    def test_series_and_images_are_not_mixed_up(self):
        with pytest.raises(
            InputError, match="pools a time series, but 's2' is delivered as single"
        ):
            small(dates="mean")
        with pytest.raises(InputError, match="as a time series, but got images"):
            small(schema(modalities=SERIES)).logits(images(1, 4, 32, 32))
        with pytest.raises(InputError, match="as images, but got a time series"):
            small().logits(self.series())

    def test_pixels_without_any_date_are_finite(self):
        expert = small(schema(modalities=SERIES), dates="attention")
        series = self.series()._replace(valid=torch.zeros(2, 3, dtype=torch.bool))
        logits = expert.logits(series)
        logits.sum().backward()
        assert logits.isfinite().all()


class TestFeatures:
    @pytest.mark.parametrize("stage", ["backbone", "necks", "decoder"])
    @pytest.mark.parametrize("bare", [True, False])
    def test_from_any_stage(self, stage, bare):
        given = schema().without_outputs() if bare else schema()
        expert = small(given, stage=stage, necks=[{"name": "SelectIndices", "indices": [0, 1, 2]}])
        expert.eval()
        raw = images(2, 4, 64, 96)
        maps = expert.features(raw, pooled=False)
        assert maps.shape[:2] == (2, expert.embedding_dim)
        assert maps.shape[2] * 96 == maps.shape[3] * 64
        torch.testing.assert_close(expert.features(raw), maps.mean((2, 3)))
        kept = {name.split(".")[1] for name, _ in expert.named_parameters()}
        expected = {"backbone"} | ({"decoder"} if stage == "decoder" or not bare else set())
        assert kept == expected | (set() if bare else {"head"})

    def test_without_classes_there_is_no_decision(self):
        with pytest.raises(InputError, match="gives features only"):
            small(schema().without_outputs()).logits(images(1, 4, 32, 32))

    def test_the_head_may_be_dropped_later(self):
        expert = small(stage="backbone", stage_index=1).eval()
        raw = images(1, 4, 32, 32)
        before = expert.features(raw)
        expert.drop_head()
        assert torch.equal(expert.features(raw), before)
        assert {name.split(".")[1] for name, _ in expert.named_parameters()} == {"backbone"}

    def test_maps_cover_the_image_and_not_its_padding(self):
        expert = small(stage="backbone").eval()
        stride = expert.network.encoded[-1].stride
        maps = expert.features(images(1, 4, 50, 70), pooled=False)
        assert maps.shape[-2:] == (round(50 / stride), round(70 / stride))

    def test_an_index_that_is_not_there(self):
        with pytest.raises(InputError, match="no stage_index 9"):
            small(stage="backbone", stage_index=9).embedding_dim  # noqa: B018


class TestFrozen:
    def test_a_frozen_backbone_does_not_change(self):
        expert = small(frozen=True)
        before = {k: v.clone() for k, v in expert.network.backbone.state_dict().items()}
        optimizer = torch.optim.SGD([p for p in expert.parameters() if p.requires_grad], 0.1)
        for _ in range(2):
            expert.train().logits(images(2, 4, 32, 32)).sum().backward()
            optimizer.step()
        after = expert.network.backbone.state_dict()
        assert all(torch.equal(after[k], v) for k, v in before.items())
        assert expert.fingerprint() is None

    def test_whole(self):
        expert = small()
        expert.freeze()
        expert.train()
        raw = images(2, 4, 32, 32)
        assert not any(p.requires_grad for p in expert.parameters())
        assert torch.equal(expert.logits(raw), expert.logits(raw))
        assert expert.fingerprint() is not None


def test_a_checkpoint_describes_it():
    expert = small(
        aux_decoders={"deep": {"weight": 0.3}}, head={"channel_list": [8]}, rescale=False,
        backbone={"name": "timm/test_resnet", "drop_path_rate": 0.1},
        necks=[{"name": "SelectIndices", "indices": [0, 1, 2]}],
    ).eval()  # fmt: skip
    again = build(expert.describe(), ExpertFactory, schema(), where="a checkpoint")
    assert isinstance(again, Expert)
    again.load_state_dict(expert.state_dict())
    raw = images(1, 4, 64, 64)
    assert torch.equal(again.eval().logits(raw), expert.logits(raw))
    assert again.gsd == expert.gsd > 10


def test_weights_are_not_asked_for_where_a_checkpoint_holds_them(monkeypatch, tmp_path):
    description = small(backbone={"name": "test_resnet", "pretrained": False}).describe()
    description["init_args"]["backbone"]["pretrained"] = True  # as if the hub had been in reach
    assert description["init_args"]["restored"]
    built = build(description, ExpertFactory, schema(), where="a checkpoint")
    assert isinstance(built, EncoderDecoder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnt18"}, "no backbone 'resnt18'"),
        ({"backbone": {"nme": "resnet18"}}, "a name or {name"),
        ({"decoder": {"name": "UperNet", "chanels": 3}}, "no option 'chanels'"),
        ({"backbone": "test_vit"}, "LearnedInterpolateToPyramidal"),
        ({"head": {"name": "LinearHead"}}, "use SegmentationHead"),
        ({"necks": ["SelectIndexes"]}, "no neck 'SelectIndexes'.*SelectIndices"),
    ],
)
def test_misfits_are_refused_when_built(options, message):
    with pytest.raises(InputError, match=message):
        small(**options)


def test_it_is_a_factory_in_python(tmp_path):
    factory: ExpertFactory = partial(EncoderDecoder, backbone="test_vit", decoder="Linear")
    assert factory(schema()).eval().logits(images(1, 4, 33, 47)).shape == (1, 3, 33, 47)


class TestStages:
    def test_nothing_behind_the_stage_is_trained(self):
        bare = schema().without_outputs()
        expert = small(bare, stage="backbone", stage_index=0).train()
        expert.features(images(2, 4, 40, 40)).sum().backward()
        waiting = [n for n, p in expert.named_parameters() if p.requires_grad and p.grad is None]
        assert waiting == []
        assert not all(p.requires_grad for p in expert.parameters())

    def test_a_stage_that_is_not_there_is_found_before_training(self):
        with pytest.raises(InputError, match="there is no stage_index 9"):
            small(stage="backbone", stage_index=9)

    def test_the_stage_of_a_trained_expert_is_chosen_in_the_fusion(self, tmp_path):
        trained = small().eval()
        path = tmp_path / "trained.pt"
        torch.save(trained.state_dict(), path)
        bare = schema().without_outputs()
        frozen = FrozenExpert(bare, checkpoint=str(path), expert=lambda s: small(schema()),
                              stage="backbone", stage_index=1)  # fmt: skip
        raw = images(2, 4, 64, 64)
        expected = small(schema(), stage="backbone", stage_index=1).eval()
        expected.load_state_dict(trained.state_dict())
        assert torch.equal(frozen.features(raw), expected.features(raw))
        assert frozen.embedding_dim == expected.embedding_dim != trained.embedding_dim
        with pytest.raises(InputError, match="there is no stage_index 9"):
            FrozenExpert(bare, checkpoint=str(path), expert=lambda s: small(schema()),
                         stage="backbone", stage_index=9)  # fmt: skip


def test_random_weights_that_never_learn_are_warned_of():
    with pytest.warns(UserWarning, match="frozen with random weights"):
        small(frozen=True)

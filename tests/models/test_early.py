"""EarlyFusion: modalities on one grid as the input of one expert."""

import copy
import pickle
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from small_models import PixelExpert

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.experts import UTAE, EncoderDecoder, FrozenExpert, TimmExpert, UNetFormer
from fusionlab.models import CentreCrop, EarlyFusion, FeatureFusion
from fusionlab.tasks import ClassificationTask
from fusionlab.tasks.base import ModelFactory
from fusionlab.types import Modality, Schema, TimeSeries

MODALITIES = {
    "aerial": Modality(("red", "height"), 1.0, mean=(100, 5), std=(50, 2)),
    "s2": Modality(
        ("B02", "B08"), 4.0, scale=(1e-4, 1e-4), mean=(0.1, 0.3), std=(0.05, 0.1), temporal=True
    ),
    "dem": Modality(("elevation",), 1.0, mean=(300,), std=(40,)),
}
CLASSES = ("wood", "road", "water")
SCHEMA = Schema(MODALITIES, CLASSES, gsd=1.0)
PATCHES = Schema(MODALITIES, CLASSES, target="multilabel")
HEIGHTS = Schema(MODALITIES, variables=("height",), units=("m",), gsd=1.0, target="regression")
SPEEDS = Schema(MODALITIES, variables=("speed",), target="scalar_regression")
UNET = partial(
    EncoderDecoder,
    backbone={"name": "PlainCNN", "widths": [4, 6]},
    decoder={"name": "UNet", "channels": [8]},
)
CNN = partial(EncoderDecoder, backbone={"name": "PlainCNN", "widths": [4, 6]})


def batch(size=3, seed=0, side=32, **available):
    """Around one place; Sentinel-2 covers as much again on all sides."""
    random = torch.Generator().manual_seed(seed)
    there = {name: torch.ones(size, dtype=torch.bool) for name in MODALITIES}
    there |= {name: torch.tensor(value) for name, value in available.items()}
    valid = torch.ones(size, 4, dtype=torch.bool)
    valid[0, 2:] = False
    return {
        "inputs": {
            "aerial": torch.randint(0, 255, (size, 2, side, side), generator=random).byte(),
            "s2": TimeSeries(
                torch.randint(0, 9000, (size, 4, 2, side // 2, side // 2), generator=random).to(
                    torch.uint16
                ),
                torch.arange(4).expand(size, 4),
                valid,
            ),
            "dem": 300 + 40 * torch.randn(size, 1, side, side, generator=random),
        },
        "available": there,
        "sample_id": [str(i) for i in range(size)],
    }


def model(schema=SCHEMA, *, expert=UNET, **options) -> EarlyFusion:
    torch.manual_seed(0)
    return EarlyFusion(schema, expert=expert, **options).eval()


def altered(data, name, sample):
    """The same batch with other values of a modality in one sample."""
    values = data["inputs"][name]
    array = (values.values if name == "s2" else values).clone()
    array[sample] = 77
    other = values._replace(values=array) if name == "s2" else array
    return {**data, "inputs": {**data["inputs"], name: other}}


# ---- what the expert sees --------------------------------------------------------------------


def test_one_modality_alone_is_the_expert_on_it():
    fused, data = model(modalities=["aerial"]), batch()
    torch.manual_seed(0)
    alone = UNET(SCHEMA, modality="aerial").eval()
    alone.load_state_dict(fused.expert.state_dict())
    torch.testing.assert_close(fused(data).logits, alone(data).logits)
    assert (fused.modalities, fused.reference, fused.gsd) == (("aerial",), "aerial", 1.0)


def test_values_are_normalised_once_with_their_own_statistics():
    fused, data = model(modalities=["dem", "aerial"]), batch()
    seen = fused.expert.inputs(fused.stack(data))
    assert fused.expert.inputs.bands == ("dem.elevation", "aerial.red", "aerial.height")
    torch.testing.assert_close(seen[:, 0], (data["inputs"]["dem"][:, 0] - 300) / 40)
    torch.testing.assert_close(seen[:, 1], (data["inputs"]["aerial"][:, 0].float() - 100) / 50)
    torch.testing.assert_close(seen[:, 2], (data["inputs"]["aerial"][:, 1].float() - 5) / 2)


def test_a_series_is_the_mean_of_its_valid_dates_around_the_same_centre():
    fused, data = model(), batch()
    values, _, valid = data["inputs"]["s2"]
    values.copy_(values.float().mean((-1, -2), keepdim=True).to(torch.uint16))  # no resampling
    seen = fused.expert.inputs(fused.stack(data))[:, 2:4]
    weight = valid.float()[:, :, None]
    mean = (values[..., 0, 0].float() * weight).sum(1) / weight.sum(1) * 1e-4
    expected = (mean - torch.tensor([0.1, 0.3])) / torch.tensor([0.05, 0.1])
    torch.testing.assert_close(seen, expected[:, :, None, None].expand_as(seen))
    assert values.shape[-1] * 4 == 2 * seen.shape[-1]  # covers twice as much


def test_a_bright_pixel_of_a_coarse_image_is_where_it_belongs():
    fused, data = model(), batch()
    values = data["inputs"]["s2"].values
    values.zero_()
    values[:, :, :, 5, 10] = 9000  # 20 to 24 m down of 64, of which 16 to 48 m are seen
    seen = fused.stack(data)[0, 2]
    peak = (seen > 4000).nonzero().float().mean(0)
    assert peak.tolist() == pytest.approx([22 - 16 - 0.5, 42 - 16 - 0.5], abs=0.6)


def test_offsets_move_what_is_resampled_also_onto_a_coarse_reference():
    plain, data = model(modalities=["aerial", "s2"]), batch()
    moved = {**data, "offset": {"s2": torch.tensor([[0.0, 1.0]]).expand(3, 2)}}
    torch.testing.assert_close(plain.stack(moved)[:, 2:, :, :-4], plain.stack(data)[:, 2:, :, 4:])
    torch.testing.assert_close(plain.stack(moved)[:, :2], plain.stack(data)[:, :2])
    coarse = model(modalities=["aerial", "s2"], reference="s2")
    assert coarse.stack(data).shape[-2:] == (16, 16)
    still, other = coarse.stack(data), coarse.stack(moved)
    torch.testing.assert_close(other[:, 2:], still[:, 2:])
    # The sample lies one pixel further right on the grid of Sentinel-2, and so does the aerial.
    torch.testing.assert_close(other[:, :2, :, 5:13], still[:, :2, :, 4:12])


@pytest.mark.parametrize("how", ["mean", "median"])
def test_a_missing_modality_stands_as_its_mean(how):
    fused = model(dates=how)
    data = batch(s2=[True, False, True], dem=[False, True, True])
    seen = fused.expert.inputs(fused.stack(data))
    assert (seen[1, 2:4] == 0).all()
    assert (seen[0, 4] == 0).all()
    assert (seen[0, 2:4] != 0).any()
    answer = fused(data).logits
    assert torch.equal(fused(altered(data, "s2", 1)).logits, answer)
    assert torch.equal(fused(altered(data, "dem", 0)).logits, answer)
    assert not torch.equal(fused(altered(data, "dem", 1)).logits, answer)
    filled = altered(data, "dem", 0)
    filled["inputs"]["dem"][0] = 300
    everybody = {**filled, "available": batch(s2=[True, False, True])["available"]}
    torch.testing.assert_close(fused(everybody).logits, answer)


def test_availability_is_a_band_on_request():
    data = batch(s2=[True, False, True])
    fused = model(mask_channels=True)
    assert fused.expert.inputs.bands[-3:] == tuple(f"{n}.available" for n in MODALITIES)
    seen = fused.expert.inputs(fused.stack(data))
    assert seen.shape[1] == 5 + 3
    assert (seen[:, 5] == 1).all()
    assert (seen[:, 6, 3, 4] == torch.tensor([1.0, 0.0, 1.0])).all()
    # It tells a missing modality from its mean.
    told = fused(data).logits[1]
    data["available"]["s2"][1] = True
    data["inputs"]["s2"].valid[1] = False
    assert not torch.equal(fused(data).logits[1], told)
    plain = model()
    there = plain(data).logits[1]
    data["available"]["s2"][1] = False
    assert torch.equal(plain(data).logits[1], there)


def test_unknown_pixels_are_the_mean_of_their_band():
    fused, data = model(modalities=["aerial", "dem"]), batch()
    data["inputs"]["dem"][:, :, :4] = torch.nan
    seen = fused.expert.inputs(fused.stack(data))
    assert (seen[:, 2, :4] == 0).all()
    assert (seen[:, 2, 4:] != 0).all()
    assert fused(data).logits.isfinite().all()


def test_the_expert_may_choose_bands_and_statistics():
    chosen = partial(UNET, bands=["s2.B08", "aerial.height"], mean=[0, 1], std=[1, 2])
    fused, data = model(expert=chosen), batch()
    seen = fused.expert.inputs(fused.stack(data))
    torch.testing.assert_close(seen[:, 1], (data["inputs"]["aerial"][:, 1].float() - 1) / 2)
    assert seen.shape[1] == 2
    assert torch.equal(fused(altered(data, "dem", 0)).logits, fused(data).logits)


# ---- what it answers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "expert", "shape"),
    [
        (SCHEMA, UNET, (3, 3, 32, 32)),
        (SCHEMA, partial(UNetFormer, backbone="resnet18"), (3, 3, 32, 32)),
        (SCHEMA, PixelExpert, (3, 3, 32, 32)),
        (HEIGHTS, UNET, (3, 1, 32, 32)),
        (PATCHES, CNN, (3, 3)),
        (PATCHES, partial(TimmExpert, backbone="test_resnet"), (3, 3)),
        (SPEEDS, CNN, (3, 1)),
    ],
)
def test_any_expert_for_any_target(schema, expert, shape):
    fused, data = model(schema, expert=expert), batch()
    assert fused(data).logits.shape == shape
    fused.train()
    output = fused(data)
    total = (output.logits * torch.randn(shape)).sum()
    total += sum(head.logits.square().sum() for head in output.auxiliary)
    total.backward()
    assert [n for n, p in fused.named_parameters() if p.grad is None] == []


def test_it_answers_on_the_grid_of_the_reference():
    fused, data = model(reference="s2"), batch()
    assert fused(data).logits.shape == (3, 3, 16, 16)
    assert (fused.gsd, fused.reference) == (4.0, "s2")
    coarse = model(expert=partial(UNET, rescale=False))
    assert coarse(data).logits.shape == (3, 3, 16, 16)
    assert coarse.gsd == 2.0
    assert model(alignment=CentreCrop)(data).logits.shape == (3, 3, 32, 32)


@pytest.mark.parametrize(
    "expert", [CNN, partial(CNN, stage="backbone"), partial(TimmExpert, backbone="test_resnet")]
)
def test_embeddings_of_samples(expert):
    fused, data = model(PATCHES, expert=expert), batch()
    found = fused.embed(data)
    assert {name: tuple(v.shape) for name, v in found.items()} == {
        "fused": (3, fused.embedding_dim)
    }
    given = fused(data).embeddings
    if given is not None:
        assert torch.equal(given["fused"], found["fused"])
    task = ClassificationTask(PATCHES, partial(EarlyFusion, expert=expert)).eval()
    task.embeddings = True
    assert set(task.predict_step(data, 0)["embeddings"]) == {"fused"}


@pytest.mark.parametrize(("schema", "expert"), [(SCHEMA, UNET), (HEIGHTS, UNET), (PATCHES, CNN)])
def test_shares_sum_to_one_and_fall_on_who_is_there(schema, expert):
    fused = model(schema, expert=expert)
    data = batch(s2=[True, False, False], dem=[True, True, False])
    output, shares = fused.explain(data)
    torch.testing.assert_close(output.logits, fused(data).logits)
    assert list(shares) == list(fused.contributors) == list(MODALITIES)
    total = torch.stack(list(shares.values())).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total))
    assert (shares["s2"][1:] == 0).all()
    assert (shares["aerial"][2] == 1).all()
    assert (shares["dem"][0] > 0).any()


# ---- other data, checkpoints -----------------------------------------------------------------


def test_other_data_are_read_by_name():
    other = {
        "dem": Modality(("slope", "elevation"), 1.0),
        "s2": Modality(("B08", "B04", "B02"), 4.0, scale=(0.5, 0.5, 0.5), temporal=True),
        "aerial": Modality(("height", "red"), 1.0),
    }
    fused, data = model(), batch()
    expected = fused(data).logits
    inputs = data["inputs"]
    values = inputs["s2"].values.float() * 2e-4
    moved = {
        "aerial": inputs["aerial"].flip(1),
        "dem": torch.cat([torch.randn_like(inputs["dem"]), inputs["dem"]], dim=1),
        "s2": inputs["s2"]._replace(
            values=torch.stack([values[:, :, 1], 0 * values[:, :, 0], values[:, :, 0]], dim=2)
        ),
    }
    fused.rebind(Schema(other, CLASSES, gsd=1.0))
    torch.testing.assert_close(fused({**data, "inputs": moved}).logits, expected)
    with pytest.raises(InputError, match=r"'dem' \(EarlyFusion\) finds only \['aerial', 's2'\]"):
        fused.rebind(Schema({name: other[name] for name in ("aerial", "s2")}, CLASSES))
    with pytest.raises(InputError, match=r"\['aerial.red', .*'s2.B02'\] are missing"):
        fused.rebind(
            Schema(other | {"s2": Modality(("B08",), 4.0, temporal=True)}, CLASSES, gsd=1.0)
        )


def test_the_resolution_of_other_data_counts():
    fused = model(modalities=["aerial", "dem"])
    finer = {"aerial": Modality(("red", "height"), 0.5), "dem": Modality(("elevation",), 1.0)}
    fused.rebind(Schema(finer, CLASSES, gsd=0.5))
    data = batch()
    data["inputs"]["aerial"] = torch.zeros(3, 2, 64, 64)
    assert fused(data).logits.shape == (3, 3, 64, 64)
    assert fused.gsd == 0.5


def test_samples_prepared_otherwise_are_warned_of():
    def crop(size):
        s2 = Modality(("B02", "B08"), 4.0, temporal=True, preparation={"crop_size": size})
        return Schema(MODALITIES | {"s2": s2}, CLASSES, gsd=1.0)

    fused = model(crop(40))
    with pytest.warns(UserWarning, match=r"s2\.crop_size.*20 instead of 40"):
        fused.rebind(crop(20))


def test_copies_and_descriptions_are_the_same_model():
    fused = model(modalities=["dem", "s2"], reference="s2", dates="median", mask_channels=True)
    data = batch(dem=[False, True, True])
    twins = [copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))]
    twins.append(build(fused.describe(), ModelFactory, SCHEMA, where="a test").eval())
    for twin in twins:
        twin.load_state_dict(fused.state_dict())
        assert torch.equal(twin(data).logits, fused(data).logits)
        assert (twin.reference, twin.modalities) == ("s2", ("dem", "s2"))


def test_a_checkpoint_restores_the_model_alone(tmp_path):
    torch.manual_seed(0)
    early = partial(EarlyFusion, expert=CNN, mask_channels=True)
    task = ClassificationTask(PATCHES, early).eval()
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "early.ckpt", weights_only=True)
    content = torch.load(tmp_path / "early.ckpt", weights_only=True)
    stated = content["hyper_parameters"]
    trained_on = Schema.from_dict(stated["trained_on"])
    assert trained_on == PATCHES
    twin = build(stated["model"], ModelFactory, trained_on, where="a test").eval()
    weights = {k.removeprefix("model."): v for k, v in content["state_dict"].items()}
    twin.load_state_dict({k: v for k, v in weights.items() if k.startswith("expert.")})
    data = batch(dem=[True, False, True])
    assert torch.equal(twin(data).logits, task(data).logits)


def test_a_frozen_expert_stays_as_it_is():
    frozen = partial(FrozenExpert, expert=CNN, trained_on=None)
    with pytest.raises(InputError, match="random weights"):
        model(PATCHES, expert=frozen)
    trained = model(PATCHES, expert=CNN)
    known = partial(FrozenExpert, expert=CNN, trained_on=trained.expert.schema.to_dict())
    fused = model(PATCHES, expert=known).train()
    assert not any(p.requires_grad for p in fused.parameters())
    assert fused(batch()).logits.shape == (3, 3)


# ---- misfits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": []}, r"names one or more .*\['aerial', 's2', 'dem'\]. Got \[\]"),
        ({"modalities": ["dem", "dem"]}, "each once"),
        ({"modalities": ["dem", "sar"]}, r"'sar' \(EarlyFusion\) finds only \['aerial', 's2'"),
        ({"reference": "sar"}, "reference 'sar' is none of"),
        ({"modalities": ["dem"], "reference": "s2"}, r"'s2' is none of the modalities \['dem'\]"),
        ({"dates": "max"}, r"dates is one of \['mean', 'median'\], got 'max'"),
        ({"expert": UTAE}, "UTAE takes time series, but 'stack' is delivered as single images"),
        ({"expert": partial(UNET, dates="max")}, "dates"),
        ({"expert": partial(UNET, modality="dem")}, r"finds only \['stack'\]"),
        (
            {"expert": partial(UNET, bands=["red"])},
            r"\['red'\], but the data deliver \['aerial.red",
        ),
        (
            {"expert": partial(FeatureFusion, experts={"a": UNET, "b": UNET})},
            "finds only|one expert for images",
        ),
    ],
)
def test_misfits_are_refused_when_built(options, message):
    with pytest.raises(InputError, match=message):
        model(**options)


def test_bands_of_one_name_are_refused():
    twice = Schema({"a": Modality(("available",), 1.0)}, CLASSES)
    with pytest.raises(InputError, match="Band names must differ"):
        model(twice, mask_channels=True)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("dem", torch.zeros(3, 7)),
        ("dem", torch.zeros(3, 2, 32, 32)),
        ("s2", torch.zeros(3, 2, 16, 16)),
        ("dem", TimeSeries(torch.zeros(3, 2, 1, 8, 8), torch.zeros(3, 2), torch.ones(3, 2) > 0)),
    ],
)
def test_what_is_no_image_is_refused(name, values):
    data = batch()
    data["inputs"][name] = values
    with pytest.raises(InputError, match=rf"{name!r} should be .*Leave it out with `modalities:`"):
        model()(data)

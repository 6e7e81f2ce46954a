"""TSViT against the reference's numbers, and what it promises beyond them."""

import copy
import pickle
import re

import pytest
import torch

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.experts.base import ExpertFactory
from fusionlab.experts.tsvit import TSViT
from fusionlab.types import Modality, Schema, TimeSeries

CLASSES = [f"class {i}" for i in range(5)]
S2 = Modality(("red", "green", "nir"), gsd=10.0, temporal=True)
SCHEMA = Schema({"sentinel2": S2}, CLASSES)
SMALL = {
    "image_size": 8,
    "dim": 16,
    "temporal_depth": 2,
    "spatial_depth": 1,
    "heads": 2,
    "head_dim": 8,
}

REFERENCE_NAMES = [
    ("temporal_token", "class_tokens"),
    ("space_pos_embedding", "position_embedding"),
    (r"to_patch_embedding\.1", "patch_embedding"),
    ("to_temporal_embedding_input", "day_embedding"),
    ("mlp_head", "head"),
    ("temporal_transformer", "over_dates"),
    ("space_transformer", "over_patches"),
    (r"layers\.(\d+)\.0\.norm", r"blocks.\1.attention_norm"),
    (r"layers\.(\d+)\.0\.fn\.to_qkv", r"blocks.\1.qkv"),
    (r"layers\.(\d+)\.0\.fn\.to_out", r"blocks.\1.project"),
    (r"layers\.(\d+)\.1\.norm", r"blocks.\1.mlp_norm"),
    (r"layers\.(\d+)\.1\.fn\.net", r"blocks.\1.mlp"),
]


def from_reference(state_dict):
    """The reference's weights under our names."""
    renamed = {}
    for key, value in state_dict.items():
        for theirs, ours in REFERENCE_NAMES:
            key = re.sub(f"^(over_dates.|over_patches.|){theirs}", rf"\g<1>{_shift(ours)}", key)
        renamed[key] = value
    return renamed


def _shift(replacement):
    return replacement.replace(r"\1", r"\g<2>")


def series(batch=2, times=4, size=8, bands=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TimeSeries(
        torch.randn(batch, times, bands, size, size, generator=generator),
        torch.randint(18_000, 19_000, (batch, times), generator=generator),
        torch.ones(batch, times, dtype=torch.bool),
    )


def with_padding(given, frames, fill):
    """The same series with frames appended that are not observations."""
    batch, _, bands, height, width = given.values.shape
    return TimeSeries(
        torch.cat([given.values, torch.full((batch, frames, bands, height, width), fill)], 1),
        torch.cat([given.dates, torch.randint(0, 20_000, (batch, frames))], 1),
        torch.cat([given.valid, torch.zeros(batch, frames, dtype=torch.bool)], 1),
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return TSViT(SCHEMA, **SMALL).eval()


@pytest.mark.shared
def test_gives_the_reference_numbers(shared):
    reference = torch.load(shared / "golden/tsvit.pt", weights_only=True)
    model = TSViT(SCHEMA, **SMALL)
    ours = from_reference(reference["state_dict"])
    missing, unexpected = model.load_state_dict(ours, strict=False)
    assert not unexpected
    assert all(name.startswith("inputs.") for name in missing)
    values = reference["inputs"][0].permute(0, 1, 4, 2, 3)
    # The row of the table that the reference looks up: a fraction of the year, truncated.
    row = (values[:, :, -1, 0, 0] * 365.0001).long()
    given = TimeSeries(values[:, :, :-1], row - 1, torch.ones_like(row, dtype=torch.bool))
    logits = model.eval().logits(given)
    expected = reference["outputs"]["eval_unpatchified"]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "patch", "count"), [(40, 2, 1_689_476), (10, 2, 1_641_476), (10, 1, 1_646_849)]
)
def test_parameter_count_is_the_published_one(size, patch, count):
    bands = tuple(f"B{i}" for i in range(10))
    schema = Schema(
        {"s2": Modality(bands, gsd=10.0, temporal=True)}, [f"class {i}" for i in range(13)]
    )
    model = TSViT(schema, image_size=size, patch_size=patch)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("fill", [0.0, 7.0, 1e30, float("nan"), float("inf")])
@pytest.mark.parametrize("frames", [1, 50])
def test_padding_changes_nothing(model, frames, fill):
    given = series()
    with torch.no_grad():
        expected = model.logits(given)
        padded = model.logits(with_padding(given, frames, fill))
    torch.testing.assert_close(padded, expected, rtol=0, atol=5e-6)


def test_a_masked_date_counts_as_absent(model):
    given = series()
    valid = given.valid.clone()
    valid[0, 1] = False
    with torch.no_grad():
        masked = model.logits(given._replace(valid=valid))
        without = model.logits(TimeSeries(*(part[:1, [0, 2, 3]] for part in given)))
    torch.testing.assert_close(masked[:1], without, rtol=0, atol=5e-6)


def test_order_of_dates_does_not_matter_but_dates_do(model):
    given = series()
    shuffled = TimeSeries(*(part[:, [2, 0, 3, 1]] for part in given))
    with torch.no_grad():
        expected = model.logits(given)
        torch.testing.assert_close(model.logits(shuffled), expected, rtol=0, atol=1e-5)
        other_days = model.logits(given._replace(dates=given.dates + 100))
    assert (other_days - expected).abs().max() > 1e-3


@pytest.mark.parametrize("training", [True, False])
def test_a_sample_without_observations_stays_finite(model, training):
    given = series()
    valid = given.valid.clone()
    valid[1] = False
    values = given.values.clone()
    values[1] = float("nan")
    model = copy.deepcopy(model).train(training)
    logits = model.logits(TimeSeries(values, given.dates, valid))
    logits.square().mean().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        empty = model.logits(TimeSeries(*(part[:, :0] for part in given)))
    torch.testing.assert_close(empty[1], logits[1], rtol=0, atol=5e-6)


def test_pixels_return_to_their_place(model):
    # With one patch perturbed, and no exchange between patches, only its own pixels may change.
    model = copy.deepcopy(model)
    model.over_patches = torch.nn.Identity()
    given = series(batch=1)
    changed = given.values.clone()
    changed[..., 2:4, 4:6] += 1
    with torch.no_grad():
        difference = model.logits(given._replace(values=changed)) - model.logits(given)
    where = difference.abs().sum((0, 1)) > 1e-6
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:4, 4:6] = True
    assert torch.equal(where, expected)


@pytest.mark.parametrize("size", [1, 5, 7, 8, 13, 40])
def test_any_size_gives_logits_of_that_size(model, size):
    with torch.no_grad():
        logits = model.logits(series(batch=1, size=size))
    assert logits.shape == (1, 5, size, size)
    assert logits.isfinite().all()


def test_image_that_is_not_square(model):
    given = series(batch=1, size=12)
    with torch.no_grad():
        logits = model.logits(given._replace(values=given.values[..., :6, :]))
    assert logits.shape == (1, 5, 6, 12)


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    model = TSViT(SCHEMA, **SMALL).train()
    model.logits(series()).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_leap_day_366_is_day_365(model):
    given = series(batch=1, times=1)
    day_365 = given._replace(dates=torch.tensor([[364]]))  # 1970-12-31
    day_366 = given._replace(dates=torch.tensor([[1095]]))  # 1972-12-31
    with torch.no_grad():
        assert torch.equal(model.logits(day_365), model.logits(day_366))


@pytest.mark.parametrize("training", [True, False])
def test_bf16_autocast(model, training):
    model = copy.deepcopy(model).train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.logits(with_padding(series(), 3, float("nan")))
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.float(), model.logits(series()), rtol=0.1, atol=0.1)


def test_copies_and_pickles_answer_the_same(model):
    with torch.no_grad():
        expected = model.logits(series())
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other.logits(series()), expected)


def test_described_model_is_the_same_model(model):
    again = build(model.describe(), ExpertFactory, SCHEMA, where="test").eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(again.logits(series()), model.logits(series()))


@pytest.mark.slow
def test_compiles_as_one_graph(model):
    compiled = torch.compile(model.logits, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(series()), model.logits(series()))


def test_single_images_are_refused(model):
    schema = Schema({"aerial": Modality(("red",), gsd=0.2)}, CLASSES)
    with pytest.raises(InputError, match="takes time series"):
        TSViT(schema)
    with pytest.raises(InputError, match="TimeSeries"):
        model.logits(torch.zeros(1, 3, 8, 8))

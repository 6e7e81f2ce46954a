"""The input contract: bands by name, statistics with the weights, any type of raw values."""

from dataclasses import replace

import pytest
import torch

from fusionlab.errors import InputError
from fusionlab.experts import TSViT, UNetFormer
from fusionlab.types import Modality, Schema, TimeSeries

BANDS = ("red", "green", "blue", "nir")
STATISTICS = {
    "scale": (1.0, 2.0, 0.5, 0.1),
    "mean": (10.0, 20.0, 30.0, 40.0),
    "std": (1.0, 2.0, 3.0, 4.0),
}


def delivered(order=range(4), *, temporal=False):
    statistics = {name: tuple(values[i] for i in order) for name, values in STATISTICS.items()}
    modality = Modality(tuple(BANDS[i] for i in order), gsd=1.0, temporal=temporal, **statistics)
    return Schema({"data": modality}, ["a", "b", "c"])


def unetformer(schema, **options):
    small = {"backbone": "test_resnet", "decode_channels": 16, "window_size": 4, "heads": 4}
    return UNetFormer(schema, **small, **options).eval()


def tsvit(schema, **options):
    small = {"image_size": 8, "dim": 16, "temporal_depth": 1, "spatial_depth": 1, "heads": 2}
    return TSViT(schema, **small, head_dim=8, **options).eval()


def images(values, *, temporal):
    """Values (B, C, H, W) as either expert takes them."""
    if not temporal:
        return values
    batch = len(values)
    return TimeSeries(
        values[:, None].expand(-1, 3, -1, -1, -1),
        torch.tensor([[100, 200, 300]] * batch),
        torch.ones(batch, 3, dtype=torch.bool),
    )


@pytest.fixture(params=[False, True], ids=["unetformer", "tsvit"])
def temporal(request):
    return request.param


@pytest.fixture
def create(temporal):
    return tsvit if temporal else unetformer


def answer(model, values, *, temporal):
    with torch.no_grad():
        return model.logits(images(values, temporal=temporal))


def test_order_of_the_data_bands_does_not_matter(create, temporal):
    values = torch.rand(2, 4, 16, 16) * 50
    order = [2, 0, 3, 1]
    model = create(delivered(temporal=temporal), bands=BANDS)
    other = create(delivered(order, temporal=temporal), bands=BANDS)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(
        answer(other, values[:, order], temporal=temporal), answer(model, values, temporal=temporal)
    )


def test_a_subset_of_bands_ignores_the_others(create, temporal):
    model = create(delivered(temporal=temporal), bands=["nir", "red"])
    values = torch.rand(2, 4, 16, 16) * 50
    changed = values.clone()
    changed[:, 1:3] = 1e6
    expected = answer(model, values, temporal=temporal)
    assert torch.equal(answer(model, changed, temporal=temporal), expected)
    changed[:, 0] += 20
    assert not torch.equal(answer(model, changed, temporal=temporal), expected)
    assert len(model.inputs) == 2
    assert model.inputs.mean.flatten().tolist() == [40.0, 10.0]


def test_missing_bands_are_named_with_those_delivered(create, temporal):
    with pytest.raises(InputError) as error:
        create(delivered([0, 1, 2], temporal=temporal), bands=["red", "nir"])
    assert "['red', 'nir']" in str(error.value)
    assert "['red', 'green', 'blue']" in str(error.value)


def test_statistics_travel_with_the_weights(create, temporal):
    own = {name: [value * 3 for value in STATISTICS[name]] for name in ("mean", "std")}
    trained = create(delivered(temporal=temporal), **own)
    applied = create(delivered(temporal=temporal))
    applied.load_state_dict(trained.state_dict())
    values = torch.rand(1, 4, 16, 16) * 50
    assert torch.equal(
        answer(applied, values, temporal=temporal), answer(trained, values, temporal=temporal)
    )
    assert applied.inputs.std.flatten().tolist() == own["std"]


def test_rebound_to_other_data_the_answer_stays(create, temporal):
    model = create(delivered(temporal=temporal), bands=["green", "nir"])
    values = torch.rand(1, 4, 16, 16) * 50
    expected = answer(model, values, temporal=temporal)
    order = [3, 0, 1]
    schema = delivered(order, temporal=temporal)
    # The same physical values, stored as ten times less.
    modality = schema.modalities["data"]
    model.inputs.rebind(replace(modality, scale=tuple(10 * s for s in modality.scale)))
    torch.testing.assert_close(answer(model, values[:, order] / 10, temporal=temporal), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float64])
def test_raw_values_of_any_type(create, temporal, dtype):
    model = create(delivered(temporal=temporal), bands=["blue", "red"])
    values = torch.randint(0, 255, (1, 4, 16, 16)).float()
    assert torch.equal(
        answer(model, values.to(dtype), temporal=temporal), answer(model, values, temporal=temporal)
    )


def test_values_that_are_not_finite_count_as_the_mean(create, temporal):
    model = create(delivered(temporal=temporal))
    values = torch.rand(1, 4, 16, 16) * 50
    mean = values.clone()
    mean[:, 1, 3:5] = STATISTICS["mean"][1] / STATISTICS["scale"][1]
    values[:, 1, 3:5] = float("nan")
    torch.testing.assert_close(
        answer(model, values, temporal=temporal), answer(model, mean, temporal=temporal)
    )


def test_normalisation_is_scale_then_mean_and_std():
    model = unetformer(delivered(), bands=["nir", "green"])
    raw = torch.full((1, 4, 1, 1), 100.0)
    expected = [(100 * 0.1 - 40) / 4, (100 * 2.0 - 20) / 2]
    assert model.inputs(raw).flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["scale", "mean", "std"])
def test_statistics_of_another_length_are_refused(create, temporal, name):
    with pytest.raises(InputError, match=rf"4 bands .* 2 values of {name}"):
        create(delivered(temporal=temporal), **{name: [1.0, 2.0]})


def test_unknown_modality_is_refused(create, temporal):
    with pytest.raises(InputError, match=r"'radar'.*'data'"):
        create(delivered(temporal=temporal), modality="radar")

"""SeriesExpert: dates, gaps and padding."""

import datetime

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from part_samples import CLASSES, MODALITIES, SCHEMA, expert, samples

from fusionlab.errors import InputError
from fusionlab.experts import SeriesExpert
from fusionlab.types import Modality, Schema, TimeSeries

NAN = float("nan")


def day(*date: int) -> int:
    return (datetime.date(*date) - datetime.date(1970, 1, 1)).days


def series(values, dates, valid=None) -> TimeSeries:
    """One sample."""
    values = torch.tensor([values], dtype=torch.float32)
    there = torch.ones(values.shape[:2], dtype=torch.bool)
    valid = there if valid is None else torch.tensor([valid])
    return TimeSeries(values, torch.tensor([dates]), valid)


WEEKS = [day(2021, 5, 3) + 7 * i for i in range(4)]
VALUES = [[0.2, 3.0], [0.4, NAN], [0.6, 0.0], [0.5, 12.0]]


@pytest.mark.parametrize("pooling", ["average", "first"])
@given(st.integers(0, 3), st.sampled_from([NAN, float("inf"), 1e30, 0.0, -5.0]), st.data())
@settings(max_examples=20, deadline=None)
def test_padding_changes_nothing_whatever_it_holds(pooling, number, junk, data):
    model = expert("weather", pooling=pooling)
    plain = series(VALUES, WEEKS)
    order = data.draw(st.permutations(range(4 + number)))
    values = [*VALUES, *[[junk, junk]] * number]
    dates = [*WEEKS, *[data.draw(st.integers(-(10**6), 10**6)) for _ in range(number)]]
    valid = [True] * 4 + [False] * number
    padded = series(*([part[i] for i in order] for part in (values, dates, valid)))
    torch.testing.assert_close(model.features(padded), model.features(plain), atol=1e-5, rtol=1e-4)
    tokens = model.tokens(padded)
    assert tokens.values.shape == (1, 4 + number, 8)
    kept = [order.index(i) for i in range(4)]
    expected = model.tokens(plain).values
    torch.testing.assert_close(tokens.values[:, kept], expected, atol=1e-5, rtol=1e-4)
    assert tokens.values.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_a_series_without_any_valid_date(training):
    model = expert("weather").train(training)
    nothing = TimeSeries(
        torch.full((2, 3, 2), NAN), torch.zeros(2, 3).long(), torch.zeros(2, 3) > 0
    )
    answer = model.logits(nothing)
    assert answer.isfinite().all()
    assert not model.tokens(nothing).valid.any()
    answer.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    empty = TimeSeries(torch.zeros(2, 0, 2), torch.zeros(2, 0).long(), torch.zeros(2, 0) > 0)
    assert model.eval().logits(empty).isfinite().all()
    assert model.tokens(empty).values.shape == (2, 0, 8)


def test_a_missing_value_is_not_the_mean():
    model = expert("weather")
    missing = model.features(series([[0.4, NAN]], WEEKS[:1]))
    assert not torch.allclose(missing, model.features(series([[0.4, 3.0]], WEEKS[:1])))
    infinite = model.features(series([[0.4, float("inf")]], WEEKS[:1]))
    assert torch.equal(missing, infinite)


def test_season_and_elapsed_days_are_what_dates_tell():
    model = expert("weather")
    plain = model.features(series(VALUES, WEEKS))
    # The same days of another year, which like the first is no leap year.
    years_later = [date + day(2023, 5, 3) - day(2021, 5, 3) for date in WEEKS]
    torch.testing.assert_close(model.features(series(VALUES, years_later)), plain)
    months_later = [date + 90 for date in WEEKS]
    assert not torch.allclose(model.features(series(VALUES, months_later)), plain)
    # Twice as far apart, and the first day the same.
    slower = [WEEKS[0] + 2 * (date - WEEKS[0]) for date in WEEKS]
    assert not torch.allclose(model.features(series(VALUES, slower)), plain)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_dates_of_any_integer_type(dtype):
    model, plain = expert("weather"), series(VALUES, WEEKS)
    typed = plain._replace(dates=plain.dates.to(dtype))
    assert torch.equal(model.features(typed), model.features(plain))


def test_dates_before_1970_and_far_apart():
    model = expert("weather")
    dates = [day(1850, 1, 1), day(1969, 12, 31), day(2024, 2, 29), day(2100, 12, 31)]
    assert model.features(series(VALUES, dates)).isfinite().all()


def test_variables_by_name():
    model = expert("weather")
    turned = Modality(
        ("wind", "rain", "ndvi"), kind="series", temporal=True, scale=(1.0, 1.0, 0.01)
    )
    expected = model.features(series(VALUES, WEEKS))
    model.rebind(Schema({"weather": turned}, CLASSES, target="multiclass"))
    moved = [[99.0, rain, 100 * ndvi] for ndvi, rain in VALUES]
    torch.testing.assert_close(model.features(series(moved, WEEKS)), expected)
    fewer = turned.select(["wind", "rain"], where="test")
    with pytest.raises(InputError, match=r"\['ndvi'\] are missing"):
        model.rebind(Schema({"weather": fewer}, CLASSES, target="multiclass"))


def test_pooling():
    values = samples()["weather"]
    average, first = expert("weather"), expert("weather", pooling="first")
    encoded, valid = average._encode(values)
    assert valid.sum(dim=1).tolist() == [6, 4, 6, 6]
    assert torch.equal(first.features(values), encoded[:, 0])
    mean = encoded.sum(dim=1) / valid.sum(dim=1, keepdim=True)
    assert torch.equal(average.features(values), mean)


def test_series_of_images_are_for_other_experts():
    images = Modality(("B02",), 10.0, temporal=True)
    with pytest.raises(InputError, match=r"'s2' is a image|'s2' is an image"):
        SeriesExpert(Schema({"s2": images}, CLASSES, target="multiclass"))
    cube = TimeSeries(torch.zeros(1, 2, 2, 4, 4), torch.zeros(1, 2).long(), torch.ones(1, 2) > 0)
    with pytest.raises(InputError, match=r"values \(B, T, C\).*\(1, 2, 2, 4, 4\)"):
        expert("weather").features(cube)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 7}, "even and a multiple"),
        ({"heads": 0}, "heads must be 1 or more"),
        ({"mlp_ratio": 0}, "mlp_ratio must be 1 or more"),
        ({"pooling": "last"}, "pools by one of"),
        ({"dropout": -1}, "dropout is a probability"),
        ({"bands": []}, "has no bands"),
        ({"mean": [1.0]}, "1 values of mean"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        SeriesExpert(SCHEMA, modality="weather", **options)


def test_it_finds_a_season():
    """The same values at other times of the year: only dates tell the classes apart."""
    torch.manual_seed(0)
    model = SeriesExpert(
        Schema({"weather": MODALITIES["weather"]}, ("summer", "winter"), target="multiclass"),
        width=8, depth=1, heads=2, dropout=0.0,
    ).train()  # fmt: skip
    months = torch.tensor([5, 6, 7, 11, 12, 1] * 4)
    start = torch.tensor([day(2000 + i // 3, int(m), 1 + i % 20) for i, m in enumerate(months)])
    dates = start[:, None] + 7 * torch.arange(4)
    values = torch.tensor(VALUES).expand(24, 4, 2)
    labels = (months > 8) | (months < 4)
    data = TimeSeries(values, dates, torch.ones(24, 4, dtype=torch.bool))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model.logits(data), labels.long()).backward()
        optimizer.step()
    assert (model.logits(data).argmax(dim=1) == labels).all()

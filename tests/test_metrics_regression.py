"""Regression metrics: laws, numbers of torchmetrics, and exactness over batches and processes."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score

from fusionlab.errors import InputError
from fusionlab.metrics import ModalityShares, RegressionMetrics

VARIABLES = ("height", "cover")


def scores(predicted, target, variables=VARIABLES, **options):
    metric = RegressionMetrics(variables)
    metric.update(predicted, target, **options)
    return {name: value.item() for name, value in metric.compute().items()}


def random_batch(seed, shape=(3, 2, 6, 7)):
    random = torch.Generator().manual_seed(seed)
    target = 5 + 3 * torch.randn(shape, generator=random)
    predicted = target + torch.randn(shape, generator=random) + 0.5
    unknown = torch.rand(shape, generator=random) < 0.2
    return predicted, target.masked_fill(unknown, torch.nan)


@pytest.mark.parametrize("shape", [(3, 2, 6, 7), (8, 2)])
def test_perfection(shape):
    _, target = random_batch(0, shape)
    result = scores(target.nan_to_num(99), target)
    for name, value in result.items():
        assert value == (1 if name.startswith("r2") else 0), name


def test_the_mean_explains_nothing():
    _, target = random_batch(1)
    mean = target.nanmean(dim=(0, 2, 3), keepdim=True).expand_as(target)
    result = scores(mean, target)
    assert result["r2"] == pytest.approx(0, abs=1e-5)
    assert result["bias"] == pytest.approx(0, abs=1e-5)
    for i, name in enumerate(VARIABLES):
        known = target[:, i][target[:, i].isfinite()]
        assert result[f"rmse/{name}"] == pytest.approx(known.std(correction=0).item(), rel=1e-5)


def test_by_hand():
    target = torch.tensor([[1.0, 10.0], [3.0, torch.nan], [5.0, 30.0]])
    predicted = torch.tensor([[2.0, 10.0], [3.0, 7.0], [3.0, 20.0]])
    assert scores(predicted, target) == pytest.approx(
        {
            "rmse/height": (5 / 3) ** 0.5, "rmse/cover": 50**0.5,
            "mae/height": 1.0, "mae/cover": 5.0,
            "bias/height": -1 / 3, "bias/cover": -5.0,
            "r2/height": 1 - 5 / 8, "r2/cover": 1 - 100 / 200,
            "rmse": ((5 / 3) ** 0.5 + 50**0.5) / 2, "mae": 3.0,
            "bias": (-1 / 3 - 5) / 2, "r2": (3 / 8 + 1 / 2) / 2,
        }
    )  # fmt: skip


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_agrees_with_torchmetrics(seed):
    predicted, target = random_batch(seed)
    result = scores(predicted, target)
    for i, name in enumerate(VARIABLES):
        known = target[:, i].isfinite()
        pair = predicted[:, i][known], target[:, i][known]
        expected = {
            "rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError(), "r2": R2Score()
        }  # fmt: skip
        for score, metric in expected.items():
            assert result[f"{score}/{name}"] == pytest.approx(metric(*pair).item(), rel=1e-4)
        assert result[f"bias/{name}"] == pytest.approx((pair[0] - pair[1]).mean().item(), rel=1e-4)


def test_unknown_and_uncounted_values_change_nothing():
    predicted, target = random_batch(3)
    expected = scores(predicted, target)
    wild = torch.where(target.isnan(), torch.tensor(torch.nan), predicted)
    assert scores(wild, target) == expected
    counted = torch.tensor([True, False, True])
    left = scores(predicted[counted], target[counted])
    assert scores(predicted, target, counted=counted) == left
    assert scores(predicted, target, counted=counted[:, None, None, None].expand(3, 2, 6, 7)) == (
        left
    )


def test_a_prediction_that_is_no_number_shows():
    predicted, target = random_batch(4)
    target[0, 0, 0, 0] = 1.0
    predicted[0, 0, 0, 0] = torch.nan
    result = scores(predicted, target)
    for score in ("rmse", "mae", "bias", "r2"):
        assert np.isnan(result[score])
        assert np.isnan(result[f"{score}/height"])
        assert np.isfinite(result[f"{score}/cover"])


def test_what_cannot_be_scored_is_in_no_mean():
    predicted, target = random_batch(5)
    target[:, 1] = torch.nan
    result = scores(predicted, target)
    for score in ("rmse", "mae", "bias", "r2"):
        assert np.isnan(result[f"{score}/cover"])
        assert result[score] == result[f"{score}/height"]
    assert all(np.isnan(v) for v in scores(predicted, torch.full_like(target, torch.nan)).values())
    constant = torch.cat([random_batch(5)[1][:, :1], torch.full_like(target[:, 1:], 0.1)], dim=1)
    result = scores(predicted, constant)
    assert np.isnan(result["r2/cover"])
    assert result["r2"] == result["r2/height"]
    assert np.isfinite(result["rmse/cover"])


@pytest.mark.parametrize("offset", [0.0, 10_000.0, 1e6])
def test_large_values_that_differ_by_little(offset):
    """Sums of squares in float32 would lose all of a variance of 1 beside 10,000 squared."""
    random = torch.Generator().manual_seed(0)
    target = (offset + torch.randn(20, 1, 32, 32, generator=random)).float()
    predicted = (target + 0.5 * torch.randn(target.shape, generator=random)).float()
    metric = RegressionMetrics(("x",))
    for t, p in zip(target.split(2), predicted.split(2), strict=True):
        metric.update(p, t)
    t, p = target.double().flatten(), predicted.double().flatten()
    expected = 1 - (p - t).square().sum() / (t - t.mean()).square().sum()
    assert metric.compute()["r2"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert 0.6 < expected < 0.9


@given(st.integers(0, 1000), st.lists(st.integers(0, 3), min_size=12, max_size=12))
@settings(max_examples=20, deadline=None)
def test_processes_and_batches_make_no_difference(seed, owners):
    """Any split of the samples over processes, some of which may have none."""
    predicted, target = random_batch(seed, (12, 2, 3, 3))
    whole = scores(predicted, target)
    parts = [RegressionMetrics(VARIABLES) for _ in range(4)]
    for i, owner in enumerate(owners):
        parts[owner].update(predicted[i : i + 1], target[i : i + 1])
    first, *others = parts
    for other in others:
        first.merge_state(other)
    merged = {name: value.item() for name, value in first.compute().items()}
    assert merged == pytest.approx(whole, rel=1e-6, abs=1e-6)
    drawn = sorted(map(tuple, np.stack(first.pairs()[0], axis=1).tolist()))
    known = target[:, 0].isfinite()
    assert drawn == sorted(zip(target[:, 0][known].tolist(), predicted[:, 0][known].tolist(),
                               strict=True))  # fmt: skip


def test_states_of_processes_are_reduced_as_torchmetrics_does():
    parts = []
    for seed in range(3):
        metric = RegressionMetrics(VARIABLES, sample_size=50)
        metric.update(*random_batch(seed))
        parts.append(metric)
    together = RegressionMetrics(VARIABLES, sample_size=50)
    for name, reduce in together._reductions.items():
        setattr(together, name, reduce(torch.stack([getattr(part, name) for part in parts])))
    together._update_count = 1
    batches = [random_batch(seed) for seed in range(3)]
    expected = scores(*(torch.cat(values) for values in zip(*batches, strict=True)))
    assert {n: v.item() for n, v in together.compute().items()} == pytest.approx(expected, rel=1e-6)
    assert together.sample.shape == (2, 50, 3)


def score_part(rank, folder):
    """One of two processes: every second batch."""
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    metric = RegressionMetrics(VARIABLES)
    for seed in range(rank, 7, 2):
        metric.update(*random_batch(seed))
    torch.save({"scores": metric.compute(), "drawn": metric.drawn}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_score_like_one(tmp_path):
    torch.multiprocessing.spawn(score_part, (tmp_path,), 2)
    one = RegressionMetrics(VARIABLES)
    for seed in range(7):
        one.update(*random_batch(seed))
    expected = one.compute()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["scores"] == expected
        number = found["drawn"][..., 0].isfinite().sum()
        assert number == one.drawn[..., 0].isfinite().sum() == one.moments[:, 0].sum()


def test_the_sample_is_uniform_bounded_and_the_same_again():
    metric = RegressionMetrics(("x",), sample_size=2000)
    order = torch.arange(100_000.0).reshape(100, 1, 1000)
    target = order.clone()
    target[:, :, ::2] = torch.nan
    for said, true in zip(order.split(10), target.split(10), strict=True):
        metric.update(said, true)
    metric.compute()
    ((true, said),) = metric.pairs()
    assert len(true) == len(set(true.tolist())) == 2000
    assert np.array_equal(true, said)
    assert (true % 2 == 1).all()
    counts, _ = np.histogram(true, bins=20, range=(0, 100_000))
    assert 60 < counts.min() <= counts.max() < 140  # 100 each, give or take four deviations
    again = copy.deepcopy(metric)
    again.reset()
    for said, true in zip(order.split(25), target.split(25), strict=True):
        again.update(said, true)
    again.compute()
    assert np.array_equal(np.sort(again.pairs()[0][0]), np.sort(metric.pairs()[0][0]))
    pickle.loads(pickle.dumps(metric))


def test_shapes_are_checked():
    with pytest.raises(InputError, match=r"2 variables.*\(3, 1, 4, 4\) and \(3, 4, 4\)"):
        RegressionMetrics(VARIABLES).update(torch.zeros(3, 1, 4, 4), torch.zeros(3, 4, 4))
    with pytest.raises(InputError, match="2 variables"):
        RegressionMetrics(VARIABLES).update(torch.zeros(3, 3), torch.zeros(3, 3))


@pytest.mark.parametrize("grid", [(), (4, 5)])
def test_shares_of_values_are_per_variable(grid):
    shares = ModalityShares(("s1", "s2"), VARIABLES)
    b = 3
    s1 = torch.rand(b, 2, *grid)
    counted = torch.rand(b, 2, *grid) < 0.7
    counted[0] = True
    shares.update({"s1": s1, "s2": 1 - s1}, torch.randn(b, 2, *grid), counted)
    result = shares.compute()
    for i, name in enumerate(VARIABLES):
        expected = s1[:, i][counted[:, i]].mean()
        torch.testing.assert_close(result[f"s1/{name}"], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(result["s1"], s1[counted].mean(), atol=1e-5, rtol=0)

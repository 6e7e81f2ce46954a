"""Losses over values: by hand, against torch, and what is unknown may not do."""

from functools import partial

import jsonargparse
import pytest
import torch
import torch.nn.functional as F

from fusionlab.errors import InputError
from fusionlab.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    LossFactory,
    MeanAbsoluteError,
    MeanSquaredError,
    RegressionLoss,
    WeightedSum,
)

VARIABLES = ("height", "cover")
KINDS = {
    "squared": MeanSquaredError,
    "absolute": MeanAbsoluteError,
    "huber": partial(Huber, delta=0.7),
    "weighted": partial(MeanSquaredError, weights={"cover": 3.0}),
    "sum": partial(WeightedSum, terms={"a": MeanSquaredError, "b": Huber}, weights={"b": 0.5}),
}
TORCH = {
    "squared": F.mse_loss, "absolute": F.l1_loss, "huber": partial(F.huber_loss, delta=0.7)
}  # fmt: skip


@pytest.fixture(params=[(3, 2, 4, 5), (6, 2)], ids=["maps", "samples"])
def values(request):
    random = torch.Generator().manual_seed(0)
    answer, target = (torch.randn(request.param, generator=random) for _ in range(2))
    return answer.requires_grad_(), target


@pytest.mark.parametrize("kind", TORCH)
def test_those_of_torch(kind, values):
    torch.testing.assert_close(KINDS[kind](VARIABLES)(*values), TORCH[kind](*values))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_unknown_changes_nothing(kind, values):
    answer, target = values
    loss = KINDS[kind](VARIABLES)
    unknown = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    holes = target.masked_fill(unknown, torch.nan)
    value = loss(answer, holes)
    (gradient,) = torch.autograd.grad(value, answer)
    assert value.isfinite()
    assert not gradient[unknown].any()
    assert gradient[~unknown].all()
    wild = torch.where(unknown, torch.tensor(torch.inf), answer.detach()).requires_grad_()
    again = loss(wild, target.masked_fill(unknown, -torch.inf))
    torch.testing.assert_close(again, value)
    assert torch.autograd.grad(again, wild)[0].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_counted_changes_nothing(kind, values):
    answer, target = values
    loss = KINDS[kind](VARIABLES)
    counted = torch.arange(len(target)) != 1
    torch.testing.assert_close(
        loss(answer, target, counted), loss(answer[counted], target[counted])
    )


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_known_gives_zero_and_zero_gradient(kind, values):
    answer, target = values
    value = KINDS[kind](VARIABLES)(answer, torch.full_like(target, torch.nan))
    value.backward()
    assert value.shape == ()
    assert value.item() == 0
    assert torch.equal(answer.grad, torch.zeros_like(answer))


@pytest.mark.parametrize("kind", KINDS)
def test_perfection_costs_nothing_and_descent_helps(kind, values):
    answer, target = values
    loss = KINDS[kind](VARIABLES)
    assert loss(target, target).item() == 0
    before = loss(answer, target)
    (gradient,) = torch.autograd.grad(before, answer)
    assert loss(answer - 0.1 * gradient, target) < before


@pytest.mark.parametrize("kind", KINDS)
def test_computes_in_float32_under_autocast(kind, values):
    answer, target = values
    loss = KINDS[kind](VARIABLES)
    low = answer.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(low, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(low.float(), target), rtol=0, atol=0)


def test_weights_are_of_variables():
    target = torch.zeros(2, 2)
    answer = torch.tensor([[1.0, 2.0], [1.0, 4.0]])
    height, cover = 1.0, (4 + 16) / 2
    for weights, expected in (
        (None, (height + cover) / 2),
        ([1.0, 3.0], (height + 3 * cover) / 4),
        ({"cover": 0.0}, height),
    ):
        loss = MeanSquaredError(VARIABLES, weights=weights)
        assert loss(answer, target).item() == pytest.approx(expected)
    # A value that is unknown takes its weight along.
    target[0, 1] = torch.nan
    loss = MeanSquaredError(VARIABLES, weights=[1.0, 3.0])
    assert loss(answer, target).item() == pytest.approx((1 + 1 + 3 * 16) / 5)
    assert loss(answer[:, [0, 1]], torch.full((2, 2), torch.nan)).item() == 0


def test_huber_is_square_near_and_straight_far():
    target = torch.zeros(1, 1)
    loss = Huber(("x",), delta=2.0)
    assert loss(target + 1, target).item() == pytest.approx(0.5)
    assert loss(target - 5, target).item() == pytest.approx(2 * (5 - 1))


def test_only_values_fit():
    for make in KINDS.values():
        for target in ("regression", "scalar_regression"):
            make(VARIABLES).require(target)
    with pytest.raises(InputError, match=r"'segmentation'\. Losses that fit it: CrossEntropy"):
        Huber(VARIABLES).require("segmentation")
    for loss in (CrossEntropy, BinaryCrossEntropy):
        with pytest.raises(InputError, match=r"'regression'.*fit it: MeanSquaredError, MeanAbs"):
            loss(VARIABLES).require("regression")
    with pytest.raises(InputError, match="no target fits together"):
        WeightedSum(VARIABLES, terms={"a": MeanSquaredError, "b": CrossEntropy})


def test_in_a_configuration(values):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=LossFactory)
    given = {
        "class_path": "fusionlab.losses.Huber",
        "init_args": {"delta": 2.5, "weights": {"cover": 2}},
    }
    loss = parser.instantiate(parser.parse_object({"loss": given})).loss(VARIABLES)
    assert torch.equal(loss(*values), Huber(VARIABLES, delta=2.5, weights=[1, 2])(*values))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanSquaredError(VARIABLES, weights={"hight": 2}), "Unknown variable 'hight'"),
        (lambda: MeanSquaredError(VARIABLES, weights=[1.0]), "1 weights for 2 variables"),
        (lambda: MeanAbsoluteError(VARIABLES, weights=[0.0, 0.0]), "nor all 0"),
        (lambda: Huber(VARIABLES, delta=0), "delta must be above 0"),
        (lambda: Huber(VARIABLES, delta=float("nan")), "delta must be above 0"),
        (lambda: Huber(VARIABLES)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4)), "2 variables"),
        (lambda: Huber(VARIABLES)(torch.zeros(1, 2), torch.zeros(1)), "2 variables"),
        (lambda: Huber(VARIABLES)(torch.zeros(1, 3), torch.zeros(1, 3)), r"\(samples, 2, ...\)"),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_base_computes_nothing():
    with pytest.raises(NotImplementedError, match="RegressionLoss"):
        RegressionLoss(VARIABLES)(torch.zeros(1, 2), torch.zeros(1, 2))

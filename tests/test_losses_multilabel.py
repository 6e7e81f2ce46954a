"""Multilabel losses against numbers by hand, and what uncounted samples may not do."""

from functools import partial

import jsonargparse
import pytest
import timm.loss
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionlab import losses
from fusionlab.errors import InputError
from fusionlab.losses import (
    AsymmetricLoss,
    BinaryCrossEntropy,
    CrossEntropy,
    Dice,
    Focal,
    Loss,
    LossFactory,
    MultilabelLoss,
    WeightedSum,
)
from fusionlab.losses.base import _FITTING
from fusionlab.types import IGNORE_INDEX

CLASSES = ("building", "water", "vineyard")
KINDS = {
    "bce": BinaryCrossEntropy,
    "bce, weighted and smoothed": partial(
        BinaryCrossEntropy, weights={"water": 3}, pos_weight={"water": 5}, label_smoothing=0.1
    ),
    "asymmetric": AsymmetricLoss,
    "asymmetric, gammas below 1": partial(AsymmetricLoss, gamma_neg=0.5, gamma_pos=0.5),
    "asymmetric, not clipped": partial(AsymmetricLoss, clip=0.0, weights=[1.0, 2.0, 0.5]),
    "sum": partial(WeightedSum, terms={"bce": BinaryCrossEntropy, "asl": AsymmetricLoss}),
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


@pytest.fixture
def logits():
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.fixture
def target():
    return torch.randint(0, 2, (6, 3), generator=torch.Generator().manual_seed(1)).float()


@every_kind
def test_uncounted_samples_change_nothing(make, logits, target):
    loss = make(CLASSES)
    counted = torch.tensor([True, False, True, True, False, False])
    value = loss(logits, target, counted)
    value.backward()
    assert value.ndim == 0
    assert not logits.grad[~counted].any()
    assert logits.grad[counted].any()
    torch.testing.assert_close(loss(logits[counted], target[counted]), value)
    wild = torch.where(counted[:, None], logits.detach(), float("nan")).requires_grad_()
    unknown = torch.where(counted[:, None], target, float("nan"))
    value = loss(wild, unknown, counted)
    value.backward()
    torch.testing.assert_close(wild.grad, logits.grad)


@every_kind
def test_nothing_counted_gives_zero_and_zero_gradient(make, logits, target):
    value = make(CLASSES)(logits, target, torch.zeros(6, dtype=torch.bool))
    value.backward()
    assert value.shape == ()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@every_kind
def test_worse_answers_cost_more(make, target):
    loss = make(CLASSES)
    costs = [loss(scale * (2 * target - 1), target).item() for scale in (2, 1, 0, -1, -2)]
    assert costs == sorted(costs)
    assert len(set(costs)) == 5


@every_kind
def test_far_out_logits_keep_finite_gradients(make, target):
    for sign in (1, -1):
        sure = (sign * 200 * (2 * target - 1)).requires_grad_()
        value = make(CLASSES)(sure, target)
        value.backward()
        assert value.isfinite()
        assert sure.grad.isfinite().all()


@every_kind
def test_computes_in_float32_under_autocast(make, logits, target):
    loss = make(CLASSES)
    low = logits.detach().bfloat16()
    expected = loss(low.float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(low, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


@every_kind
def test_a_soft_target_costs_what_its_halves_do(make, logits, target):
    """Mixup: the loss is linear in the target, so mixing targets is mixing losses."""
    loss = make(CLASSES)
    other = target.flip(0)
    mixed = loss(logits, 0.3 * target + 0.7 * other)
    expected = 0.3 * loss(logits, target) + 0.7 * loss(logits, other)
    torch.testing.assert_close(mixed, expected)


def test_binary_cross_entropy_is_that_of_torch(logits, target):
    loss = BinaryCrossEntropy(CLASSES)
    torch.testing.assert_close(
        loss(logits, target), F.binary_cross_entropy_with_logits(logits, target)
    )


def test_weights_by_hand(logits, target):
    p = logits.sigmoid()
    y = 0.9 * target + 0.05
    pos_weight, weights = torch.tensor([1.0, 5.0, 1.0]), torch.tensor([2.0, 1.0, 0.0])
    cells = -(pos_weight * y * p.log() + (1 - y) * (1 - p).log())
    expected = (cells * weights).sum() / (6 * 3)
    given = {"weights": [2.0, 1.0, 0.0], "label_smoothing": 0.1}
    for positive in ({"water": 5}, {"1": 5}, [1.0, 5.0, 1.0]):
        loss = BinaryCrossEntropy(CLASSES, pos_weight=positive, **given)
        torch.testing.assert_close(loss(logits, target), expected)


@given(st.floats(-8, 8), st.floats(0, 1), st.floats(0, 5), st.floats(0, 5), st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_asymmetric_loss_is_the_formula(logit, y, gamma_neg, gamma_pos, clip):
    loss = AsymmetricLoss(("a",), gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip)
    p = torch.tensor(logit, dtype=torch.float64).sigmoid()
    p_m = (p - clip).clamp(min=0)
    expected = -y * (1 - p) ** gamma_pos * p.log() - (1 - y) * p_m**gamma_neg * (1 - p_m).log()
    value = loss(torch.tensor([[logit]]), torch.tensor([[y]]))
    assert value.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("neg", "pos", "clip"), [(4, 1, 0.05), (4, 0, 0.05), (2, 2, 0.0)])
def test_asymmetric_loss_agrees_with_timm(neg, pos, clip, logits, target):
    # Sample by sample: over several, versions of timm sum or average.
    ours = AsymmetricLoss(CLASSES, gamma_neg=neg, gamma_pos=pos, clip=clip)
    theirs = timm.loss.AsymmetricLossMultiLabel(gamma_neg=neg, gamma_pos=pos, clip=clip)
    for row, true in zip(logits, target, strict=True):
        expected = theirs(row[None], true[None]) / 3
        torch.testing.assert_close(ours(row[None], true[None]), expected)


def test_without_asymmetry_it_is_binary_cross_entropy(logits, target):
    loss = AsymmetricLoss(CLASSES, gamma_neg=0, gamma_pos=0, clip=0)
    torch.testing.assert_close(loss(logits, target), BinaryCrossEntropy(CLASSES)(logits, target))


def test_easy_negatives_count_nothing():
    logits = torch.tensor([[-4.0]], requires_grad=True)  # a probability of 0.018
    loss = AsymmetricLoss(("a",))(logits, torch.zeros(1, 1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.item() == 0


def test_losses_over_exclusive_classes_take_uncounted_samples_too():
    logits, target = torch.randn(4, 3), torch.tensor([0, 2, IGNORE_INDEX, 1])
    counted = torch.tensor([True, False, True, True])
    for make in (CrossEntropy, Focal, Dice, partial(WeightedSum, terms={"ce": CrossEntropy})):
        expected = make(CLASSES)(logits[[0, 3]], target[[0, 3]])
        torch.testing.assert_close(make(CLASSES)(logits, target, counted), expected)
    maps, there = torch.randn(2, 3, 4, 4), torch.zeros(2, 4, 4).long()
    one = CrossEntropy(CLASSES)(maps[:1], there[:1])
    torch.testing.assert_close(CrossEntropy(CLASSES)(maps, there, torch.tensor([True, False])), one)


def test_what_is_named_as_fitting_does_fit():
    for target, text in _FITTING.items():
        for name in text.removesuffix(", or a WeightedSum of them").split(", "):
            getattr(losses, name)(CLASSES).require(target)
    fitting = {name for text in _FITTING.values() for name in text.replace(",", "").split()}
    bases = ("Loss", "MultilabelLoss", "RegressionLoss")
    concrete = {
        name
        for name in losses.__all__
        if isinstance(made := getattr(losses, name), type)
        and issubclass(made, losses.Loss)
        and name not in bases
    }
    assert concrete <= fitting


def test_a_sum_fits_what_its_terms_fit():
    assert KINDS["sum"](CLASSES).fits == ("multilabel",)
    assert WeightedSum(CLASSES, terms={"ce": CrossEntropy}).fits == ("segmentation", "multiclass")
    with pytest.raises(InputError, match=r"no target fits together.*multilabel"):
        WeightedSum(CLASSES, terms={"ce": CrossEntropy, "bce": BinaryCrossEntropy})


def test_in_a_configuration(logits, target):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=LossFactory)
    init_args = {"pos_weight": {"water": 2}, "weights": [1, 1, 4]}
    parsed = parser.parse_object(
        {"loss": {"class_path": "fusionlab.losses.BinaryCrossEntropy", "init_args": init_args}}
    )
    loss = parser.instantiate(parsed).loss(CLASSES)
    expected = BinaryCrossEntropy(CLASSES, pos_weight=[1.0, 2.0, 1.0], weights={"vineyard": 4.0})
    assert torch.equal(loss(logits, target), expected(logits, target))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryCrossEntropy(CLASSES, weights={"lake": 2.0}), "'lake'.*building"),
        (lambda: BinaryCrossEntropy(CLASSES, pos_weight={"lake": 2.0}), "'lake'.*pos_weight"),
        (lambda: BinaryCrossEntropy(CLASSES, pos_weight=[1.0]), "1 pos_weight for 3 classes"),
        (lambda: BinaryCrossEntropy(CLASSES, pos_weight=[1.0, -1.0, 1.0]), "negative"),
        (lambda: BinaryCrossEntropy(CLASSES, label_smoothing=2), "label_smoothing"),
        (lambda: AsymmetricLoss(CLASSES, gamma_neg=-1), "gamma_neg"),
        (lambda: AsymmetricLoss(CLASSES, clip=1), "clip"),
        (lambda: BinaryCrossEntropy(CLASSES)(torch.zeros(2, 4), torch.zeros(2, 4)), r"3\), got"),
        (
            lambda: BinaryCrossEntropy(CLASSES)(torch.zeros(2, 3), torch.zeros(2).long()),
            "3 classes",
        ),
        (lambda: BinaryCrossEntropy(CLASSES).require("multiclass"), "'multiclass'.*CrossEntropy"),
        (lambda: Dice(CLASSES).require("multilabel"), "'multilabel'.*BinaryCrossEntropy"),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_bases_compute_nothing():
    with pytest.raises(NotImplementedError, match="Loss"):
        MultilabelLoss(CLASSES)(torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(NotImplementedError, match="Loss"):
        Loss(CLASSES)(torch.zeros(1, 3), torch.zeros(1).long())

"""Losses of targets that are shares of classes: of one class, they are those of its index."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionlab.errors import InputError
from fusionlab.losses import (
    AsymmetricLoss,
    BinaryCrossEntropy,
    CrossEntropy,
    Dice,
    Focal,
    Loss,
    Lovasz,
    MeanSquaredError,
    WeightedSum,
)
from fusionlab.types import IGNORE_INDEX, largest_share, soft_target

CLASSES = ("building", "water", "vineyard")


def every_loss():
    return {
        "cross entropy": CrossEntropy(CLASSES),
        "cross entropy, weighted": CrossEntropy(CLASSES, weights=[1.0, 3.0, 0.5]),
        "cross entropy, smoothed": CrossEntropy(
            CLASSES, weights={"water": 2.0}, label_smoothing=0.1
        ),
        "focal": Focal(CLASSES),
        "focal, gamma below 1": Focal(CLASSES, gamma=0.5, weights=[1.0, 2.0, 0.0]),
        "dice": Dice(CLASSES),
        "dice, smoothed": Dice(CLASSES, smooth=1.5),
        "sum": WeightedSum(
            CLASSES, terms={"ce": CrossEntropy, "dice": Dice}, weights={"dice": 2.0}
        ),
    }


KINDS = tuple(every_loss())


def drawn(seed, shape=(2, 3, 4, 5)):
    """Logits and hard targets, of which some pixels are unknown."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator)
    target = torch.randint(0, 3, (shape[0], *shape[2:]), generator=generator)
    unknown = torch.rand(target.shape, generator=generator) < 0.2
    return logits.requires_grad_(), target.masked_fill(unknown, IGNORE_INDEX)


def shares(seed, shape=(2, 3, 4, 5)):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator).softmax(dim=1)


@given(st.sampled_from(KINDS), st.integers(0, 10_000), st.booleans())
@settings(max_examples=80, deadline=None)
def test_shares_of_one_class_cost_what_its_index_does(kind, seed, samples):
    logits, target = drawn(seed, (6, 3) if samples else (2, 3, 4, 5))
    counted = torch.tensor([True, False] * (len(target) // 2))
    loss = every_loss()[kind]
    for which in (None, counted):
        hard, soft = (loss(logits, t, which) for t in (target, soft_target(target, 3)))
        torch.testing.assert_close(soft, hard, rtol=1e-6, atol=1e-6)
        gradients = [torch.autograd.grad(value, logits)[0] for value in (hard, soft)]
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_unknown_or_not_counted_changes_nothing(kind):
    loss, (logits, _) = every_loss()[kind], drawn(0)
    target = shares(1)
    target[:, :, 1] = 0
    value = loss(logits, target, torch.tensor([True, False]))
    value.backward()
    assert not logits.grad[1].any()
    assert not logits.grad[0, :, 1].any()
    assert logits.grad.any()
    rows = [0, 2, 3]
    torch.testing.assert_close(loss(logits[:1, :, rows], target[:1, :, rows]), value)
    other = logits.detach().clone()
    other[:, :, 1] = float("inf")
    torch.testing.assert_close(loss(other, target, torch.tensor([True, False])), value)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_known_costs_nothing(kind):
    logits, _ = drawn(0)
    value = every_loss()[kind](logits, torch.zeros(2, 3, 4, 5))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("kind", ["cross entropy", "focal, gamma below 1"])
def test_shares_mix_what_their_classes_cost(kind):
    """Of two samples that are mixed by halves, each half counts as a sample of that class would."""
    logits, _ = drawn(3, (4, 3))
    loss = every_loss()[kind]
    first, second = torch.tensor([0, 1, 1, 0]), torch.tensor([1, 0, 0, 1])  # no class of weight 0
    mixed = 0.5 * soft_target(first, 3) + 0.5 * soft_target(second, 3)
    both = torch.cat([logits, logits]), torch.cat([first, second])
    torch.testing.assert_close(loss(logits, mixed), loss(*both))


def test_the_best_answer_to_shares_is_the_shares():
    target = shares(2, (1, 3, 2, 2))
    for make in (CrossEntropy, Dice):
        loss = make(CLASSES)
        answer = target.log().requires_grad_()
        best = loss(answer, target)
        for seed in range(5):
            worse = target.log() + 0.3 * drawn(seed, (1, 3, 2, 2))[0].detach()
            assert loss(worse, target) > best
    assert best.item() == pytest.approx(0, abs=1e-6)  # of Dice


@pytest.mark.parametrize("kind", KINDS)
def test_computes_in_float32_under_autocast(kind):
    loss = every_loss()[kind]
    low = drawn(0)[0].detach().bfloat16()
    expected = loss(low.float(), shares(1))
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(low, shares(1))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


class HardOnly(Loss):
    """A user's own loss, which knows nothing of shares."""

    def compare(self, logits, target):
        return logits.mean()


@pytest.mark.parametrize(
    "make",
    [
        Lovasz,
        HardOnly,
        lambda classes: WeightedSum(classes, terms={"ce": CrossEntropy, "lovasz": Lovasz}),
    ],
)
def test_losses_without_such_a_form_say_which_have_one(make):
    loss = make(CLASSES)
    message = r"needs one right class.*CrossEntropy, Focal, Dice, or a WeightedSum"
    with pytest.raises(InputError, match=message):
        loss.require_soft()
    with pytest.raises(InputError, match=message):
        loss(torch.zeros(2, 3), torch.zeros(2, 3))
    for named in (CrossEntropy, Focal, Dice):
        named(CLASSES).require_soft()


def test_losses_of_other_targets_take_degrees_and_values_anyway():
    for loss in (BinaryCrossEntropy, AsymmetricLoss):
        loss(CLASSES).require_soft()
        hard = torch.tensor([[1.0, 0.0, 1.0]])
        other = torch.tensor([[0.0, 0.0, 1.0]])
        logits = torch.tensor([[0.3, -1.0, 2.0]])
        mixed = loss(CLASSES)(logits, 0.3 * hard + 0.7 * other)
        parts = 0.3 * loss(CLASSES)(logits, hard) + 0.7 * loss(CLASSES)(logits, other)
        torch.testing.assert_close(mixed, parts)
    MeanSquaredError(("height",)).require_soft()


def test_shapes():
    for logits, target in (((2, 3, 4, 4), (2, 3, 4, 5)), ((2, 3), (2, 4)), ((2, 3, 4, 4), (2, 3))):
        with pytest.raises(InputError, match="target needs logits of shape"):
            CrossEntropy(CLASSES)(torch.zeros(logits), torch.ones(target))


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_there_and_back(seed):
    _, target = drawn(seed)
    soft = soft_target(target, 3)
    assert torch.equal(soft.sum(dim=1), (target != IGNORE_INDEX).float())
    assert torch.equal(largest_share(soft), target)
    assert soft_target(soft, 3) is soft
    assert largest_share(target) is target

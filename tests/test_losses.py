"""Losses against numbers by hand, and what ignored pixels may not do."""

import jsonargparse
import pytest
import torch
import torch.nn.functional as F

from fusionlab.errors import InputError
from fusionlab.losses import CrossEntropy, Dice, Focal, Loss, LossFactory, Lovasz, WeightedSum
from fusionlab.types import IGNORE_INDEX

CLASSES = ("building", "water", "vineyard")


def every_loss():
    return {
        "cross entropy": CrossEntropy(CLASSES, weights={"water": 2.0}, label_smoothing=0.1),
        "focal": Focal(CLASSES),
        "focal, gamma below 1": Focal(CLASSES, gamma=0.5, weights=[1.0, 2.0, 0.0]),
        "dice": Dice(CLASSES),
        "lovasz": Lovasz(CLASSES),
        "sum": WeightedSum(CLASSES, terms={"ce": CrossEntropy, "dice": Dice, "lovasz": Lovasz}),
    }


KINDS = tuple(every_loss())


@pytest.fixture
def logits():
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.fixture
def target():
    target = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    target[:, 1] = IGNORE_INDEX
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_ignored_pixels_change_nothing(kind, logits, target):
    loss = every_loss()[kind]
    value = loss(logits, target)
    value.backward()
    assert value.ndim == 0
    assert not logits.grad[:, :, 1].any()
    assert logits.grad.any()
    rows = [0, 2, 3]
    torch.testing.assert_close(loss(logits[:, :, rows], target[:, rows]), value)
    other = logits.detach().clone()
    other[:, :, 1] = 50 * torch.randn(2, 3, 5)
    torch.testing.assert_close(loss(other, target), value)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_valid_gives_zero_and_zero_gradient(kind, logits, target):
    value = every_loss()[kind](logits, torch.full_like(target, IGNORE_INDEX))
    value.backward()
    assert value.shape == ()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cross entropy"])
def test_a_perfect_prediction_costs_nothing(kind, target):
    sure = 40.0 * F.one_hot(target.clamp_max(2), 3).movedim(-1, 1).float()
    sure.requires_grad_()
    value = every_loss()[kind](sure, target)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-5)
    assert sure.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_worse_predictions_cost_more(kind):
    target = torch.tensor([[[0, 1], [1, 0]]])
    right = F.one_hot(target, 3).movedim(-1, 1).float()
    loss = every_loss()[kind]
    costs = [loss(scale * right, target).item() for scale in (2, 0, -2)]
    assert costs == sorted(costs)
    assert costs[0] < costs[1] < costs[2]


@pytest.mark.parametrize("kind", KINDS)
def test_computes_in_float32_under_autocast(kind, logits, target):
    loss = every_loss()[kind]
    low = logits.detach().bfloat16()
    expected = loss(low.float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(low, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_descends(kind, logits, target):
    """A step against the gradient lowers the loss."""
    loss = every_loss()[kind]
    before = loss(logits, target)
    (gradient,) = torch.autograd.grad(before, logits)
    assert loss(logits - 0.1 * gradient, target) < before


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
def test_cross_entropy_is_that_of_torch(weights, smoothing, logits, target):
    expected = F.cross_entropy(
        logits,
        target,
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=IGNORE_INDEX,
        label_smoothing=smoothing,
    )
    loss = CrossEntropy(CLASSES, weights=weights, label_smoothing=smoothing)
    torch.testing.assert_close(loss(logits, target), expected)


def test_class_weights_by_name_or_index(logits, target):
    expected = CrossEntropy(CLASSES, weights=[1.0, 1.0, 4.0])(logits, target)
    for weights in ({"vineyard": 4.0}, {"2": 4.0}):
        assert torch.equal(CrossEntropy(CLASSES, weights=weights)(logits, target), expected)


def test_a_class_of_weight_zero_is_ignored(logits, target):
    without = target.masked_fill(target == 1, IGNORE_INDEX)
    for loss in (CrossEntropy, Focal):
        expected = loss(CLASSES)(logits, without)
        torch.testing.assert_close(loss(CLASSES, weights={"water": 0})(logits, target), expected)


def test_only_pixels_of_weight_zero(logits):
    loss = CrossEntropy(CLASSES, weights={"water": 0}, label_smoothing=0.1)
    value = loss(logits, torch.ones(2, 4, 5, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


def test_focal_by_hand():
    p = torch.tensor([0.7, 0.2, 0.1])
    logits = p.log()[None, :, None, None].expand(1, 3, 1, 2)
    target = torch.tensor([[[0, 1]]])
    expected = (0.3**2 * -p[0].log() + 0.8**2 * -p[1].log()) / 2
    torch.testing.assert_close(Focal(CLASSES)(logits, target), expected)
    weighted = (0.3**2 * -p[0].log() + 3 * 0.8**2 * -p[1].log()) / 4
    torch.testing.assert_close(Focal(CLASSES, weights={"water": 3})(logits, target), weighted)


def test_focal_without_focus_is_cross_entropy(logits, target):
    torch.testing.assert_close(
        Focal(CLASSES, gamma=0)(logits, target), CrossEntropy(CLASSES)(logits, target)
    )


def test_dice_by_hand():
    """Two pixels of class 0 and 1; class 2 is not in the target and counts as 0."""
    p = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.8, 0.0]])
    target = torch.tensor([[[0, 1]]])
    logits = p.clamp_min(1e-30).log().T[None, :, None]
    expected = (1 - 2 * 0.6 / (0.8 + 1)) / 3 + (1 - 2 * 0.8 / (1.1 + 1)) / 3
    assert Dice(CLASSES)(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_lovasz_of_sure_predictions_is_one_minus_iou():
    truth = torch.tensor([[[0, 0, 0, 1]]])
    said = torch.tensor([[[0, 0, 1, 1]]])
    logits = 100.0 * F.one_hot(said, 3).movedim(-1, 1)
    assert Lovasz(CLASSES)(logits, truth).item() == pytest.approx(1 - (2 / 3 + 1 / 2) / 2)


def test_weighted_sum(logits, target):
    terms = {"ce": CrossEntropy, "dice": Dice}
    loss = WeightedSum(CLASSES, terms=terms, weights={"dice": 0.5})
    expected = CrossEntropy(CLASSES)(logits, target) + 0.5 * Dice(CLASSES)(logits, target)
    torch.testing.assert_close(loss(logits, target), expected)


def test_whole_image_logits():
    logits, target = torch.randn(4, 3), torch.tensor([0, 2, IGNORE_INDEX, 1])
    for loss in every_loss().values():
        assert loss(logits, target).isfinite()


def test_in_a_configuration(logits, target):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=LossFactory)
    given = {
        "class_path": "fusionlab.losses.WeightedSum",
        "init_args": {
            "terms": {
                "ce": {
                    "class_path": "fusionlab.losses.CrossEntropy",
                    "init_args": {"weights": {"water": 2}},
                },
                "dice": {"class_path": "fusionlab.losses.Dice"},
            },
            "weights": {"ce": 0.3},
        },
    }
    loss = parser.instantiate_classes(parser.parse_object({"loss": given})).loss(CLASSES)
    expected = WeightedSum(
        CLASSES,
        terms={"ce": lambda classes: CrossEntropy(classes, weights=[1, 2, 1]), "dice": Dice},
        weights={"ce": 0.3},
    )
    assert torch.equal(loss(logits, target), expected(logits, target))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy(CLASSES, weights={"lake": 2.0}), "Unknown class 'lake'.*building"),
        (lambda: CrossEntropy(CLASSES, weights=[1.0]), "1 weights for 3 classes"),
        (lambda: CrossEntropy(CLASSES, weights=[1.0, -1.0, 1.0]), "negative"),
        (lambda: CrossEntropy(CLASSES, weights=[0.0, 0.0, 0.0]), "nor all 0"),
        (lambda: CrossEntropy(CLASSES, label_smoothing=2), "label_smoothing"),
        (lambda: Focal(CLASSES, gamma=-1), "gamma"),
        (lambda: WeightedSum(CLASSES, terms={}), "at least one term"),
        (lambda: WeightedSum(CLASSES, terms={"ce": CrossEntropy}, weights={"dice": 1}), "dice"),
        (lambda: Dice(CLASSES)(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2).long()), "3 classes"),
        (lambda: Dice(CLASSES)(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 4).long()), "shape"),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_base_computes_nothing():
    with pytest.raises(NotImplementedError, match="Loss"):
        Loss(CLASSES)(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))

"""Classification metrics against their definitions, and one process against two."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionlab.errors import InputError
from fusionlab.metrics import ClassificationMetrics, Decision, ModalityShares
from fusionlab.metrics import probabilities as probabilities_of
from fusionlab.types import IGNORE_INDEX

CLASSES = ("forest", "water", "sand", "bog")


def average_precision(scores, truth):
    """Precision at every distinct score, weighted by the recall that it adds."""
    total, before, result = truth.sum(), 0.0, 0.0
    for score in np.unique(scores)[::-1]:
        said = scores >= score
        right = (said & truth).sum()
        result += (right / total - before) * right / said.sum()
        before = right / total
    return result


def f1(said, truth):
    precision, recall = (
        (said & truth).sum() / max(said.sum(), 1),
        (said & truth).sum() / truth.sum(),
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def batch(seed, n=40, decimals=2):
    """Rounded probabilities, so that many are tied; the last class applies to nothing."""
    random = np.random.default_rng(seed)
    truth = random.random((n, 4)) < [0.5, 0.3, 0.1, 0.0]
    truth[:2, :3] = True
    probabilities = (random.random((n, 4)) * 0.7 + 0.3 * truth).round(decimals)
    return torch.tensor(probabilities, dtype=torch.float32), torch.tensor(truth).float()


def per_class(score, values):
    """Scores by name; the last class has none."""
    return {f"{score}/{c}": v for c, v in zip(CLASSES, [*values, math.nan], strict=True)}


def everything(n):
    return torch.ones(n, dtype=torch.bool)


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 6]))
@settings(max_examples=25, deadline=None)
def test_multilabel_scores_are_their_definitions(seed, decimals):
    probabilities, target = batch(seed, decimals=decimals)
    metrics = ClassificationMetrics(CLASSES, "multilabel", {"water": 0.4, "sand": 0.7})
    metrics.update(probabilities, target, everything(40))
    result = {name: value.item() for name, value in metrics.compute().items()}
    p, truth = probabilities.numpy(), target.numpy().astype(bool)
    said = p >= np.array([0.5, 0.4, 0.7, 0.5], dtype=np.float32)
    ap = [average_precision(p[:, k], truth[:, k]) for k in range(3)]
    f = [f1(said[:, k], truth[:, k]) for k in range(3)]
    right = (said & truth).sum(axis=0)[:3]
    precision = right / np.maximum(said.sum(axis=0)[:3], 1)
    recall = right / truth.sum(axis=0)[:3]
    support = truth.sum(axis=0)[:3]
    assert result == pytest.approx(
        {
            "ap_macro": np.mean(ap),
            "ap_micro": average_precision(p.ravel(), truth.ravel()),
            "f1_macro": np.mean(f),
            "f1_micro": f1(said.ravel(), truth.ravel()),
            "f1_weighted": np.average(f, weights=support),
            "precision_weighted": np.average(precision, weights=support),
            "recall_weighted": np.average(recall, weights=support),
            "classes_evaluated": 3,
            **per_class("precision", precision),
            **per_class("recall", recall),
            **per_class("ap", ap),
            **per_class("f1", f),
            **{f"support/{name}": truth[:, k].sum() for k, name in enumerate(CLASSES)},
        },
        rel=1e-5,
        nan_ok=True,
    )


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_multiclass_scores_are_their_definitions(seed):
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.ones(4), 50).astype(np.float32)
    true = np.r_[0, 1, 2, random.integers(0, 3, 47)]
    metrics = ClassificationMetrics(CLASSES, "multiclass")
    metrics.update(torch.tensor(p), torch.tensor(true), everything(50))
    result = {name: value.item() for name, value in metrics.compute().items()}
    said, truth = p.argmax(1)[:, None] == np.arange(4), true[:, None] == np.arange(4)
    expected = np.zeros((4, 4), dtype=int)
    np.add.at(expected, (true, p.argmax(1)), 1)
    assert metrics.total.tolist() == expected.tolist()
    ap = [average_precision(p[:, k], truth[:, k]) for k in range(3)]
    assert result["ap_macro"] == pytest.approx(np.mean(ap), rel=1e-5)
    assert result["ap_micro"] == pytest.approx(
        average_precision(p.ravel(), truth.ravel()), rel=1e-5
    )
    assert result["f1_macro"] == pytest.approx(
        np.mean([f1(said[:, k], truth[:, k]) for k in range(3)])
    )
    accuracy = (p.argmax(1) == true).mean()
    assert result["overall_accuracy"] == pytest.approx(accuracy)
    assert result["f1_micro"] == pytest.approx(accuracy)
    assert math.isnan(result["ap/bog"])
    assert math.isnan(result["f1/bog"])
    assert result["classes_evaluated"] == 3


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_weighted_means_of_one_class_per_sample(seed):
    """By definition; the weighted recall of one class per sample is the accuracy."""
    random = np.random.default_rng(seed)
    true, said = np.r_[0, 1, random.integers(0, 3, 30)], random.integers(0, 4, 32)
    metrics = ClassificationMetrics(CLASSES, "multiclass")
    metrics.update(torch.eye(4)[said], torch.tensor(true), everything(32))
    result = metrics.compute()
    support = np.bincount(true, minlength=4)
    hits = np.array([((true == k) & (said == k)).sum() for k in range(4)])
    precision = hits / np.maximum(np.bincount(said, minlength=4), 1)
    recall = hits / np.maximum(support, 1)
    f = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    for name, values in (("precision", precision), ("recall", recall), ("f1", f)):
        expected = np.average(values, weights=support)
        assert result[f"{name}_weighted"].item() == pytest.approx(expected, rel=1e-5)
        assert math.isnan(result[f"{name}/bog"])
        assert result[f"{name}/forest"].item() == pytest.approx(values[0], rel=1e-5)
    assert result["recall_weighted"].item() == pytest.approx(result["overall_accuracy"].item())


def test_the_largest_share_counts():
    shares = torch.tensor([[0.2, 0.7, 0.1, 0.0], [0.5, 0.0, 0.5, 0.0], [0.0] * 4])
    said = torch.eye(4)[[1, 0, 3]]
    soft, hard = (ClassificationMetrics(CLASSES, "multiclass") for _ in range(2))
    soft.update(said, shares, everything(3))
    hard.update(said[:2], torch.tensor([1, 0]), everything(2))
    expected = hard.compute()
    for name, value in soft.compute().items():
        torch.testing.assert_close(value, expected[name], equal_nan=True)


def test_nothing_seen_has_no_weighted_means():
    result = ClassificationMetrics(CLASSES, "multiclass").compute()
    assert all(result[f"{name}_weighted"].isnan() for name in ("precision", "recall", "f1"))


def test_classes_without_samples_count_in_micro_scores_only():
    target = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    metrics = ClassificationMetrics(("a", "b"), "multilabel")
    metrics.update(torch.tensor([[0.8, 0.9], [0.2, 0.9]]), target, everything(2))
    result = metrics.compute()
    assert result["ap_macro"] == result["f1_macro"] == 1
    assert result["ap_micro"].item() == pytest.approx(1 / 3)  # after two that b is wrongly given
    assert result["f1_micro"].item() == pytest.approx(2 * 1 / (1 + 3))


def test_a_threshold_is_reached_when_it_is_equalled():
    decision = Decision(CLASSES, "multilabel", {"water": 0.3, "2": 1.0})
    assert decision(torch.tensor([[0.5, 0.3, 1.0, 0.49]])).tolist() == [[True, True, True, False]]
    assert decision(torch.tensor([[0.49, 0.29, 0.99, 1.0]])).tolist() == [
        [False, False, False, True]
    ]


def test_decisions_of_low_precision_logits_are_made_in_float32():
    logits = torch.randn(5, 4).bfloat16()
    sigmoid = probabilities_of(logits, "multilabel")
    assert sigmoid.dtype == torch.float32
    torch.testing.assert_close(sigmoid, logits.float().sigmoid())
    softmax = probabilities_of(logits, "multiclass")
    torch.testing.assert_close(softmax, logits.float().softmax(dim=1))


@pytest.mark.parametrize("target", ["segmentation", "multiclass"])
def test_probabilities_of_exclusive_classes_sum_to_one_everywhere(target):
    found = probabilities_of(torch.randn(2, 4, 3, 5), target)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 3, 5))


def test_batches_add_up_and_uncounted_samples_change_nothing():
    probabilities, target = batch(1)
    whole, parts = (ClassificationMetrics(CLASSES, "multilabel") for _ in range(2))
    whole.update(probabilities, target, everything(40))
    for i in torch.randperm(40).split(7):
        parts.update(probabilities[i], target[i], everything(len(i)))
    wild = torch.rand(9, 4)
    parts.update(wild, (wild > 0.5).float(), ~everything(9))
    a, b = whole.compute(), parts.compute()
    assert all(torch.equal(a[name].nan_to_num(2), b[name].nan_to_num(2)) for name in a)


def test_unknown_classes_do_not_count():
    p = torch.eye(4)[[0, 1, 2]]
    metrics = ClassificationMetrics(CLASSES, "multiclass")
    target = torch.tensor([0, IGNORE_INDEX, 1])
    metrics.update(p, target, target != IGNORE_INDEX)
    assert metrics.compute()["overall_accuracy"] == 0.5
    assert metrics.total.sum() == 2
    metrics.update(p, torch.tensor([0, 7, 1]), everything(3))
    with pytest.raises(InputError, match=r"4 classes.*use 0 to 3"):
        metrics.compute()


@pytest.mark.parametrize("target", ["multilabel", "multiclass"])
def test_nothing_seen_is_nan(target):
    metrics = ClassificationMetrics(CLASSES, target)
    empty = torch.zeros(0, 4) if target == "multilabel" else torch.zeros(0).long()
    metrics.update(torch.zeros(0, 4), empty, everything(0))
    result = metrics.compute()
    scores = [value for name, value in result.items() if "support" not in name]
    assert result["classes_evaluated"] == 0
    assert all(value.isnan() for value in scores if value is not result["classes_evaluated"])
    assert metrics.curves() == ([None] * 4, None)


def test_curves_are_those_of_the_last_evaluation_and_keep_their_area():
    random = torch.Generator().manual_seed(0)
    target = (torch.rand(20_000, 2, generator=random) < torch.tensor([0.4, 0.01])).float()
    probabilities = (torch.randn(20_000, 2, generator=random) + 2 * target).sigmoid()
    metrics = ClassificationMetrics(("a", "b"), "multilabel")
    metrics.update(probabilities, target, everything(20_000))
    result = metrics.compute()
    metrics.reset()
    curves, micro = metrics.curves()
    for name, (recall, precision) in zip(("a", "b"), curves, strict=True):
        assert len(recall) <= 802
        assert recall[0] == 1
        assert recall[-1] == 0
        assert precision[0].item() == pytest.approx(result[f"support/{name}"].item() / 20_000)
        area = -(recall.diff() * precision[:-1]).sum()
        assert area.item() == pytest.approx(result[f"ap/{name}"].item(), abs=0.005)
    assert len(micro.recall) > 100


def _process(rank, folder, target):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous_{target}", rank=rank, world_size=2
    )
    metrics, shares = _metrics(target), ModalityShares(("s1", "s2"), CLASSES)
    # 13 samples and 27, and one more that the other process counts.
    part = slice(0, 13) if rank == 0 else slice(12, 40)
    counted = torch.ones(part.stop - part.start, dtype=torch.bool)
    if rank == 1:
        counted[0] = False
    _add(metrics, shares, target, part, counted)
    uneven = _metrics(target)  # one process has nothing at all to add
    if rank == 0:
        _add(uneven, None, target, slice(0, 40), everything(40))
    else:
        _add(uneven, None, target, slice(0, 1), ~everything(1))
    result = {"scores": metrics.compute(), "shares": shares.compute(), "uneven": uneven.compute()}
    torch.save(result | {"support": metrics.support}, folder / f"{target}_{rank}.pt")
    torch.distributed.destroy_process_group()


def _metrics(target):
    return ClassificationMetrics(CLASSES, target, 0.4 if target == "multilabel" else 0.5)


def _add(metrics, shares, target, part, counted):
    probabilities, truth = (values[part] for values in batch(3))
    if target == "multiclass":
        probabilities, truth = probabilities.softmax(dim=1), truth.argmax(dim=1)
    metrics.update(probabilities, truth, counted)
    if shares is not None:
        said = metrics.decision(probabilities)
        weights = {"s1": probabilities[:, :1], "s2": 1 - probabilities[:, :1]}
        predicted = said if target == "multilabel" else probabilities.argmax(dim=1)
        shares.update(weights, predicted, counted)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["multilabel", "multiclass"])
def test_two_processes_equal_one(tmp_path, target):
    torch.multiprocessing.spawn(_process, (tmp_path, target), nprocs=2)
    one, shares = _metrics(target), ModalityShares(("s1", "s2"), CLASSES)
    _add(one, shares, target, slice(0, 40), everything(40))
    options = {"rtol": 0, "atol": 0, "equal_nan": True}
    for rank in range(2):
        saved = torch.load(tmp_path / f"{target}_{rank}.pt", weights_only=True)
        torch.testing.assert_close(saved["scores"], one.compute(), **options)
        torch.testing.assert_close(saved["uneven"], one.compute(), **options)
        torch.testing.assert_close(saved["shares"], shares.compute(), **options)
        assert torch.equal(saved["support"], one.support)


def test_shares_of_labels_are_per_class_over_the_samples_given_it():
    shares = ModalityShares(("s1", "s2"), ("a", "b", "c"))
    s1 = torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.6, 0.7], [1.0, 1.0, 1.0]])
    given_to = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
    counted = torch.tensor([True, True, False])
    shares.update({"s1": s1, "s2": 1 - s1}, given_to, counted)
    result = {name: value.item() for name, value in shares.compute().items()}
    assert result["s1/a"] == pytest.approx(0.3)
    assert result["s1/b"] == pytest.approx(0.6)
    assert math.isnan(result["s1/c"])
    assert result["s1"] == pytest.approx((0.1 + 0.5 + 0.6) / 3)
    assert result["s1"] + result["s2"] == pytest.approx(1)


def test_shares_of_numbers_are_of_all_of_one_kind():
    shares = ModalityShares(("s1", "s2"))
    s1 = torch.tensor([0.2, 0.4, 1.0]).view(3, 1, 1, 1)
    counted = torch.ones(3, 2, 2, dtype=torch.bool)
    counted[2] = False
    shares.update({"s1": s1, "s2": 1 - s1}, torch.randn(3, 2, 2), counted)
    result = {name: value.item() for name, value in shares.compute().items()}
    assert result == pytest.approx({"s1": 0.3, "s2": 0.7})
    assert shares.total.shape == (2, 1)


def test_shares_of_one_label_each_are_those_of_class_indices():
    weights = {"s1": torch.rand(8, 1), "s2": torch.rand(1, 3)}
    predicted = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    counted = torch.tensor([True, False] * 4)
    by_index, by_label = (ModalityShares(("s1", "s2"), ("a", "b", "c")) for _ in range(2))
    by_index.update(weights, predicted, counted)
    by_label.update(weights, predicted[:, None] == torch.arange(3), counted)
    assert torch.equal(by_index.sums, by_label.sums)
    assert torch.equal(by_index.decisions, by_label.decisions)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Decision(CLASSES, "segmentation"), "multiclass or multilabel"),
        (lambda: Decision(CLASSES, "multilabel", {"lake": 0.5}), r"'lake' in threshold.*forest"),
        (lambda: Decision(CLASSES, "multilabel", 1.5), r"in \[0, 1\], got 1.5"),
        (lambda: Decision(CLASSES, "multilabel", {"sand": math.nan}), r"in \[0, 1\]"),
        (lambda: Decision(CLASSES, "multiclass", 0.4), "most probable class"),
        (
            lambda: ClassificationMetrics(CLASSES, "multilabel").update(
                torch.zeros(2, 3), torch.zeros(2, 3), everything(2)
            ),
            r"\(samples, 4\).*\(2, 3\)",
        ),
        (
            lambda: ClassificationMetrics(CLASSES, "multiclass").update(
                torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.int64), everything(2)
            ),
            r"target of shape \(samples\)",
        ),
        (
            lambda: ClassificationMetrics(CLASSES, "multiclass").update(
                torch.zeros(2, 4), torch.zeros(2, 3), everything(2)
            ),
            r"or \(samples, 4\) of shares, got \(2, 4\) and \(2, 3\)",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_model_that_answers_no_numbers_has_no_scores():
    """Sorted, NaN ranks first: a diverged model would get an average precision as if by chance."""
    metrics = ClassificationMetrics(("a", "b"), "multilabel")
    probabilities = torch.tensor([[0.9, float("nan")], [0.2, float("nan")], [0.4, float("nan")]])
    target = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    metrics.update(probabilities, target, torch.ones(3, dtype=torch.bool))
    results = metrics.compute()
    assert results["ap/a"] == 1
    for name in ("ap/b", "f1/b", "ap_macro", "ap_micro", "f1_macro", "f1_micro"):
        assert results[name].isnan(), name

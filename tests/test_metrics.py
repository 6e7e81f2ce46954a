"""Segmentation metrics against numbers by hand, and published conventions against each other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassF1Score, MulticlassJaccardIndex

from fusionlab.errors import InputError
from fusionlab.metrics import MeanLoss, SegmentationMetrics
from fusionlab.types import IGNORE_INDEX, soft_target

CLASSES = ("building", "water", "other")
SCORES = {"flair2": ("building", "water")}


def counted(matrix, scores=SCORES):
    """Metrics that have seen this confusion matrix, pixel by pixel."""
    metrics = SegmentationMetrics(CLASSES, scores)
    for true, row in enumerate(matrix):
        for predicted, n in enumerate(row):
            if n:
                metrics.update(torch.full((1, 1, n), predicted), torch.full((1, 1, n), true))
    assert metrics.confusion.tolist() == matrix
    return {name: value.item() for name, value in metrics.compute().items()}


def test_by_hand():
    result = counted([[5, 1, 2], [0, 3, 1], [4, 0, 6]])
    iou = [5 / 12, 3 / 5, 6 / 13]
    f1 = [10 / 17, 6 / 8, 12 / 19]
    assert result == pytest.approx(
        {
            "miou": sum(iou) / 3,
            "miou_flair2": sum(iou[:2]) / 2,
            "f1": sum(f1) / 3,
            "overall_accuracy": 14 / 22,
            **{f"iou/{name}": value for name, value in zip(CLASSES, iou, strict=True)},
            **{f"f1/{name}": value for name, value in zip(CLASSES, f1, strict=True)},
        }
    )


def test_conventions_differ():
    """FLAIR #2 keeps mistakes about pixels of the class it leaves out of the mean."""
    matrix = [[5, 1, 2], [0, 3, 1], [4, 0, 6]]
    official = (5 / (8 + 9 - 5) + 3 / (4 + 4 - 3)) / 2
    truth_ignored = (5 / (8 + 5 - 5) + 3 / (4 + 4 - 3)) / 2
    row_and_column_deleted = (5 / (6 + 5 - 5) + 3 / (3 + 4 - 3)) / 2
    assert len({official, truth_ignored, row_and_column_deleted}) == 3
    assert counted(matrix)["miou_flair2"] == pytest.approx(official)
    # What leaving the pixels out gives, for comparison.
    assert counted([*matrix[:2], [0, 0, 0]])["miou_flair2"] == pytest.approx(truth_ignored)


def test_a_class_that_does_not_occur_is_in_no_mean():
    result = counted([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert torch.tensor(result["iou/other"]).isnan()
    assert torch.tensor(result["f1/other"]).isnan()
    assert result["miou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert result["miou"] == result["miou_flair2"]


def test_a_class_only_predicted_counts_as_zero():
    result = counted([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    assert result["iou/other"] == 0
    assert result["miou"] == pytest.approx((3 / 4 + 1 + 0) / 3)


def test_nothing_seen_is_nan():
    assert all(torch.tensor(value).isnan() for value in counted([[0] * 3] * 3).values())


def random_batch(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 3, 6, 7, generator=generator)
    target = torch.randint(0, 4, (3, 6, 7), generator=generator)
    return logits, target.masked_fill(target == 3, IGNORE_INDEX)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_agrees_with_torchmetrics(seed):
    """Where all classes occur, or none is absent, conventions coincide."""
    logits, target = random_batch(seed)
    ours = SegmentationMetrics(CLASSES)
    ours.update(logits, target)
    result = ours.compute()
    kwargs = {"num_classes": 3, "ignore_index": IGNORE_INDEX, "average": "none"}
    iou = MulticlassJaccardIndex(**kwargs)(logits, target)
    f1 = MulticlassF1Score(**kwargs)(logits, target)
    torch.testing.assert_close(torch.stack([result[f"iou/{name}"] for name in CLASSES]), iou)
    torch.testing.assert_close(torch.stack([result[f"f1/{name}"] for name in CLASSES]), f1)
    torch.testing.assert_close(result["miou"], iou.mean())


def test_ignored_pixels_and_uncounted_samples_change_nothing():
    logits, target = random_batch(0)
    once = SegmentationMetrics(CLASSES)
    once.update(logits[:2], target[:2])
    again = SegmentationMetrics(CLASSES)
    again.update(logits, target, torch.tensor([True, True, False]))
    assert torch.equal(once.confusion, again.confusion)
    again.update(logits, torch.full_like(target, IGNORE_INDEX))
    assert torch.equal(once.confusion, again.confusion)
    assert once.confusion.sum() == (target[:2] != IGNORE_INDEX).sum()


def test_logits_and_class_maps_count_alike():
    logits, target = random_batch(1)
    a, b = SegmentationMetrics(CLASSES), SegmentationMetrics(CLASSES)
    a.update(logits, target)
    b.update(logits.argmax(dim=1).to(torch.uint8), target.to(torch.uint8))
    assert torch.equal(a.confusion, b.confusion)


def test_pixels_can_be_left_out():
    logits, target = random_batch(1)
    a, b = SegmentationMetrics(CLASSES), SegmentationMetrics(CLASSES)
    counted = torch.rand(target.shape) < 0.5
    a.update(logits, target, counted)
    b.update(logits, target.masked_fill(~counted, IGNORE_INDEX))
    assert torch.equal(a.confusion, b.confusion)
    assert 0 < a.confusion.sum() < (target != IGNORE_INDEX).sum()


def test_batches_add_up_and_reset():
    logits, target = random_batch(2)
    whole, parts = SegmentationMetrics(CLASSES), SegmentationMetrics(CLASSES)
    whole.update(logits, target)
    for i in range(3):
        parts.update(logits[i : i + 1], target[i : i + 1])
    assert torch.equal(whole.confusion, parts.confusion)
    parts.compute()
    parts.reset()
    assert not parts.confusion.any()
    assert torch.equal(parts.total, whole.confusion)


def _process(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    logits, target = random_batch(3)
    metrics = SegmentationMetrics(CLASSES, SCORES)
    part = slice(0, 2) if rank == 0 else slice(2, 3)
    metrics.update(logits[part], target[part])
    result = metrics.compute()
    torch.save({"result": result, "total": metrics.total}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    torch.multiprocessing.spawn(_process, (tmp_path,), nprocs=2)
    one = SegmentationMetrics(CLASSES, SCORES)
    one.update(*random_batch(3))
    expected = one.compute()
    for rank in range(2):
        saved = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(saved["total"], one.confusion)
        torch.testing.assert_close(saved["result"], expected, rtol=0, atol=0)


def test_a_mean_loss_is_weighted_and_shows_what_is_no_number():
    mean = MeanLoss()
    mean.update(torch.tensor(2.0), torch.tensor(30))
    mean.update(torch.tensor(6.0), torch.tensor(10))
    mean.update(torch.tensor(0.0), torch.tensor(0))  # nothing to compute a loss from
    assert mean.compute() == 3
    mean.update(torch.tensor(torch.nan), torch.tensor(0))
    assert mean.compute() == torch.inf
    mean.reset()
    mean.update(torch.tensor(1.0), torch.tensor(1))
    assert mean.compute() == 1
    assert MeanLoss()(torch.tensor(5.0), torch.tensor(0)).isnan()


def test_errors():
    with pytest.raises(InputError, match=r"'lake' in the score 'mine'.*building"):
        SegmentationMetrics(CLASSES, {"mine": ("lake",)})
    with pytest.raises(InputError, match="logits with 3 channels"):
        SegmentationMetrics(CLASSES).update(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2).long())


def test_a_target_out_of_range_is_an_error():
    with pytest.raises((RuntimeError, IndexError)):
        SegmentationMetrics(CLASSES).update(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 7))


def test_the_largest_share_of_a_pixel_counts():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 5, generator=generator)
    target = torch.randint(0, 3, (2, 5, 5), generator=generator)
    target[:, 2] = IGNORE_INDEX
    sharp = 0.6 * soft_target(target, 3)
    shares = sharp + 0.4 * soft_target(target.roll(1, 2), 3)
    hard, soft = SegmentationMetrics(CLASSES), SegmentationMetrics(CLASSES)
    hard.update(logits, target)
    soft.update(logits, shares)
    assert torch.equal(soft.confusion, hard.confusion)
    with pytest.raises(InputError, match="needs predictions of that shape"):
        soft.update(logits, shares[:, :2])

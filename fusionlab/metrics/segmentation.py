"""Segmentation metrics as the field computes them: from one confusion matrix over all pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX, class_indices, is_soft, largest_share


class SegmentationMetrics(Metric):
    """IoU, F1 and accuracy from the counts of all pixels seen, exact over any number of processes.

    `compute` gives, as scalars in [0, 1]:

    - ``miou``: the mean IoU over all classes that occur. A class occurs if it is in the target or
      in a prediction; one that does not has no IoU (NaN) and is left out of every mean.
    - ``miou_<name>`` for each published convention: the mean IoU over the classes it names. IoUs
      are those of the full matrix: a pixel whose true class the convention leaves out still is a
      false positive of the class it was taken for. So FLAIR #2 is scored (its first 12 of 13
      classes). Leaving those pixels out, or deleting a class's row and column, gives other numbers.
    - ``f1``: the mean F1 over all classes that occur; ``overall_accuracy``: the share of pixels
      that are right.
    - ``iou/<class>`` and ``f1/<class>`` for each class.

    Args:
        classes: class names in index order.
        scores: the classes each published convention averages over, by its name; see
            `Schema`.

    Attributes:
        confusion: int64 ``(K, K)``, pixels by true class (row) and predicted class (column), as
            counted by this process.
        total: the same summed over all processes; set by `compute`.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    confusion: Tensor
    total: Tensor
    averaged: Tensor

    def __init__(
        self, classes: Sequence[str], scores: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        k = len(self.classes)
        self.scores = tuple(scores or {})
        averaged = torch.zeros(len(self.scores), k, dtype=torch.bool)
        for row, (name, over) in zip(averaged, (scores or {}).items(), strict=True):
            row[class_indices(over, self.classes, where=f"the score {name!r}")] = True
        self.register_buffer("averaged", averaged, persistent=False)
        self.add_state("confusion", torch.zeros(k, k, dtype=torch.int64), dist_reduce_fx="sum")
        self.total = torch.zeros(k, k, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor, counted: Tensor | None = None) -> None:
        """Counts a batch, on its device and without waiting for it.

        Args:
            prediction: logits or probabilities, float ``(B, K, H, W)``, or class indices
                ``(B, H, W)`` in [0, K).
            target: ``(B, H, W)`` class indices or `IGNORE_INDEX`; or shares ``(B, K, H, W)``, of
                which the largest counts.
            counted: ``(B,)`` or ``(B, H, W)`` bool, False for samples that another process counts
                or pixels to leave out; all if None.

        Raises:
            InputError: if the shapes do not fit.
        """
        k = len(self.classes)
        if target.ndim > 1 and is_soft(target) and target.shape[1] == k:
            target = largest_share(target)
        if prediction.ndim == target.ndim + 1 and prediction.shape[1] == k:
            prediction = prediction.argmax(dim=1)
        if prediction.shape != target.shape:
            raise InputError(
                f"A target of shape {tuple(target.shape)} over {k} classes needs predictions of "
                f"that shape, or logits with {k} channels; got {tuple(prediction.shape)}."
            )
        valid = target != IGNORE_INDEX
        if counted is not None:
            valid = valid & counted.reshape(*counted.shape, *[1] * (target.ndim - counted.ndim))
        # Not bincount, which makes the host wait for the device to learn the largest index.
        cell = torch.where(valid, target.long() * k + prediction, 0)
        self.confusion.view(-1).scatter_add_(0, cell.flatten(), valid.flatten().long())

    def compute(self) -> dict[str, Tensor]:
        """All scores by name; NaN where nothing was seen to compute one from."""
        self.total = self.confusion.clone()
        right, true, predicted = self.total.diag(), self.total.sum(dim=1), self.total.sum(dim=0)
        iou = right / (true + predicted - right)
        f1 = 2 * right / (true + predicted)
        results = {"miou": iou.nanmean()}
        means = torch.where(self.averaged, iou, torch.nan).nanmean(dim=1)
        results |= {f"miou_{name}": mean for name, mean in zip(self.scores, means, strict=True)}
        results |= {"f1": f1.nanmean(), "overall_accuracy": right.sum() / true.sum()}
        results |= {f"iou/{name}": value for name, value in zip(self.classes, iou, strict=True)}
        results |= {f"f1/{name}": value for name, value in zip(self.classes, f1, strict=True)}
        return results

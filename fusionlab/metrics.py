"""Segmentation metrics as the field computes them: from one confusion matrix over all pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX, class_indices


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

    def __init__(
        self, classes: Sequence[str], scores: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.scores = {
            name: class_indices(over, self.classes, where=f"the score {name!r}")
            for name, over in (scores or {}).items()
        }
        k = len(self.classes)
        self.add_state("confusion", torch.zeros(k, k, dtype=torch.int64), dist_reduce_fx="sum")
        self.total = torch.zeros(k, k, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor, counted: Tensor | None = None) -> None:
        """Counts a batch, on its device and without waiting for it.

        Args:
            prediction: logits or probabilities, float ``(B, K, H, W)``, or class indices
                ``(B, H, W)`` in [0, K).
            target: ``(B, H, W)`` class indices or `IGNORE_INDEX`.
            counted: ``(B,)`` bool, False for samples that another process counts; all if None.

        Raises:
            InputError: if the shapes do not fit.
        """
        k = len(self.classes)
        if prediction.ndim == target.ndim + 1 and prediction.shape[1] == k:
            prediction = prediction.argmax(dim=1)
        if prediction.shape != target.shape:
            raise InputError(
                f"A target of shape {tuple(target.shape)} over {k} classes needs predictions of "
                f"that shape, or logits with {k} channels; got {tuple(prediction.shape)}."
            )
        valid = target != IGNORE_INDEX
        if counted is not None:
            valid = valid & counted.reshape(-1, *[1] * (target.ndim - 1))
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
        results |= {f"miou_{name}": iou[over].nanmean() for name, over in self.scores.items()}
        results |= {"f1": f1.nanmean(), "overall_accuracy": right.sum() / true.sum()}
        results |= {f"iou/{name}": value for name, value in zip(self.classes, iou, strict=True)}
        results |= {f"f1/{name}": value for name, value in zip(self.classes, f1, strict=True)}
        return results


class ModalityShares(Metric):
    """The mean share of each modality in the decision, overall and per predicted class.

    `compute` gives ``<modality>`` and ``<modality>/<class>`` as scalars in [0, 1]; NaN for a
    class that was never predicted.

    Args:
        modalities: names of the modalities.
        classes: class names in index order.

    Attributes:
        sums: int64 ``(M, K)``, summed shares by modality and predicted class, in millionths:
            whole numbers add up to the same on any number of processes.
        pixels: int64 ``(K,)``, pixels by predicted class.
        total: ``(M, K)`` mean shares over all processes; set by `compute`.
    """

    full_state_update = False
    sums: Tensor
    pixels: Tensor
    total: Tensor

    def __init__(self, modalities: Sequence[str], classes: Sequence[str]) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.classes = tuple(classes)
        m, k = len(self.modalities), len(self.classes)
        self.add_state("sums", torch.zeros(m, k, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros(k, dtype=torch.int64), dist_reduce_fx="sum")
        self.total = torch.full((m, k), torch.nan)

    def update(self, weights: Mapping[str, Tensor], predicted: Tensor, counted: Tensor) -> None:
        """Adds a batch.

        Args:
            weights: per modality, broadcastable to ``(B, K, H, W)`` or ``(B, K)``.
            predicted: ``(B, H, W)`` or ``(B,)`` predicted class indices.
            counted: bool of the same shape: which of them to count.
        """
        shape = (predicted.shape[0], len(self.classes), *predicted.shape[1:])
        index = torch.where(counted, predicted, 0).flatten()
        for row, name in zip(self.sums, self.modalities, strict=True):
            share = weights[name].expand(shape).gather(1, predicted[:, None]).squeeze(1)
            millionths = torch.where(counted, share.float() * 1e6, 0).round().long()
            row.scatter_add_(0, index, millionths.flatten())
        self.pixels.scatter_add_(0, index, counted.flatten().long())

    def compute(self) -> dict[str, Tensor]:
        """All mean shares by name."""
        self.total = self.sums / 1e6 / self.pixels
        overall = self.sums.sum(1) / 1e6 / self.pixels.sum()
        results = dict(zip(self.modalities, overall, strict=True))
        for name, row in zip(self.modalities, self.total, strict=True):
            results |= {f"{name}/{c}": value for c, value in zip(self.classes, row, strict=True)}
        return results

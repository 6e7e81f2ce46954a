"""Metrics of classified samples: average precision, F1 and support per class and over all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_precision_recall_curve,
    multiclass_confusion_matrix,
)
from torchmetrics.utilities import dim_zero_cat

from fusionlab.errors import InputError
from fusionlab.metrics.decision import Decision, one_hot
from fusionlab.types import IGNORE_INDEX, Target, is_soft, largest_share


class Curve(NamedTuple):
    """Precision by recall, from the least probable sample to the most probable.

    Attributes:
        recall: ``(N,)``, falling from 1 to 0.
        precision: ``(N,)``; the first is the share of the samples to which the class applies. Each
            holds down to the next recall.
    """

    recall: Tensor
    precision: Tensor

    def numpy(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The same as arrays."""
        return self.recall.cpu().numpy(), self.precision.cpu().numpy()


class ClassificationMetrics(Metric):
    """Average precision, precision, recall and F1, exact over any number of processes and batches.

    `compute` gives, as scalars:

    - ``ap/<class>``: average precision, ``Σ (R_n - R_(n-1)) P_n`` over all distinct probabilities
      (no interpolation, no grid of thresholds); ``ap_macro``, its mean over classes, and
      ``ap_micro``, that of all pairs of sample and class taken together.
    - ``f1/<class>``, ``f1_macro`` and ``f1_micro``, of the classes that `Decision` gives.
    - ``precision/<class>``, the share of the samples that were given the class to which it applies,
      0 if it was given to none; ``recall/<class>``, the share of those to which it applies that
      were given it.
    - ``precision_weighted``, ``recall_weighted`` and ``f1_weighted``: the means over classes,
      weighted by support. (``average="weighted"`` of scikit-learn.)
    - ``support/<class>``: samples to which the class applies. A class without any has none of these
      scores (NaN) and is left out of the macro means; ``classes_evaluated`` says over how many they
      go. The micro scores leave nothing out: what such a class is wrongly given to counts there.
    - ``overall_accuracy``, the share of samples that are right, for multiclass targets only; there
      average precision is that of each class against the rest, and ``f1_micro`` equals it.

    Args:
        classes: class names in index order.
        target: ``multiclass`` or ``multilabel``.
        threshold: see `Decision`.

    Attributes:
        decision: how probabilities become classes.
        total: for multiclass targets, int64 ``(K, K)``, samples by true class (row) and predicted
            class (column) over all processes; set by `compute`. None for multilabel ones.
        support: int64 ``(K,)``, samples per class over all processes; set by `compute`.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    probabilities: list[Tensor]
    target: list[Tensor]
    counted: list[Tensor]
    total: Tensor | None

    def __init__(
        self,
        classes: Sequence[str],
        target: Target,
        threshold: float | Mapping[str, float] = 0.5,
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.decision = Decision(self.classes, target, threshold)
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")
        self.add_state("counted", [], dist_reduce_fx="cat")
        k = len(self.classes)
        self.total = None if self.decision.multilabel else torch.zeros(k, k, dtype=torch.int64)
        self.support = torch.zeros(k, dtype=torch.int64)
        self._last = torch.zeros(0, k), torch.zeros(0, k, dtype=torch.bool)

    def update(self, probabilities: Tensor, target: Tensor, counted: Tensor) -> None:
        """Adds a batch, on its device and without waiting for it.

        Args:
            probabilities: float ``(B, K)``.
            target: ``(B,)`` class indices for multiclass targets, or shares ``(B, K)``, of which
                the largest counts; ``(B, K)`` for multilabel ones, where 0.5 and more means that a
                class applies.
            counted: ``(B,)`` bool, which samples count; False where a class index is unknown.

        Raises:
            InputError: if the shapes do not fit.
        """
        k, multilabel = len(self.classes), self.decision.multilabel
        per_class = multilabel or is_soft(target)
        expected = (len(probabilities), k) if per_class else (len(probabilities),)
        if probabilities.shape[1:] != (k,) or target.shape != expected:
            wanted = f"(samples, {k})" if multilabel else f"(samples), or (samples, {k}) of shares"
            raise InputError(
                f"Metrics over {k} classes need probabilities of shape (samples, {k}) and a target "
                f"of shape {wanted}, got {tuple(probabilities.shape)} and {tuple(target.shape)}."
            )
        if not multilabel:
            target = largest_share(target)
            counted = counted & (target != IGNORE_INDEX)
        applies = target >= 0.5 if multilabel else one_hot(target, k)
        self.probabilities.append(probabilities.float())
        self.target.append(applies)
        self.counted.append(counted)

    def compute(self) -> dict[str, Tensor]:
        """All scores by name; NaN where nothing was seen to compute one from.

        Raises:
            InputError: if a sample that counts has the index of no class.
        """
        probabilities, target = self._last = self._seen()
        labels = self.decision(probabilities)
        self.support, given = target.sum(dim=0), labels.sum(dim=0)
        right = (labels & target).sum(dim=0)
        absent = self.support == 0
        ap = torch.stack([_ap(p, t) for p, t in zip(probabilities.T, target.T, strict=True)])
        # What is no number ranks first when sorted, and would pass for a score.
        finite = probabilities.isfinite().all(dim=0)
        per_class = {
            "ap": ap,
            "f1": 2 * right / (self.support + given),
            "precision": right / given.clamp(min=1),
            "recall": right / self.support,
        }
        per_class = {n: v.masked_fill(absent | ~finite, math.nan) for n, v in per_class.items()}
        ap, f1 = per_class["ap"], per_class["f1"]
        number = torch.where(finite.all(), 1.0, math.nan)
        weights = self.support / self.support.sum()
        results = {
            "ap_macro": ap.nanmean() * number,
            "ap_micro": _ap(probabilities.flatten(), target.flatten()) * number,
            "f1_macro": f1.nanmean() * number,
            "f1_micro": 2 * right.sum() / (self.support + given).sum() * number,
            **{
                f"{name}_weighted": (per_class[name].nan_to_num(0) * weights).sum() * number
                for name in ("precision", "recall", "f1")
            },
            "classes_evaluated": (~absent).sum().float(),
        }
        if self.total is not None:
            results["overall_accuracy"] = right.sum() / len(target)
            true, predicted = target.long().argmax(dim=1), labels.long().argmax(dim=1)
            self.total = multiclass_confusion_matrix(
                predicted, true, len(self.classes), validate_args=False
            )
        for name, values in {**per_class, "support": self.support.float()}.items():
            results |= {f"{name}/{c}": v for c, v in zip(self.classes, values, strict=True)}
        return results

    def _seen(self) -> tuple[Tensor, Tensor]:
        """Probabilities and target of all samples that count."""
        if not len(self.counted):
            return self._last[0][:0], self._last[1][:0]
        counted = dim_zero_cat(self.counted)
        target = dim_zero_cat(self.target)[counted]
        if not self.decision.multilabel and not target.any(dim=1).all():
            raise InputError(
                f"There are {len(self.classes)} classes, but a target is the index of none of "
                f"them: use 0 to {len(self.classes) - 1}, or {IGNORE_INDEX} where it is unknown."
            )
        return dim_zero_cat(self.probabilities)[counted], target

    def curves(self) -> tuple[list[Curve | None], Curve | None]:
        """Precision by recall over all processes at the last `compute`, thinned for drawing.

        Returns:
            One per class, None where it applies to no sample; and one of all pairs of sample and
            class.
        """
        probabilities, target = self._last
        classes = [_curve(p, t) for p, t in zip(probabilities.T, target.T, strict=True)]
        return classes, _curve(probabilities.flatten(), target.flatten())


def _ap(probabilities: Tensor, target: Tensor) -> Tensor:
    if not target.any():
        return torch.tensor(math.nan, device=target.device)
    return binary_average_precision(probabilities, target.long(), validate_args=False)


def _curve(probabilities: Tensor, target: Tensor) -> Curve | None:
    if not target.any():
        return None
    precision, recall, _ = binary_precision_recall_curve(
        probabilities, target.long(), validate_args=False
    )
    # Both ends of every 400th of recall: what is between cannot be seen.
    step = (recall * 400).floor().diff() != 0
    there = torch.ones(1, dtype=torch.bool, device=step.device)
    kept = torch.cat([there, step]) | torch.cat([step, there])
    return Curve(recall[kept], precision[kept])

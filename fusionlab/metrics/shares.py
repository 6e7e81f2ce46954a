"""How much each modality contributed to the decisions that were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class ModalityShares(Metric):
    """The mean share of each modality in the decisions, overall and per class or variable.

    A decision is a pixel or a sample and the class that it was given; where any number of classes
    may be given, each of them is a decision. Where numbers are predicted, each of them is one.

    `compute` gives ``<modality>`` and ``<modality>/<name>`` as scalars in [0, 1]; NaN for a class
    that was never predicted.

    Args:
        modalities: names of the modalities.
        names: of the classes in index order, or of the variables that numbers are predicted of;
            none where those are all of one kind (``K`` is 1).

    Attributes:
        sums: int64 ``(M, K)``, summed shares by modality and name, in millionths: whole numbers
            add up to the same on any number of processes.
        decisions: int64 ``(K,)``, decisions by name.
        total: ``(M, K)`` mean shares over all processes; set by `compute`.
    """

    full_state_update = False
    sums: Tensor
    decisions: Tensor
    total: Tensor

    def __init__(self, modalities: Sequence[str], names: Sequence[str] = ()) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.names = tuple(names)
        m, k = len(self.modalities), max(1, len(self.names))
        self.add_state("sums", torch.zeros(m, k, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("decisions", torch.zeros(k, dtype=torch.int64), dist_reduce_fx="sum")
        self.total = torch.full((m, k), torch.nan)

    def update(self, weights: Mapping[str, Tensor], predicted: Tensor, counted: Tensor) -> None:
        """Adds a batch.

        Args:
            weights: per modality, broadcastable to ``(B, K, H, W)`` or ``(B, K)``.
            predicted: predicted class indices, ``(B, H, W)`` or ``(B,)``; or ``(B, K)`` bool, the
                classes that were given to each sample; or numbers, float ``(B, K, H, W)`` or
                ``(B, K)``, where ``K`` may be left out if it is 1.
            counted: which of them to count, bool of the same shape; ``(B,)`` for bool predictions.
        """
        if predicted.is_floating_point():
            left_out = predicted.ndim < max(weight.ndim for weight in weights.values())
            self._add_labels(weights, counted[:, None] if left_out else counted)
        elif predicted.dtype == torch.bool:
            self._add_labels(weights, predicted & counted[:, None])
        else:
            self._add_classes(weights, predicted, counted)

    def _add_classes(
        self, weights: Mapping[str, Tensor], predicted: Tensor, counted: Tensor
    ) -> None:
        shape = (predicted.shape[0], len(self.decisions), *predicted.shape[1:])
        index = torch.where(counted, predicted, 0).flatten()
        for row, name in zip(self.sums, self.modalities, strict=True):
            share = weights[name].expand(shape).gather(1, predicted[:, None]).squeeze(1)
            row.scatter_add_(0, index, _millionths(share, counted).flatten())
        self.decisions.scatter_add_(0, index, counted.flatten().long())

    def _add_labels(self, weights: Mapping[str, Tensor], labels: Tensor) -> None:
        others = [axis for axis in range(labels.ndim) if axis != 1]
        for row, name in zip(self.sums, self.modalities, strict=True):
            row += _millionths(weights[name].expand(labels.shape), labels).sum(dim=others)
        self.decisions += labels.sum(dim=others)

    def compute(self) -> dict[str, Tensor]:
        """All mean shares by name."""
        self.total = self.sums / 1e6 / self.decisions
        overall = self.sums.sum(1) / 1e6 / self.decisions.sum()
        results = dict(zip(self.modalities, overall, strict=True))
        for name, row in zip(self.modalities, self.total, strict=True):
            of_names = zip(self.names, row[: len(self.names)], strict=True)
            results |= {f"{name}/{n}": value for n, value in of_names}
        return results


def _millionths(share: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, share.float() * 1e6, 0).round().long()

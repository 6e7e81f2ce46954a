"""The mean of a loss over an evaluation."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanLoss(Metric):
    """Mean of losses of batches, weighted by how much each was computed from.

    So it does not depend on how samples were batched. A loss that is no number makes the mean
    infinite, whatever its weight: it must show, and never passes for the best. Unlike torchmetrics'
    mean it does not make the host wait for the device to find out.

    Attributes:
        total: float32 scalar, the weighted sum.
        weight: int64 scalar, what it was computed from: pixels, or samples.
    """

    full_state_update = False
    higher_is_better = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float32), dist_reduce_fx="sum")
        self.add_state("weight", torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, weight: Tensor) -> None:
        """Adds a batch.

        Args:
            loss: scalar, a mean over the batch.
            weight: integer scalar, the number of pixels or samples that it is the mean of.
        """
        infinite = torch.full_like(loss, torch.inf)
        self.total += torch.where(loss.isnan(), infinite, loss * weight)
        self.weight += weight

    def compute(self) -> Tensor:
        """The mean; NaN where nothing was added."""
        return self.total / self.weight

"""Targets of data that list classes, or variables, in another order than the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionlab.types import IGNORE_INDEX, Schema, is_soft


class TargetOrder(nn.Module):
    """Brings targets into the order of the model, on their device and without waiting for it.

    Args:
        data: what they deliver; they may name no classes or variables.
        model: what the model was trained on: the same names, in its order.
    """

    table: Tensor | None
    channels: Tensor | None

    def __init__(self, data: Schema, model: Schema) -> None:
        super().__init__()
        given, wanted = data.outputs, model.outputs
        self.columns = model.target not in ("segmentation", "multiclass")
        table = channels = None
        if given and given != wanted:
            channels = torch.tensor([given.index(name) for name in wanted])
            if not self.columns:
                table = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX)
                table[: len(given)] = torch.tensor([wanted.index(name) for name in given])
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("channels", channels, persistent=False)

    def forward(self, target: Tensor) -> Tensor:
        """Class indices of any shape; or shares or values ``(B, K, ...)`` per class or variable."""
        if self.channels is None:
            return target
        if self.table is None or is_soft(target):
            return target.index_select(1, self.channels)
        return self.table[target]

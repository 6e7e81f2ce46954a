"""Targets of data that list classes, or variables, in another order than the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionlab.types import IGNORE_INDEX, Schema


class TargetOrder(nn.Module):
    """Brings targets into the order of the model, on their device and without waiting for it.

    Args:
        data: what they deliver; they may name no classes or variables.
        model: what the model was trained on: the same names, in its order.
    """

    table: Tensor | None

    def __init__(self, data: Schema, model: Schema) -> None:
        super().__init__()
        given, wanted = data.outputs, model.outputs
        self.columns = model.target not in ("segmentation", "multiclass")
        table = None
        if given and given != wanted:
            if self.columns:
                table = torch.tensor([given.index(name) for name in wanted])
            else:
                table = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX)
                table[: len(given)] = torch.tensor([wanted.index(name) for name in given])
        self.register_buffer("table", table, persistent=False)

    def forward(self, target: Tensor) -> Tensor:
        """Class indices of any shape; or values per class or variable, ``(B, K, ...)``."""
        if self.table is None:
            return target
        return target.index_select(1, self.table) if self.columns else self.table[target]

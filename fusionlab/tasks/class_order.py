"""Targets of data that list the classes in another order than the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusionlab.types import IGNORE_INDEX, Target


class ClassOrder(nn.Module):
    """Brings targets into the class order of the model, on their device and without waiting for it.

    Args:
        data: class names in the order of the data; empty where these do not name them.
        model: the same names in the order of the model.
        target: what the target says.
    """

    table: Tensor | None

    def __init__(self, data: Sequence[str], model: Sequence[str], target: Target) -> None:
        super().__init__()
        self.columns = target == "multilabel"
        table = None
        if data and tuple(data) != tuple(model):
            if self.columns:
                table = torch.tensor([data.index(name) for name in model])
            else:
                table = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX)
                table[: len(data)] = torch.tensor([model.index(name) for name in data])
        self.register_buffer("table", table, persistent=False)

    def forward(self, target: Tensor) -> Tensor:
        """Class indices of any shape; or, if multilabel, ``(B, K)`` values per class."""
        if self.table is None:
            return target
        return target.index_select(1, self.table) if self.columns else self.table[target]

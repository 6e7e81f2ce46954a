"""Which sample of a batch is mixed with which, to which shares, and where."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fusionlab.types import IGNORE_INDEX, Batch, Schema, TimeSeries, is_soft

_MOST_OFFSET = 0.5  # pixels by which offsets of two samples may differ


class Plan(NamedTuple):
    """What is drawn for a batch, on the host; it moves to the device with the batch.

    Attributes:
        partner: ``(B,)`` int64, the sample that each one is mixed with.
        share: ``(B,)`` float32 in [0, 1], of the sample itself; 1 leaves it as it is.
        same_dates: per series ``(B,)`` bool, whether it has the dates of its partner's.
        categorical: per table ``(F,)`` bool, which columns hold categories.
        windows: per modality ``(B, 4)`` int64, where pixels of the partner are pasted: first row,
            end of rows, first column, end of columns; none where images are interpolated.
        target_window: the same of a target that is a map.
    """

    partner: Tensor
    share: Tensor
    same_dates: dict[str, Tensor]
    categorical: dict[str, Tensor]
    windows: dict[str, Tensor]
    target_window: Tensor | None


def mixable(batch: Batch, partner: Tensor) -> Tensor:
    """Which samples can be mixed with their partners, ``(B,)`` bool.

    None can be with itself; nor two of which other modalities are available, or whose images lie
    otherwise under the sample, or one of which has no known class.
    """
    can = partner != torch.arange(len(partner))
    for there in batch["available"].values():
        can &= there == there[partner]
    for offset in batch.get("offset", {}).values():
        can &= ((offset - offset[partner]).abs() <= _MOST_OFFSET).all(dim=1)
    target = batch["target"]
    if target.ndim == 1 and not is_soft(target):
        known = target != IGNORE_INDEX
        can &= known & known[partner]
    return can


def same_dates(batch: Batch, partner: Tensor) -> dict[str, Tensor]:
    """Per series, whether the dates of a sample are those of its partner, ``(B,)`` bool."""
    return {
        name: (
            (series.valid == series.valid[partner])
            & ((series.dates == series.dates[partner]) | ~series.valid)
        ).all(dim=1)
        for name, series in batch["inputs"].items()
        if isinstance(series, TimeSeries)
    }


def categorical(schema: Schema) -> dict[str, Tensor]:
    """Per table, which of its columns hold categories, ``(F,)`` bool."""
    return {
        name: torch.tensor([column in modality.categories for column in modality.bands])
        for name, modality in schema.modalities.items()
        if modality.kind == "table"
    }

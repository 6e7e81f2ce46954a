"""What an expert that trains is shown in the place of samples whose modality is missing.

A missing modality is delivered as zeros. Its result is masked later on, but statistics over the
batch (BatchNorm) would learn from the zeros. Other samples of the batch stand in instead: they add
nothing that the batch does not have, shapes stay constant, and the device need not be waited for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fusionlab.fusion.stand_ins import stand_ins
from fusionlab.types import Batch, TimeSeries


def with_stand_ins(batch: Batch, modality: str) -> Batch:
    """The batch with other samples' values in the place of missing ones, in one modality.

    Whoever uses the answers must leave out those for missing samples. Texts stay as they are: an
    empty one is a text, and nothing that reads them keeps statistics over the batch.
    """
    values = batch["inputs"][modality]
    if isinstance(values, list):
        return batch
    index = stand_ins(batch["available"][modality])
    filled: Tensor | TimeSeries
    if isinstance(values, TimeSeries):
        filled = TimeSeries(*(_take(part, index) for part in values))
    else:
        filled = _take(values, index)
    return {**batch, "inputs": {**batch["inputs"], modality: filled}}


def _take(values: Tensor, index: Tensor) -> Tensor:
    # Few operations know unsigned integers of more than a byte; their bits are copied as they are.
    signed = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
    if values.dtype in signed:
        return values.view(signed[values.dtype]).index_select(0, index).view(values.dtype)
    return values.index_select(0, index)

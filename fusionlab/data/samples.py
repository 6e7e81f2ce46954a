"""Samples, what is taken from them, and how they become a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from fusionlab.types import Batch, TimeSeries

Sample = dict[str, Any]
"""One element of a `Batch`, without the batch axis."""
Transform = Callable[[Sample], Sample]
"""Takes and returns a sample; augmentation moves every image, series and mask in it together."""


class Without(Dataset[Sample]):
    """Samples from which some modalities are taken away.

    Args:
        dataset: the whole samples.
        modalities: names of what is taken away.
    """

    def __init__(self, dataset: Dataset[Sample], modalities: Sequence[str]) -> None:
        self.dataset = dataset
        self.modalities = tuple(modalities)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        return without(self.dataset[index], self.modalities)


def without(sample: Sample, modalities: Sequence[str]) -> Sample:
    """A new sample in which some modalities are zeros and not available.

    A series shrinks to one date that is not valid.
    """
    inputs, available = dict(sample["inputs"]), dict(sample["available"])
    for name in modalities:
        inputs[name] = blank(inputs[name])
        available[name] = torch.tensor(False)
    return {**sample, "inputs": inputs, "available": available}


def blank(value: Tensor | TimeSeries | str) -> Tensor | TimeSeries | str:
    """What stands for a missing input: zeros, an empty text; of a series one date, not valid."""
    if isinstance(value, str):
        return ""
    if isinstance(value, TimeSeries):
        return TimeSeries(*(torch.zeros_like(part[:1]) for part in value))
    return torch.zeros_like(value)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples into a batch; series of different lengths are padded and marked invalid.

    Works on nested dicts. Text stays a list. Tensors of one key must share their shape, except for
    the time axis of a `TimeSeries`.
    """
    return _collate(list(samples))  # type: ignore[no-any-return]


def _collate(values: list[Any]) -> Any:  # noqa: ANN401
    first = values[0]
    if isinstance(first, TimeSeries):
        return _collate_series(values)
    if isinstance(first, Mapping):
        return {key: _collate([value[key] for value in values]) for key in first}
    if isinstance(first, str):
        return values
    return default_collate(values)


def _collate_series(series: Sequence[TimeSeries]) -> TimeSeries:
    longest = max(len(s.dates) for s in series)
    shape = (len(series), longest)
    values = series[0].values.new_zeros((*shape, *series[0].values.shape[1:]))
    dates = series[0].dates.new_zeros(shape)
    valid = torch.zeros(shape, dtype=torch.bool)
    for row, item in enumerate(series):
        steps = len(item.dates)
        values[row, :steps] = item.values
        dates[row, :steps] = item.dates
        valid[row, :steps] = item.valid
    return TimeSeries(values, dates, valid)

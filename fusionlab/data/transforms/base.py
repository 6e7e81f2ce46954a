"""What every transform of samples has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from torch import Tensor

from fusionlab.data.samples import Sample
from fusionlab.types import Schema, TimeSeries


class SampleTransform(ABC):
    """A transform that a configuration can name without its module."""

    def bound(self, schema: Schema) -> Self:
        """The transform for samples of a schema, which knows what they do not: pixel sizes, units.

        Args:
            schema: what the data module delivers.

        Returns:
            Itself, where it need not know.

        Raises:
            InputError: if it cannot be used on such samples.
        """
        return self

    @abstractmethod
    def __call__(self, sample: Sample) -> Sample:
        """A new sample; the one given is not changed."""


def is_map(value: Tensor | TimeSeries | str) -> bool:
    """Whether a value of a sample has rows and columns of pixels."""
    if isinstance(value, str):
        return False
    if isinstance(value, TimeSeries):
        return value.values.ndim == 4
    return value.ndim >= 2

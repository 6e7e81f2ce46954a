"""A neck that keeps some of the features."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusionlab.features import Feature
from fusionlab.necks.base import Neck, checked_indices


class SelectIndices(Neck):
    """Keeps the features at these positions, in this order.

    Args:
        features: descriptions of the tensors it gets, in any layout.
        indices: positions from 0, or from -1 backwards; one may occur more than once.

    Raises:
        InputError: if a position does not exist, or none is given.
    """

    def __init__(self, features: Sequence[Feature], *, indices: Sequence[int]) -> None:
        super().__init__(features)
        where = "SelectIndices indices"
        self.indices = checked_indices(indices, len(self.received), where=where)
        self.features = tuple(self.received[i] for i in self.indices)

    def convert(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """The tensors at `indices`, unchanged."""
        return [features[i] for i in self.indices]

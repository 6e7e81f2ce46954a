"""Classes, or values of variables, of whole samples, from all cells of a map of one size."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusionlab.features import checked_map_size, flattened
from fusionlab.heads.base import Head, checked_rate, checked_widths
from fusionlab.heads.classification import ClassificationHead


class FlattenHead(Head):
    """Flattens a map, then linear layers with ReLU, dropout and a linear layer.

    Every cell has weights of its own, so maps of one size are taken only; `ClassificationHead`
    takes any.

    Args:
        channels: width of the map.
        names: of classes, or of variables that are regressed.
        size: rows and columns of the map: two numbers, or one for both.
        dim_list: widths of the hidden layers; none by default.
        dropout: probability in [0, 1), before the last layer.

    Raises:
        InputError: if there is no name, for no such size, widths below 1, or a dropout outside
            [0, 1); when applied, for a map of another size.
    """

    kind = "sample"

    def __init__(
        self,
        channels: int,
        names: Sequence[str],
        *,
        size: int | Sequence[int],
        dim_list: Sequence[int] | None = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(channels, names)
        self.size = self.map_size = checked_map_size(size, where="FlattenHead size")
        self.layers = ClassificationHead(
            channels * self.size[0] * self.size[1],
            names,
            dim_list=checked_widths(dim_list, where="FlattenHead dim_list"),
            dropout=checked_rate(dropout, where="FlattenHead"),
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, rows, columns)`` to ``(B, K)``."""
        vectors = flattened(
            features, self.channels, self.size, where="FlattenHead", instead="ClassificationHead"
        )
        logits: Tensor = self.layers(vectors)
        return logits

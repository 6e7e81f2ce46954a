"""Classes, or values of variables, of whole samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fusionlab.heads.base import Head, checked_widths, dropout_layer


class ClassificationHead(Head):
    """Optional linear layers with ReLU, dropout, a linear layer, and a mean over positions.

    For classes and for scalar regression alike: logits and values come out of the same layers, and
    the loss decides which they are. Prefix tokens count as positions: leave them out before with a
    neck (ReshapeTokensToImage, AggregateTokens).

    Args:
        channels: width of the features.
        names: of classes, or of variables that are regressed.
        dim_list: widths of the hidden layers; none by default.
        dropout: probability in [0, 1), before the last layer.
        linear_after_pool: whether the mean comes before the layers, which then see one embedding
            per sample; otherwise they see every position, and their answers are averaged. Both are
            the same while there are no hidden layers.

    Raises:
        InputError: if there is no name, for widths below 1, or for a dropout outside [0, 1).
    """

    kind = "sample"

    def __init__(
        self,
        channels: int,
        names: Sequence[str],
        *,
        dim_list: Sequence[int] | None = (),
        dropout: float = 0.0,
        linear_after_pool: bool = False,
    ) -> None:
        super().__init__(channels, names)
        widths = (channels, *checked_widths(dim_list, where="ClassificationHead dim_list"))
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())
                for inputs, outputs in pairwise(widths)
            )
        )
        self.dropout = dropout_layer(dropout, where=type(self).__name__)
        self.linear = nn.Linear(widths[-1], len(self.names))
        self.linear_after_pool = linear_after_pool

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C)``, ``(B, N, C)`` or ``(B, C, H, W)`` to ``(B, K)``."""
        if self.linear_after_pool:
            pooled: Tensor = self.linear(self.dropout(self.blocks(self.average(features))))
            return pooled
        each: Tensor = self.linear(self.dropout(self.blocks(self.positions(features))))
        return each.mean(dim=1)

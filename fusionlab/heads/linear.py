"""Linear probing: one linear layer on embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fusionlab.heads.base import Head, dropout_layer


class LinearHead(Head):
    """Layer normalisation, dropout and one linear layer: linear probing of embeddings.

    Tokens and maps are averaged over their positions first.

    Args:
        channels: width of the embedding.
        names: of classes, or of variables that are regressed.
        norm: whether there is a layer normalisation.
        dropout: probability in [0, 1), before the linear layer.

    Raises:
        InputError: if there is no name, or for a dropout outside [0, 1).
    """

    kind = "sample"

    def __init__(
        self, channels: int, names: Sequence[str], *, norm: bool = True, dropout: float = 0.15
    ) -> None:
        super().__init__(channels, names)
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()
        self.dropout = dropout_layer(dropout, where=type(self).__name__)
        self.linear = nn.Linear(channels, len(self.names))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C)``, ``(B, N, C)`` or ``(B, C, H, W)`` to ``(B, K)``."""
        logits: Tensor = self.linear(self.dropout(self.norm(self.average(features))))
        return logits

"""A small network on embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.heads.base import Head, dropout_layer


class MLPHead(Head):
    """Layer normalisation, a hidden layer with ReLU and dropout, and a linear layer.

    Tokens and maps are averaged over their positions first.

    Args:
        channels: width of the embedding.
        names: of classes, or of variables that are regressed.
        hidden: width of the hidden layer.
        dropout: probability in [0, 1), after the hidden layer.

    Raises:
        InputError: if there is no name or no hidden channel, or for a dropout outside [0, 1).
    """

    kind = "sample"

    def __init__(
        self, channels: int, names: Sequence[str], *, hidden: int = 512, dropout: float = 0.15
    ) -> None:
        super().__init__(channels, names)
        if hidden < 1:
            raise InputError(f"MLPHead hidden must be 1 or more, got {hidden}.")
        self.norm = nn.LayerNorm(channels)
        self.hidden = nn.Linear(channels, hidden)
        self.dropout = dropout_layer(dropout, where=type(self).__name__)
        self.linear = nn.Linear(hidden, len(self.names))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C)``, ``(B, N, C)`` or ``(B, C, H, W)`` to ``(B, K)``."""
        hidden = self.hidden(self.norm(self.average(features))).relu()
        logits: Tensor = self.linear(self.dropout(hidden))
        return logits

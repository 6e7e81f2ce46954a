"""Classification heads: from an embedding to class logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor, nn

from fusionlab.component import Component
from fusionlab.errors import InputError


class Head(Component):
    """Embeddings ``(B, D)`` in, logits ``(B, K)`` out.

    Args:
        channels: width D of the embedding.
        classes: class names in index order.

    Raises:
        InputError: if there is no class.
    """

    supplied: ClassVar[tuple[str, ...]] = ("channels", "classes")

    def __init__(self, channels: int, classes: Sequence[str]) -> None:
        super().__init__()
        if not classes:
            raise InputError(f"{type(self).__name__} needs at least one class.")
        self.channels = channels
        self.classes = tuple(classes)

    def forward(self, embedding: Tensor) -> Tensor:
        """``(B, D)`` to ``(B, K)``."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward().")


class LinearHead(Head):
    """Layer normalisation, dropout and one linear layer.

    Args:
        channels: width of the embedding.
        classes: class names.
        norm: whether there is a layer normalisation.
        dropout: probability, before the linear layer.
    """

    def __init__(
        self, channels: int, classes: Sequence[str], *, norm: bool = True, dropout: float = 0.15
    ) -> None:
        super().__init__(channels, classes)
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, len(self.classes))

    def forward(self, embedding: Tensor) -> Tensor:
        """``(B, D)`` to ``(B, K)``."""
        logits: Tensor = self.linear(self.dropout(self.norm(embedding)))
        return logits


class MLPHead(Head):
    """Layer normalisation, a hidden layer with ReLU and dropout, and a linear layer.

    Args:
        channels: width of the embedding.
        classes: class names.
        hidden: width of the hidden layer.
        dropout: probability, after the hidden layer.
    """

    def __init__(
        self, channels: int, classes: Sequence[str], *, hidden: int = 512, dropout: float = 0.15
    ) -> None:
        super().__init__(channels, classes)
        self.norm = nn.LayerNorm(channels)
        self.hidden = nn.Linear(channels, hidden)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, len(self.classes))

    def forward(self, embedding: Tensor) -> Tensor:
        """``(B, D)`` to ``(B, K)``."""
        logits: Tensor = self.linear(self.dropout(self.hidden(self.norm(embedding)).relu()))
        return logits


HeadFactory = Callable[[int, Sequence[str]], Head]
"""In YAML: ``class_path`` and ``init_args``; width and class names are supplied when built."""

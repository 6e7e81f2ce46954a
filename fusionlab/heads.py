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
    """Layer normalisation, dropout and one linear layer: linear probing of embeddings.

    Args:
        channels: width of the embedding.
        classes: class names.
        norm: whether there is a layer normalisation.
        dropout: probability in [0, 1), before the linear layer.

    Raises:
        InputError: if there is no class, or for a dropout outside [0, 1).
    """

    def __init__(
        self, channels: int, classes: Sequence[str], *, norm: bool = True, dropout: float = 0.15
    ) -> None:
        super().__init__(channels, classes)
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()
        self.dropout = _dropout(dropout, where=type(self).__name__)
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
        dropout: probability in [0, 1), after the hidden layer.

    Raises:
        InputError: if there is no class or no hidden channel, or for a dropout outside [0, 1).
    """

    def __init__(
        self, channels: int, classes: Sequence[str], *, hidden: int = 512, dropout: float = 0.15
    ) -> None:
        super().__init__(channels, classes)
        if hidden < 1:
            raise InputError(f"MLPHead hidden must be 1 or more, got {hidden}.")
        self.norm = nn.LayerNorm(channels)
        self.hidden = nn.Linear(channels, hidden)
        self.dropout = _dropout(dropout, where=type(self).__name__)
        self.linear = nn.Linear(hidden, len(self.classes))

    def forward(self, embedding: Tensor) -> Tensor:
        """``(B, D)`` to ``(B, K)``."""
        logits: Tensor = self.linear(self.dropout(self.hidden(self.norm(embedding)).relu()))
        return logits


def _dropout(probability: float, *, where: str) -> nn.Dropout:
    if not 0 <= probability < 1:
        raise InputError(f"{where} dropout is a probability in [0, 1), got {probability}.")
    return nn.Dropout(probability)


HeadFactory = Callable[[int, Sequence[str]], Head]
"""In YAML: ``class_path`` and ``init_args``; width and class names are supplied when built."""

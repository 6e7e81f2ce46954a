"""The contract of heads: from what networks found to logits, or to values of variables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from einops import rearrange
from torch import Tensor, nn

from fusionlab.component import Component
from fusionlab.errors import InputError

Kind = Literal["pixel", "sample"]
"""What a head answers for: every pixel of an image, or the whole sample."""

Answers = Literal["classes", "values"]
"""What a head answers: a logit per class, or a value per regressed variable."""


class Head(Component):
    """Features in, one logit (or value) per name out.

    Args:
        channels: width of the features.
        names: class names in index order, or names of the variables that are regressed.

    Attributes:
        kind: ``pixel`` heads take maps ``(B, C, H, W)`` and answer ``(B, K, H, W)``; ``sample``
            heads take embeddings ``(B, C)``, tokens ``(B, N, C)`` or maps and answer ``(B, K)``.
        answers: ``classes`` or ``values``, if it is made for one of them only.
        map_size: rows and columns of the maps where it takes such and nothing else; otherwise None.

    Raises:
        InputError: if there is no name, or no channel.
    """

    supplied: ClassVar[tuple[str, ...]] = ("channels", "names")
    kind: ClassVar[Kind] = "sample"
    answers: ClassVar[Answers | None] = None
    map_size: tuple[int, int] | None = None

    def __init__(self, channels: int, names: Sequence[str]) -> None:
        super().__init__()
        name = type(self).__name__
        if not names:
            raise InputError(f"{name} needs at least one class, or one variable to regress.")
        if channels < 1:
            raise InputError(f"{name} needs features of one or more channels, got {channels}.")
        self.channels = channels
        self.names = tuple(names)

    def forward(self, features: Tensor) -> Tensor:
        """Features to ``(B, K)`` or ``(B, K, H, W)``; see `kind`."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward().")

    def maps(self, features: Tensor) -> Tensor:
        """The features, if they are maps ``(B, C, H, W)``.

        Raises:
            InputError: if they are not, or of another width.
        """
        if features.ndim != 4 or features.shape[1] != self.channels:
            raise InputError(
                f"{type(self).__name__} answers for pixels from maps (B, {self.channels}, H, W), "
                f"got features of the shape {tuple(features.shape)}. Put a decoder before it; for "
                "whole samples use ClassificationHead."
            )
        return features

    def positions(self, features: Tensor) -> Tensor:
        """Embeddings ``(B, C)``, tokens ``(B, N, C)`` or maps ``(B, C, H, W)`` as ``(B, N, C)``.

        Raises:
            InputError: if they are neither, or of another width.
        """
        if features.ndim == 4:
            listed = rearrange(features, "b c h w -> b (h w) c")
        else:
            listed = features[:, None] if features.ndim == 2 else features
        if listed.ndim != 3 or listed.shape[2] != self.channels or not listed.shape[1]:
            c = self.channels
            raise InputError(
                f"{type(self).__name__} takes embeddings (B, {c}), tokens (B, N, {c}) or maps "
                f"(B, {c}, H, W), got features of the shape {tuple(features.shape)}."
            )
        return listed

    def average(self, features: Tensor) -> Tensor:
        """The mean over positions, ``(B, C)``; embeddings stay as they are."""
        if features.ndim == 2 and features.shape[1] == self.channels:
            return features
        return self.positions(features).mean(dim=1)


def checked_rate(probability: float, *, where: str) -> float:
    """A dropout.

    Raises:
        InputError: if it is no probability in [0, 1).
    """
    if not isinstance(probability, int | float) or not 0 <= probability < 1:
        raise InputError(f"{where} dropout is a probability in [0, 1), got {probability!r}.")
    return probability


def checked_widths(widths: Any, *, where: str) -> tuple[int, ...]:  # noqa: ANN401
    """Widths of the hidden layers of a head, one per layer; None for no layers.

    Raises:
        InputError: unless it is a list of integers of 1 or more.
    """
    if widths is None:
        return ()
    is_list = isinstance(widths, Sequence) and not isinstance(widths, str)
    if not is_list or not all(type(width) is int and width > 0 for width in widths):
        raise InputError(
            f"{where} is a list of widths of 1 or more, one per layer, got {widths!r}."
        )
    return tuple(widths)


def dropout_layer(probability: float, *, where: str) -> nn.Dropout:
    """Dropout of single values; see `checked_rate`."""
    return nn.Dropout(checked_rate(probability, where=where))


HeadFactory = Callable[[int, Sequence[str]], Head]
"""In YAML: ``class_path`` and ``init_args``; width and names are supplied when built."""

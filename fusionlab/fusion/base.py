"""What every fusion of decisions has in common: named modalities and who is available."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from fusionlab.component import Component
from fusionlab.errors import InputError


class Fused(NamedTuple):
    """The result of a fusion.

    Attributes:
        logits: ``(B, K, H, W)`` or ``(B, K)``.
        weights: per modality its share, broadcastable to the logits, summing to 1 over modalities;
            None where the operator has no such weights.
    """

    logits: Tensor
    weights: dict[str, Tensor] | None = None


class Fusion(Component):
    """Turns the logits of several experts, or the values that they regress, into one.

    A modality that is missing for a sample takes no part in that sample's result: weights are
    renormalised over those that are there, and with only one there its logits come out unchanged.
    With none there the result is 0, i.e. all classes equally likely.

    Args:
        modalities: names, in the order in which operators number them.
        classes: names of what the experts answer: classes in index order, or variables, each of
            which operators treat as they do a class.

    Raises:
        InputError: for fewer than two modalities, or no class and no variable.
    """

    supplied: ClassVar[tuple[str, ...]] = ("modalities", "classes")

    def __init__(self, modalities: Sequence[str], classes: Sequence[str]) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.classes = tuple(classes)
        if len(self.modalities) < 2:
            raise InputError(
                f"{type(self).__name__} fuses two or more modalities, got {list(modalities)}. For "
                "one modality, use its expert as the model."
            )
        if not self.classes:
            raise InputError(f"{type(self).__name__} needs at least one class or variable.")

    def fuse(self, logits: Tensor, available: Tensor, cloud_cover: Mapping[str, Tensor]) -> Fused:
        """The operator itself.

        Args:
            logits: ``(M, B, K, H, W)`` or ``(M, B, K)``; zeros where a modality is missing.
            available: ``(M, B)`` bool.
            cloud_cover: per modality, ``(B, 1, H, W)`` in [0, 1] on the grid of the logits.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define fuse().")

    def forward(
        self,
        logits: Mapping[str, Tensor],
        available: Mapping[str, Tensor] | None = None,
        cloud_cover: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        """Fuses logits on one grid.

        Args:
            logits: per modality ``(B, K, H, W)`` or ``(B, K)``, all of one shape.
            available: per modality ``(B,)`` bool; all there if not given.
            cloud_cover: per modality ``(B, 1, H, W)``; none known if not given.

        Raises:
            InputError: if a modality is absent, or shapes differ.
        """
        absent = [name for name in self.modalities if name not in logits]
        if absent:
            raise InputError(
                f"{type(self).__name__} was built for {list(self.modalities)}; the logits of "
                f"{absent} were not given. A missing modality is zeros with available = False."
            )
        shapes = {name: tuple(logits[name].shape) for name in self.modalities}
        if len(set(shapes.values())) > 1:
            raise InputError(f"Logits must share one shape to be fused, got {shapes}: align first.")
        stacked = torch.stack([logits[name] for name in self.modalities])
        if available is None:
            there = stacked.new_ones(stacked.shape[:2], dtype=torch.bool)
        else:
            there = torch.stack([available[name] for name in self.modalities])
        stacked = torch.where(_like(there, stacked), stacked, torch.zeros_like(stacked))
        return self.fuse(stacked, there, cloud_cover or {})

    def class_weights(self) -> dict[str, Tensor] | None:
        """Per modality ``(K,)``, its share in each class or variable; None if inputs decide."""
        return None

    def weighted_sum(self, logits: Tensor, scores: Tensor, available: Tensor) -> Fused:
        """Sum of logits weighted by a softmax of scores over the modalities that are there.

        Args:
            logits: ``(M, B, K, ...)``.
            scores: broadcastable to the logits; -inf excludes.
            available: ``(M, B)`` bool.
        """
        there = _like(available, logits)
        masked = torch.where(there, scores, torch.full_like(scores[:1], float("-inf")))
        # A sample with nothing available: softmax over -inf alone would be NaN.
        masked = torch.where(there.any(dim=0, keepdim=True), masked, torch.zeros_like(masked))
        weights = masked.softmax(dim=0)
        return Fused(
            (weights * logits).sum(dim=0), dict(zip(self.modalities, weights, strict=True))
        )


def _like(available: Tensor, logits: Tensor) -> Tensor:
    """``(M, B)`` reshaped to broadcast over ``(M, B, K, ...)``."""
    return available.reshape(*available.shape, *[1] * (logits.ndim - 2))


FusionFactory = Callable[[Sequence[str], Sequence[str]], Fusion]
"""In YAML: ``class_path`` and ``init_args``; modality and class names are supplied when built."""

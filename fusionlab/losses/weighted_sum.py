"""A sum of several losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.losses.base import Loss, LossFactory
from fusionlab.types import Target


class WeightedSum(Loss):
    """A weighted sum of losses.

    Args:
        classes: names of classes or variables, handed on to every term.
        terms: losses by a name of one's choice.
        weights: by the same names; 1 for those not named.

    Raises:
        InputError: if there are no terms, a weight names none of them, or no kind of target fits
            them all.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        terms: dict[str, LossFactory],
        weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__(classes)
        self.weights = dict.fromkeys(terms, 1.0) | (weights or {})
        unknown = sorted(set(self.weights) - set(terms))
        if unknown or not terms:
            raise InputError(
                f"WeightedSum has the terms {list(terms)}; weights name {unknown} besides."
                if unknown
                else "WeightedSum needs at least one term."
            )
        built = {name: term(self.classes) for name, term in terms.items()}
        self.terms = nn.ModuleDict(built)
        fits = {name: term.fits for name, term in built.items()}
        self.fits = tuple(
            kind for kind in get_args(Target) if all(kind in kinds for kinds in fits.values())
        )
        if not self.fits:
            raise InputError(
                f"WeightedSum adds losses that no target fits together: {fits}. Choose terms "
                "for one kind of target."
            )

    def require_soft(self) -> None:
        """Refuses shares of classes if one of the terms does; see `Loss.require_soft`."""
        for term in self.terms.values():
            assert isinstance(term, Loss)
            term.require_soft()

    def forward(self, logits: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
        """Scalar loss; shapes are those of the terms."""
        losses = [
            self.weights[name] * term(logits, target, counted) for name, term in self.terms.items()
        ]
        return torch.stack(losses).sum()

"""How a decision, or a regressed value, is shared among the experts behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fusionlab.metrics import probabilities
from fusionlab.types import REGRESSION, Target

Answer = Callable[[dict[str, Tensor]], Tensor]
"""What the logits would be, given who is available."""


def weight_shares(
    logits: Tensor, weights: Mapping[str, Tensor], target: Target
) -> dict[str, Tensor]:
    """The weight of each expert in the most probable class, or the mean over variables.

    Args:
        logits: the fused ones, ``(B, K, ...)``.
        weights: per expert, broadcastable to the logits; they sum to 1.
        target: what the target says.

    Returns:
        Per expert ``(B, ...)`` in [0, 1].
    """
    expanded = {name: weight.expand_as(logits) for name, weight in weights.items()}
    if target in REGRESSION:
        return {name: weight.mean(dim=1) for name, weight in expanded.items()}
    predicted = logits.argmax(dim=1, keepdim=True)
    return {name: weight.gather(1, predicted).squeeze(1) for name, weight in expanded.items()}


def leave_one_out_shares(
    logits: Tensor, answer: Answer, available: Mapping[str, Tensor], target: Target
) -> dict[str, Tensor]:
    """How much the answer owes each expert, ``(B, ...)``.

    For classes, how far the probability of the most probable one falls without the expert, relative
    to the others; an expert without which it rises owes next to nothing. For regressed values, how
    far the value moves without the expert, up or down, relative to the others, averaged over
    variables. One that is missing owes nothing. Shares sum to 1; where none is there, or nothing
    changes, they are equal.

    Args:
        logits: the fused ones, ``(B, K, ...)``.
        answer: what they would be, given who is available.
        available: per expert ``(B,)`` bool.
        target: what the target says, see `fusionlab.metrics.probabilities`.
    """
    if target in REGRESSION:
        moved = _differences(lambda there: (logits - answer(there)).abs(), available, least=1e-30)
        return {name: share.mean(dim=1) for name, share in moved.items()}
    predicted = logits.argmax(dim=1, keepdim=True)
    chosen = probabilities(logits, target).gather(1, predicted).squeeze(1)

    def fall(there: dict[str, Tensor]) -> Tensor:
        return chosen - probabilities(answer(there), target).gather(1, predicted).squeeze(1)

    return _differences(fall, available, least=1e-6)


def _differences(
    without: Answer, available: Mapping[str, Tensor], *, least: float
) -> dict[str, Tensor]:
    """What leaving each expert out makes, ``(B, ...)``, relative to the sum over experts.

    Args:
        without: the difference, given who is available.
        available: per expert ``(B,)`` bool.
        least: any expert that is there makes.
    """
    nobody = ~torch.stack(list(available.values())).any(dim=0)
    made = {}
    for name, there in available.items():
        difference = without({**available, name: torch.zeros_like(there)})
        counted = (there | nobody).reshape(-1, *[1] * (difference.ndim - 1))
        made[name] = difference.clamp(min=least) * counted
    total = torch.stack(list(made.values())).sum(dim=0)
    return {name: difference / total for name, difference in made.items()}

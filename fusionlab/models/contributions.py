"""How a decision is shared among the experts behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fusionlab.metrics import probabilities
from fusionlab.types import Target


def weight_shares(logits: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weight of each expert in the most probable class, ``(B, ...)``.

    Args:
        logits: the fused ones, ``(B, K, ...)``.
        weights: per expert, broadcastable to the logits; they sum to 1.
    """
    predicted = logits.argmax(dim=1, keepdim=True)
    return {
        name: weight.expand_as(logits).gather(1, predicted).squeeze(1)
        for name, weight in weights.items()
    }


def leave_one_out_shares(
    logits: Tensor,
    answer: Callable[[dict[str, Tensor]], Tensor],
    available: Mapping[str, Tensor],
    target: Target,
) -> dict[str, Tensor]:
    """How much the most probable class owes each expert, ``(B, ...)``.

    How far the probability of that class falls without the expert, relative to the others; an
    expert without which it rises owes next to nothing, one that is missing nothing. They sum to 1;
    where none is there they are equal.

    Args:
        logits: the fused ones, ``(B, K, ...)``.
        answer: what the logits would be, given who is available.
        available: per expert ``(B,)`` bool.
        target: what the target says, see `fusionlab.metrics.probabilities`.
    """
    predicted = logits.argmax(dim=1, keepdim=True)
    chosen = probabilities(logits, target).gather(1, predicted).squeeze(1)
    nobody = ~torch.stack(list(available.values())).any(dim=0)
    drops = {}
    for name, there in available.items():
        without = answer({**available, name: torch.zeros_like(there)})
        drop = chosen - probabilities(without, target).gather(1, predicted).squeeze(1)
        counted = (there | nobody).reshape(-1, *[1] * (drop.ndim - 1))
        drops[name] = drop.clamp(min=1e-6) * counted
    total = torch.stack(list(drops.values())).sum(dim=0)
    return {name: drop / total for name, drop in drops.items()}

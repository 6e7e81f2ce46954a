"""From logits to probabilities, and from these to the classes that a sample is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.types import Target, class_indices


def probabilities(logits: Tensor, target: Target) -> Tensor:
    """Probabilities of the classes: independent ones where classes may coincide.

    Args:
        logits: ``(B, K, ...)`` of any precision.
        target: what the target says; of ``multilabel`` each class has a sigmoid of its own, of all
            others the classes share a softmax.

    Returns:
        Float32 ``(B, K, ...)`` in [0, 1].
    """
    logits = logits.float()
    return logits.sigmoid() if target == "multilabel" else logits.softmax(dim=1)


class Decision(nn.Module):
    """Which classes a sample is given, by their probabilities.

    Args:
        classes: class names in index order.
        target: ``multiclass``, where a sample is given its most probable class, or ``multilabel``,
            where it is given every class whose probability is at its threshold or over.
        threshold: of multilabel targets, one for all classes or by class name; 0.5 for classes
            that are not named.

    Attributes:
        thresholds: ``(K,)`` float32 in [0, 1].

    Raises:
        InputError: for another kind of target, an unknown class, a threshold outside [0, 1], or
            one where there is nothing to compare it with.
    """

    thresholds: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        target: Target,
        threshold: float | Mapping[str, float] = 0.5,
    ) -> None:
        super().__init__()
        if target not in ("multiclass", "multilabel"):
            raise InputError(f"Samples are classified multiclass or multilabel, not {target!r}.")
        if target == "multiclass" and threshold != 0.5:
            raise InputError(
                f"threshold is {threshold}, but the target is multiclass: a sample is given its "
                "most probable class, and no threshold decides. Leave threshold out."
            )
        self.multilabel = target == "multilabel"
        values = [0.5] * len(classes)
        if isinstance(threshold, Mapping):
            indices = class_indices(list(threshold), classes, where="threshold")
            for index, value in zip(indices, threshold.values(), strict=True):
                values[index] = value
        else:
            values = [threshold] * len(classes)
        if not all(0 <= value <= 1 for value in values):
            raise InputError(f"A threshold is a probability in [0, 1], got {threshold}.")
        self.register_buffer("thresholds", torch.tensor(values), persistent=False)

    def forward(self, probabilities: Tensor) -> Tensor:
        """The classes given, bool ``(B, K)``."""
        if self.multilabel:
            return probabilities >= self.thresholds
        return one_hot(probabilities.argmax(dim=1), probabilities.shape[1])


def one_hot(indices: Tensor, num_classes: int) -> Tensor:
    """Class indices ``(B,)`` as bool ``(B, K)``; no class for an index that is none.

    Unlike torch's, it does not make the host wait for the device to check the indices.
    """
    return indices[:, None] == torch.arange(num_classes, device=indices.device)

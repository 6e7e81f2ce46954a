"""Losses where every class applies to a sample or does not, independently of the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.errors import InputError
from fusionlab.losses.base import ClassWeights, Loss, per_class
from fusionlab.types import Target


class MultilabelLoss(Loss):
    """A loss per sample and class, averaged over both by the weight of the class.

    The average is over the samples that count, so that it does not depend on how many of a batch
    do, nor, against the sum that some papers take, on the number of classes.

    Args:
        classes: class names.
        weights: of the classes, in index order or by name; a class of weight 0 does not count.

    Raises:
        InputError: for an unknown class, a wrong number of weights, or a negative one.
    """

    fits: tuple[Target, ...] = ("multilabel",)
    soft = True
    weights: Tensor

    def __init__(self, classes: Sequence[str], *, weights: ClassWeights | None = None) -> None:
        super().__init__(classes)
        self.register_buffer("weights", per_class(weights, self.classes), persistent=False)

    def cells(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of every sample and class, ``(B, K)``.

        Args:
            logits: float32 ``(B, K)``.
            target: float32 ``(B, K)`` in [0, 1].
        """
        raise NotImplementedError(f"{type(self).__name__} does not define cells().")

    def forward(self, logits: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
        """Scalar loss.

        Args:
            logits: ``(B, K)``.
            target: ``(B, K)``, 1 where the class applies and 0 where not, or in between where that
                is known by a degree only.
            counted: ``(B,)`` bool, which samples count; all if not given.

        Raises:
            InputError: if logits and target are not both of a value per sample and class.
        """
        expected = (len(target), len(self.classes))
        if logits.shape != expected or target.shape != expected:
            raise InputError(
                f"{type(self).__name__} over {len(self.classes)} classes needs logits and target "
                f"of shape (samples, {len(self.classes)}), got logits of shape "
                f"{tuple(logits.shape)} and a target of shape {tuple(target.shape)}."
            )
        with torch.autocast(logits.device.type, enabled=False):
            if counted is None:
                counted = torch.ones(len(target), dtype=torch.bool, device=target.device)
            # Before the loss, so that no gradient comes from values that may not be finite.
            logits = logits.float().masked_fill(~counted[:, None], 0)
            target = target.float().masked_fill(~counted[:, None], 0)
            total = (self.cells(logits, target) * self.weights * counted[:, None]).sum()
            return total / (self.weights.sum() * counted.sum().clamp(min=1))


class BinaryCrossEntropy(MultilabelLoss):
    """Binary cross-entropy of each class on its own.

    Args:
        classes: class names.
        weights: of the classes, in index order or by name; a class of weight 0 does not count.
        pos_weight: per class, in index order or by name, how much a sample to which it applies
            counts against one to which it does not. The ratio of the two numbers of samples evens
            out a rare class.
        label_smoothing: share in [0, 1] of the target spread evenly over "applies" and "does not":
            1 becomes ``1 - label_smoothing / 2``.

    Raises:
        InputError: for an unknown class, a wrong number of weights, a negative one, or a
            smoothing outside [0, 1].
    """

    pos_weight: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        *,
        weights: ClassWeights | None = None,
        pos_weight: ClassWeights | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(classes, weights=weights)
        if not 0 <= label_smoothing <= 1:
            raise InputError(f"label_smoothing must lie in [0, 1], got {label_smoothing}.")
        self.label_smoothing = label_smoothing
        per_positive = per_class(pos_weight, self.classes, argument="pos_weight")
        self.register_buffer("pos_weight", per_positive, persistent=False)

    def cells(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `MultilabelLoss.cells`."""
        smooth = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(
            logits, smooth, pos_weight=self.pos_weight, reduction="none"
        )


class AsymmetricLoss(MultilabelLoss):
    """Asymmetric loss: easy negatives, of which a sample has most, count little or nothing.

    Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021, arXiv 2009.14119.
    With ``p`` the probability of a class and ``p_m = max(p - clip, 0)``, a class that applies costs
    ``-(1 - p) ** gamma_pos * log(p)`` and one that does not ``-p_m ** gamma_neg * log(1 - p_m)``;
    a target in between mixes the two. With both gammas and ``clip`` at 0 it is the binary
    cross-entropy. The paper sums over classes; here they are averaged, see `MultilabelLoss`.

    Args:
        classes: class names.
        gamma_neg: how steeply negatives count less the better they are told.
        gamma_pos: the same of positives; 0 in the paper (1 in its authors' code).
        clip: negatives of a probability below this count nothing.
        weights: of the classes, in index order or by name; a class of weight 0 does not count.

    Raises:
        InputError: for a negative gamma, a ``clip`` outside [0, 1), or as `MultilabelLoss` does.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        gamma_neg: float = 4.0,
        gamma_pos: float = 0.0,
        clip: float = 0.05,
        weights: ClassWeights | None = None,
    ) -> None:
        super().__init__(classes, weights=weights)
        if gamma_neg < 0 or gamma_pos < 0:
            raise InputError(
                "AsymmetricLoss gamma_neg and gamma_pos must be 0 or more, got "
                f"{gamma_neg} and {gamma_pos}."
            )
        if not 0 <= clip < 1:
            raise InputError(f"AsymmetricLoss clip is a probability in [0, 1), got {clip}.")
        self.gamma_neg = gamma_neg
        self.gamma_pos = gamma_pos
        self.clip = clip

    def cells(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `MultilabelLoss.cells`."""
        shifted = (logits.sigmoid() - self.clip).clamp(min=0)
        # Without a shift, the logarithm of the logit keeps what 1 - p would round away.
        log_not = torch.log1p(-shifted) if self.clip else F.logsigmoid(-logits)
        positive = _power(torch.sigmoid(-logits), self.gamma_pos) * F.logsigmoid(logits)
        negative = _power(shifted, self.gamma_neg) * log_not
        return -(target * positive + (1 - target) * negative)


def _power(base: Tensor, exponent: float) -> Tensor:
    """Kept off 0, where a power below 1 has an infinite slope."""
    return base.clamp(min=1e-8) ** exponent

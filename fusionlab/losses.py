"""Losses over class logits. Pixels marked `IGNORE_INDEX` count in none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss, LovaszLoss
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX, class_indices

ClassWeights = list[float] | dict[str, float]
"""One weight per class in index order, or by class name or index, the others weighing 1."""


class Loss(nn.Module):
    """Compares logits with class indices; computes in float32 under any autocast.

    A batch in which every pixel is ignored gives exactly 0, and gradients of 0.

    Args:
        classes: class names in index order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss itself.

        Args:
            logits: float32 ``(B, K, ...)``.
            target: int64 ``(B, ...)``, class indices or `IGNORE_INDEX`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define compare().")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss.

        Args:
            logits: ``(B, K, H, W)``, or ``(B, K)`` for whole images.
            target: int64 ``(B, H, W)`` or ``(B,)``, class indices or `IGNORE_INDEX`.

        Raises:
            InputError: if the shapes do not fit each other and the number of classes.
        """
        b, *grid = target.shape
        if logits.shape != (b, len(self.classes), *grid):
            raise InputError(
                f"{type(self).__name__} over {len(self.classes)} classes got logits of shape "
                f"{tuple(logits.shape)} and a target of shape {tuple(target.shape)}; the target "
                f"needs logits of shape {(b, len(self.classes), *grid)}."
            )
        with torch.autocast(logits.device.type, enabled=False):
            return self.compare(logits.float(), target)


LossFactory = Callable[[Sequence[str]], Loss]
"""In YAML: ``class_path`` and ``init_args``; class names are supplied when built."""


class CrossEntropy(Loss):
    """Cross-entropy, averaged over pixels by the weight of their class.

    Args:
        classes: class names.
        weights: of the classes, in index order or by name; a class of weight 0 does not count.
        label_smoothing: share in [0, 1] of the target spread evenly over all classes
            (Szegedy et al. 2016, arXiv 1512.00567).

    Raises:
        InputError: for an unknown class, a wrong number of weights, or a negative one.
    """

    weights: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        *,
        weights: ClassWeights | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(classes)
        if not 0 <= label_smoothing <= 1:
            raise InputError(f"label_smoothing must lie in [0, 1], got {label_smoothing}.")
        self.label_smoothing = label_smoothing
        self.register_buffer("weights", _weights(weights, self.classes), persistent=False)

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `Loss.compare`."""
        total = F.cross_entropy(
            logits,
            target,
            weight=self.weights,
            ignore_index=IGNORE_INDEX,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return _mean(total, target, self.weights)


class Focal(Loss):
    """Softmax focal loss: cross-entropy times ``(1 - p) ** gamma`` of the true class.

    Lin et al., "Focal Loss for Dense Object Detection", 2017, arXiv 1708.02002, with softmax in
    place of their sigmoid: the experts' and fused logits are scores of exclusive classes. (The
    multi-class loss in segmentation_models_pytorch is one sigmoid per class, which does not fit
    them, and is NaN where every pixel is ignored.)

    Args:
        classes: class names.
        gamma: 0 is cross-entropy; the larger, the less well-classified pixels count.
        weights: as in `CrossEntropy`; the paper's alpha.

    Raises:
        InputError: if ``gamma`` is negative, or as `CrossEntropy` does.
    """

    weights: Tensor

    def __init__(
        self, classes: Sequence[str], *, gamma: float = 2.0, weights: ClassWeights | None = None
    ) -> None:
        super().__init__(classes)
        if gamma < 0:
            raise InputError(f"Focal gamma must be 0 or more, got {gamma}.")
        self.gamma = gamma
        self.register_buffer("weights", _weights(weights, self.classes), persistent=False)

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `Loss.compare`."""
        # 0 where ignored
        entropy = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="none")
        # Kept off 0, where a power below 1 has an infinite slope.
        error = (-torch.expm1(-entropy)).clamp_min(1e-8)
        weight = self.weights[target.masked_fill(target == IGNORE_INDEX, 0)]
        return _mean((weight * error**self.gamma * entropy).sum(), target, self.weights)


class Dice(Loss):
    """Soft Dice loss over the batch: ``1 - 2 |P ∩ T| / (|P| + |T|)``, averaged over classes.

    Milletari et al., "V-Net", 2016, arXiv 1606.04797. A class that the batch's target lacks counts
    as 0, false positives included.

    Args:
        classes: class names.
        smooth: added to numerator and denominator.
    """

    def __init__(self, classes: Sequence[str], *, smooth: float = 0.0) -> None:
        super().__init__(classes)
        self.loss = DiceLoss("multiclass", smooth=smooth, ignore_index=IGNORE_INDEX)

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `Loss.compare`."""
        loss: Tensor = self.loss(logits, target)
        return loss


class Lovasz(Loss):
    """Lovász-Softmax: a convex surrogate of the IoU, averaged over the classes in the target.

    Berman et al., "The Lovász-Softmax loss", CVPR 2018, arXiv 1705.08790. It sorts the pixels of
    the batch once per class, so it is the slowest of these.

    Args:
        classes: class names.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.loss = LovaszLoss("multiclass", ignore_index=IGNORE_INDEX)

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `Loss.compare`."""
        if not (target != IGNORE_INDEX).any():
            return logits.sum() * 0  # the loss would be an empty tensor
        loss: Tensor = self.loss(logits, target)
        return loss


class WeightedSum(Loss):
    """A weighted sum of losses.

    Args:
        classes: class names, handed on to every term.
        terms: losses by a name of one's choice.
        weights: by the same names; 1 for those not named.

    Raises:
        InputError: if there are no terms, or a weight names none of them.
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
        self.terms = nn.ModuleDict({name: term(self.classes) for name, term in terms.items()})

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `Loss.compare`."""
        losses = [self.weights[name] * term(logits, target) for name, term in self.terms.items()]
        return torch.stack(losses).sum()


def _weights(given: ClassWeights | None, classes: Sequence[str]) -> Tensor:
    """``(K,)`` float32."""
    weights = torch.ones(len(classes))
    if isinstance(given, Mapping):
        indices = class_indices(list(given), classes, where="the loss's weights")
        weights[indices] = torch.tensor(list(given.values()), dtype=torch.float32)
    elif given is not None:
        if len(given) != len(classes):
            raise InputError(
                f"The loss has {len(given)} weights for {len(classes)} classes {list(classes)}: "
                "give one per class, or name classes in a dict."
            )
        weights = torch.tensor(given, dtype=torch.float32)
    if not (weights.isfinite().all() and (weights >= 0).all() and weights.any()):
        raise InputError(
            f"The loss's weights must not be negative, nor all 0, got {weights.tolist()}."
        )
    return weights


def _mean(total: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Divides by the weights of the pixels that count; 0 if none does."""
    valid = target != IGNORE_INDEX
    divisor = (weights[target.masked_fill(~valid, 0)] * valid).sum()
    return total / torch.where(divisor > 0, divisor, 1) * (divisor > 0)

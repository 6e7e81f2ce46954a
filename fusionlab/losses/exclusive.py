"""Losses where exactly one class is right, per pixel or per sample, or classes are by shares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss, LovaszLoss
from torch import Tensor

from fusionlab.errors import InputError
from fusionlab.losses.base import ClassWeights, Loss, per_class
from fusionlab.types import IGNORE_INDEX, known_shares


class CrossEntropy(Loss):
    """Cross-entropy, averaged over pixels by the weight of their class.

    Of a pixel with shares of classes, each class counts by its share times its weight.

    Args:
        classes: class names.
        weights: of the classes, in index order or by name; a class of weight 0 does not count.
        label_smoothing: share in [0, 1] of the target spread evenly over all classes
            (Szegedy et al. 2016, arXiv 1512.00567).

    Raises:
        InputError: for an unknown class, a wrong number of weights, or a negative one.
    """

    soft = True
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
        self.register_buffer("weights", per_class(weights, self.classes), persistent=False)

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

    def compare_soft(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `Loss.compare_soft`."""
        smoothed = F.cross_entropy(
            logits,
            target,
            weight=self.weights,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return _mean_of_shares((smoothed * known_shares(target)).sum(), target, self.weights)


class Focal(Loss):
    """Softmax focal loss: cross-entropy times ``(1 - p) ** gamma`` of the true class.

    Where shares of classes are right, it is the sum of the losses of the classes by their shares.

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

    soft = True
    weights: Tensor

    def __init__(
        self, classes: Sequence[str], *, gamma: float = 2.0, weights: ClassWeights | None = None
    ) -> None:
        super().__init__(classes)
        if gamma < 0:
            raise InputError(f"Focal gamma must be 0 or more, got {gamma}.")
        self.gamma = gamma
        self.register_buffer("weights", per_class(weights, self.classes), persistent=False)

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `Loss.compare`."""
        # 0 where ignored
        entropy = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="none")
        weight = self.weights[target.masked_fill(target == IGNORE_INDEX, 0)]
        return _mean((weight * self._focused(entropy)).sum(), target, self.weights)

    def compare_soft(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `Loss.compare_soft`."""
        cells = target * self._focused(-F.log_softmax(logits, dim=1))
        return _mean_of_shares(
            (cells * _along_classes(self.weights, cells)).sum(), target, self.weights
        )

    def _focused(self, entropy: Tensor) -> Tensor:
        """The loss of a class by its cross-entropy, ``-log(p)``."""
        # Kept off 0, where a power below 1 has an infinite slope.
        error = (-torch.expm1(-entropy)).clamp_min(1e-8)
        return error**self.gamma * entropy


class Dice(Loss):
    """Soft Dice loss over the batch: ``1 - 2 |P ∩ T| / (|P| + |T|)``, averaged over classes.

    Milletari et al., "V-Net", 2016, arXiv 1606.04797. A class that the batch's target lacks counts
    as 0, false positives included.

    Where shares of classes are right, what probability and share have in common is the smaller of
    the two, so that the loss is least, and 0, where they are equal; with the product of the paper,
    it is least at probabilities that are 0 and 1 (Wang et al., "Dice Semimetric Losses", MICCAI
    2023, arXiv 2303.16296). Of shares that are 0 and 1, the two are the same.

    Args:
        classes: class names.
        smooth: added to ``|P ∩ T|`` and to ``(|P| + |T|) / 2``.
    """

    soft = True

    def __init__(self, classes: Sequence[str], *, smooth: float = 0.0) -> None:
        super().__init__(classes)
        self.smooth = smooth
        self.loss = DiceLoss("multiclass", smooth=smooth, ignore_index=IGNORE_INDEX)

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `Loss.compare`."""
        loss: Tensor = self.loss(logits, target)
        return loss

    def compare_soft(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `Loss.compare_soft`."""
        probability = logits.softmax(dim=1) * known_shares(target)[:, None]
        others = [axis for axis in range(target.ndim) if axis != 1]
        common = torch.minimum(probability, target).sum(dim=others)
        total = (probability + target).sum(dim=others)
        score = (common + self.smooth) / (total / 2 + self.smooth).clamp_min(1e-7)
        return ((1 - score) * (target.sum(dim=others) > 0)).mean()


class Lovasz(Loss):
    """Lovász-Softmax: a convex surrogate of the IoU, averaged over the classes in the target.

    It extends a function of sets of wrong pixels, and a pixel with shares of classes is in no such
    set: it takes hard targets only.

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


def _mean(total: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Divides by the weights of the pixels that count; 0 if none does."""
    valid = target != IGNORE_INDEX
    divisor = (weights[target.masked_fill(~valid, 0)] * valid).sum()
    return total / torch.where(divisor > 0, divisor, 1) * (divisor > 0)


def _mean_of_shares(total: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """The same of shares of classes."""
    divisor = (target * _along_classes(weights, target)).sum()
    return total / torch.where(divisor > 0, divisor, 1) * (divisor > 0)


def _along_classes(weights: Tensor, like: Tensor) -> Tensor:
    """``(K,)`` as ``(K, 1, ...)``, to go with ``(B, K, ...)``."""
    return weights.reshape(-1, *[1] * (like.ndim - 2))

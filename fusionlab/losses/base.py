"""What every loss has in common: its names, the targets it fits, and what it leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX, Target, class_indices, is_soft, known_shares

ClassWeights = list[float] | dict[str, float]
"""One weight per class in index order, or by class name or index, the others weighing 1."""

_EXCLUSIVE: tuple[Target, ...] = ("segmentation", "multiclass")
_FITTING: dict[Target, str] = {
    "segmentation": "CrossEntropy, Focal, Dice, Lovasz, or a WeightedSum of them",
    "multiclass": "CrossEntropy, Focal, Dice, Lovasz, or a WeightedSum of them",
    "multilabel": "BinaryCrossEntropy, AsymmetricLoss, or a WeightedSum of them",
    "regression": "MeanSquaredError, MeanAbsoluteError, Huber, or a WeightedSum of them",
    "scalar_regression": "MeanSquaredError, MeanAbsoluteError, Huber, or a WeightedSum of them",
}


class Loss(nn.Module):
    """Compares logits with the target; computes in float32 under any autocast.

    What is ignored or not counted has no part in it. If that is all there is, the loss is exactly
    0, and so are its gradients.

    A loss over exclusive classes, one of which is right, implements `compare`, and `compare_soft`
    if it can be compared with shares of classes too. `MultilabelLoss` is the base of those over
    classes that each apply or not, `RegressionLoss` of those over values.

    Args:
        classes: class names in index order; names of variables where these are regressed.

    Attributes:
        fits: the kinds of target that it can be compared with.
        soft: whether the target may be shares of classes, as mixing makes them.
    """

    fits: tuple[Target, ...] = _EXCLUSIVE
    soft: bool = False

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)

    def require(self, target: Target) -> None:
        """Refuses a kind of target that it does not fit.

        Raises:
            InputError: names the losses that do.
        """
        if target not in self.fits:
            raise InputError(
                f"{type(self).__name__} is a loss for targets of the kind {list(self.fits)}, but "
                f"the data's target is {target!r}. Losses that fit it: {_FITTING[target]}."
            )

    def require_soft(self) -> None:
        """Refuses targets that are shares of classes where there is no such loss.

        Raises:
            InputError: names the losses that there is.
        """
        if not self.soft:
            raise InputError(
                f"{type(self).__name__} needs one right class, but data.mix makes shares of "
                "classes of it. Losses for shares: CrossEntropy, Focal, Dice, or a WeightedSum of "
                "them. Or leave data.mix out; CutMix leaves masks as they are."
            )

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss itself.

        Args:
            logits: float32 ``(B, K, ...)``.
            target: int64 ``(B, ...)``, class indices or `IGNORE_INDEX`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define compare().")

    def compare_soft(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss itself where shares of classes are right; of one class, what `compare` gives.

        Args:
            logits: float32 ``(B, K, ...)``; 0 where nothing is known.
            target: float32 ``(B, K, ...)``, which sums to 1 over classes, and to 0 where nothing is
                known.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define compare_soft().")

    def forward(self, logits: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
        """Scalar loss.

        Args:
            logits: ``(B, K, H, W)``, or ``(B, K)`` for whole images.
            target: int64 ``(B, H, W)`` or ``(B,)``, class indices or `IGNORE_INDEX`; or float of
                the shape of the logits, shares of classes that sum to 1, and to 0 where unknown.
            counted: ``(B,)`` bool, which samples count; all if not given.

        Raises:
            InputError: if the shapes do not fit each other and the number of classes, or if there
                is no such loss for shares.
        """
        soft = is_soft(target)
        b, *grid = target.shape if not soft else (len(target), *target.shape[2:])
        shape = (b, len(self.classes), *grid)
        if logits.shape != shape or (soft and target.shape != shape):
            raise InputError(
                f"{type(self).__name__} over {len(self.classes)} classes got logits of shape "
                f"{tuple(logits.shape)} and a target of shape {tuple(target.shape)}; the target "
                f"needs logits of shape {shape}."
            )
        if soft:
            return self._forward_soft(logits, target, counted)
        if counted is not None:
            target = target.masked_fill(~counted.reshape(b, *[1] * len(grid)), IGNORE_INDEX)
        with torch.autocast(logits.device.type, enabled=False):
            return self.compare(logits.float(), target)

    def _forward_soft(self, logits: Tensor, target: Tensor, counted: Tensor | None) -> Tensor:
        self.require_soft()
        with torch.autocast(logits.device.type, enabled=False):
            target = target.float()
            known = known_shares(target)
            if counted is not None:
                known = known & counted.reshape(-1, *[1] * (known.ndim - 1))
            # Before the loss, so that no gradient comes from values that may not be finite.
            logits = logits.float().masked_fill(~known[:, None], 0)
            return self.compare_soft(logits, target.masked_fill(~known[:, None], 0))


LossFactory = Callable[[Sequence[str]], Loss]
"""In YAML: ``class_path`` and ``init_args``; the names are supplied when built."""


def per_class(
    given: ClassWeights | None,
    classes: Sequence[str],
    *,
    argument: str = "weights",
    kind: Literal["class", "variable"] = "class",
) -> Tensor:
    """Weights as ``(K,)`` float32.

    Args:
        given: as the user wrote them; 1 for every class if None.
        classes: class names in index order.
        argument: what they are, for the error message.
        kind: what the names are of, for the error message.

    Raises:
        InputError: for an unknown class, a wrong number of weights, a negative one, or none but 0.
    """
    weights = torch.ones(len(classes))
    if isinstance(given, Mapping):
        indices = class_indices(list(given), classes, where=f"the loss's {argument}", kind=kind)
        weights[indices] = torch.tensor(list(given.values()), dtype=torch.float32)
    elif given is not None:
        if len(given) != len(classes):
            plural = {"class": "classes", "variable": "variables"}[kind]
            raise InputError(
                f"The loss has {len(given)} {argument} for {len(classes)} {plural} "
                f"{list(classes)}: give one per {kind}, or name {plural} in a dict."
            )
        weights = torch.tensor(given, dtype=torch.float32)
    if not (weights.isfinite().all() and (weights >= 0).all() and weights.any()):
        raise InputError(
            f"The loss's {argument} must not be negative, nor all 0, got {weights.tolist()}."
        )
    return weights

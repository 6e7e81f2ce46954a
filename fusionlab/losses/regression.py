"""Losses where the target is values of variables, per pixel or per sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.errors import InputError
from fusionlab.losses.base import ClassWeights, Loss, per_class
from fusionlab.types import REGRESSION, Target


class RegressionLoss(Loss):
    """A loss per value, averaged over the values that are known by the weight of their variable.

    Values stay in the units of their variables, and so do errors: of variables that differ much in
    size, the largest counts nearly alone unless weights even them out.

    Args:
        variables: names of what is regressed.
        weights: of the variables, in their order or by name; one of weight 0 does not count.

    Raises:
        InputError: for an unknown variable, a wrong number of weights, or a negative one.
    """

    fits: tuple[Target, ...] = REGRESSION
    soft = True
    weights: Tensor

    def __init__(self, variables: Sequence[str], *, weights: ClassWeights | None = None) -> None:
        super().__init__(variables)
        per_variable = per_class(weights, self.classes, kind="variable")
        self.register_buffer("weights", per_variable, persistent=False)

    def cells(self, error: Tensor) -> Tensor:
        """The loss of every value.

        Args:
            error: float32 ``(B, V, ...)``, the answer minus the target; 0 where that is unknown.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define cells().")

    def forward(self, logits: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
        """Scalar loss.

        Args:
            logits: values answered, ``(B, V, H, W)`` or ``(B, V)``.
            target: of the same shape; unknown where not finite.
            counted: ``(B,)`` bool, which samples count; all if not given.

        Raises:
            InputError: if the shapes do not fit each other and the number of variables.
        """
        b, *grid = len(target), *target.shape[2:]
        if target.ndim < 2 or not logits.shape == target.shape == (b, len(self.classes), *grid):
            raise InputError(
                f"{type(self).__name__} over {len(self.classes)} variables needs answers and a "
                f"target of shape (samples, {len(self.classes)}, ...), got {tuple(logits.shape)} "
                f"and {tuple(target.shape)}."
            )
        with torch.autocast(logits.device.type, enabled=False):
            known = target.isfinite()
            if counted is not None:
                known = known & counted.reshape(b, *[1] * (target.ndim - 1))
            # Before the loss, so that no gradient comes from values that may not be finite.
            error = logits.float().masked_fill(~known, 0) - target.float().masked_fill(~known, 0)
            weights = self.weights.reshape(-1, *[1] * len(grid)) * known
            total, divisor = (self.cells(error) * weights).sum(), weights.sum()
            return total / torch.where(divisor > 0, divisor, 1) * (divisor > 0)


class MeanSquaredError(RegressionLoss):
    """The mean of squared errors, in squared units: a few large errors count most.

    Args:
        variables: names of what is regressed.
        weights: see `RegressionLoss`.
    """

    def cells(self, error: Tensor) -> Tensor:
        """See `RegressionLoss.cells`."""
        return error.square()


class MeanAbsoluteError(RegressionLoss):
    """The mean of absolute errors: outliers of the target count no more than others.

    Args:
        variables: names of what is regressed.
        weights: see `RegressionLoss`.
    """

    def cells(self, error: Tensor) -> Tensor:
        """See `RegressionLoss.cells`."""
        return error.abs()


class Huber(RegressionLoss):
    """Half the squared error up to ``delta``, and beyond it ``delta * (|error| - delta / 2)``.

    Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35(1),
    1964.

    Args:
        variables: names of what is regressed.
        delta: in the variables' units, above 0.
        weights: see `RegressionLoss`.

    Raises:
        InputError: if ``delta`` is not above 0, or as `RegressionLoss` does.
    """

    def __init__(
        self,
        variables: Sequence[str],
        *,
        delta: float = 1.0,
        weights: ClassWeights | None = None,
    ) -> None:
        super().__init__(variables, weights=weights)
        if not 0 < delta < math.inf:
            raise InputError(f"Huber delta must be above 0, got {delta}.")
        self.delta = delta

    def cells(self, error: Tensor) -> Tensor:
        """See `RegressionLoss.cells`."""
        nothing = torch.zeros_like(error)
        return F.huber_loss(error, nothing, reduction="none", delta=self.delta)

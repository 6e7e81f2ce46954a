"""Metrics of regressed values: errors, bias and the share of the variance that is explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from fusionlab.errors import InputError

SAMPLE_SIZE = 2**15
"""Pairs of a true and a predicted value that are kept of each variable for a chart."""

_CONSTANT = 1e-12
"""Standard deviation, as a share of the mean, below which float64 sums tell no variation."""


class RegressionMetrics(Metric):
    """Errors of all values seen, exact over any number of processes and batches.

    `compute` gives, as scalars, ``<score>/<variable>`` and, as their mean over the variables (of
    which several should have one unit, then), ``<score>``:

    - ``rmse``, the root of the mean squared error, and ``mae``, the mean absolute error, in units
      of the variable;
    - ``bias``, the mean of what is predicted minus what is true: above 0 where too much is;
    - ``r2``, the coefficient of determination: 1 minus the sum of squared errors over that of
      squared deviations of the true values from their mean. 1 is perfect, 0 no better than that
      mean, and below 0 worse. It is NaN where all true values are the same.

    Values whose truth is unknown have no part in it. A prediction that is no number has, and makes
    the scores of its variable NaN: it must show. A variable of which nothing is known has no scores
    (NaN) and is left out of the means.

    Sums are kept in float64, and squared deviations as those from the mean so far (Chan et al.,
    "Algorithms for Computing the Sample Variance", The American Statistician 37(3), 1983), so
    nothing cancels out where values are large and differ by little.

    For a chart it also keeps a uniform random sample of pairs, of bounded size. Which are drawn
    depends on their order alone, so they are the same in every epoch.

    Args:
        variables: names of what is regressed.
        sample_size: how many pairs are kept of each variable.

    Attributes:
        moments: float64 ``(V, 6)`` of this process: number of values, mean and sum of squared
            deviations of the true ones; sums of errors, of absolute and of squared errors.
        sample: float32 ``(V, sample_size, 3)`` of this process: the random number that a pair was
            drawn by, infinite where there is none, true and predicted value.
        seen: int64 scalar, pixels or samples that this process was given.
        drawn: the sample over all processes; set by `compute`.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False
    moments: Tensor
    sample: Tensor
    seen: Tensor

    def __init__(self, variables: Sequence[str], *, sample_size: int = SAMPLE_SIZE) -> None:
        super().__init__()
        self.variables = tuple(variables)
        v = len(self.variables)
        nothing = torch.zeros(v, 6, dtype=torch.float64)
        empty = torch.full((v, sample_size, 3), torch.inf)
        self.add_state("moments", nothing, dist_reduce_fx=_merged)
        self.add_state("sample", empty, dist_reduce_fx=_redrawn)
        self.add_state("seen", torch.tensor(0), dist_reduce_fx="sum")
        self.drawn = empty

    def update(self, predicted: Tensor, target: Tensor, counted: Tensor | None = None) -> None:
        """Adds a batch, on its device and without waiting for it.

        Args:
            predicted: ``(B, V, H, W)`` or ``(B, V)``.
            target: of the same shape; unknown where not finite.
            counted: bool of the same shape, or ``(B,)``: False for what is to be left out.

        Raises:
            InputError: if the shapes do not fit.
        """
        v = len(self.variables)
        if predicted.shape != target.shape or target.ndim < 2 or target.shape[1] != v:
            raise InputError(
                f"Metrics over {v} variables need predictions and a target of shape (samples, {v}, "
                f"...), got {tuple(predicted.shape)} and {tuple(target.shape)}."
            )
        known = target.isfinite()
        if counted is not None:
            known = known & counted.reshape(*counted.shape, *[1] * (target.ndim - counted.ndim))
        true, said = (x.double().masked_fill(~known, 0) for x in (target, predicted))
        known, true, said = (rearrange(x, "b v ... -> v (b ...)") for x in (known, true, said))
        self.moments = _merged(torch.stack([self.moments, _moments(true, said, known)]))
        order = self.seen + torch.arange(known.shape[1], device=known.device)
        lots = _lots(order).expand_as(known).masked_fill(~known, torch.inf)
        pairs = torch.stack([lots, true.float(), said.float()], dim=-1)
        self.sample = _draw(torch.cat([self.sample, pairs], dim=1), self.sample.shape[1])
        self.seen = self.seen + known.shape[1]

    def compute(self) -> dict[str, Tensor]:
        """All scores by name; NaN where nothing was seen to compute one from."""
        self.drawn = self.sample.clone()
        number, mean, deviations, error, absolute, squared = self.moments.unbind(dim=1)
        any_known = number > 0
        vary = deviations > number * (_CONSTANT * mean) ** 2
        scores = {
            "rmse": ((squared / number).sqrt(), any_known),
            "mae": (absolute / number, any_known),
            "bias": (error / number, any_known),
            "r2": (1 - squared / deviations, vary),
        }
        results = {}
        for name, (values, there) in scores.items():
            results[name] = torch.where(there, values, 0).sum() / there.sum()
        for name, (values, there) in scores.items():
            each = torch.where(there, values, torch.nan)
            results |= {f"{name}/{v}": x for v, x in zip(self.variables, each, strict=True)}
        return {name: value.float() for name, value in results.items()}

    def pairs(self) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Per variable, true and predicted values that `compute` drew, ``(N,)`` each."""
        drawn = self.drawn.cpu().numpy()
        return [
            (true[lots != torch.inf], said[lots != torch.inf])
            for lots, true, said in drawn.transpose(0, 2, 1)
        ]


def _moments(true: Tensor, said: Tensor, known: Tensor) -> Tensor:
    """Moments of values ``(V, N)`` that are 0 where not known; see `RegressionMetrics`."""
    number = known.sum(dim=1)
    mean = true.sum(dim=1) / number.clamp(min=1)
    deviation = (true - mean[:, None]).masked_fill(~known, 0)
    error = said - true
    sums = deviation.square(), error, error.abs(), error.square()
    return torch.stack([number, mean, *(x.sum(dim=1) for x in sums)], dim=1)


def _merged(moments: Tensor) -> Tensor:
    """Moments of disjoint sets of values, ``(n, V, 6)``, as those of all of them ``(V, 6)``."""
    number, mean, *_ = moments.unbind(dim=2)
    total = moments.sum(dim=0)
    together = (number * mean).sum(dim=0) / number.sum(dim=0).clamp(min=1)
    between = (number * (mean - together).square()).sum(dim=0)
    return torch.stack(
        [total[:, 0], together, total[:, 2] + between, *total[:, 3:].unbind(dim=1)], dim=1
    )


def _redrawn(samples: Tensor) -> Tensor:
    """Samples ``(n, V, size, 3)`` of disjoint sets of pairs as one of all of them."""
    return _draw(rearrange(samples, "n v k three -> v (n k) three"), samples.shape[2])


def _draw(pairs: Tensor, size: int) -> Tensor:
    """Those of the pairs ``(V, N, 3)`` with the smallest random numbers: a uniform sample."""
    lowest = pairs[..., 0].topk(size, dim=1, largest=False).indices
    return pairs.gather(1, lowest[..., None].expand(-1, -1, 3))


def _lots(order: Tensor) -> Tensor:
    """Random numbers in [0, 1) by position, float32: those of no generator, which is left alone.

    The finaliser of SplitMix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators",
    OOPSLA 2014), with shifts that leave signed numbers' signs out.
    """
    bits = order * -0x61C8864680B583EB
    bits = (bits ^ ((bits >> 30) & (2**34 - 1))) * -0x40A7B892E31B1A47
    bits = (bits ^ ((bits >> 27) & (2**37 - 1))) * -0x6B2FB644ECCEEE15
    bits = (bits ^ ((bits >> 31) & (2**33 - 1))) & (2**53 - 1)
    return (bits.double() / 2**53).float()

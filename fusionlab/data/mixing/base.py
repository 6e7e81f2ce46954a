"""What all ways of mixing samples have in common.

What is random is drawn on the host, before a batch is moved to the device; the numbers are mixed
there, afterwards, and nothing has to wait for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor

from fusionlab.data.mixing.plan import Plan, categorical, mixable, same_dates
from fusionlab.data.mixing.targets import mixed_target
from fusionlab.data.mixing.values import blended, of_larger_share, pasted
from fusionlab.errors import InputError
from fusionlab.types import Batch, Raw, Schema, Target, TimeSeries

_PLAN = "mixing"  # key of the plan in a batch that is on its way to the device


class Mixing(ABC):
    """Mixes the samples of a training batch with one another, each with one partner.

    The share of a sample is drawn from Beta(alpha, alpha) for each on its own. Numeric columns of
    tables are interpolated by it, and so are series whose dates are the partner's; what cannot be
    interpolated comes from the one of the two that has the larger share: texts, categories, codes
    (int64, bool), series of other dates, and numbers that only one of the two has (NaN). What is
    mixed becomes float32.

    Samples are left as they are where other modalities are available of their partner, where the
    class of one of the two is unknown, and where their images lie otherwise under the sample (an
    ``offset`` that differs by more than half a pixel).

    Targets: one class becomes shares of classes, several classes that apply become the degrees to
    which they do, values are interpolated and unknown where one of the two is.

    Args:
        alpha: above 0; below 1 most samples keep nearly all of one of the two.
        probability: of a batch to be mixed.

    Raises:
        InputError: for numbers outside these ranges.
    """

    def __init__(self, alpha: float, *, probability: float = 1.0) -> None:
        name = type(self).__name__
        if not 0 < alpha < float("inf"):
            raise InputError(f"The alpha of {name} must be above 0, got {alpha}.")
        if not 0 <= probability <= 1:
            raise InputError(f"The probability of {name} lies in [0, 1], got {probability}.")
        self.alpha = alpha
        self.probability = probability

    @abstractmethod
    def softens(self, target: Target) -> bool:
        """Whether targets of this kind come out as shares of exclusive classes."""

    @abstractmethod
    def place(self, share: Tensor, batch: Batch, schema: Schema) -> Placed:
        """Where the partners' pixels go, and what shares come of it.

        Args:
            share: ``(B,)`` float32, drawn, of the samples themselves.
            batch: on the host.
            schema: what the data deliver.

        Returns:
            The shares that result, and windows as in `Plan`.
        """

    def require(self, schema: Schema) -> None:
        """Refuses data whose samples it cannot mix.

        Raises:
            InputError: says why.
        """
        if not schema.outputs:
            raise InputError(
                f"data.mix: {type(self).__name__} mixes samples and their targets, but the data "
                "have no target. Leave mix out, or name a target."
            )

    def __call__(self, batch: Batch, schema: Schema) -> Batch:
        """A mixed batch; the one given is not changed, and comes back where nothing is mixed."""
        return self.apply(self.plan(batch, schema), schema)

    def plan(self, batch: Batch, schema: Schema) -> Batch:
        """Draws how a batch is mixed, and exchanges what stays on the host: texts.

        Args:
            batch: on the host.
            schema: what the data deliver.

        Returns:
            The batch with its plan, for `apply`; itself if nothing is to be mixed.
        """
        number = len(batch["target"])
        if number < 2 or torch.rand(()) >= self.probability:
            return batch
        partner = torch.randperm(number)
        share = self.shares(number).masked_fill(~mixable(batch, partner), 1.0)
        share, windows, target_window = self.place(share, batch, schema)
        if bool((share == 1).all()):
            return batch
        plan = Plan(
            partner,
            share,
            same_dates(batch, partner),
            categorical(schema),
            windows,
            target_window,
        )
        source = torch.where(share >= 0.5, torch.arange(number), partner).tolist()
        inputs = {
            name: [value[i] for i in source] if isinstance(value, list) else value
            for name, value in batch["inputs"].items()
        }
        return cast(Batch, {**batch, "inputs": inputs, _PLAN: plan})

    def shares(self, number: int) -> Tensor:
        """Draws the shares of so many samples, ``(B,)`` float32 in [0, 1]."""
        alpha = torch.tensor(float(self.alpha))
        return torch.distributions.Beta(alpha, alpha).sample((number,))

    def apply(self, batch: Batch, schema: Schema) -> Batch:
        """Mixes a batch as it was planned, on the device where it is."""
        mixed: dict[str, Any] = dict(batch)
        plan: Plan | None = mixed.pop(_PLAN, None)
        if plan is None:
            return batch
        mixed["inputs"] = {
            name: _input(name, value, plan) for name, value in batch["inputs"].items()
        }
        if "cloud_cover" in batch:
            mixed["cloud_cover"] = {
                name: _of_images(name, cover, cover[plan.partner], plan)
                for name, cover in batch["cloud_cover"].items()
            }
        mixed["target"] = mixed_target(batch["target"], plan, schema)
        return cast(Batch, mixed)


Placed = tuple[Tensor, dict[str, Tensor], Tensor | None]
"""Shares, windows per modality, and window of the target."""


def _input(name: str, value: Raw, plan: Plan) -> Raw:
    if isinstance(value, list):
        return value
    if isinstance(value, TimeSeries):
        other = TimeSeries(*(part.index_select(0, plan.partner) for part in map(_movable, value)))
        values = _of_images(name, _movable(value.values), other.values, plan)
        same = plan.same_dates[name]
        stays = same | (plan.share >= 0.5)
        dates, valid = (
            torch.where(stays[:, None], own, others)
            for own, others in ((value.dates, other.dates), (value.valid, other.valid))
        )
        return TimeSeries(values, dates, valid)
    own = _movable(value)
    other_values = own.index_select(0, plan.partner)
    if name in plan.categorical:
        numbers = blended(own, other_values, plan.share)
        names = of_larger_share(own, other_values, plan.share)
        return torch.where(plan.categorical[name], names, numbers)
    return _of_images(name, own, other_values, plan)


def _of_images(name: str, own: Tensor, other: Tensor, plan: Plan) -> Tensor:
    """Images, or anything that is a number per pixel, date or variable."""
    if name in plan.windows and own.ndim >= 4:
        mixed = pasted(own, other, plan.windows[name])
    else:
        mixed = blended(own, other, plan.share)
    if name not in plan.same_dates:
        return mixed
    same = plan.same_dates[name].reshape(-1, *[1] * (own.ndim - 1))
    return torch.where(same, mixed, of_larger_share(own, other, plan.share))


def _movable(values: Tensor) -> Tensor:
    """Numbers as float32, as experts take them; codes, dates and flags as they are."""
    return values if values.dtype in (torch.bool, torch.int64) else values.float()

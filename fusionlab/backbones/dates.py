"""Series of images in an image backbone: each date by itself, then pooled over the dates.

The attention, its master query and the code of dates are those of L-TAE: Garnot & Landrieu,
"Lightweight Temporal Self-Attention for Classifying Satellite Images Time Series", 2020,
arXiv:2007.00586.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionlab.component import Backbone
from fusionlab.dates import day_of_year
from fusionlab.errors import InputError
from fusionlab.features import Feature

Pooling = Literal["mean", "max", "attention"]
"""How the maps of several dates become one."""

PERIOD = 1000.0
"""T of L-TAE's code of dates, in days; all its sines complete a cycle within 2π times that."""

CODE_WIDTH = 16
"""Numbers that a date becomes, for each query; L-TAE's heads have as many."""


class PooledDates(Backbone):
    """An image backbone for series: encodes every valid date, then pools each of its maps.

    The backbone sees the valid dates of all samples as one batch, and nothing else: padding costs
    no work there, enters no statistics and changes no result, whatever it holds. A sample without
    any valid date gets zeros.

    ``mean`` and ``max`` do not look at the dates. ``attention`` has one learned query per map: at
    every place by itself (so that a cloud counts there only), the dates are weighted by a softmax
    of the query times the features, normalised over their channels, beside L-TAE's code of the day
    of the year (so that other years may follow). As in L-TAE the query does not depend on the
    input, so keys need not be made: per map there are ``channels + 16`` parameters. Queries start
    at zero, where attention is the mean.

    How many dates are valid depends on the data, so ``torch.export`` and ``torch.compile`` take the
    backbone inside, but compile this around it only in parts.

    Args:
        backbone: gives a list of tensors for images ``(B, bands, H, W)``. Without an attribute
            ``features``, they are taken for maps ``(B, C, h, w)`` of `out_channels`.
        pooling: over the valid dates.
        features: what the backbone gives, where it does not say so itself.

    Attributes:
        features: what it gives: as the backbone, so are the attributes that follow.
        out_channels: widths of these.
        multiple: image sides must be multiples of this; 1 if the backbone does not say.

    Raises:
        InputError: for another pooling, or a backbone whose results have no described channels or
            are not listed sample by sample.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pooling: Pooling,
        features: Sequence[Feature] | None = None,
    ) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise InputError(
                f"PooledDates pools by one of {list(get_args(Pooling))}, got {pooling!r}."
            )
        self.backbone = backbone
        self.pooling = pooling
        self.features = _described(backbone, features)
        self.out_channels = [feature.channels for feature in self.features]
        self.multiple = int(getattr(backbone, "multiple", 1))
        self.queries = nn.ModuleList(
            DateQuery(feature) for feature in self.features if pooling == "attention"
        )

    def parameter_layers(self) -> dict[str, int]:
        """Those of the backbone; none where it tells none. Queries lie behind them, as heads do."""
        if not hasattr(self.backbone, "parameter_layers"):
            return {}
        layers: dict[str, int] = self.backbone.parameter_layers()  # type: ignore[operator]
        return {f"backbone.{name}": layer for name, layer in layers.items()}

    def forward(self, values: Tensor, dates: Tensor, valid: Tensor) -> list[Tensor]:
        """Encodes and pools.

        Args:
            values: normalised images ``(B, T, bands, H, W)``, sides multiples of `multiple`.
            dates: days since 1970-01-01, ``(B, T)`` integers.
            valid: ``(B, T)`` bool, False where a date only pads.

        Returns:
            Per map of the backbone, the pooled one, ``(B, …)``.
        """
        frames = values[valid]
        if len(frames) == 0:
            return self._nothing(values)
        days = day_of_year(dates.masked_fill(~valid, 0))
        pooled = []
        for i, (encoded, feature) in enumerate(
            zip(self.backbone(frames), self.features, strict=True)
        ):
            maps = put_back(encoded, valid)
            if self.pooling == "attention":
                weights = self.queries[i](encoded, days[valid], valid)
                pooled.append((maps * weights).sum(dim=1))
            elif self.pooling == "max":
                pooled.append(_maximum(maps, valid))
            else:
                count = valid.sum(dim=1).clamp(min=1)
                pooled.append(maps.sum(dim=1) / _beside(count, feature.layout))
        return pooled

    def _nothing(self, values: Tensor) -> list[Tensor]:
        """Zeros for a batch without any valid date.

        Their shapes are only known from an answer. It is given in evaluation mode, so that no
        statistics learn from it.
        """
        modes = {module: module.training for module in self.backbone.modules()}
        self.backbone.eval()
        try:
            with torch.no_grad():
                answers = self.backbone(values.new_zeros(1, *values.shape[2:]))
        finally:
            for module, training in modes.items():
                module.training = training
        zero = zero_of(self)
        return [answer.new_zeros(len(values), *answer.shape[1:]) + zero for answer in answers]


class DateQuery(nn.Module):
    """The weight of each date at each place, by a learned query.

    Args:
        feature: what is weighted.
    """

    def __init__(self, feature: Feature) -> None:
        super().__init__()
        self.layout = feature.layout
        self.query = nn.Parameter(torch.zeros(feature.channels))
        self.date_query = nn.Parameter(torch.zeros(CODE_WIDTH))

    def forward(self, encoded: Tensor, days: Tensor, valid: Tensor) -> Tensor:
        """Weights that sum to 1 over the valid dates of a sample that has any, 0 elsewhere.

        Args:
            encoded: features of the N valid dates of all samples, ``(N, …)``.
            days: days of these dates, ``(N,)``.
            valid: ``(B, T)`` bool.

        Returns:
            ``(B, T, …)``, with one channel.
        """
        channel = self.layout.index("C")
        last = encoded.movedim(channel, -1)
        scores = F.layer_norm(last, last.shape[-1:]) @ self.query.to(last.dtype)
        scores = scores.float().unsqueeze(channel) / len(self.query) ** 0.5
        codes = encode_days(days, CODE_WIDTH) @ self.date_query.float() / CODE_WIDTH**0.5
        scores = scores + _beside(codes.float(), self.layout)
        weights = masked_softmax(put_back(scores, valid), valid, axis=1)
        return weights.to(encoded.dtype)


def encode_days(days: Tensor, width: int, *, period: float = PERIOD) -> Tensor:
    """L-TAE's sinusoidal code of dates, ``(…)`` to ``(…, width)`` float32.

    Sines and cosines take turns; pair i of ``width / 2`` completes a cycle every ``2π · period ^
    (2i / width)`` days: for 16 numbers and a period of 1000, from 6 days to some 7 years. Days
    further apart than that still get other codes, but no longer in order.

    Args:
        days: days since some date, of any sign.
        width: how many numbers a date becomes; even.
        period: what the cycles grow towards, over 2π, in days.
    """
    pair = torch.arange(width, device=days.device) // 2
    angles = days.float()[..., None] / period ** (2 * pair.float() / width)
    even = torch.arange(width, device=days.device) % 2 == 0
    return torch.where(even, angles.sin(), angles.cos())


def put_back(computed: Tensor, valid: Tensor) -> Tensor:
    """The inverse of ``values[valid]``, with zeros where nothing is valid.

    Args:
        computed: for the N valid places of a mask, ``(N, …)``.
        valid: the mask, ``(B, T)`` or ``(B,)`` bool.

    Returns:
        ``(B, T, …)`` or ``(B, …)``.
    """
    placed = computed.new_zeros(*valid.shape, *computed.shape[1:])
    placed[valid] = computed
    return placed


def masked_softmax(scores: Tensor, valid: Tensor, *, axis: int) -> Tensor:
    """Softmax over valid dates; zeros, with a finite gradient, where there is none.

    Args:
        scores: ``(B, …, T, …)``.
        valid: ``(B, T)`` bool.
        axis: where T is in the scores.
    """
    shape = [1] * scores.ndim
    shape[0], shape[axis] = valid.shape
    there = valid.view(shape)
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~there, lowest).softmax(axis).masked_fill(~there, 0.0)


def zero_of(module: nn.Module) -> Tensor:
    """A zero that depends on all parameters.

    Added to an answer that needs none of them, it gives each a gradient of zero, which processes
    that train together wait for.
    """
    terms = [p.flatten()[:1].sum() * 0 for p in module.parameters() if p.requires_grad]
    return sum(terms, start=torch.zeros((), device=_device(module)))


def _device(module: nn.Module) -> torch.device | None:
    return next((parameter.device for parameter in module.parameters()), None)


def _maximum(maps: Tensor, valid: Tensor) -> Tensor:
    """Largest over valid dates, ``(B, T, …)`` to ``(B, …)``; zeros where there is none."""
    there = valid.view(*valid.shape, *[1] * (maps.ndim - 2))
    largest = maps.masked_fill(~there, torch.finfo(maps.dtype).min).amax(dim=1)
    return largest.masked_fill(~there.any(dim=1), 0.0)


def _beside(per_sample: Tensor, layout: str) -> Tensor:
    """``(B,)`` with as many axes as a tensor of that layout has."""
    return per_sample.view(-1, *[1] * (len(layout) - 1))


def _described(backbone: nn.Module, features: Sequence[Feature] | None) -> tuple[Feature, ...]:
    name = type(backbone).__name__
    if features is None:
        features = getattr(backbone, "features", ())
    described = isinstance(features, list | tuple) and len(features) > 0
    if not (described and all(isinstance(feature, Feature) for feature in features)):
        channels = getattr(backbone, "out_channels", None)
        if not isinstance(channels, list | tuple) or not channels:
            raise InputError(
                f"PooledDates takes an image backbone that says the widths of its maps, but {name} "
                "has no list `out_channels`. Give it one."
            )
        features = [Feature(int(width)) for width in channels]
    for feature in features:
        if feature.layout[0] != "N" or "C" not in feature.layout:
            raise InputError(
                f"PooledDates pools tensors whose first axis are the samples and that have "
                f"channels, such as NCHW or NLC, but {name} gives {feature.layout!r}. Choose "
                "another backbone."
            )
    return tuple(features)

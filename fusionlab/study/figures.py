"""The figures of a comparison, drawn from its runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fusionlab.plots import (
    class_scores_chart,
    comparison_curves_chart,
    fusion_weights_chart,
    ladder_chart,
    member_label,
    seeds_chart,
    trade_off_chart,
)
from fusionlab.study.finished import Curve, FinishedRun
from fusionlab.study.scores import is_count, is_fraction, is_share, label, quantity
from fusionlab.study.table import Comparison, Statistic, statistic

_COSTS = {"total_parameters": "parameters", "flops_per_sample": "FLOPs per sample"}
_TRAINING_LOSS = "train/loss_epoch"
"""Means over epochs. Single steps, as other logs hold them, are no curve to compare."""
_OF_CLASSES = {"accuracy": "f1", "miou": "iou"}
"""What single classes have in the place of a score over all."""
_DETAILED = ("iou", "ap", "f1", "rmse", "mae")
"""Scores of single classes, the one to draw first."""


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
    """All figures that there is something for, by name.

    ``ladder``: the ranking score by modalities; ``curves``: losses of training and validation, and
    the ranking score in validation, by epoch; ``per_class``: a score of every class or variable;
    ``shares``: what each modality decides; ``trade_off``: the ranking score by parameters and
    operations; ``seeds``: the ranking score of every seed.
    """
    drawn = {
        "ladder": _ladder(comparison),
        "curves": _curves(comparison),
        "per_class": _per_class(comparison),
        "shares": _shares(comparison),
        "trade_off": _trade_off(comparison),
        "seeds": _seeds(comparison),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def drawn_class_score(comparison: Comparison) -> str | None:
    """Which score of single classes is drawn, without stage: that of the ranking one if there.

    That is F1 for F1 and accuracy, average precision for it, IoU for mIoU. None if there is none.
    """
    found = {
        quantity(name): None
        for row in comparison.rows
        for run in comparison.runs[row.member]
        for name in run.per_class
    }
    names = [name for name in found if not is_count(name) and not is_share(name)]
    own = [_OF_CLASSES.get(word, word) for word in comparison.score.split("_")]  # ap_macro: ap
    order = [comparison.score, *own, *_DETAILED, *names]
    return next((name for name in order if name in names), None)


def _ladder(comparison: Comparison) -> Figure | None:
    factor = 100.0 if is_fraction(comparison.score) else 1.0
    scores = {
        member: [factor * value for value in by_seed.values() if math.isfinite(value)]
        for member, by_seed in comparison.by_seed().items()
    }
    rungs = {member: (kept, scores[member]) for member, kept in comparison.rungs.items()}
    if len(rungs) < 2 or not any(found for _, found in rungs.values()):
        return None
    modalities = list(dict.fromkeys(m for kept in comparison.rungs.values() for m in kept))
    others = {member: found for member, found in scores.items() if member not in rungs and found}
    return ladder_chart(rungs, modalities, x_label=label(comparison.score), others=others)


def _curves(comparison: Comparison) -> Figure | None:
    panels = {}
    score = comparison.score
    for title, name in (
        ("training: loss", _TRAINING_LOSS),
        ("validation: loss", "val/loss"),
        (f"validation: {label(score)}", f"val/{score}"),
    ):
        factor = 100.0 if is_fraction(name) else 1.0
        panel = {
            member: curves
            for member, runs in comparison.runs.items()
            if any(curves := [_scaled(run.curves.get(name), factor) for run in runs])
        }
        if panel:
            panels[title] = panel
    return comparison_curves_chart(panels) if panels else None


def _scaled(curve: Curve | None, factor: float) -> Curve:
    return [(x, factor * y) for x, y in curve or ()]


def _per_class(comparison: Comparison) -> Figure | None:
    score = drawn_class_score(comparison)
    if score is None:
        return None
    values = class_statistics(comparison, score)
    classes = list(dict.fromkeys(name for by_class in values.values() for name in by_class))
    bars = {
        member: (
            [_mean(by_class.get(name)) for name in classes],
            [_std(by_class.get(name)) for name in classes],
        )
        for member, by_class in values.items()
        if by_class
    }
    return class_scores_chart(bars, classes, x_label=label(score), percent=is_fraction(score))


def class_statistics(comparison: Comparison, score: str) -> dict[str, dict[str, Statistic | None]]:
    """A score of every class or variable over the seeds, by member.

    Args:
        comparison: the members.
        score: of single classes, without stage.
    """
    return {
        row.member: _of_classes(comparison.runs[row.member], f"{row.stage}/{score}")
        for row in comparison.rows
    }


def _of_classes(runs: Sequence[FinishedRun], score: str) -> dict[str, Statistic | None]:
    names = dict.fromkeys(name for run in runs for name in run.per_class.get(score, {}))
    return {
        name: statistic(run.per_class.get(score, {}).get(name) for run in runs) for name in names
    }


def _shares(comparison: Comparison) -> Figure | None:
    shares = {
        member: {
            modality: _mean(statistic(run.shares.get(modality) for run in runs))
            for modality in dict.fromkeys(m for run in runs for m in run.shares)
        }
        for member, runs in comparison.runs.items()
        if any(run.shares for run in runs)
    }
    if not shares:
        return None
    modalities = dict.fromkeys(m for by_modality in shares.values() for m in by_modality)
    bars = {m: [by_modality.get(m, 0.0) for by_modality in shares.values()] for m in modalities}
    return fusion_weights_chart(bars, [member_label(member) for member in shares])


def _trade_off(comparison: Comparison) -> Figure | None:
    score = comparison.score
    factor = 100.0 if is_fraction(score) else 1.0
    panels = {}
    for cost, name in _COSTS.items():
        points = {
            row.member: (x.mean, factor * y.mean, None if y.std is None else factor * y.std)
            for row in comparison.rows
            if row.rank and (x := row.values.get(cost)) and (y := row.values[score])
        }
        if points:
            panels[name] = points
    if not panels or comparison.direction == "zero":
        return None
    return trade_off_chart(
        panels, y_label=label(score), less_is_better=comparison.direction == "min"
    )


def _seeds(comparison: Comparison) -> Figure | None:
    factor = 100.0 if is_fraction(comparison.score) else 1.0
    values = {
        member: [factor * value for value in by_seed.values() if math.isfinite(value)]
        for member, by_seed in comparison.by_seed().items()
    }
    if max(map(len, values.values()), default=0) < 2:
        return None  # one point each says no more than the table
    return seeds_chart(values, x_label=label(comparison.score))


def _mean(value: Statistic | None) -> float:
    return value.mean if value is not None else np.nan


def _std(value: Statistic | None) -> float:
    return value.std if value is not None and value.std is not None else np.nan

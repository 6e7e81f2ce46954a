"""Samples of a regression: pictures, truth, prediction and error, as maps or as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fusionlab.callbacks.sample_figure import (
    FAINT,
    LETTERS,
    DescribedSample,
    Line,
    samples_figure,
)
from fusionlab.callbacks.value_colors import (
    DIVERGING,
    Floats,
    color_limits,
    draw_bar,
    draw_values,
    error_limits,
    with_unit,
)
from fusionlab.errors import InputError
from fusionlab.plots.style import INK, new_figure

MOST_MAPS = 3
"""The most variables that are drawn as maps: more rows would be too small to see."""
_PICTURE = 2.45
_BAR, _THICKNESS = 0.65, 0.1
"""Inches, with what is written along it and without."""


@dataclass(frozen=True)
class RegressedSample:
    """A sample to draw.

    Attributes:
        name: of the sample.
        pictures: uint8 ``(H, W, 3)`` by title; None for what is missing in this sample.
        true: values ``(V, h, w)`` or ``(V,)``, NaN where unknown.
        predicted: likewise.
        notes: what else is known of it, below its numbers.
    """

    name: str
    pictures: Mapping[str, NDArray[Any] | None]
    true: Floats
    predicted: Floats
    notes: Sequence[Line] = ()


def value_maps_figure(
    samples: Sequence[RegressedSample], variables: Sequence[str], units: Sequence[str]
) -> Figure:
    """A row per sample and variable: pictures, truth and prediction in the same colours, error.

    Colours mean the same in all rows of a variable; errors are prediction minus truth. The first
    three variables are shown.

    Args:
        samples: what to draw, with values ``(V, h, w)``.
        variables: names.
        units: of each; empty text where it has none.

    Raises:
        InputError: if there is nothing to show.
    """
    if not samples or not variables:
        raise InputError("There are no samples to show.")
    shown = list(zip(variables, units, strict=True))[:MOST_MAPS]
    pictures = max(len(sample.pictures) for sample in samples)
    rows = len(samples) * len(shown)
    figure = new_figure(_PICTURE * (pictures + 3), (_PICTURE + _BAR) * rows)
    grid = figure.add_gridspec(2 * rows, pictures + 3, height_ratios=[_PICTURE, _THICKNESS] * rows)
    for v, (variable, unit) in enumerate(shown):
        label = with_unit(variable, unit)
        shared = color_limits(*(values[v] for s in samples for values in (s.true, s.predicted)))
        around_zero = error_limits(*(s.predicted[v] - s.true[v] for s in samples))
        for i, sample in enumerate(samples):
            row = 2 * (i * len(shown) + v)
            if v == 0:  # the same for all variables of a sample
                _draw_pictures([figure.add_subplot(grid[row, c]) for c in range(pictures)], sample)
            axes = [figure.add_subplot(grid[row, c]) for c in range(pictures, pictures + 3)]
            for one, title in zip(axes, ("truth", "prediction", "error"), strict=True):
                one.set_title(title, fontsize=9, color=INK)
            true, predicted = sample.true[v], sample.predicted[v]
            drawn = [draw_values(axes[0], true, shared), draw_values(axes[1], predicted, shared)]
            draw_bar(figure.add_subplot(grid[row + 1, pictures:-1]), drawn, label)
            error = draw_values(axes[2], predicted - true, around_zero, colors=DIVERGING)
            draw_bar(figure.add_subplot(grid[row + 1, -1]), [error], label)
    return figure


def values_figure(
    samples: Sequence[RegressedSample], variables: Sequence[str], units: Sequence[str]
) -> Figure:
    """A row per sample: its pictures, then the true and the predicted value of every variable.

    Args:
        samples: what to draw, with values ``(V,)``.
        variables: names.
        units: of each; empty text where it has none.

    Raises:
        InputError: if there is nothing to show.
    """
    names = [with_unit(*one) for one in zip(variables, units, strict=True)]
    return samples_figure(
        [DescribedSample(s.name, s.pictures, [*_lines(s, names), *s.notes]) for s in samples]
    )


def _lines(sample: RegressedSample, names: Sequence[str]) -> list[Line]:
    lines = []
    for name, true, predicted in zip(names, sample.true, sample.predicted, strict=True):
        lines += [Line(part, heading=True) for part in wrap(name, LETTERS)]
        if np.isfinite(true):
            error = predicted - true
            text = f"true {true:.4g}    predicted {predicted:.4g}    error {error:+.3g}"
            lines.append(Line(text))
        else:
            lines.append(Line(f"truth unknown    predicted {predicted:.4g}", FAINT))
    return lines


def _draw_pictures(axes: Sequence[Axes], sample: RegressedSample) -> None:
    for one in axes:
        one.axis("off")
    for one, (title, picture) in zip(axes, sample.pictures.items(), strict=False):
        one.set_title(title, fontsize=9, color=INK)
        if picture is None:
            one.set_box_aspect(sample.true.shape[-2] / sample.true.shape[-1])
            one.text(
                0.5, 0.5, "not available", ha="center", va="center", fontsize=9, color=FAINT,
                style="italic", transform=one.transAxes,
            )  # fmt: skip
        else:
            one.imshow(picture, interpolation="nearest")
    if axes:
        axes[0].text(
            0, -0.03, sample.name, fontsize=7.5, color=FAINT, va="top",
            transform=axes[0].transAxes,
        )  # fmt: skip

"""How well each class is told: average precision, and precision by recall."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator
from numpy.typing import ArrayLike

from fusionlab.errors import InputError
from fusionlab.plots.style import (
    INK,
    SERIES,
    bare,
    class_colors,
    class_rows,
    new_figure,
    short_number,
)

Points = tuple[ArrayLike, ArrayLike]
"""Recall and precision, ``(N,)`` each in [0, 1], recall falling."""


def average_precision_chart(
    average_precision: ArrayLike,
    classes: Sequence[str],
    *,
    support: ArrayLike,
    macro: float,
    micro: float,
    colors: Sequence[str] = (),
) -> Figure:
    """Average precision of each class as a bar, with the number of samples that it rests on.

    Args:
        average_precision: ``(K,)`` in [0, 1]; NaN for a class that applies to no sample.
        classes: class names.
        support: ``(K,)``, samples to which each class applies.
        macro: the mean over classes, drawn as a line.
        micro: average precision of all pairs of sample and class, drawn as a line.
        colors: ``#rrggbb`` per class, shown beside the names as on the map.

    Raises:
        InputError: if there is not one value per class.
    """
    values, counts = np.asarray(average_precision, dtype=float), np.asarray(support, dtype=float)
    k = len(classes)
    for name, given in (("values", values), ("numbers of samples", counts)):
        if given.shape != (k,):
            raise InputError(f"{k} classes need {k} {name}, got {given.shape}.")
    figure = new_figure(8.5, 1.2 + 0.36 * k)
    axes = figure.subplots()
    axes.barh(range(k), np.nan_to_num(values), height=0.74, color=SERIES[0], lw=0, zorder=2)
    for row, value in enumerate(values):
        if np.isnan(value):
            axes.text(
                0.01, row, "no samples", va="center", fontsize=9, color="#888888", style="italic"
            )
            continue
        # At the foot of the bar, away from the lines of the means.
        inside = value >= 0.08
        axes.text(
            0.01 if inside else value + 0.01, row, f"{100 * value:.1f}",
            va="center", fontsize=9, color="white" if inside else INK, zorder=4,
        )  # fmt: skip
    lines = []
    for name, score, color, dashes in (
        ("macro", macro, SERIES[5], "-"),
        ("micro", micro, "#000000", (0, (4, 2))),
    ):
        if np.isfinite(score):
            axes.axvline(score, color=color, lw=1.6, ls=dashes, zorder=3)
            label = f"{name} {100 * score:.1f}"
            lines.append(Line2D([], [], color=color, lw=1.6, ls=dashes, label=label))
    axes.set_xlim(0, 1)
    ticks = np.linspace(0, 1, 6)
    axes.set_xticks(ticks, [f"{100 * tick:.0f}" for tick in ticks])
    axes.grid(axis="x", color="#e6e6e6", lw=0.8, zorder=0)
    axes.set_xlabel("average precision, in %", color=INK)
    class_rows(figure, axes, classes, class_colors(classes, colors) if colors else ())
    bare(axes)
    samples = axes.secondary_yaxis("right")
    samples.set_yticks(range(k), [short_number(n) for n in counts], fontsize=9, color="#777777")
    samples.set_ylabel("samples", color="#777777")
    samples.tick_params(length=0)
    samples.spines["right"].set_visible(False)
    figure.legend(handles=lines, loc="outside upper right", ncols=2, frameon=False, fontsize=10)
    return figure


def precision_recall_chart(
    curves: Sequence[Points | None],
    classes: Sequence[str],
    *,
    average_precision: ArrayLike,
    micro: Points | None = None,
) -> Figure:
    """Precision by recall, a panel per class, each over the curve of all classes together.

    The area below a curve is the average precision. A dotted line marks what guessing gives: the
    share of the samples to which the class applies.

    Args:
        curves: per class, from the least probable sample to the most probable; None for a class
            that applies to no sample.
        classes: class names.
        average_precision: ``(K,)`` in [0, 1], written beside the names in percent.
        micro: the curve of all pairs of sample and class.

    Raises:
        InputError: if there is not one curve and one value per class.
    """
    values = np.asarray(average_precision, dtype=float)
    k = len(classes)
    if len(curves) != k or values.shape != (k,):
        raise InputError(
            f"{k} classes need {k} curves and values, got {len(curves)} and {values.shape}."
        )
    columns = min(k, 5 if k <= 30 else 8)
    rows = -(-k // columns)
    lines_of_names = max(len(wrap(name, 26)) for name in classes)
    figure = new_figure(2.3 * columns + 0.3, (2.1 + 0.12 * lines_of_names) * rows + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[k:]:
        axes.remove()
    for i, (axes, curve) in enumerate(zip(grid.flat, curves, strict=False)):
        if micro is not None:
            _steps(axes, micro, color="#bbbbbb", lw=1.4)
        if curve is None:
            axes.text(
                0.5, 0.5, "no samples", ha="center", fontsize=9, color="#888888", style="italic"
            )
        else:
            _steps(axes, curve, color=SERIES[0], lw=1.8)
            axes.axhline(float(np.asarray(curve[1])[0]), color=SERIES[0], lw=1, ls=":")
        _panel(axes, classes[i], values[i])
        if i + columns >= k:  # nothing below
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("recall", color=INK, fontsize=9)
        if i % columns == 0:
            axes.set_ylabel("precision", color=INK, fontsize=9)
    lines = [
        Line2D([], [], color=SERIES[0], lw=1.8, label="this class"),
        Line2D([], [], color="#bbbbbb", lw=1.4, label="all classes (micro)"),
        Line2D([], [], color=SERIES[0], lw=1, ls=":", label="guessing"),
    ]
    handles = lines if micro is not None else lines[::2]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=3 if columns > 1 else 1, frameon=False
    )
    return figure


def _panel(axes: Axes, name: str, average_precision: float) -> None:
    names = "\n".join(wrap(name, 26))
    axes.set_title(names, loc="left", fontsize=8, color=INK, pad=4, linespacing=1.0)
    if not np.isnan(average_precision):
        score = f"{100 * average_precision:.1f}"
        axes.set_title(score, loc="right", fontsize=8, color=INK, pad=4, fontweight="bold")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.04)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axes.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.tick_params(labelsize=8)
    bare(axes)


def _steps(axes: Axes, curve: Points, *, color: str, lw: float) -> None:
    recall, precision = (np.asarray(values)[::-1] for values in curve)
    # The precision at a recall holds from the recall before it: so the area is that of the score.
    axes.step(recall, precision, where="pre", color=color, lw=lw)

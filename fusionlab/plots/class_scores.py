"""Scores of single classes, members side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from fusionlab.errors import InputError
from fusionlab.plots.comparison import member_colors, member_label
from fusionlab.plots.style import INK, bare, ink_on, new_figure


def class_scores_chart(
    scores: Mapping[str, tuple[ArrayLike, ArrayLike]],
    classes: Sequence[str],
    *,
    x_label: str,
    percent: bool,
) -> Figure:
    """Scores of every class as bars, a panel per class and a row per member.

    Args:
        scores: per member, means ``(K,)`` over seeds, NaN where there is none; and their standard
            deviations ``(K,)``, NaN where there is one seed.
        classes: class names.
        x_label: name of the score.
        percent: whether scores are in [0, 1], and written in percent.

    Raises:
        InputError: if there is no class or member, or not one value per class.
    """
    k, members = len(classes), list(scores)
    if not k or not members:
        raise InputError("There are no scores of single classes to draw.")
    arrays = {
        member: (np.asarray(mean, dtype=float), np.asarray(std, dtype=float))
        for member, (mean, std) in scores.items()
    }
    for member, (mean, std) in arrays.items():
        if mean.shape != (k,) or std.shape != (k,):
            raise InputError(
                f"{k} classes need {k} means and deviations of {member!r}, got {mean.shape} and "
                f"{std.shape}."
            )
    names = [member_label(member, 30) for member in members]
    columns = min(k, 4 if k <= 8 else 5)
    rows = -(-k // columns)
    titles = ["\n".join(wrap(name, 26)) for name in classes]
    # Bars, the names beside and above them at 0.07 inches a letter, and what is around.
    width = 2.3 * columns + 0.07 * max(map(len, names)) + 0.2
    above = 0.14 * max(1 + title.count("\n") for title in titles)
    height = (0.17 * len(members) + above + 0.25) * rows + 0.5
    figure = new_figure(width, height)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=percent, sharey=True)
    for axes in grid.flat[k:]:
        axes.remove()
    colors = member_colors(len(members))
    for i, axes in enumerate(grid.flat[:k]):
        means = np.array([mean[i] for mean, _ in arrays.values()])
        stds = np.array([std[i] for _, std in arrays.values()])
        _bars(axes, means, stds, colors, percent=percent)
        axes.set_title(titles[i], loc="left", fontsize=9, color=INK, pad=4, linespacing=1.0)
        axes.set_yticks(range(len(members)), names, fontsize=8)
        if i + columns >= k:  # nothing below
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(x_label, color=INK, fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        bare(axes)
    grid[0, 0].set_ylim(len(members) - 0.5, -0.5)
    return figure


def _bars(
    axes: Axes,
    means: NDArray[np.float64],
    stds: NDArray[np.float64],
    colors: Sequence[str],
    *,
    percent: bool,
) -> None:
    rows = np.arange(len(means))
    axes.barh(rows, np.nan_to_num(means), height=0.78, color=colors, lw=0, zorder=2)
    shown = np.isfinite(means) & np.isfinite(stds) & (stds > 0)
    if shown.any():
        axes.errorbar(
            means[shown], rows[shown], xerr=stds[shown], fmt="none", ecolor=INK,
            elinewidth=1, capsize=2, zorder=4,
        )  # fmt: skip
    if percent:
        axes.set_xlim(0, 1)
        ticks = np.linspace(0, 1, 6)
        axes.set_xticks(ticks, [f"{100 * tick:.0f}" for tick in ticks])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x", color="#e6e6e6", lw=0.8, zorder=0)
    _write(axes, means, np.where(shown, stds, 0.0), colors, percent=percent)


def _write(
    axes: Axes,
    means: NDArray[np.float64],
    stds: NDArray[np.float64],
    colors: Sequence[str],
    *,
    percent: bool,
) -> None:
    """The numbers: at the foot of a long bar, away from its error; behind the error of a short."""
    low, high = axes.get_xlim()
    for row, (mean, std, color) in enumerate(zip(means, stds, colors, strict=True)):
        text = f"{100 * mean:.1f}" if percent else f"{mean:.3g}"
        short = abs(mean) - std < 0.2 * (high - low)
        left = False
        if np.isnan(mean):
            text, x, ink = "no samples", 0.0, "#888888"
        elif short and mean + std < low + 0.85 * (high - low):
            x, ink = max(mean + std, 0.0), INK
        else:
            x, ink, left = 0.0, ink_on(color), mean < 0
        axes.annotate(
            text, (x, row), xytext=(-3 if left else 3, 0), textcoords="offset points",
            ha="right" if left else "left", va="center_baseline", fontsize=7, color=ink, zorder=5,
        )  # fmt: skip

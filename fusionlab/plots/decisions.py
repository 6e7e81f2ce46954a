"""Which modality decides, and what each class is taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten, wrap

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from fusionlab.errors import InputError
from fusionlab.plots.style import (
    INK,
    SERIES,
    bare,
    class_colors,
    class_rows,
    cycle,
    ink_on,
    new_figure,
    short_number,
)


def fusion_weights_chart(
    weights: Mapping[str, ArrayLike], classes: Sequence[str], colors: Sequence[str] = ()
) -> Figure:
    """How much each modality decides, per class: one bar per class, split by modality.

    Args:
        weights: per modality ``(K,)``, its share in [0, 1]; NaN for classes never seen.
        classes: class names.
        colors: ``#rrggbb`` per class, shown beside the names as on the map.
    """
    shares = {name: np.asarray(values, dtype=float) for name, values in weights.items()}
    k = len(classes)
    for name, values in shares.items():
        if values.shape != (k,):
            raise InputError(f"{k} classes need {k} weights of {name!r}, got {values.shape}.")
    figure = new_figure(8.5, 1.2 + 0.36 * k)
    axes = figure.subplots()
    left = np.zeros(k)
    for (name, values), color in zip(shares.items(), cycle(SERIES, len(shares)), strict=True):
        width = np.nan_to_num(values)
        axes.barh(range(k), width, left=left, height=0.74, color=color, label=name, lw=0)
        for row, (start, share) in enumerate(zip(left, width, strict=True)):
            if share >= 0.06:
                axes.text(
                    start + share / 2, row, f"{100 * share:.0f}",
                    ha="center", va="center", fontsize=9, color=ink_on(color),
                )  # fmt: skip
        left += width
    unseen = np.isnan(np.array(list(shares.values()))).any(axis=0)
    for row in np.flatnonzero(unseen).tolist():
        axes.text(0.01, row, "not seen", va="center", fontsize=9, color="#888888", style="italic")
    if len(shares) == 2:
        axes.axvline(0.5, color="white", lw=1, ls=(0, (4, 3)))
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("share in the decision", color=INK)
    class_rows(figure, axes, classes, class_colors(classes, colors) if colors else ())
    bare(axes)
    figure.legend(loc="outside upper right", ncols=len(shares), frameon=False, fontsize=10)
    return figure


def confusion_matrix_chart(
    matrix: ArrayLike,
    classes: Sequence[str],
    colors: Sequence[str] = (),
    *,
    counted: str = "pixels",
) -> Figure:
    """What each true class was taken for, in percent of its pixels or samples.

    Args:
        matrix: ``(K, K)`` counts, rows are the true classes.
        classes: class names.
        colors: ``#rrggbb`` per class, shown beside the names as on the map.
        counted: what the counts are of.
    """
    counts = np.asarray(matrix, dtype=float)
    k = len(classes)
    if counts.shape != (k, k):
        raise InputError(f"{k} classes need a {k} by {k} matrix, got {counts.shape}.")
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    longest = max(len(name) for name in classes)
    # The cells, the names beside and below them at 0.075 inches a letter, and what is around.
    figure = new_figure(
        0.45 * k + 0.075 * min(longest, 46) + 1.9, 0.45 * k + 0.075 * min(longest, 26) + 0.9
    )
    axes = figure.subplots()
    cmap = colormaps["Blues"].with_extremes(bad="#f2f2f2")
    axes.imshow(share, cmap=cmap, vmin=0, vmax=1)
    for row, column in np.ndindex(k, k):
        value = share[row, column]
        if value >= 0.005:
            axes.text(
                column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=9,
                color="white" if value > 0.55 else INK,
                fontweight="bold" if row == column else "normal",
            )  # fmt: skip
    class_rows(figure, axes, classes, class_colors(classes, colors) if colors else ())
    names = ["\n".join(wrap(shorten(name, 48, placeholder=" …"), 26)) for name in classes]
    axes.set_xticks(range(k), names, rotation=90, fontsize=9, linespacing=0.95)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1)
    bare(axes)
    counts_axis = axes.secondary_yaxis("right")
    counts_axis.set_yticks(
        range(k), [short_number(n) for n in total[:, 0]], fontsize=9, color="#777777"
    )
    counts_axis.set_ylabel(counted, color="#777777")
    counts_axis.tick_params(length=0)
    counts_axis.spines["right"].set_visible(False)
    axes.set_title("Share of each true class, in %", loc="left", fontsize=11, color=INK)
    return figure

"""How close regressed values come to the truth."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from fusionlab.errors import InputError
from fusionlab.plots.style import INK, SERIES, bare, new_figure

_DENSITY = colormaps["viridis_r"]
_CELLS = 80
_FEW = 500
"""Pairs below which points say more than their density."""
_TAIL = 0.2
"""Percent of the values at either end that may lie outside."""


def regression_chart(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]],
    variables: Sequence[str],
    *,
    units: Sequence[str] = (),
    rmse: Sequence[float],
    r2: Sequence[float],
) -> Figure:
    """Predicted by true values as a density, a panel per variable, with the line of no error.

    Axes end where all but the outermost values do; what share lies outside is written below.

    Args:
        pairs: per variable, true and predicted values, ``(N,)`` each; those that are not finite are
            left out.
        variables: their names.
        units: of the variables; empty strings, or nothing, where there are none.
        rmse: root of the mean squared error of each variable, which need not be of these pairs.
        r2: coefficient of determination of each; NaN where there is none.

    Raises:
        InputError: if there is not one of each per variable, or true and predicted values are not
            as many.
    """
    v = len(variables)
    units = list(units) or [""] * v
    numbers = {"pairs": pairs, "units": units, "values of rmse": rmse, "values of r2": r2}
    for name, given in numbers.items():
        if len(given) != v:
            raise InputError(f"{v} variables need {v} {name}, got {len(given)}.")
    columns = min(v, 3)
    rows = -(-v // columns)
    figure = new_figure(4.6 * columns, 4.5 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[v:]:
        axes.remove()
    for i, (axes, name) in enumerate(zip(grid.flat, variables, strict=False)):
        true, predicted = (np.asarray(values, dtype=float) for values in pairs[i])
        if true.shape != predicted.shape or true.ndim != 1:
            raise InputError(
                f"{name!r}: true and predicted values must be as many, got {true.shape} and "
                f"{predicted.shape}."
            )
        finite = np.isfinite(true) & np.isfinite(predicted)
        _panel(axes, true[finite], predicted[finite], units[i])
        axes.set_title(_title(name, units[i], rmse[i], r2[i]), loc="left", fontsize=11, color=INK)
    handles: list[Artist] = [
        Line2D([], [], color=SERIES[5], lw=1.2, ls=(0, (5, 3)), label="predicted = true")
    ]
    if any(axes.collections for axes in grid.flat[:v]):
        few, many = _DENSITY(0.05), _DENSITY(0.95)
        handles += [Patch(color=few, label="few values"), Patch(color=many, label="many")]
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    return figure


def _title(name: str, unit: str, rmse: float, r2: float) -> str:
    scores = f"RMSE {rmse:.3g} {unit}".rstrip()
    if np.isfinite(r2):
        scores += f", R² {r2:.2f}"
    return f"{shorten(name, 44, placeholder=' …')}\n{scores}"


def _panel(
    axes: Axes, true: NDArray[np.float64], predicted: NDArray[np.float64], unit: str
) -> None:
    bare(axes)
    label = f", {unit}" if unit else ""
    axes.set_xlabel(f"true{label}", color=INK)
    axes.set_ylabel(f"predicted{label}", color=INK)
    axes.set_aspect("equal")
    if not len(true):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no values", ha="center", color="#888888", style="italic")
        return
    low, high = _limits(true, predicted)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6))
    axes.grid(color="#e6e6e6", lw=0.8, zorder=0)
    if len(true) < _FEW:
        axes.plot(true, predicted, "o", ms=4, mew=0, color=SERIES[0], alpha=0.6, zorder=2)
    else:
        edges = np.linspace(low, high, _CELLS + 1)
        counts, _, _ = np.histogram2d(true, predicted, bins=[edges, edges])
        axes.pcolormesh(
            edges, edges, np.ma.masked_equal(counts.T, 0), zorder=2,
            cmap=_DENSITY, norm=LogNorm(1, max(counts.max(), 2)), rasterized=True,
        )  # fmt: skip
    axes.plot([low, high], [low, high], color=SERIES[5], lw=1.2, ls=(0, (5, 3)), zorder=3)
    inside = (np.minimum(true, predicted) >= low) & (np.maximum(true, predicted) <= high)
    if not inside.all():
        share = f"{100 * (1 - inside.mean()):.1f} % outside"
        axes.text(
            0.98, 0.02, share, ha="right", va="bottom", transform=axes.transAxes,
            fontsize=8, color="#777777", zorder=4,
        )  # fmt: skip


def _limits(true: NDArray[np.float64], predicted: NDArray[np.float64]) -> tuple[float, float]:
    """The ends of both axes."""
    ends = [np.percentile(values, [_TAIL, 100 - _TAIL]) for values in (true, predicted)]
    low, high = float(min(e[0] for e in ends)), float(max(e[1] for e in ends))
    margin = 0.03 * (high - low) or max(abs(low), 1.0) * 0.01
    return low - margin, high + margin

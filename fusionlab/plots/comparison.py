"""Members of a study side by side: curves, trade-offs, and the spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, Formatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.typing import LineStyleType
from numpy.typing import NDArray

from fusionlab.errors import InputError
from fusionlab.plots.style import INK, SERIES, bare, class_rows, new_figure

Points = Sequence[tuple[float, float]]
"""Pairs of x and y."""

# Black hides error bars, yellow is too light for lines: grey and wine in their place.
_COLORS = (*SERIES[:6], "#8c8c8c", "#882255")
_DASHES: tuple[LineStyleType, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
_MARKERS = "osD^vPX<"
_FRONTIER = "#999999"
_UNBEATEN = "none better at this cost or less"
_LOGARITHMIC = 30.0
"""Ratio of the largest to the smallest value of a panel from which on its axis is logarithmic."""


def member_colors(n: int) -> list[str]:
    """A colour per member, beginning anew after eight; dashes or markers tell those apart."""
    return [_COLORS[i % len(_COLORS)] for i in range(n)]


def member_label(name: str, most: int = 40) -> str:
    """A name that is cut in its middle if it is longer than so many letters."""
    end = most // 3
    return name if len(name) <= most else f"{name[: most - end - 1]}…{name[-end:]}"


def comparison_curves_chart(
    panels: Mapping[str, Mapping[str, Sequence[Points]]], *, x_label: str = "epochs"
) -> Figure:
    """Curves of all members, a panel per quantity: means over seeds, in a band from least to most.

    Args:
        panels: by title, for each member the curves of its seeds; points of a curve ordered by x.
            The panels may leave members out. Values must be finite.
        x_label: what the x-axis counts.

    Raises:
        InputError: if there is no curve.
    """
    members = list(dict.fromkeys(m for panel in panels.values() for m in panel))
    if not any(curve for panel in panels.values() for seeds in panel.values() for curve in seeds):
        raise InputError("There is no curve to draw: no member logged any.")
    styles = {
        member: (color, _DASHES[i // len(_COLORS) % len(_DASHES)])
        for i, (member, color) in enumerate(
            zip(members, member_colors(len(members)), strict=True)
        )
    }  # fmt: skip
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    width = 4.2 * columns
    legend_columns, legend_rows = _legend_shape(members, width)
    figure = new_figure(width, 3.4 * rows + 0.22 * legend_rows + 0.2)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, (title, panel) in zip(grid.flat, panels.items(), strict=False):
        for member, seeds in panel.items():
            _mean_and_band(axes, [curve for curve in seeds if curve], *styles[member])
        axes.set_title(title, loc="left", fontsize=11, color=INK)
        axes.set_xlabel(x_label, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(color="#e6e6e6", lw=0.8)
        _scale(axes, panel)
        bare(axes)
    handles = [
        Line2D([], [], color=color, ls=dash, lw=2, label=member_label(member))
        for member, (color, dash) in styles.items()
    ]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=legend_columns, frameon=False, fontsize=9,
        handlelength=2.6, columnspacing=1.4,
    )  # fmt: skip
    return figure


def trade_off_chart(
    panels: Mapping[str, Mapping[str, tuple[float, float, float | None]]],
    *,
    y_label: str,
    less_is_better: bool = False,
) -> Figure:
    """A score by what it costs, a panel per cost; a grey line joins what nothing else outdoes.

    Args:
        panels: by the name of the cost, for each member its cost, score, and the standard deviation
            of the score over seeds if known. The panels may leave members out.
        y_label: name of the score.
        less_is_better: whether a low score is good.

    Raises:
        InputError: if there is no point.
    """
    members = list(dict.fromkeys(m for panel in panels.values() for m in panel))
    if not members:
        raise InputError("There is no member with both a score and a cost to draw.")
    width = max(4.6 * len(panels), 6.5)
    legend_columns, legend_rows = _legend_shape(
        [*members, "none better at this cost or less"], width
    )
    figure = new_figure(width, 3.9 + 0.22 * legend_rows)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    styles = {
        member: (color, _MARKERS[(i + 3 * (i // len(_COLORS))) % len(_MARKERS)])
        for i, (member, color) in enumerate(
            zip(members, member_colors(len(members)), strict=True)
        )
    }  # fmt: skip
    for axes, (cost, panel) in zip(grid.flat, panels.items(), strict=True):
        positive = [x for x, _, _ in panel.values() if x > 0]
        logarithmic = len(positive) == len(panel) and max(positive) >= 3 * min(positive)
        if logarithmic:
            axes.set_xscale("log")
            _ticks(axes.xaxis, positive, decades=1.5)
        shown = dict(zip(panel, _beside(panel, logarithmic=logarithmic), strict=True))
        _frontier(axes, panel, shown, less_is_better=less_is_better)
        for member, (_, y, std) in panel.items():
            color, marker = styles[member]
            axes.errorbar(
                shown[member], y, yerr=std or None, color=color, marker=marker, ms=8, mec="white",
                mew=0.8, lw=0, elinewidth=1.4, capsize=3, zorder=3,
            )  # fmt: skip
        axes.xaxis.set_major_formatter(EngFormatter(sep=" ", places=None))
        axes.margins(x=0.12, y=0.12)
        axes.set_xlabel(cost, color=INK)
        axes.grid(color="#e6e6e6", lw=0.8, zorder=0)
        bare(axes)
    grid[0, 0].set_ylabel(y_label, color=INK)
    handles = [
        Line2D([], [], color=color, marker=marker, ms=7, mew=0, ls="", label=member_label(member))
        for member, (color, marker) in styles.items()
    ]
    handles.append(Line2D([], [], color=_FRONTIER, lw=1.2, ls="--", label=_UNBEATEN))
    figure.legend(
        handles=handles, loc="outside upper left", ncols=legend_columns, frameon=False, fontsize=9,
        handletextpad=0.3, columnspacing=1.4,
    )  # fmt: skip
    return figure


def seeds_chart(scores: Mapping[str, Sequence[float]], *, x_label: str) -> Figure:
    """The score of every seed as a point, a row per member, with the mean as a line.

    Args:
        scores: per member one finite value per seed; may be empty.
        x_label: name of the score.

    Raises:
        InputError: if there is no value.
    """
    if not any(len(values) for values in scores.values()):
        raise InputError("There is no score to draw: no member has any.")
    figure = new_figure(8.5, 1.0 + 0.42 * len(scores))
    axes = figure.subplots()
    for row, (values, color) in enumerate(
        zip(scores.values(), member_colors(len(scores)), strict=True)
    ):
        if not len(values):
            axes.text(
                0.01, row, "no score", va="center", fontsize=9, color="#888888", style="italic",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
            continue
        mean = float(np.mean(values))
        axes.plot([mean, mean], [row - 0.3, row + 0.3], color=color, lw=2.2, zorder=2)
        axes.plot(
            values, _apart(len(values)) + row, "o", ms=7, color=color, alpha=0.6, mew=0, zorder=3
        )
    class_rows(figure, axes, [member_label(member) for member in scores], ())
    axes.margins(x=0.06)
    axes.grid(axis="x", color="#e6e6e6", lw=0.8, zorder=0)
    axes.set_xlabel(x_label, color=INK)
    bare(axes)
    return figure


def _mean_and_band(axes: Axes, curves: Sequence[Points], color: str, dash: LineStyleType) -> None:
    """The mean over the curves that have a value there, and from the least to the most of them."""
    values: dict[float, list[float]] = {}
    for curve in curves:
        for x, y in curve:
            values.setdefault(round(x, 6), []).append(y)
    if not values:
        return
    xs = sorted(values)
    means = [float(np.mean(values[x])) for x in xs]
    marker = "o" if len(xs) < 4 else None
    axes.plot(xs, means, color=color, ls=dash, lw=1.6, marker=marker, ms=4, zorder=3)
    if len(curves) > 1:
        low, high = ([end(values[x]) for x in xs] for end in (min, max))
        axes.fill_between(xs, low, high, color=color, alpha=0.15, lw=0, zorder=2)


def _scale(axes: Axes, panel: Mapping[str, Sequence[Points]]) -> None:
    """A logarithmic axis for values over several orders of magnitude, such as small losses."""
    values = [y for seeds in panel.values() for curve in seeds for _, y in curve]
    if values and min(values) > 0 and max(values) > _LOGARITHMIC * min(values):
        axes.set_yscale("log")
        _ticks(axes.yaxis, values, decades=3)


def _frontier(
    axes: Axes,
    panel: Mapping[str, tuple[float, float, float | None]],
    shown: Mapping[str, float],
    *,
    less_is_better: bool,
) -> None:
    """Joins the members, as drawn, that no other one outdoes at the same cost or less."""
    sign = -1 if less_is_better else 1
    best, corners = -np.inf, []
    for member, (_, y, _) in sorted(panel.items(), key=lambda p: (p[1][0], -sign * p[1][1])):
        if sign * y > best:
            best = sign * y
            corners.append((shown[member], y))
    xs, ys = zip(*corners, strict=True)
    axes.step(xs, ys, where="post", color=_FRONTIER, lw=1.2, ls="--", zorder=1)


def _beside(
    panel: Mapping[str, tuple[float, float, float | None]], *, logarithmic: bool
) -> list[float]:
    """Where to draw members: those of the same cost a little apart, or they hide their errors."""
    xs = np.array([x for x, _, _ in panel.values()], dtype=float)
    places = np.log(xs) if logarithmic else xs
    extent = float(np.ptp(places)) or abs(float(places[0])) or 1.0
    order = np.argsort(places, kind="stable").tolist()
    groups = [[order[0]]]
    for before, i in pairwise(order):
        if places[i] - places[before] > 0.02 * extent:
            groups.append([])
        groups[-1].append(i)
    moved = places.copy()
    for group in groups:
        middle = places[group].mean()
        for rank, i in enumerate(group if len(group) > 1 else ()):
            moved[i] = middle + (rank - (len(group) - 1) / 2) * 0.018 * extent
    return [float(x) for x in (np.exp(moved) if logarithmic else moved)]


def _ticks(axis: Axis, values: Sequence[float], *, decades: float) -> None:
    """Powers of ten on a logarithmic axis; over fewer decades, their doubles and fives too."""
    few = np.log10(max(values) / min(values)) < decades
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=8))
    axis.set_minor_formatter(NullFormatter())
    if few:
        axis.set_major_formatter(_Plain())


class _Plain(Formatter):
    """Numbers as they are written, ``0.05``."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}"


def _apart(n: int) -> NDArray[np.float64]:
    """Offsets that keep the points of a row from hiding each other."""
    return np.linspace(-0.18, 0.18, n) if n > 1 else np.zeros(1)


def _legend_shape(members: Sequence[str], width: float) -> tuple[int, int]:
    """Columns and rows of a legend of so many inches."""
    longest = max(len(member_label(member)) for member in members)
    columns = max(1, min(len(members), int(width / (0.62 + 0.075 * longest))))
    return columns, -(-len(members) // columns)

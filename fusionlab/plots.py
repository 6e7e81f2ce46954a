"""Charts and quick looks. Every function draws and returns a figure; the caller saves it.

Figures are made without pyplot, so nothing is kept in memory and no display is needed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike, NDArray

from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX

# Okabe and Ito, "Color Universal Design", 2008: told apart by colour-blind readers too.
_SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")
_UNKNOWN = "#d9d9d9"
_INK = "#333333"
_STAGES = ("train", "val", "test")

Row = Sequence[tuple[str, ArrayLike]]
"""The pictures of one sample, each with its title."""


def class_colors(classes: Sequence[str], colors: Sequence[str] = ()) -> list[str]:
    """``#rrggbb`` per class: the given ones, or a default palette if there are none."""
    if colors:
        if len(colors) != len(classes):
            raise InputError(f"{len(classes)} classes but {len(colors)} colours: give one each.")
        return list(colors)
    if len(classes) <= 20:
        tab = colormaps["tab20"]
        # Strong colours first, their pale twins after.
        return [to_hex(tab((2 * i) % 20 + i // 10)) for i in range(len(classes))]
    return [to_hex(colormaps["turbo"](x)) for x in np.linspace(0.02, 0.98, len(classes))]


def class_map_rgb(class_map: ArrayLike, colors: Sequence[str]) -> NDArray[np.uint8]:
    """A class map in its colours.

    Args:
        class_map: int ``(H, W)``, class indices or `IGNORE_INDEX`, which becomes light grey.
        colors: ``#rrggbb`` per class.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        InputError: for an index that has no colour.
    """
    indices = np.asarray(class_map)
    known = indices != IGNORE_INDEX
    outside = known & ((indices < 0) | (indices >= len(colors)))
    if outside.any():
        raise InputError(
            f"The class map holds {np.unique(indices[outside])[:5].tolist()}, but there are "
            f"colours for the classes 0 to {len(colors) - 1} only."
        )
    table = np.array([to_rgb(color) for color in (*colors, _UNKNOWN)])
    table = (table * 255).round().astype(np.uint8)
    rgb: NDArray[np.uint8] = table[np.where(known, indices, len(colors)).astype(np.int64)]
    return rgb


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
    figure = _figure(8.5, 1.2 + 0.36 * k)
    axes = figure.subplots()
    left = np.zeros(k)
    for (name, values), color in zip(shares.items(), _cycle(_SERIES, len(shares)), strict=True):
        width = np.nan_to_num(values)
        axes.barh(range(k), width, left=left, height=0.74, color=color, label=name, lw=0)
        for row, (start, share) in enumerate(zip(left, width, strict=True)):
            if share >= 0.06:
                axes.text(
                    start + share / 2, row, f"{100 * share:.0f}",
                    ha="center", va="center", fontsize=9, color=_ink_on(color),
                )  # fmt: skip
        left += width
    unseen = np.isnan(np.array(list(shares.values()))).any(axis=0)
    for row in np.flatnonzero(unseen).tolist():
        axes.text(0.01, row, "not seen", va="center", fontsize=9, color="#888888", style="italic")
    if len(shares) == 2:
        axes.axvline(0.5, color="white", lw=1, ls=(0, (4, 3)))
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("share in the decision", color=_INK)
    _class_rows(figure, axes, classes, class_colors(classes, colors) if colors else ())
    _bare(axes)
    figure.legend(loc="outside upper right", ncols=len(shares), frameon=False, fontsize=10)
    return figure


def confusion_matrix_chart(
    matrix: ArrayLike, classes: Sequence[str], colors: Sequence[str] = ()
) -> Figure:
    """What each true class was taken for, in percent of its pixels.

    Args:
        matrix: ``(K, K)`` counts, rows are the true classes.
        classes: class names.
        colors: ``#rrggbb`` per class, shown beside the names as on the map.
    """
    counts = np.asarray(matrix, dtype=float)
    k = len(classes)
    if counts.shape != (k, k):
        raise InputError(f"{k} classes need a {k} by {k} matrix, got {counts.shape}.")
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    longest = max(len(name) for name in classes)
    # The cells, the names beside and below them at 0.075 inches a letter, and what is around.
    figure = _figure(
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
                color="white" if value > 0.55 else _INK,
                fontweight="bold" if row == column else "normal",
            )  # fmt: skip
    _class_rows(figure, axes, classes, class_colors(classes, colors) if colors else ())
    names = ["\n".join(wrap(shorten(name, 48, placeholder=" …"), 26)) for name in classes]
    axes.set_xticks(range(k), names, rotation=90, fontsize=9, linespacing=0.95)
    axes.set_xlabel("predicted", color=_INK)
    axes.set_ylabel("true", color=_INK)
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1)
    _bare(axes)
    pixels = axes.secondary_yaxis("right")
    pixels.set_yticks(range(k), [_short(n) for n in total[:, 0]], fontsize=9, color="#777777")
    pixels.set_ylabel("pixels", color="#777777")
    pixels.tick_params(length=0)
    pixels.spines["right"].set_visible(False)
    axes.set_title("Share of each true class, in %", loc="left", fontsize=11, color=_INK)
    return figure


def curves_chart(metrics: Path) -> Figure:
    """Curves of a run, one panel per quantity, with training, validation and test in one panel.

    Args:
        metrics: ``metrics.csv`` as Lightning's CSV logger writes it, with columns named
            ``<stage>/<quantity>``. Scores of single classes are left out.

    Raises:
        InputError: if the file has no such column.
    """
    series = _read_series(metrics)
    quantities = sorted({quantity for quantity, _ in series}, key=lambda q: ("loss" not in q, q))
    if not quantities:
        raise InputError(f"{metrics} has no column named <stage>/<quantity>: nothing to draw.")
    columns = 2 if len(quantities) == 4 else min(len(quantities), 3)
    rows = -(-len(quantities) // columns)
    figure = _figure(4.2 * columns, 2.9 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(quantities) :]:
        axes.remove()
    shown: dict[str, str] = {}
    last = max(max(steps) for steps, _ in series.values()) or 1
    for axes, quantity in zip(grid.flat, quantities, strict=False):
        for stage, color in zip(_STAGES, _SERIES, strict=False):
            steps, values = series.get((quantity, stage), ([], []))
            if steps:
                marker = "o" if len(steps) < 30 else None
                axes.plot(steps, values, color=color, lw=1.6, marker=marker, ms=3.5)
                shown[stage] = color
        axes.set_title(quantity, loc="left", fontsize=11, color=_INK)
        axes.set_xlim(-0.02 * last, 1.02 * last)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(color="#e6e6e6", lw=0.8)
        axes.set_xlabel("step", color=_INK)
        _bare(axes)
    lines = [Line2D([], [], color=color, lw=2, label=stage) for stage, color in shown.items()]
    figure.legend(handles=lines, loc="outside upper right", ncols=3, frameon=False)
    return figure


def examples_figure(
    rows: Sequence[Row], classes: Sequence[str] = (), colors: Sequence[str] = ()
) -> Figure:
    """Samples side by side: images, targets, predictions, weights; with a legend of classes.

    Args:
        rows: one per sample. What an array shows follows from its type: ``(H, W, 3)`` an image
            (uint8, or float in [0, 1]), int ``(H, W)`` a class map, float ``(H, W)`` a share in
            [0, 1] such as a modality's weight.
        classes: class names; the legend lists those that occur.
        colors: ``#rrggbb`` per class.

    Raises:
        InputError: if there is nothing to show, or an array is none of these.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise InputError("There are no pictures to show.")
    palette = class_colors(classes, colors)
    handles = _legend(rows, classes, palette)
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    width = 2.6 * columns
    legend_columns = max(1, int(width / (0.55 + 0.08 * longest)))
    legend_rows = -(-len(handles) // legend_columns)
    figure = _figure(width, 2.75 * len(rows) + 0.2 * legend_rows + 0.1)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    shares = None
    for line, row in zip(grid, rows, strict=True):
        for axes in line:
            axes.axis("off")
        for axes, (title, picture) in zip(line, row, strict=False):
            values = np.asarray(picture)
            if _is_class_map(values):
                values = class_map_rgb(values, palette)
            if values.ndim == 3 and values.shape[-1] == 3:
                axes.imshow(values, interpolation="nearest")
            elif values.ndim == 2:
                shares = axes.imshow(values, cmap="viridis", vmin=0, vmax=1)
            else:
                raise InputError(f"{title!r}: cannot show an array of shape {values.shape}.")
            axes.set_title(title, fontsize=10, color=_INK)
    if shares is not None:
        bar = figure.colorbar(shares, ax=grid, fraction=0.02, pad=0.01, format=PercentFormatter(1))
        bar.ax.tick_params(labelsize=9, color=_INK, labelcolor=_INK)
        bar.ax.spines["outline"].set_visible(False)
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=legend_columns,
            frameon=False,
            fontsize=9,
        )
    return figure


def _figure(width: float, height: float) -> Figure:
    """Inches; saved at 150 dots per inch, on white."""
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    return figure


def _is_class_map(values: NDArray[Any]) -> bool:
    return values.ndim == 2 and np.issubdtype(values.dtype, np.integer)


def _legend(rows: Sequence[Row], classes: Sequence[str], palette: Sequence[str]) -> list[Patch]:
    """The classes that occur in the class maps, in index order."""
    maps = [np.asarray(picture) for row in rows for _, picture in row]
    seen = {int(i) for values in maps if _is_class_map(values) for i in np.unique(values)}
    entries = [(palette[i], classes[i]) for i in sorted(seen) if 0 <= i < len(classes)]
    if IGNORE_INDEX in seen:
        entries.append((_UNKNOWN, "unknown"))
    return [
        Patch(
            facecolor=color, edgecolor="#999999", lw=0.5, label=shorten(name, 50, placeholder=" …")
        )
        for color, name in entries
    ]


def _read_series(metrics: Path) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """Steps and values by (quantity, stage)."""
    series: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    with metrics.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file)):
            step = float(row.get("step") or line)
            for name, text in row.items():
                stage, _, quantity = name.partition("/")
                if stage not in _STAGES or not quantity or "/" in quantity or not text:
                    continue
                if quantity.endswith("_step") and f"{name.removesuffix('_step')}_epoch" in row:
                    continue
                key = (quantity.removesuffix("_epoch").removesuffix("_step"), stage)
                steps, values = series.setdefault(key, ([], []))
                steps.append(step)
                values.append(float(text))
    return series


def _class_rows(figure: Figure, axes: Axes, classes: Sequence[str], colors: Sequence[str]) -> None:
    """Names the rows after the classes, first on top, each with its colour if there are any."""
    axes.set_yticks(range(len(classes)), ["\n".join(wrap(name, 46)) for name in classes])
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.tick_params(axis="y", labelsize=9, pad=16 if colors else 4)
    left_of_axes = axes.get_yaxis_transform() + ScaledTranslation(
        -9 / 72, 0, figure.dpi_scale_trans
    )
    for row, color in enumerate(colors):
        axes.plot(
            0, row, "s", ms=8, color=color, mec="#999999", mew=0.5, clip_on=False,
            transform=left_of_axes,
        )  # fmt: skip


def _cycle(values: Sequence[str], n: int) -> Iterable[str]:
    return (values[i % len(values)] for i in range(n))


def _ink_on(color: str) -> str:
    red, green, blue = to_rgb(color)
    return _INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.6 else "white"


def _bare(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(which="both", length=0, labelcolor=_INK)


def _short(n: float) -> str:
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= factor:
            return f"{n / factor:.{0 if n >= 99.5 * factor else 1}f} {unit}"
    return f"{n:.0f}"

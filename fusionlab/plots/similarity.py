"""How alike embeddings are: of samples by two experts, and of samples and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from fusionlab.errors import InputError
from fusionlab.plots.style import INK, UNKNOWN, bare, ink_on, new_figure

_MAP = "viridis"
_MARK = "#d4145a"
_LETTERS = 24
_WRITTEN = 20
"""Up to so many columns a cell has its number written in it."""


def similarity_chart(
    cosines: Mapping[tuple[str, str], ArrayLike], samples: Sequence[str]
) -> Figure:
    """Cosines between the embeddings of samples by two experts, a panel for each pair.

    What belongs together lies on the diagonal. It is bright, and the rest dark, of a model that has
    learned to tell samples apart.

    Args:
        cosines: per pair of experts ``(N, N)`` in [-1, 1]: rows are samples as the first sees them,
            columns as the second; NaN where one has no data.
        samples: their names, ``N``.

    Raises:
        InputError: if there is nothing to show, or the shapes do not fit.
    """
    n = len(samples)
    if not cosines or not n:
        raise InputError("There are no similarities to show.")
    arrays = {pair: np.asarray(values, dtype=float) for pair, values in cosines.items()}
    for pair, values in arrays.items():
        if values.shape != (n, n):
            raise InputError(f"{n} samples have {n} x {n} cosines, got {values.shape} of {pair}.")
    columns = 2 if len(arrays) == 4 else min(len(arrays), 3)
    rows = -(-len(arrays) // columns)
    side = max(3.2, 0.28 * n)
    names = [_short(name) for name in samples]
    margin = 0.075 * max(map(len, names)) + 0.3
    figure = new_figure(columns * side + margin + 0.9, rows * (side + 0.5) + margin)
    grid = figure.subplots(rows, columns, squeeze=False)
    low, high = _limits(list(arrays.values()))
    for axes in grid.flat[len(arrays) :]:
        axes.remove()
    for i, (axes, (pair, values)) in enumerate(zip(grid.flat, arrays.items(), strict=False)):
        image = _heatmap(axes, values, low, high)
        axes.set_xlabel(pair[1], color=INK)
        axes.set_ylabel(pair[0], color=INK)
        axes.set_yticks(range(n), names if i % columns == 0 else [""] * n, fontsize=7)
        below = i + columns >= len(arrays)
        axes.set_xticks(range(n), names if below else [""] * n, fontsize=7, rotation=90)
        bare(axes)
    _bar(figure, image, grid[:, -1] if rows * columns == len(arrays) else grid[:1, -1])
    return figure


def class_similarity_chart(
    cosines: ArrayLike,
    samples: Sequence[str],
    classes: Sequence[str],
    *,
    predicted: ArrayLike | None = None,
) -> Figure:
    """Cosines between the embeddings of samples and those of what classes are described by.

    Args:
        cosines: ``(N, K)`` in [-1, 1]; NaN for a sample of which there are no data.
        samples: their names, ``N``.
        classes: class names, ``K``.
        predicted: bool ``(N, K)``, the classes that each sample is given, which are marked. Those
            with the largest cosine if not given.

    Raises:
        InputError: if there is nothing to show, or the shapes do not fit.
    """
    values = np.asarray(cosines, dtype=float)
    n, k = len(samples), len(classes)
    if not n or not k:
        raise InputError("There are no similarities to show.")
    if values.shape != (n, k):
        raise InputError(f"{n} samples and {k} classes have {n} x {k} cosines, got {values.shape}.")
    names = [_short(name) for name in samples]
    titles = ["\n".join(wrap(name, _LETTERS)) for name in classes]
    longest = max(len(line) for title in titles for line in title.split("\n"))
    figure = new_figure(
        0.075 * max(map(len, names)) + 0.5 * k + 1.6, 0.3 * n + 0.07 * longest + 0.6
    )
    axes = figure.subplots()
    low, high = _limits([values])
    image = _heatmap(axes, values, low, high, aspect="auto")
    axes.set_yticks(range(n), names, fontsize=8)
    axes.set_xticks(range(k), titles, fontsize=8, rotation=60, ha="left", rotation_mode="anchor")
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    bare(axes)
    known = np.isfinite(values)
    if predicted is None:
        predicted = values == np.max(values, axis=1, where=known, initial=-np.inf, keepdims=True)
    for row, column in np.argwhere(np.asarray(predicted, dtype=bool) & known):
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=_MARK, lw=2, zorder=4)
        )
    if k <= _WRITTEN:
        _numbers(axes, values, low, high)
    _bar(figure, image, axes)
    return figure


def _short(name: str) -> str:
    """A name of which the end is left, where those of samples differ."""
    return name if len(name) <= _LETTERS else f"…{name[1 - _LETTERS :]}"


def _limits(values: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The range of colours: that of the values, but no narrower than what is worth a colour."""
    known = np.concatenate([v[np.isfinite(v)].ravel() for v in values])
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    wider = max(0.0, 0.05 - (high - low)) / 2
    return low - wider, high + wider


def _heatmap(
    axes: Axes,
    values: NDArray[np.float64],
    low: float,
    high: float,
    *,
    aspect: Literal["equal", "auto"] = "equal",
) -> AxesImage:
    axes.set_facecolor(UNKNOWN)  # seen through what is NaN
    shown = np.ma.masked_invalid(values)
    return axes.imshow(
        shown, cmap=_MAP, vmin=low, vmax=high, aspect=aspect, interpolation="nearest"
    )


def _numbers(axes: Axes, values: NDArray[np.float64], low: float, high: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = to_hex(colormaps[_MAP]((value - low) / (high - low)))
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=7,
                color=ink_on(color),
            )  # fmt: skip


def _bar(figure: Figure, image: AxesImage, beside: Axes | NDArray[Any]) -> None:
    bar = figure.colorbar(image, ax=beside, fraction=0.04, pad=0.02)
    bar.set_label("cosine", color=INK)
    bar.ax.tick_params(labelsize=8, color=INK, labelcolor=INK)
    bar.outline.set_visible(False)

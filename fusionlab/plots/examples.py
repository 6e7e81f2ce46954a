"""Class maps in their colours, and samples side by side."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from fusionlab.errors import InputError
from fusionlab.plots.style import INK, UNKNOWN, class_colors, new_figure
from fusionlab.types import IGNORE_INDEX

Row = Sequence[tuple[str, ArrayLike]]
"""The pictures of one sample, each with its title."""


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
    table = np.array([to_rgb(color) for color in (*colors, UNKNOWN)])
    table = (table * 255).round().astype(np.uint8)
    rgb: NDArray[np.uint8] = table[np.where(known, indices, len(colors)).astype(np.int64)]
    return rgb


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
    figure = new_figure(width, 2.75 * len(rows) + 0.2 * legend_rows + 0.1)
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
            axes.set_title(title, fontsize=10, color=INK)
    if shares is not None:
        bar = figure.colorbar(shares, ax=grid, fraction=0.02, pad=0.01, format=PercentFormatter(1))
        bar.ax.tick_params(labelsize=9, color=INK, labelcolor=INK)
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


def _is_class_map(values: NDArray[Any]) -> bool:
    return values.ndim == 2 and np.issubdtype(values.dtype, np.integer)


def _legend(rows: Sequence[Row], classes: Sequence[str], palette: Sequence[str]) -> list[Patch]:
    """The classes that occur in the class maps, in index order."""
    maps = [np.asarray(picture) for row in rows for _, picture in row]
    seen = {int(i) for values in maps if _is_class_map(values) for i in np.unique(values)}
    entries = [(palette[i], classes[i]) for i in sorted(seen) if 0 <= i < len(classes)]
    if IGNORE_INDEX in seen:
        entries.append((UNKNOWN, "unknown"))
    return [
        Patch(
            facecolor=color, edgecolor="#999999", lw=0.5, label=shorten(name, 50, placeholder=" …")
        )
        for color, name in entries
    ]

"""What all charts share: colours, ink, sizes, and how classes are named along an axis.

Figures are made without pyplot, so nothing is kept in memory and no display is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from fusionlab.errors import InputError

# Okabe and Ito, "Color Universal Design", 2008: told apart by colour-blind readers too.
SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")
UNKNOWN = "#d9d9d9"
INK = "#333333"


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


def new_figure(width: float, height: float) -> Figure:
    """Inches; saved at 150 dots per inch, on white."""
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    return figure


def class_rows(figure: Figure, axes: Axes, classes: Sequence[str], colors: Sequence[str]) -> None:
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


def cycle(values: Sequence[str], n: int) -> Iterable[str]:
    """The first ``n`` values, beginning anew after the last."""
    return (values[i % len(values)] for i in range(n))


def ink_on(color: str) -> str:
    """The colour of writing that can be read on another colour."""
    red, green, blue = to_rgb(color)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.6 else "white"


def bare(axes: Axes) -> None:
    """Takes the frame and the tick marks away."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(which="both", length=0, labelcolor=INK)


def short_number(n: float) -> str:
    """A count in three digits or so, e.g. ``2.0 k``."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= factor:
            return f"{n / factor:.{0 if n >= 99.5 * factor else 1}f} {unit}"
    return f"{n:.0f}"

"""Maps of values in colours, and the bars that say what the colours mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from fusionlab.plots.style import INK, UNKNOWN

Floats = NDArray[np.float32]
Limits = tuple[float, float]
"""The values that the first and the last colour stand for."""

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
"""Colour maps for values, and for errors, which are blue where too low and red where too high."""
_OUTLIERS = 2.0
"""Percent of the values, on either side, that colours do not tell apart."""


def with_unit(variable: str, unit: str) -> str:
    """How a variable is named beside its values: ``canopy_height [m]``."""
    return f"{variable} [{unit}]" if unit else variable


def color_limits(*values: Floats) -> Limits:
    """The range of values, without the outliers of each array; (0, 1) if there are none.

    An array of few known values counts as much as one of many: a few trees in a map of the truth
    are no outliers of what is predicted everywhere.

    Args:
        values: arrays of any shape, not finite where unknown.
    """
    known = [one[np.isfinite(one)] for one in values if np.isfinite(one).any()]
    if not known:
        return 0.0, 1.0
    inner = [np.percentile(one, (_OUTLIERS, 100 - _OUTLIERS)) for one in known]
    low, high = float(min(q[0] for q in inner)), float(max(q[1] for q in inner))
    if low == high:  # mostly one value: the others count, or colours around it
        low, high = float(min(map(np.min, known))), float(max(map(np.max, known)))
    margin = 0.0 if low < high else max(abs(low), 1.0) / 100
    return low - margin, high + margin


def error_limits(*errors: Floats) -> Limits:
    """A range around zero, without outliers; arguments as of `color_limits`."""
    _, largest = color_limits(*(np.abs(one) for one in errors))
    return -largest, largest


def draw_values(
    axes: Axes, values: Floats, limits: Limits, *, colors: str = SEQUENTIAL
) -> AxesImage:
    """Draws a map of values.

    Args:
        axes: where.
        values: ``(h, w)``, not finite where unknown, which is grey.
        limits: of the colours.
        colors: name of matplotlib's colour map.
    """
    low, high = limits
    drawn = axes.imshow(
        np.ma.masked_invalid(values),
        cmap=colormaps[colors].with_extremes(bad=UNKNOWN),
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawn


def draw_bar(axes: Axes, drawn: Sequence[AxesImage], label: str) -> None:
    """Draws what the colours of maps mean; the bar is pointed where values lie beyond.

    Args:
        axes: where, low and wide: below the maps.
        drawn: the maps, all with the same colours.
        label: what they show.
    """
    low, high = drawn[0].get_clim()
    less = more = False
    for image in drawn:
        values = image.get_array()
        assert values is not None
        less |= bool(np.ma.filled(values < low, False).any())
        more |= bool(np.ma.filled(values > high, False).any())
    figure = axes.figure
    assert isinstance(figure, Figure)
    bar = figure.colorbar(
        drawn[0],
        cax=axes,
        orientation="horizontal",
        extend="both" if less and more else "min" if less else "max" if more else "neither",
    )
    bar.set_label(label, fontsize=8, color=INK)
    axes.tick_params(labelsize=7.5, color=INK, labelcolor=INK)
    axes.locator_params(nbins=5 * len(drawn))

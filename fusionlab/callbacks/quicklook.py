"""A small picture of a map beside its input, for a first look without a GIS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from rasterio.enums import Resampling

from fusionlab.callbacks.map_layers import ClassLayer, Layer, ValueLayer
from fusionlab.callbacks.value_colors import color_limits, draw_bar, draw_values, with_unit
from fusionlab.data.raster.files import CACHE_MEGABYTES
from fusionlab.plots import class_map_rgb
from fusionlab.types import IGNORE_INDEX

_RED_GREEN_BLUE = (("red", "green", "blue"), ("b04", "b03", "b02"), ("r", "g", "b"))
_LONGEST_SIDE = 480
_WIDTH = 10.2
"""Inches."""
_DPI = 100
_MOST_VARIABLES = 5


def write_quicklook(
    path: Path,
    *,
    source: str,
    map_path: Path,
    layer: Layer,
    bands: Sequence[Sequence[str]] = (),
) -> None:
    """Writes a PNG of at most 1024 pixels: the raster, and its map with a legend.

    Classes are listed with their areas. Of values the first five variables are shown.

    Args:
        path: where to write; under a temporary name first.
        source: the raster that was mapped, read at reduced resolution.
        map_path: the map.
        layer: what it shows: classes or values.
        bands: band names of the model's inputs, to find red, green and blue in a raster of one of
            them that does not name its bands; of others the first three bands are shown.
    """
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES):
        picture = _true_colour(source, bands)
        shape = picture.shape[:2]
        with rasterio.open(map_path) as dataset:
            if isinstance(layer, ClassLayer):
                classes = dataset.read(1, out_shape=shape, resampling=Resampling.nearest)
                figure, axes = _class_figure(classes, layer)
            else:
                assert isinstance(layer, ValueLayer)
                shown = list(range(1, min(dataset.count, _MOST_VARIABLES) + 1))
                # A mean over what there is, where the nodata value is NaN.
                values = dataset.read(
                    shown, out_shape=(len(shown), *shape), resampling=Resampling.average
                )
                figure, axes = _value_figure(values, layer)
    axes.imshow(picture)
    axes.set_title(Path(source).name, fontsize=9)
    axes.set_axis_off()
    temporary = path.with_name(f".{path.name}.part")
    try:
        figure.savefig(temporary, format="png", dpi=_DPI)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _class_figure(values: NDArray[np.uint8], layer: ClassLayer) -> tuple[Figure, Axes]:
    """A map ``(H, W)`` with its legend, and the place beside it."""
    present = [i for i in range(len(layer.classes)) if (values == i).any()]
    total = max(int((values != IGNORE_INDEX).sum()), 1)
    height, width = values.shape
    figure = _new_figure(5.0 * height / width + 0.5 + 0.24 * -(-len(present) // 3))
    left, right = figure.subplots(1, 2)
    right.imshow(class_map_rgb(values, layer.colors), interpolation="nearest")
    right.set_title("classes", fontsize=9)
    right.set_axis_off()
    handles = [
        Patch(
            facecolor=layer.colors[i],
            edgecolor="0.5",
            label=f"{layer.classes[i]} {100 * (values == i).sum() / total:.1f} %",
        )
        for i in present
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return figure, left


def _value_figure(values: NDArray[np.float32], layer: ValueLayer) -> tuple[Figure, Axes]:
    """Maps ``(V, H, W)``, each with its colour bar, and the place before them."""
    panels = len(values) + 1
    columns = 2 if panels in (2, 4) else 3
    rows = -(-panels // columns)
    height, width = values.shape[1:]
    figure = _new_figure(rows * (_WIDTH / columns * height / width + 0.9))
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[1, 0.04] * rows)
    shown = zip(values, layer.names, layer.units, strict=False)
    for panel, (one, variable, unit) in enumerate(shown, 1):
        row, column = 2 * (panel // columns), panel % columns
        axes = figure.add_subplot(grid[row, column])
        axes.set_title(variable, fontsize=9)
        drawn = draw_values(axes, one, color_limits(one))
        draw_bar(figure.add_subplot(grid[row + 1, column]), [drawn], with_unit(variable, unit))
    return figure, figure.add_subplot(grid[0, 0])


def _new_figure(height: float) -> Figure:
    figure = Figure(figsize=(_WIDTH, min(_WIDTH, height)), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _true_colour(source: str, bands: Sequence[Sequence[str]]) -> NDArray[np.uint8]:
    with rasterio.open(source) as dataset:
        names = [(d or "").lower() for d in dataset.descriptions]
        if not any(names):
            fitting = (known for known in bands if dataset.count % len(known) == 0)  # a stack, too
            names = [band.lower() for band in max(fitting, key=len, default=())]
        indexes = next(
            (
                [names.index(n) + 1 for n in rgb]
                for rgb in _RED_GREEN_BLUE
                if set(rgb) <= set(names)
            ),
            [1, 2, 3] if dataset.count >= 3 else [1, 1, 1],
        )
        scale = min(1.0, _LONGEST_SIDE / max(dataset.height, dataset.width))
        shape = tuple(max(1, round(n * scale)) for n in dataset.shape)
        values = dataset.read(indexes, out_shape=(3, *shape), resampling=Resampling.average)
        seen = np.isfinite(values)
        if dataset.nodata is not None and not np.isnan(dataset.nodata):
            seen &= values != dataset.nodata
    image: NDArray[np.float32] = values.astype(np.float32)
    if values.dtype != np.uint8:
        for band, valid in zip(image, seen, strict=True):
            low, high = np.percentile(band[valid], (2, 98)) if valid.any() else (0, 1)
            band[:] = (band - low) / max(high - low, 1e-6) * 255
    image[~seen] = 255
    return np.nan_to_num(image).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)

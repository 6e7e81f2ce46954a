"""A small picture of a map beside its input, for a first look without a GIS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from rasterio.enums import Resampling

from fusionlab.data.raster.files import CACHE_MEGABYTES
from fusionlab.plots import class_map_rgb
from fusionlab.types import IGNORE_INDEX

_RED_GREEN_BLUE = (("red", "green", "blue"), ("b04", "b03", "b02"), ("r", "g", "b"))
_LONGEST_SIDE = 480
_DPI = 100


def write_quicklook(
    path: Path,
    *,
    source: str,
    classes_path: Path,
    classes: Sequence[str],
    colors: Sequence[str],
    bands: Sequence[Sequence[str]] = (),
) -> None:
    """Writes a PNG of at most 1024 pixels: the raster, its map, and a legend with areas.

    Args:
        path: where to write; under a temporary name first.
        source: the raster that was mapped, read at reduced resolution.
        classes_path: the map.
        classes: class names.
        colors: ``#rrggbb`` per class.
        bands: band names of the model's inputs, to find red, green and blue in a raster of one of
            them that does not name its bands; of others the first three bands are shown.
    """
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES):
        picture = _true_colour(source, bands)
        with rasterio.open(classes_path) as dataset:
            values = dataset.read(1, out_shape=picture.shape[:2], resampling=Resampling.nearest)
    present = [i for i in range(len(classes)) if (values == i).any()]
    total = max(int((values != IGNORE_INDEX).sum()), 1)
    height, width = picture.shape[:2]
    legend_rows = -(-len(present) // 3)
    inches = (10.2, min(10.2, 5.0 * height / width + 0.5 + 0.24 * legend_rows))
    figure = Figure(figsize=inches, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.imshow(picture)
    left.set_title(Path(source).name, fontsize=9)
    right.imshow(class_map_rgb(values, colors), interpolation="nearest")
    right.set_title("classes", fontsize=9)
    for axes in (left, right):
        axes.set_axis_off()
    handles = [
        Patch(
            facecolor=colors[i],
            edgecolor="0.5",
            label=f"{classes[i]} {100 * (values == i).sum() / total:.1f} %",
        )
        for i in present
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    temporary = path.with_name(f".{path.name}.part")
    try:
        figure.savefig(temporary, format="png", dpi=_DPI)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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

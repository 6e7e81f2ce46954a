"""A contact sheet: a sample of every land use with all that is known of it, to be looked at."""

from __future__ import annotations

from textwrap import wrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from fusionlab.data.synthetic.geo_multimodal.config import GeoMultimodalConfig
from fusionlab.data.synthetic.geo_multimodal.geography import draw_site
from fusionlab.data.synthetic.geo_multimodal.uses import CLASSES
from fusionlab.data.synthetic.geo_multimodal.write import Drawn, draw, plan

_GREEN, _RED, _BLUE = "#009E73", "#D55E00", "#56B4E9"


def contact_sheet(config: GeoMultimodalConfig, *, columns: int = 3) -> Figure:
    """The first sample of each land use: its image, and beside it caption, table and year.

    Args:
        config: The set.
        columns: of samples.

    Returns:
        Pairs that a camera cannot tell apart follow each other. Curves are the weekly vegetation
        index (green, gaps where clouds hide the ground), temperature (red) and precipitation (blue
        bars).
    """
    visits = plan(config)
    first = {draw_site(config.seed, visit.site).use: visit for visit in reversed(visits)}
    samples = [draw(config, first[use]) for use in CLASSES if use in first]
    rows = -(-len(samples) // columns)
    figure = Figure(figsize=(4.9 * columns, 2.3 * rows), dpi=150, facecolor="white")
    grid = figure.add_gridspec(
        rows, columns, hspace=0.16, wspace=0.06, left=0.01, right=0.985, top=0.97, bottom=0.02
    )
    for i, sample in enumerate(samples):
        _draw(figure, grid[i // columns, i % columns], sample)
    return figure


def _draw(figure: Figure, place: SubplotSpec, sample: Drawn) -> None:
    inner = place.subgridspec(2, 2, width_ratios=(1, 1.25), height_ratios=(1.5, 1), wspace=0.06)
    picture = figure.add_subplot(inner[:, 0])
    picture.imshow(np.moveaxis(sample.image[:3], 0, -1), interpolation="nearest")
    picture.set_title(sample.site.use, fontsize=9, loc="left", fontweight="bold")
    picture.set_axis_off()

    words = figure.add_subplot(inner[0, 1])
    words.set_axis_off()
    cells = sample.cells
    lines = [
        *wrap(sample.caption or "(no caption)", 36)[:4],
        "",
        f"{cells['latitude'] or '?'}° N  {cells['longitude'] or '?'}° E",
        f"{cells['elevation'] or '?'} m  {cells['temperature'] or '?'} °C  "
        f"{cells['precipitation'] or '?'} mm",
        cells["season"] or "?",
    ]
    words.text(0, 1.1, "\n".join(lines), va="top", fontsize=7, linespacing=1.25)

    year = figure.add_subplot(inner[1, 1])
    year.tick_params(labelsize=6, length=0, pad=1)
    for spine in year.spines.values():
        spine.set_visible(False)
    year.set_xticks([])
    if sample.weeks is None:
        year.text(0.02, 0.5, "(no series)", fontsize=7, transform=year.transAxes)
        year.set_yticks([])
        return
    year.plot(sample.weeks.ndvi, color=_GREEN, lw=1.2, marker=".", ms=2)
    year.set_ylim(-0.35, 1)
    year.set_yticks([0, 0.5, 1])
    weather = year.twinx()
    weather.bar(range(len(sample.weeks.dates)), sample.weeks.precipitation / 3, color=_BLUE)
    weather.plot(sample.weeks.temperature, color=_RED, lw=0.8)
    weather.set_ylim(-15, 30)
    weather.set_axis_off()

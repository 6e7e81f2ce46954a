"""Writes a set of images, captions, tables and weekly series, and the manifest that joins them."""

from __future__ import annotations

import csv
import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform

from fusionlab.data.synthetic.folder import write_whole
from fusionlab.data.synthetic.geo_multimodal.captions import compose
from fusionlab.data.synthetic.geo_multimodal.config import GeoMultimodalConfig
from fusionlab.data.synthetic.geo_multimodal.geography import Site, draw_site
from fusionlab.data.synthetic.geo_multimodal.scenes import draw_scene
from fusionlab.data.synthetic.geo_multimodal.seasons import (
    Weeks,
    choose_seasons,
    draw_flight,
    draw_weeks,
    green_on,
)
from fusionlab.data.synthetic.landscape.aerial import render_aerial
from fusionlab.data.synthetic.landscape.config import generator

VERSION = 1
"""Raised when the same configuration gives other bytes than before."""
MANIFEST = "manifest.csv"
BANDS = ("red", "green", "blue", "nir")
VARIABLES = ("ndvi", "temperature", "precipitation")
TABLE = ("latitude", "longitude", "elevation", "temperature", "precipitation", "season")
COLUMNS = (
    "sample", "image", "caption", *TABLE, "weather", "date", "land_use", "place", "split",
)  # fmt: skip
_EPSG = 3035
"""ETRS89-LAEA, metres over all of Europe."""
_CHUNK = 64


class Visit(NamedTuple):
    """A sample to draw: which site, and in which season it is photographed."""

    site: int
    season: str


class Drawn(NamedTuple):
    """A sample.

    Attributes:
        site: Where it is.
        date: Day of the image, ISO.
        image: ``(4, H, W)`` uint8, bands as `BANDS`.
        caption: Empty for some.
        cells: The table's cells as written, by column; empty for some.
        weeks: The year's series; None for some.
    """

    site: Site
    date: str
    image: NDArray[np.uint8]
    caption: str
    cells: dict[str, str]
    weeks: Weeks | None


@dataclass(frozen=True)
class GeoMultimodalSet:
    """What `write_geo_multimodal` wrote.

    Attributes:
        root: Folder of the set.
        manifest: Its table, one row per sample.
        samples: Number of samples per split.
        written: False if the folder already held this set.
    """

    root: Path
    manifest: Path
    samples: dict[str, int]
    written: bool


def write_geo_multimodal(
    root: str | Path,
    config: GeoMultimodalConfig,
    *,
    overwrite: bool = False,
    workers: int = 1,
) -> GeoMultimodalSet:
    """Writes ``manifest.csv``, ``images/*.tif`` and ``weather/*.csv``.

    The manifest has a row per sample: ``sample``, ``image`` (red, green, blue and near infrared,
    georeferenced), ``caption``, the site's ``latitude``, ``longitude``, ``elevation`` (m),
    ``temperature`` (mean of the year, °C), ``precipitation`` (sum of the year, mm) and the
    ``season`` of the image, ``weather`` (52 weeks of ``ndvi``, ``temperature`` and
    ``precipitation``, by ``date``), ``date`` of the image, ``land_use``, ``place`` (the site: some
    are photographed twice) and ``split``. Some captions, series and cells are empty.

    Args:
        root: Folder to create. A folder that holds the same set is left as it is.
        config: What to write.
        overwrite: Replace whatever `root` holds.
        workers: Processes; the bytes written do not depend on it.

    Returns:
        What was written.

    Raises:
        InputError: If `root` holds anything else and `overwrite` is False.
    """
    target = Path(root)
    visits = plan(config)
    counts = dict.fromkeys(("train", "val", "test"), 0)
    for visit in visits:
        counts[draw_site(config.seed, visit.site).split] += 1

    def fill(folder: Path) -> None:
        for name in ("images", "weather"):
            (folder / name).mkdir()
        chunks = [range(i, min(i + _CHUNK, len(visits))) for i in range(0, len(visits), _CHUNK)]
        write = partial(_write_chunk, config, folder)
        if workers > 1:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(workers, mp_context=context) as pool:
                written = list(pool.map(write, chunks))
        else:
            written = [write(chunk) for chunk in chunks]
        with (folder / MANIFEST).open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(row for rows in written for row in rows)

    record = {"kind": "geo_multimodal", "version": VERSION, "config": config.to_dict()}
    written = write_whole(target, record, fill, overwrite=overwrite)
    return GeoMultimodalSet(target, target / MANIFEST, counts, written)


def plan(config: GeoMultimodalConfig) -> list[Visit]:
    """The samples of a set, in their order."""
    return [visit for visit, _ in zip(_visits(config), range(config.samples), strict=False)]


def _visits(config: GeoMultimodalConfig) -> Iterator[Visit]:
    for site in count():
        rng = generator(config.seed, "visits", site)
        number = 2 if rng.random() < config.second_visits else 1
        yield from (Visit(site, season) for season in choose_seasons(rng, number))


def draw(config: GeoMultimodalConfig, visit: Visit) -> Drawn:
    """Draws a sample, the same for the same seed, site and season."""
    site = draw_site(config.seed, visit.site)

    def source(*purpose: str) -> np.random.Generator:
        return generator(config.seed, "site", visit.site, *purpose)

    flight = draw_flight(source("flight", visit.season), config.seed, site, visit.season)
    # The land is the same on both visits.
    region = draw_flight(source("region"), config.seed, site, "summer")
    scene = draw_scene(
        source("scene"), site, region, size=config.patch_size, pixel=config.pixel_size
    )
    image = render_aerial(scene.canvas, flight, source("camera", visit.season), 1)[:4]
    weather = source("weather", visit.season)
    weeks = draw_weeks(weather, site, flight, scene, clouded=config.clouded)
    known = weather.random() >= config.no_weather
    caption = compose(
        source("caption", visit.season), config, site.use, scene, season=visit.season,
        state=green_on(scene, flight, scene.main),
    )  # fmt: skip
    cells = _cells(source("table", visit.season), config, site, visit.season)
    return Drawn(
        site=site,
        date=flight.aerial_date.isoformat(),
        image=image[:, *scene.inside],
        caption=caption,
        cells=cells,
        weeks=weeks if known else None,
    )


def _cells(
    rng: np.random.Generator, config: GeoMultimodalConfig, site: Site, season: str
) -> dict[str, str]:
    """The row of the site's table, some of its cells empty."""
    cells = {
        "latitude": f"{site.latitude:.4f}",
        "longitude": f"{site.longitude:.4f}",
        "elevation": f"{site.elevation:.0f}",
        "temperature": f"{site.temperature:.1f}",
        "precipitation": f"{site.precipitation:.0f}",
        "season": season,
    }
    empty = rng.random(len(cells)) < config.empty_cells
    return {k: "" if gone else v for (k, v), gone in zip(cells.items(), empty, strict=True)}


def _write_chunk(config: GeoMultimodalConfig, folder: Path, chunk: range) -> list[dict[str, str]]:
    """Writes the files of some samples; returns their rows."""
    visits = plan(config)
    drawn = [draw(config, visits[number]) for number in chunk]
    xs, ys = transform(
        CRS.from_epsg(4326), CRS.from_epsg(_EPSG),
        [sample.site.longitude for sample in drawn], [sample.site.latitude for sample in drawn],
    )  # fmt: skip
    rows = []
    for number, sample, x, y in zip(chunk, drawn, xs, ys, strict=True):
        name = f"{number:05d}"
        image, weather = f"images/{name}.tif", f"weather/{name}.csv"
        half = config.patch_size * config.pixel_size / 2
        step = config.pixel_size
        corner = rasterio.Affine(step, 0, x - half, 0, -step, y + half)
        _write_image(folder / image, sample.image, corner)
        if sample.weeks is not None:
            _write_weeks(folder / weather, sample.weeks)
        rows.append(
            {
                "sample": name,
                "image": image,
                "caption": sample.caption,
                **sample.cells,
                "weather": weather if sample.weeks is not None else "",
                "date": sample.date,
                "land_use": sample.site.use,
                "place": sample.site.name,
                "split": sample.site.split,
            }
        )
    return rows


def _write_image(path: Path, image: NDArray[np.uint8], corner: rasterio.Affine) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", count=len(image), height=image.shape[1], width=image.shape[2],
        dtype=image.dtype, crs=CRS.from_epsg(_EPSG), transform=corner,
    ) as file:  # fmt: skip
        file.write(image)
        file.descriptions = BANDS


def _write_weeks(path: Path, weeks: Weeks) -> None:
    lines = ["date," + ",".join(VARIABLES)]
    columns = (weeks.ndvi, weeks.temperature, weeks.precipitation)
    for date, *values in zip(weeks.dates, *columns, strict=True):
        digits = zip(values, (3, 1, 1), strict=True)
        cells = ("" if math.isnan(v) else f"{v:.{places}f}" for v, places in digits)
        lines.append(",".join([date.isoformat(), *cells]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

"""Writes whole landscapes and single tiles to disk, all or nothing."""

from __future__ import annotations

import json
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fusionlab.data.synthetic.folder import write_whole
from fusionlab.data.synthetic.landscape.config import TEST_DOMAINS, LandscapeConfig, generator
from fusionlab.data.synthetic.landscape.covers import BANDS
from fusionlab.data.synthetic.landscape.domain import draw_domain
from fusionlab.data.synthetic.landscape.sentinel2 import PIXEL
from fusionlab.data.synthetic.landscape.zones import (
    draw_views,
    make_frame,
    plan,
    write_tif,
    write_zone,
)

VERSION = 1
"""Raised when the same configuration gives other bytes than before."""


@dataclass(frozen=True)
class Landscape:
    """What `write_flair2` wrote.

    Attributes:
        root: Folder of the data set.
        train_domains: Names of the training domains.
        val_domains: Names of the validation domains.
        test_domains: Names of the test domains.
        patches: Number of patches per split.
        written: False if the folder already held this landscape.
    """

    root: Path
    train_domains: tuple[str, ...]
    val_domains: tuple[str, ...]
    test_domains: tuple[str, ...]
    patches: dict[str, int]
    written: bool


@dataclass(frozen=True)
class Tile:
    """What `write_tile` wrote.

    Attributes:
        root: Folder of the tile.
        aerial: GeoTIFF with bands R, G, B, NIR and height (0.2 m per unit), uint8.
        sentinel2: Folder of one 10-band GeoTIFF per date, `S2_YYYYMMDD.tif`, uint16.
        truth: GeoTIFF of the labels 1 to 19, uint8.
        written: False if the folder already held this tile.
    """

    root: Path
    aerial: Path
    sentinel2: Path
    truth: Path
    written: bool


def write_flair2(
    root: str | Path, config: LandscapeConfig, *, overwrite: bool = False, workers: int = 1
) -> Landscape:
    """Writes a landscape in the layout of FLAIR #2.

    Args:
        root: Folder to create. A folder that holds the same landscape is left as it is.
        config: What to write.
        overwrite: Replace whatever `root` holds.
        workers: Processes; the bytes written do not depend on it.

    Returns:
        What was written.

    Raises:
        InputError: If `root` holds anything else and `overwrite` is False.
    """
    target = Path(root)
    zones = plan(config)
    counts = {
        split: sum(zone.patches for zone in zones if zone.split == split)
        for split in ("train", "val", "test")
    }

    def fill(folder: Path) -> None:
        centroids: dict[str, list[int]] = {}
        metadata: dict[str, dict[str, Any]] = {}
        draw = partial(write_zone, config, root=folder)
        if workers > 1:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(workers, mp_context=context) as pool:
                results = list(pool.map(draw, zones))
        else:
            results = [draw(zone) for zone in zones]
        for zone_centroids, zone_metadata in results:
            centroids |= zone_centroids
            metadata |= zone_metadata
        _write_json(folder / "flair-2_centroids_sp_to_patch.json", centroids)
        _write_json(folder / "flair_aerial_metadata.json", metadata)

    record = {"kind": "flair2", "version": VERSION, "config": config.to_dict()}
    written = write_whole(target, record, fill, overwrite=overwrite)
    return Landscape(
        root=target,
        train_domains=config.domains("train"),
        val_domains=config.domains("val"),
        test_domains=config.domains("test"),
        patches=counts,
        written=written,
    )


def write_tile(
    root: str | Path, config: LandscapeConfig, *, domain: str | None = None,
    size: float = 512.0, margin: float = 60.0, overwrite: bool = False,
) -> Tile:  # fmt: skip
    """Writes one larger tile as a user would bring it for mapping.

    Args:
        root: Folder to create. A folder that holds the same tile is left as it is.
        config: Seed, pixel size and dates; the numbers of domains do not matter.
        domain: Domain whose look the tile has; by default the first test domain.
        size: Width and height of the aerial image in metres, rounded to whole pixels.
        margin: Metres by which the Sentinel-2 images reach over the aerial image.
        overwrite: Replace whatever `root` holds.

    Returns:
        What was written.

    Raises:
        InputError: If `root` holds anything else and `overwrite` is False.
        ValueError: If `size` is not positive or `domain` is no domain name.
    """
    if size <= 0 or margin < 0:
        raise ValueError(f"size must be positive and margin not negative: {size}, {margin}")
    if domain is not None and not re.fullmatch(r"D\d{3}_\d{4}", domain):
        raise ValueError(f"domain must look like D015_2020, found {domain!r}")
    target = Path(root)
    look = draw_domain(config, domain or TEST_DOMAINS[0])
    step = config.pixel_size * config.geometry_factor
    pixels = round(size / step) * config.geometry_factor
    extent = pixels * config.pixel_size

    def fill(folder: Path) -> None:
        frame = make_frame(
            generator(config.seed, look.name, "tile frame"), look, 24, block=(extent, extent),
            margin=margin, short_margin=margin, step=step,
        )  # fmt: skip
        keys = (look.name, "tile")
        views = draw_views(config, look, keys, frame, "UAFN", (pixels, pixels))
        left, top = frame.left + frame.east, frame.top - frame.south
        write_tif(folder / "aerial.tif", views.image, left, top, config.pixel_size,
                  ("red", "green", "blue", "nir", "height"))  # fmt: skip
        write_tif(folder / "truth.tif", views.labels[None], left, top, config.pixel_size)
        for image, day in zip(views.series.data, views.series.days, strict=True):
            name = f"S2_{look.date(int(day)):%Y%m%d}.tif"
            write_tif(folder / "sentinel2" / name, image, frame.left, frame.top, PIXEL, BANDS)

    record = {
        "kind": "tile",
        "version": VERSION,
        "config": config.to_dict(),
        "domain": look.name,
        "size": size,
        "margin": margin,
    }
    written = write_whole(target, record, fill, overwrite=overwrite)
    return Tile(
        root=target,
        aerial=target / "aerial.tif",
        sentinel2=target / "sentinel2",
        truth=target / "truth.tif",
        written=written,
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON with one key per line."""
    path.write_text(json.dumps(content, indent=1) + "\n")

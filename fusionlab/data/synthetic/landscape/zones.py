"""Where zones lie, what they are called, and how one is drawn and written."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from fusionlab.data.synthetic.landscape.aerial import render_aerial
from fusionlab.data.synthetic.landscape.canvas import Canvas
from fusionlab.data.synthetic.landscape.config import LandscapeConfig, Split, generator
from fusionlab.data.synthetic.landscape.domain import Domain, draw_domain
from fusionlab.data.synthetic.landscape.scene import draw_scene
from fusionlab.data.synthetic.landscape.sentinel2 import PIXEL, Series, render_series

CRS = "EPSG:2154"
FOLDERS: dict[Split, tuple[str, str, str]] = {
    "train": ("flair_aerial_train", "flair_labels_train", "flair_sen_train"),
    "val": ("flair_aerial_train", "flair_labels_train", "flair_sen_train"),
    "test": ("flair_2_aerial_test", "flair_2_labels_test", "flair_2_sen_test"),
}
_CHARACTERS = ("UA", "FN", "AF", "UN", "FA", "NU", "AN", "UF")
"""Letters of successive zones of a split; any four in a row cover all kinds of land."""


@dataclass(frozen=True)
class Zone:
    """One zone to draw.

    Attributes:
        split: Which split its domain belongs to.
        domain: Domain name.
        name: Such as `Z1_UA`; the letters say what it mostly holds.
        number: Position of the zone in its domain, from 0.
        first_id: Number of its first patch, unique over the data set.
        patches: Number of patches.
    """

    split: Split
    domain: str
    name: str
    number: int
    first_id: int
    patches: int


@dataclass(frozen=True)
class Frame:
    """A super-area and the block of aerial pixels in it.

    Attributes:
        left: Easting of the super-area's left edge, a multiple of 10 m.
        top: Northing of its upper edge, a multiple of 10 m.
        shape: Height and width of the super-area in 10 m pixels.
        east: Metres from `left` to the aerial block.
        south: Metres from `top` to the aerial block.
    """

    left: float
    top: float
    shape: tuple[int, int]
    east: float
    south: float


def plan(config: LandscapeConfig) -> list[Zone]:
    """All zones of a landscape, in the order in which their patches are numbered."""
    zones: list[Zone] = []
    number = itertools.count()
    splits: tuple[Split, ...] = ("train", "val", "test")
    for split in splits:
        letters = itertools.cycle(_CHARACTERS)
        for name in config.domains(split):
            for zone in range(config.zones(split)):
                first = next(number) * config.patches_per_zone + 1
                zones.append(
                    Zone(split, name, f"Z{zone + 1}_{next(letters)}", zone, first,
                         config.patches_per_zone)
                )  # fmt: skip
    return zones


def make_frame(
    rng: np.random.Generator, domain: Domain, number: int, *, block: tuple[float, float],
    margin: float, short_margin: float, step: float,
) -> Frame:  # fmt: skip
    """Places a block of aerial pixels in a super-area on the 10 m grid.

    Args:
        rng: Says which side has the short margin.
        domain: Says where the zone lies.
        number: Position of the zone in its domain.
        block: Height and width of the aerial block in metres.
        margin: Metres around the block.
        short_margin: Metres on one side of it.
        step: Size of a drawn pixel in metres; the block starts on a whole number of them.
    """
    margins = np.full(4, margin)
    margins[rng.integers(4)] = short_margin
    east, south = (round(value / step) * step for value in margins[:2])
    height = np.ceil((south + block[0] + margins[3]) / PIXEL - 1e-6)
    width = np.ceil((east + block[1] + margins[2]) / PIXEL - 1e-6)
    return Frame(
        left=domain.origin[0] + 6_000 * (number % 5),
        top=domain.origin[1] - 6_000 * (number // 5),
        shape=(int(height), int(width)),
        east=east,
        south=south,
    )


@dataclass(frozen=True)
class Views:
    """One scene through both sensors: image (5, H, W), labels (H, W) and the series."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    series: Series


def draw_views(
    config: LandscapeConfig, domain: Domain, keys: tuple[str | int, ...], frame: Frame,
    character: str, pixels: tuple[int, int],
) -> Views:  # fmt: skip
    """Draws a scene and looks at it through both sensors.

    Args:
        config: The landscape's configuration.
        domain: Look of the domain.
        keys: What makes this scene different from others of the same seed.
        frame: Where it lies.
        character: Letters of `CHARACTERS` in `scene`.
        pixels: Height and width of the aerial block in aerial pixels.
    """
    factor = config.geometry_factor
    step = config.pixel_size * factor
    canvas = draw_scene(
        generator(config.seed, *keys, "scene"), domain, character,
        width=frame.shape[1] * PIXEL, height=frame.shape[0] * PIXEL, pixel=step,
        common=config.classes == "common",
    )  # fmt: skip
    row, col = round(frame.south / step), round(frame.east / step)
    rows, cols = pixels[0] // factor, pixels[1] // factor
    # Things beyond the block throw shadows into it.
    halo = min(int(30 / step), row, col)
    part = slice(row - halo, row + rows + halo), slice(col - halo, col + cols + halo)
    shown = Canvas(
        pixel=step, x=canvas.x[part[1]], y=canvas.y[part[0]], segment=canvas.segment[part],
        height=canvas.height[part], green=canvas.green[part], segments=canvas.segments,
    )  # fmt: skip
    image = render_aerial(shown, domain, generator(config.seed, *keys, "aerial"), factor)
    cut = (
        slice(halo * factor, halo * factor + pixels[0]),
        slice(halo * factor, halo * factor + pixels[1]),
    )
    labels = canvas.segments.labels[canvas.segment[row : row + rows, col : col + cols]]
    return Views(
        image=image[:, cut[0], cut[1]],
        labels=labels.repeat(factor, 0).repeat(factor, 1),
        series=render_series(
            canvas, domain, generator(config.seed, *keys, "sentinel2"), frame.shape
        ),
    )


def write_tif(path: Path, image: NDArray[Any], left: float, top: float, pixel: float,
              names: tuple[str, ...] = ()) -> None:  # fmt: skip
    """Writes (C, H, W) as an LZW GeoTIFF in EPSG:2154."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=image.shape[0], height=image.shape[1],
        width=image.shape[2], dtype=image.dtype, crs=CRS, compress="lzw",
        transform=rasterio.Affine(pixel, 0, left, 0, -pixel, top),
    ) as file:  # fmt: skip
        file.write(image)
        if names:
            file.descriptions = names


def write_zone(
    config: LandscapeConfig, zone: Zone, root: Path
) -> tuple[dict[str, list[int]], dict[str, dict[str, Any]]]:
    """Draws one zone and writes its patches and its series.

    Args:
        config: The landscape's configuration.
        zone: The zone.
        root: Folder of the data set.

    Returns:
        Entries of the centroids file and of the metadata file.
    """
    domain = draw_domain(config, zone.domain)
    size, pixel = config.patch_size, config.pixel_size
    columns = int(np.ceil(np.sqrt(zone.patches)))
    rows = int(np.ceil(zone.patches / columns))
    frame = make_frame(
        generator(config.seed, zone.domain, zone.number, "frame"), domain, zone.number,
        block=(rows * size * pixel, columns * size * pixel), margin=config.margin,
        short_margin=config.short_margin, step=pixel * config.geometry_factor,
    )  # fmt: skip
    views = draw_views(
        config, domain, (zone.domain, zone.number), frame, zone.name.split("_")[1],
        (rows * size, columns * size),
    )  # fmt: skip

    aerial, labels, sen = (root / f / zone.domain / zone.name for f in FOLDERS[zone.split])
    (sen / "sen").mkdir(parents=True)
    stem = f"SEN2_sp_{zone.domain}-{zone.name}"
    np.save(sen / "sen" / f"{stem}_data.npy", views.series.data)
    np.save(sen / "sen" / f"{stem}_masks.npy", views.series.masks)
    (sen / "sen" / f"{stem}_products.txt").write_text("\n".join(views.series.products) + "\n")

    centroids: dict[str, list[int]] = {}
    metadata: dict[str, dict[str, Any]] = {}
    for number in range(zone.patches):
        row, col = divmod(number, columns)
        east, south = frame.east + col * size * pixel, frame.south + row * size * pixel
        left, top = frame.left + east, frame.top - south
        part = np.s_[row * size : (row + 1) * size, col * size : (col + 1) * size]
        patch = f"{zone.first_id + number:06d}"
        write_tif(aerial / "img" / f"IMG_{patch}.tif", views.image[:, *part], left, top, pixel)
        write_tif(labels / "msk" / f"MSK_{patch}.tif", views.labels[None, *part], left, top, pixel)
        half = size * pixel / 2
        centroids[f"IMG_{patch}.tif"] = [
            int(np.floor((south + half) / PIXEL + 0.5)), int(np.floor((east + half) / PIXEL + 0.5)),
        ]  # fmt: skip
        metadata[f"IMG_{patch}"] = {
            "domain": zone.domain,
            "zone": zone.name,
            "date": domain.aerial_date.isoformat(),
            "time": domain.time,
            "patch_centroid_x": round(left + half, 3),
            "patch_centroid_y": round(top - half, 3),
            "patch_centroid_z": domain.altitude,
            "camera": domain.camera,
        }
    return centroids, metadata

"""Writes synthetic pairs of RGB and LiDAR in the published layout, all or nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fusionlab.data.synthetic.folder import write_whole
from fusionlab.data.synthetic.landscape.config import generator
from fusionlab.data.synthetic.rgb_lidar.config import RgbLidarConfig
from fusionlab.data.synthetic.rgb_lidar.rays import Floats, scan_angles
from fusionlab.data.synthetic.rgb_lidar.scenes import SHAPES, Scenes, Shape, draw_scenes
from fusionlab.data.synthetic.rgb_lidar.sensors import render_images, render_scans

VERSION = 1
"""Raised when the same configuration gives other bytes than before."""
BLOCK = 64
"""Scenes that are drawn together; part of what the bytes depend on."""
_THREADS = 2


@dataclass(frozen=True)
class RgbLidarSet:
    """What `write_rgb_lidar` wrote.

    Attributes:
        root: Folder of the set.
        pairs: Number of pairs per class.
        written: False if the folder already held this set.
    """

    root: Path
    pairs: dict[str, int]
    written: bool


class Rendered(NamedTuple):
    """A block of pairs of one shape.

    Attributes:
        scenes: what they show.
        images: RGBA ``(BLOCK, 4, height, width)``.
        scans: depths ``(BLOCK, rows, columns)``, metres.
    """

    scenes: Scenes
    images: NDArray[np.uint8]
    scans: Floats


def write_rgb_lidar(
    root: str | Path, config: RgbLidarConfig, *, overwrite: bool = False
) -> RgbLidarSet:
    """Writes cubes and spheres, each seen by a camera and a scanner at the same place.

    Every class has a folder with ``rgb/0000.png`` (RGBA), ``lidar/0000.npy`` (depths, float32,
    rows × columns), ``azimuth.npy`` (angle of every row, radians) and ``zenith.npy`` (of every
    column).

    Args:
        root: Folder to create. A folder that holds the same set is left as it is.
        config: What to write.
        overwrite: Replace whatever `root` holds.

    Returns:
        What was written.

    Raises:
        InputError: If `root` holds anything else and `overwrite` is False.
    """
    target = Path(root)
    counts: dict[Shape, int] = {shape: getattr(config, shape) for shape in SHAPES}
    pairs = {shape: count for shape, count in counts.items() if count}

    def fill(folder: Path) -> None:
        with ThreadPoolExecutor(_THREADS) as pool:
            for shape, count in pairs.items():
                _write_class(folder / shape, shape, count, config, pool)

    record = {"kind": "rgb_lidar", "version": VERSION, "config": config.to_dict()}
    written = write_whole(target, record, fill, overwrite=overwrite)
    return RgbLidarSet(
        root=target, pairs={str(shape): count for shape, count in pairs.items()}, written=written
    )


def render(config: RgbLidarConfig, shape: Shape, block: int) -> Rendered:
    """A block of the pairs of a shape.

    Args:
        config: the set.
        shape: of the objects.
        block: which `BLOCK` pairs, counted from 0.

    Returns:
        Always a whole block, so that a set of another number of pairs has the same first ones.
    """

    def source(purpose: str) -> np.random.Generator:
        return generator(config.seed, shape, block, purpose)

    scenes = draw_scenes(source("scenes"), shape, BLOCK, config)
    return Rendered(
        scenes,
        render_images(scenes, config.image_size, source("camera")),
        render_scans(scenes, config.scan_size, source("scanner")),
    )


def _write_class(
    folder: Path, shape: Shape, count: int, config: RgbLidarConfig, pool: ThreadPoolExecutor
) -> None:
    for name in ("rgb", "lidar"):
        (folder / name).mkdir(parents=True)
    for name, angles in zip(("azimuth", "zenith"), scan_angles(config.scan_size), strict=True):
        np.save(folder / f"{name}.npy", angles)
    write = partial(_write_block, folder, shape, count, config)
    list(pool.map(write, range(-(-count // BLOCK))))


def _write_block(
    folder: Path, shape: Shape, count: int, config: RgbLidarConfig, block: int
) -> None:
    _, images, scans = render(config, shape, block)
    numbers = range(block * BLOCK, min((block + 1) * BLOCK, count))
    for number, image, scan in zip(numbers, images, scans, strict=False):
        np.save(folder / "lidar" / f"{number:04d}.npy", scan)
        pixels = np.ascontiguousarray(np.moveaxis(image, 0, -1))
        Image.fromarray(pixels).save(folder / "rgb" / f"{number:04d}.png", compress_level=1)

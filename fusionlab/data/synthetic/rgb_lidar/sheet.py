"""A contact sheet: some pairs of a set side by side, to be looked at."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fusionlab.data.synthetic.rgb_lidar.config import RgbLidarConfig
from fusionlab.data.synthetic.rgb_lidar.rays import Floats
from fusionlab.data.synthetic.rgb_lidar.scenes import SHAPES, Shape
from fusionlab.data.synthetic.rgb_lidar.sensors import RANGE
from fusionlab.data.synthetic.rgb_lidar.write import BLOCK, render
from fusionlab.plots import examples_figure

Picture = tuple[str, NDArray[np.uint8]]
"""Title and pixels ``(rows, columns, 3)``."""

_NEAR, _FAR = 2.0, 9.0
"""Depths, metres, between which the colours of a scan change."""


def contact_sheet(config: RgbLidarConfig, *, rows: int = 6, columns: int = 4) -> Figure:
    """The first pairs of a set, cubes and spheres in turn: an image, and beside it its scan.

    Args:
        config: The set.
        rows: of pairs.
        columns: of pairs.

    Returns:
        Depths are bright where near and dark where far; without a return they are black. Titles
        say which images and scans were drawn to be hard.

    Raises:
        InputError: If the set has no pairs.
    """
    pairs = [
        [*image_and_scan]
        for couple in zip_longest(*(_pictures(config, s, -(-rows * columns // 2)) for s in SHAPES))
        for image_and_scan in couple
        if image_and_scan is not None
    ]
    lines = [pairs[i : i + columns] for i in range(0, min(len(pairs), rows * columns), columns)]
    return examples_figure([[entry for pair in line for entry in pair] for line in lines])


def _pictures(config: RgbLidarConfig, shape: Shape, number: int) -> list[tuple[Picture, Picture]]:
    """Image and scan of the first pairs of a shape."""
    found: list[tuple[Picture, Picture]] = []
    number = min(number, getattr(config, shape))
    for block in range(-(-number // BLOCK)):
        scenes, images, scans = render(config, shape, block)
        for i in range(min(BLOCK, number - len(found))):
            dim, sparse = (", hard" * bool(h[i]) for h in (scenes.hard_image, scenes.hard_scan))
            image = np.moveaxis(images[i, :3], 0, -1)
            title = f"{shape} {len(found):04d}{dim}"
            found.append(((title, image), (f"LiDAR{sparse}", depth_colors(scans[i]))))
    return found


def depth_colors(scan: Floats) -> NDArray[np.uint8]:
    """Depths ``(rows, columns)`` as an image ``(rows, columns, 3)``."""
    share = ((_FAR - scan) / (_FAR - _NEAR)).clip(0, 1)
    colors = colormaps["viridis"](share)[..., :3] * (scan < RANGE)[..., None]
    pixels: NDArray[np.uint8] = (255 * colors).astype(np.uint8)
    return pixels

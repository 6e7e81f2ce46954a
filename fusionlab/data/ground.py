"""Where the images of a sample lie on the ground, so that one window can be found in all of them.

All images and the target have a common centre (see ``offset`` of the batch contract), each its own
pixel size, and they need not show equally much: around an aerial image of 102 m may lie a
Sentinel-2 crop of 400 m.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from fusionlab.types import Schema

Pair = tuple[float, float]
"""Of rows and of columns."""


class Raster(NamedTuple):
    """The pixels of one image on the ground.

    Attributes:
        size: rows and columns.
        pixel: height and width of a pixel, metres; where no size is known, in shares of the sample.
    """

    size: tuple[int, int]
    pixel: Pair

    @property
    def extent(self) -> Pair:
        """Height and width of what it shows."""
        return self.size[0] * self.pixel[0], self.size[1] * self.pixel[1]


class Ground(NamedTuple):
    """All that is an image in a sample.

    Attributes:
        images: per modality.
        target: of a target that is a map, else None.
        extent: height and width of what the sample is about: of the target or, if that is no map,
            of what all images show.
    """

    images: dict[str, Raster]
    target: Raster | None
    extent: Pair

    @property
    def rasters(self) -> list[Raster]:
        """Those of the images and of the target."""
        return [*self.images.values(), *([self.target] if self.target else [])]

    @property
    def finest(self) -> Raster:
        """The one with the smallest pixels; the target, where that has them too."""
        return min(reversed(self.rasters), key=lambda raster: raster.pixel)

    def coarsest(self, least: int = 1) -> Raster:
        """The one with the largest pixels.

        Args:
            least: how many pixels must cover the sample from side to side; the finest if none has
                so many.
        """
        fit = [
            raster
            for raster in self.rasters
            if all(
                round(extent / pixel, 6) >= least
                for extent, pixel in zip(self.extent, raster.pixel, strict=True)
            )
        ]
        return max(fit, key=lambda raster: raster.pixel, default=self.finest)


def ground(
    images: Mapping[str, tuple[int, int]],
    target: tuple[int, int] | None = None,
    *,
    schema: Schema | None = None,
) -> Ground | None:
    """Lays the images of a sample on the ground.

    What has no known pixel size is taken to show what the sample shows, from side to side.

    Args:
        images: rows and columns per modality.
        target: rows and columns of a target that is a map.
        schema: knows pixel sizes; without it, all are taken to show the same.

    Returns:
        None of a sample without any image.
    """
    shapes = [*images.values(), *([target] if target is not None else [])]
    if not shapes:
        return None
    known = {
        name: modality.gsd
        for name, modality in (schema.modalities.items() if schema is not None else ())
        if name in images and math.isfinite(modality.gsd)
    }
    of_target = schema.gsd if schema is not None else None
    if of_target is None:  # the target of an image has the pixels of that image
        of_target = min((g for name, g in known.items() if images[name] == target), default=None)
    shown = [(images[name], gsd) for name, gsd in known.items()]
    if target is not None and of_target is not None:
        shown = [(target, of_target)]
    extent = (
        min((size[0] * gsd for size, gsd in shown), default=1.0),
        min((size[1] * gsd for size, gsd in shown), default=1.0),
    )

    def raster(size: tuple[int, int], gsd: float | None) -> Raster:
        pixel = (extent[0] / size[0], extent[1] / size[1]) if gsd is None else (gsd, gsd)
        return Raster(size, pixel)

    return Ground(
        {name: raster(size, known.get(name)) for name, size in images.items()},
        None if target is None else raster(target, of_target),
        extent,
    )

"""The surface a zone is drawn on: which segment each pixel shows, its height and its green."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.landscape.covers import ALIKE_FIELDS, COVERS, Cover, Segments
from fusionlab.data.synthetic.landscape.noise import Float, Int

VARIANTS = 12
"""Shades of each small cover (roofs, asphalt, lawns, hedges) in one zone."""

_CANOPY = {
    "plain": (0.0, 0.2),
    "field": (0.05, 0.5),
    "canopy": (9.0, 21.0),
    "shrub": (1.4, 3.0),
    "rows": (1.3, 2.0),
    "trees": (5.0, 10.0),
    "rough": (0.0, 0.3),
    "water": (0.0, 0.0),
}


def draw_segments(rng: np.random.Generator, covers: NDArray[Any], pixel: float) -> Segments:
    """Draws the looks of segments.

    Args:
        rng: Source of randomness.
        covers: Cover of each of the S segments.
        pixel: Size of a drawn pixel in metres; rows are kept wide enough to be seen.

    Returns:
        The S segments. Fields of every crop get their look from the same distributions.
    """
    n = len(covers)
    alike = np.isin(covers, [int(c) for c in ALIKE_FIELDS])

    def uniform(low: float, high: float) -> Float:
        return rng.uniform(low, high, n).astype(np.float32)

    kind = rng.random(n)
    green = np.select(
        [kind < 0.45, kind < 0.7], [uniform(0.55, 0.92), uniform(0.25, 0.55)], uniform(0.02, 0.2)
    )
    dry = uniform(0, 0.8)
    low, high = (
        np.array([_CANOPY[COVERS[c].pattern][side] for c in Cover])[covers] for side in (0, 1)
    )
    vines = covers == Cover.VINE
    spread = np.where(np.isin(covers, (Cover.TILE_ROOF, Cover.SLATE_ROOF, Cover.FLAT_ROOF,
                                       Cover.ASPHALT)), 0.22, 0.09)  # fmt: skip
    return Segments(
        cover=covers.astype(np.int32),
        brightness=np.exp(spread * rng.standard_normal(n)).clip(0.6, 1.7).astype(np.float32),
        soil=uniform(0, 1),
        amplitude=np.exp(0.07 * rng.standard_normal(n)).clip(0.8, 1.12).astype(np.float32),
        shift=(5 * rng.standard_normal(n)).astype(np.float32),
        green_then=np.where(alike, green, np.nan).astype(np.float32),
        dry_then=np.where(alike, dry, np.nan).astype(np.float32),
        canopy=(low + (high - low) * rng.random(n)).astype(np.float32),
        angle=uniform(0, np.pi),
        spacing=np.where(
            vines, np.maximum(uniform(2.4, 3.2), 4 * pixel), np.maximum(uniform(3, 7), 4 * pixel)
        ).astype(np.float32),
        rows=uniform(0, 0.14),
        mottle=uniform(0.03, 0.14),
    )


@dataclass
class Canvas:
    """A zone's super-area at the drawn resolution.

    Attributes:
        pixel: Size of a drawn pixel in metres.
        x: Metres east of the left edge, at pixel centres (W,).
        y: Metres south of the upper edge, at pixel centres (H,).
        segment: Segment of each pixel (H, W).
        height: Height above ground in metres (H, W).
        green: Factor on the segment's green share (H, W), 1 on average over a segment.
        segments: The segments drawn so far; the first are `VARIANTS` of every cover.
    """

    pixel: float
    x: Float
    y: Float
    segment: Int
    height: Float
    green: Float
    segments: Segments

    @classmethod
    def blank(cls, rng: np.random.Generator, width: float, height: float, pixel: float) -> Canvas:
        """A canvas of lawn.

        Args:
            rng: Source of the shades of the shared covers.
            width: Metres from west to east.
            height: Metres from north to south.
            pixel: Size of a drawn pixel in metres.
        """
        shape = (int(np.ceil(height / pixel - 1e-6)), int(np.ceil(width / pixel - 1e-6)))
        covers = np.repeat(np.arange(len(Cover)), VARIANTS)
        return cls(
            pixel=pixel,
            x=((np.arange(shape[1]) + 0.5) * pixel).astype(np.float32),
            y=((np.arange(shape[0]) + 0.5) * pixel).astype(np.float32),
            segment=np.full(shape, int(Cover.LAWN) * VARIANTS, dtype=np.int32),
            height=np.zeros(shape, dtype=np.float32),
            green=np.ones(shape, dtype=np.float32),
            segments=draw_segments(rng, covers, pixel),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in drawn pixels."""
        return self.segment.shape[0], self.segment.shape[1]

    def places(self, index: NDArray[np.int64]) -> tuple[Float, Float]:
        """Metres east and south of the corner, of flat pixel numbers."""
        row, col = np.divmod(index, self.shape[1])
        return self.x[col], self.y[row]

    def add(self, new: Segments) -> int:
        """Appends segments and returns the number of the first."""
        first = len(self.segments.cover)
        self.segments = Segments(
            **{
                field.name: np.concatenate(
                    [getattr(self.segments, field.name), getattr(new, field.name)]
                )
                for field in dataclasses.fields(Segments)
            }
        )
        return first

    def paint(
        self,
        index: NDArray[Any],
        cover: Cover,
        shade: NDArray[Any] | int,
        height: NDArray[Any] | float = 0.0,
    ) -> None:
        """Paints pixels with a shared cover.

        Args:
            index: Flat pixel numbers (N,) or a boolean mask (H, W).
            cover: The cover.
            shade: Variant, any integer, of each pixel or of all.
            height: Height in metres of each pixel or of all.
        """
        value = int(cover) * VARIANTS + np.asarray(shade) % VARIANTS
        if index.dtype == np.bool_:
            self.segment[index], self.height[index] = value, height
        else:
            self.segment.reshape(-1)[index] = value
            self.height.reshape(-1)[index] = height

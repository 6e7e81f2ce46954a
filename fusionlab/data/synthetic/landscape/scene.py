"""A zone's map: blocks between lanes, parcels and lots, lakes, rivers, hedges and roads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.landscape.canvas import Canvas
from fusionlab.data.synthetic.landscape.covers import Cover
from fusionlab.data.synthetic.landscape.domain import Domain
from fusionlab.data.synthetic.landscape.noise import Float, Int, smooth_noise
from fusionlab.data.synthetic.landscape.parcels import KINDS, draw_parcels, draw_patterns
from fusionlab.data.synthetic.landscape.village import draw_lots

CHARACTERS: dict[str, dict[str, float]] = {
    "U": {"village": 0.40, "industry": 0.28, "field": 0.20, "wood": 0.07, "nature": 0.05},
    "A": {"field": 0.62, "vine": 0.13, "wood": 0.09, "village": 0.11, "nature": 0.05},
    "F": {"wood": 0.55, "field": 0.24, "nature": 0.13, "village": 0.08},
    "N": {"nature": 0.38, "vine": 0.22, "field": 0.26, "wood": 0.14},
}
"""Shares of block kinds by the letters in a zone's name: urban, agricultural, forest, natural."""


def draw_scene(
    rng: np.random.Generator, domain: Domain, character: str, *, width: float, height: float,
    pixel: float, common: bool,
) -> Canvas:  # fmt: skip
    """Draws the map of a zone's super-area.

    Args:
        rng: Source of randomness.
        domain: Look of the domain.
        character: Letters of `CHARACTERS`, such as `UA`.
        width: Metres from west to east.
        height: Metres from north to south.
        pixel: Size of a drawn pixel in metres.
        common: Leave out the rare labels 14 to 19.

    Returns:
        The drawn canvas.
    """
    canvas = Canvas.blank(rng, width, height, pixel)
    block, other, distance, count = _blocks(canvas, rng, domain.block)
    kinds = _kinds(rng, character, count)
    draw_parcels(canvas, rng, domain, block=block, kinds=kinds, common=common)
    for name in ("village", "industry"):
        inside = (kinds == KINDS.index(name))[block]
        draw_lots(canvas, rng, domain, inside=inside, block=block, halls=name == "industry")
    if rng.random() < 0.7:
        _lake(canvas, rng)
    _lanes(canvas, rng, kinds, block, other, distance)
    _trees(canvas, rng)
    if rng.random() < 0.45:
        _river(canvas, rng)
    for _ in range(int(rng.integers(1, 3))):
        _road(canvas, rng)
    draw_patterns(canvas, rng)
    return canvas


def _blocks(canvas: Canvas, rng: np.random.Generator, size: float) -> tuple[Int, Int, Float, int]:
    """Voronoi cells: nearest and second nearest block, metres to the border between, count."""
    columns, rows = (np.arange(-1, int(limit / size) + 2) for limit in
                     (canvas.x[-1], canvas.y[-1]))  # fmt: skip
    grid_x, grid_y = np.meshgrid(columns, rows)
    seed_x = ((grid_x.ravel() + rng.uniform(0.1, 0.9, grid_x.size)) * size).astype(np.float32)
    seed_y = ((grid_y.ravel() + rng.uniform(0.1, 0.9, grid_y.size)) * size).astype(np.float32)
    nearest = np.zeros(canvas.shape, dtype=np.int32)
    second = np.zeros(canvas.shape, dtype=np.int32)
    best = np.full(canvas.shape, np.inf, dtype=np.float32)
    next_best = best.copy()
    for number, (x, y) in enumerate(zip(seed_x, seed_y, strict=True)):
        away = (canvas.x - x)[None] ** 2 + (canvas.y - y)[:, None] ** 2
        closer, close = away < best, away < next_best
        second = np.where(closer, nearest, np.where(close, np.int32(number), second))
        next_best = np.where(closer, best, np.where(close, away, next_best))
        nearest = np.where(closer, np.int32(number), nearest)
        best = np.where(closer, away, best)
    apart = np.hypot(seed_x[nearest] - seed_x[second], seed_y[nearest] - seed_y[second])
    return nearest, second, (next_best - best) / (2 * apart), len(seed_x)


def _kinds(rng: np.random.Generator, character: str, count: int) -> NDArray[np.int64]:
    """Kind of each block, in the shares that the zone's letters ask for."""
    shares = np.array(
        [sum(CHARACTERS[letter].get(kind, 0) for letter in character) for kind in KINDS]
    )
    even = (np.arange(count) + rng.random()) / count
    kinds = np.searchsorted(np.cumsum(shares / shares.sum()), even).clip(max=len(KINDS) - 1)
    return rng.permutation(kinds)


def _lanes(
    canvas: Canvas, rng: np.random.Generator, kinds: NDArray[np.int64], block: Int, other: Int,
    distance: Float,
) -> None:  # fmt: skip
    """Lanes, hedges or nothing along the borders of blocks."""
    count = len(kinds)
    draw = rng.random((count, count))
    draw = np.triu(draw) + np.triu(draw, 1).T
    built = kinds >= KINDS.index("village")
    draw = np.where(built[:, None] | built[None], 0.95, draw)
    index = np.flatnonzero(distance < 5)
    near = distance.reshape(-1)[index]
    a, b = block.reshape(-1)[index], other.reshape(-1)[index]
    kind, shade = draw[a, b], a + b
    ragged = smooth_noise(rng, canvas.shape, 9 / canvas.pixel).reshape(-1)[index]
    for low, high, half, cover, height in (
        (0.20, 0.40, 3.8, Cover.BROADLEAF, 9.0),
        (0.40, 0.52, 3.2, Cover.SHRUB, 2.0),
        (0.52, 0.78, 2.6, Cover.GRAVEL, 0.0),
        (0.78, 1.01, 3.2, Cover.ASPHALT, 0.0),
    ):
        edge = half + (ragged if height else 0)
        chosen = (kind >= low) & (kind < high) & (near < edge)
        canvas.paint(index[chosen], cover, shade[chosen], height)


def _trees(canvas: Canvas, rng: np.random.Generator) -> None:
    """Single trees and bushes in meadows and on field edges."""
    step = 11.0
    index = np.flatnonzero(
        np.isin(canvas.segments.cover, (Cover.MEADOW, Cover.LAWN, Cover.GRAVEL))[canvas.segment]
    )
    x, y = canvas.places(index)
    column, row = (x / step).astype(np.int32), (y / step).astype(np.int32)
    shape = (int(canvas.y[-1] / step) + 1, int(canvas.x[-1] / step) + 1)
    centre = rng.uniform(0.35, 0.65, (2, *shape)).astype(np.float32)
    radius = np.where(rng.random(shape) < 0.035, rng.uniform(1.8, 3.8, shape), 0)
    away = np.hypot(
        x - (column + centre[0, row, column]) * step, y - (row + centre[1, row, column]) * step
    )
    reach = radius[row, column]
    tree = away < reach
    canvas.paint(index[tree], Cover.BROADLEAF, (row + column)[tree], 2.2 * reach[tree])


def _lake(canvas: Canvas, rng: np.random.Generator) -> None:
    """A pond or lake with a crooked shore."""
    x, y = rng.uniform(0.15, 0.85) * canvas.x[-1], rng.uniform(0.15, 0.85) * canvas.y[-1]
    size = rng.uniform(25, 70)
    away = np.hypot((canvas.x - x)[None] / rng.uniform(0.8, 1.5), (canvas.y - y)[:, None])
    shore = away + 9 * smooth_noise(rng, canvas.shape, 30 / canvas.pixel)
    canvas.paint(shore < size + 5, Cover.SHRUB, 1)
    canvas.paint(shore < size, Cover.WATER, int(rng.integers(99)))


def _line(canvas: Canvas, rng: np.random.Generator, bend: float, wavelength: float) -> Float:
    """Metres of each pixel (H, W) from a bent line through the zone."""
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x = canvas.x - np.float32(rng.uniform(0.3, 0.7)) * canvas.x[-1]
    y = canvas.y - np.float32(rng.uniform(0.3, 0.7)) * canvas.y[-1]
    across = (cos * y)[:, None] - (sin * x)[None]
    wave = smooth_noise(rng, canvas.shape, wavelength / canvas.pixel)
    away: Float = np.abs(across + np.float32(bend) * wave)
    return away


def _river(canvas: Canvas, rng: np.random.Generator) -> None:
    """A river with trees on its banks."""
    away = _line(canvas, rng, 22, 160)
    half = rng.uniform(5, 13)
    bank = half + 3 + 4 * smooth_noise(rng, canvas.shape, 14 / canvas.pixel)
    canvas.paint(away < bank, Cover.BROADLEAF, 5, 11.0)
    canvas.paint(away < half, Cover.WATER, int(rng.integers(99)))


def _road(canvas: Canvas, rng: np.random.Generator) -> None:
    """A paved road with grass verges."""
    away = _line(canvas, rng, 10, 260)
    half = rng.uniform(3.2, 5.5)
    canvas.paint(away < half + 1.6, Cover.LAWN, 2)
    canvas.paint(away < half, Cover.ASPHALT, int(rng.integers(99)))

"""Built-up blocks: houses in gardens along streets, and large halls on asphalt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.landscape.canvas import Canvas
from fusionlab.data.synthetic.landscape.covers import Cover
from fusionlab.data.synthetic.landscape.domain import Domain
from fusionlab.data.synthetic.landscape.noise import Float, Int, compress

STREET = 7.0
"""Width of a street in metres."""


def draw_lots(
    canvas: Canvas, rng: np.random.Generator, domain: Domain, *, inside: NDArray[np.bool_],
    block: Int, halls: bool,
) -> None:  # fmt: skip
    """Fills built-up blocks with streets and lots.

    Args:
        canvas: Drawn on in place.
        rng: Source of randomness.
        domain: Look of the domain.
        inside: Which pixels belong to such blocks (H, W).
        block: Block of each pixel (H, W).
        halls: Large flat halls on asphalt instead of houses in gardens.
    """
    index = np.flatnonzero(inside)
    if not index.size:
        return
    here = block.reshape(-1)[index]
    x, y = canvas.places(index)
    count = int(here.max()) + 1
    angle = rng.uniform(0, np.pi, count)
    wide, deep = (62.0, 54.0) if halls else (25.0, 29.0)
    lot_width = (wide * rng.uniform(0.85, 1.2, count)).astype(np.float32)[here]
    lot_depth = (deep * rng.uniform(0.9, 1.15, count)).astype(np.float32)[here]
    cos, sin = np.cos(angle).astype(np.float32)[here], np.sin(angle).astype(np.float32)[here]
    along, across = cos * x + sin * y, cos * y - sin * x

    # Two rows of lots back to back, then a street; a cross street after every five lots.
    period = 2 * lot_depth + np.float32(STREET)
    band = np.floor(across / period)
    offset = across - band * period
    run = 5 * lot_width + np.float32(STREET)
    chunk = np.floor(along / run)
    position = along - chunk * run
    street = (offset > 2 * lot_depth) | (position > 5 * lot_width)
    side = offset > lot_depth
    column = np.floor(position / lot_width)
    lot, number = compress(here, *(part.astype(np.int32) for part in (band, chunk, column, side)))
    # Metres from the lot's middle, and from the street (the streets lie at both far sides).
    middle = position - (column + np.float32(0.5)) * lot_width
    front = np.where(side, 2 * lot_depth - offset, offset)

    _ground(canvas, rng, index, lot, number, halls)
    canvas.paint(index[street], Cover.ASPHALT, here[street])
    yard = ~street
    index, lot = index[yard], lot[yard]
    middle, front, lot_depth = middle[yard], front[yard], lot_depth[yard]
    if halls:
        _halls(canvas, rng, domain, (index, lot, number), middle, front - lot_depth / 2)
    else:
        _houses(canvas, rng, domain, (index, lot, number), middle, front)


def _ground(
    canvas: Canvas, rng: np.random.Generator, index: NDArray[np.int64], lot: Int, number: int,
    halls: bool,
) -> None:  # fmt: skip
    """What lies between buildings: gardens and yards, or asphalt and gravel."""
    choice = [Cover.ASPHALT, Cover.GRAVEL, Cover.LAWN, Cover.RUBBLE]
    share = [0.58, 0.26, 0.08, 0.08] if halls else [0.04, 0.12, 0.82, 0.02]
    cover, shade = rng.choice(choice, number, p=share), rng.integers(0, 99, number)
    for kind in choice:
        chosen = cover[lot] == kind
        canvas.paint(index[chosen], kind, shade[lot[chosen]])


def _roofs(rng: np.random.Generator, number: int, tile_share: float, flat: float) -> Int:
    """Roof cover of each lot."""
    draw = rng.random(number)
    slate = np.where(rng.random(number) < flat, Cover.FLAT_ROOF, Cover.SLATE_ROOF)
    return np.where(draw < tile_share, Cover.TILE_ROOF, slate).astype(np.int32)


Lots = tuple[NDArray[np.int64], Int, int]
"""Flat pixel numbers, the lot of each, and the number of lots."""


def _erect(
    canvas: Canvas, rng: np.random.Generator, lots: Lots, inside: NDArray[np.bool_],
    roofs: Int, height: Float,
) -> None:  # fmt: skip
    """Paints buildings."""
    index, lot, number = lots
    shade = rng.integers(0, 99, number)
    for roof in (Cover.TILE_ROOF, Cover.SLATE_ROOF, Cover.FLAT_ROOF):
        chosen = inside & (roofs[lot] == roof)
        canvas.paint(index[chosen], roof, shade[lot[chosen]], height[chosen])


def _houses(
    canvas: Canvas, rng: np.random.Generator, domain: Domain, lots: Lots, middle: Float,
    front: Float,
) -> None:  # fmt: skip
    """Gabled houses with drives, terraces, pools and garden trees."""
    index, lot, number = lots

    def draw(low: float, high: float) -> Float:
        return rng.uniform(low, high, number).astype(np.float32)

    built = rng.random(number) < 0.93
    half_width, half_depth = draw(4.5, 8.5), draw(4, 6.5)
    centre, back = draw(-2.5, 2.5), draw(9, 14)
    across, along = middle - centre[lot], front - back[lot]

    paved = np.where(rng.random(number) < 0.5, Cover.ASPHALT, Cover.GRAVEL)
    rim = draw(0.5, 3.0)[lot]
    terrace = (np.abs(across) < half_width[lot] + rim) & (np.abs(along) < half_depth[lot] + rim)
    drive = (np.abs(across - 0.6 * half_width[lot]) < draw(1.6, 3)[lot]) & (along < 0)
    for kind in (Cover.ASPHALT, Cover.GRAVEL):
        chosen = (terrace | drive) & (paved[lot] == kind) & built[lot]
        canvas.paint(index[chosen], kind, lot[chosen])

    pools = (rng.random(number) < 0.3)[lot]
    pool_x, pool_y = draw(-5, 5)[lot], draw(22, 25)[lot]
    edge = np.maximum(np.abs(middle - pool_x) / 4.5, np.abs(front - pool_y) / 2.6)
    canvas.paint(index[pools & (edge < 1.35)], Cover.GRAVEL, 3)
    canvas.paint(index[pools & (edge < 1)], Cover.POOL, lot[pools & (edge < 1)])

    house = (np.abs(across) < half_width[lot]) & (np.abs(along) < half_depth[lot]) & built[lot]
    ridge = draw(1.5, 3.5)[lot] * (1 - np.abs(along) / half_depth[lot])
    _erect(canvas, rng, lots, house, _roofs(rng, number, domain.tile_share, 0.35),
           draw(3, 7)[lot] + ridge)  # fmt: skip

    for _ in range(3):
        reach = draw(-1.0, 4.0)[lot]
        away = np.hypot(middle - draw(-10, 10)[lot], front - draw(3, 27)[lot])
        tree = (away < reach) & ~house & ~(pools & (edge < 1.35))
        canvas.paint(index[tree], Cover.BROADLEAF, lot[tree], (2 + 1.8 * reach)[tree])


def _halls(
    canvas: Canvas, rng: np.random.Generator, domain: Domain, lots: Lots, middle: Float,
    depth: Float,
) -> None:  # fmt: skip
    """Flat halls whose roofs have the colours of the asphalt around them."""
    _, lot, number = lots

    def draw(low: float, high: float) -> Float:
        return rng.uniform(low, high, number).astype(np.float32)

    built = (rng.random(number) < 0.72)[lot]
    across, along = middle - draw(-4, 4)[lot], depth - draw(-4, 4)[lot]
    hall = (np.abs(across) < draw(14, 24)[lot]) & (np.abs(along) < draw(10, 19)[lot]) & built
    _erect(canvas, rng, lots, hall, _roofs(rng, number, domain.tile_share * 0.3, 0.8),
           draw(5, 13)[lot])  # fmt: skip

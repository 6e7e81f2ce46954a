"""The scene of a sample: what lies in the middle, what is around it, and what can be seen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.geo_multimodal.geography import Site
from fusionlab.data.synthetic.geo_multimodal.uses import USES
from fusionlab.data.synthetic.landscape.canvas import Canvas, draw_segments
from fusionlab.data.synthetic.landscape.covers import Cover
from fusionlab.data.synthetic.landscape.domain import Domain
from fusionlab.data.synthetic.landscape.noise import Float, smooth_noise
from fusionlab.data.synthetic.landscape.parcels import draw_patterns
from fusionlab.data.synthetic.landscape.village import draw_lots

HALO = 24.0
"""Metres drawn around an image, from where shadows fall into it."""
AROUND = 3
"""Parcels around the scene that no image shows, but a satellite with large pixels does."""
SOWN_APART = 8.0
"""Standard deviation of the days by which parcels of one crop differ."""

Edge = Literal["hedge", "track", "road", "stream", "none"]
_EDGES: tuple[Edge, ...] = ("hedge", "track", "road", "stream", "none")
_EDGE_SHARES = (0.25, 0.2, 0.2, 0.1, 0.25)


@dataclass(frozen=True)
class Neighbour:
    """What lies beyond a side of the scene.

    Attributes:
        towards: Direction, radians clockwise from north.
        edge: What runs along the border.
        cover: What grows beyond it.
    """

    towards: float
    edge: Edge
    cover: Cover


@dataclass(frozen=True)
class Scene:
    """A drawn scene.

    Attributes:
        canvas: The image's ground, with a margin of `margin` pixels.
        margin: Pixels around the image.
        main: Segment of what the scene is about.
        neighbours: On how many sides something else begins, and what.
        trees: Whether single trees stand in the open.
        bare_ground: Whether the ground between rows of trees is tilled.
        around: Segments of the parcels around it.
    """

    canvas: Canvas
    margin: int
    main: int
    neighbours: tuple[Neighbour, ...]
    trees: bool
    bare_ground: bool
    around: NDArray[np.int64]

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that the image shows."""
        m = self.margin
        return slice(m, self.canvas.shape[0] - m), slice(m, self.canvas.shape[1] - m)


def draw_scene(
    rng: np.random.Generator, site: Site, domain: Domain, *, size: int, pixel: float
) -> Scene:
    """Draws the scene of a site.

    Args:
        rng: Source of randomness; the same gives the same scene, whatever the date.
        site: Says the land use, and how cold it is.
        domain: Look of the region.
        size: Rows and columns of the image.
        pixel: Metres per pixel.

    Returns:
        The scene. What grows in it follows its calendar: fields look as they do on the date.
    """
    margin = int(np.ceil(HALO / pixel))
    extent = (size + 2 * margin) * pixel
    canvas = Canvas.blank(rng, extent, extent, pixel)
    use = USES[site.use]
    trees = bare = False
    if use.look == "halls":
        main = _halls(canvas, rng, domain)
    elif use.look == "water":
        main = _water(canvas, rng)
    elif use.look == "tree rows":
        assert use.cover is not None
        bare = bool(rng.random() < 0.5)
        main = _tree_rows(canvas, rng, use.cover, Cover.PLOWED if bare else Cover.LAWN)
    else:
        assert use.cover is not None
        main = _parcel(canvas, rng, np.ones(canvas.shape, dtype=bool), use.cover)
        trees = use.cover is Cover.MEADOW and bool(rng.random() < 0.5)
        if trees:
            _single_trees(canvas, rng)
    neighbours = tuple(_neighbour(canvas, rng, site, size) for _ in range(int(rng.integers(0, 3))))
    draw_patterns(canvas, rng)
    covers = np.array([int(_growing(rng, site)) for _ in range(AROUND)])
    around = canvas.add(draw_segments(rng, covers, pixel)) + np.arange(AROUND)
    _keep_calendars(canvas, rng)
    return Scene(canvas, margin, main, neighbours, trees, bare, around)


def _parcel(
    canvas: Canvas, rng: np.random.Generator, where: NDArray[np.bool_], cover: Cover
) -> int:
    """Paints an area with a parcel of its own, and returns its segment."""
    number = canvas.add(draw_segments(rng, np.array([int(cover)]), canvas.pixel))
    canvas.segment[where] = number
    canvas.height[where] = 0
    return number


def _keep_calendars(canvas: Canvas, rng: np.random.Generator) -> None:
    """Has fields look as they do on the date, each sown or mown some days early or late.

    Those of the landscape look alike on the day of the flight, whatever grows.
    """
    n = len(canvas.segments.cover)
    unknown = np.full(n, np.nan, dtype=np.float32)
    canvas.segments = dataclasses.replace(
        canvas.segments,
        green_then=unknown,
        dry_then=unknown,
        shift=(SOWN_APART * rng.standard_normal(n)).astype(np.float32),
    )


def _tree_rows(canvas: Canvas, rng: np.random.Generator, crown: Cover, ground: Cover) -> int:
    """Trees in rows on grass or tilled soil; the segment is that of the crowns."""
    everywhere = np.ones(canvas.shape, dtype=bool)
    _parcel(canvas, rng, everywhere, ground)
    angle, apart = rng.uniform(0, np.pi), rng.uniform(8.5, 11)
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = canvas.x[None], canvas.y[:, None]
    along, across = (cos * x + sin * y) / apart, (cos * y - sin * x) / apart
    away = apart * np.hypot(along - np.rint(along), across - np.rint(across))
    missing = rng.random((400, 400)) < 0.06
    tree = missing[np.rint(along).astype(int) % 400, np.rint(across).astype(int) % 400]
    crowns = (away < rng.uniform(2.9, 3.6)) & ~tree
    number = _parcel(canvas, rng, crowns, crown)
    canvas.height[crowns] = rng.uniform(3.5, 5)
    return number


def _single_trees(canvas: Canvas, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(2, 7))):
        x, y = rng.uniform(0, 1, 2) * (canvas.x[-1], canvas.y[-1])
        reach = rng.uniform(2.2, 4.5)
        crown = np.hypot(canvas.x[None] - x, canvas.y[:, None] - y) < reach
        canvas.paint(crown, Cover.BROADLEAF, int(rng.integers(99)), 2.2 * reach)


def _water(canvas: Canvas, rng: np.random.Generator) -> int:
    """A sheet of water with trees, scrub or grass on its shore."""
    half = canvas.x[-1] / 2
    x, y = half * (1 + rng.uniform(-0.35, 0.35, 2))
    away = np.hypot((canvas.x - x)[None] / rng.uniform(0.8, 1.4), (canvas.y - y)[:, None])
    shore = away + 10 * smooth_noise(rng, canvas.shape, 32 / canvas.pixel)
    size = rng.uniform(0.6, 1.1) * half
    _parcel(canvas, rng, np.ones(canvas.shape, dtype=bool), Cover.MEADOW)
    belt = (Cover.BROADLEAF, Cover.SHRUB, Cover.LAWN, Cover.GRAVEL)[int(rng.integers(4))]
    height = {Cover.BROADLEAF: 9.0, Cover.SHRUB: 2.0}.get(belt, 0.0)
    canvas.paint(shore < size + rng.uniform(4, 14), belt, int(rng.integers(99)), height)
    return _parcel(canvas, rng, shore < size, Cover.WATER)


def _halls(canvas: Canvas, rng: np.random.Generator, domain: Domain) -> int:
    """Large flat roofs in paved yards; the segment is that of an asphalt."""
    everywhere = np.ones(canvas.shape, dtype=bool)
    draw_lots(
        canvas, rng, domain, inside=everywhere, halls=True,
        block=np.zeros(canvas.shape, dtype=np.int32),
    )  # fmt: skip
    return int(np.bincount(canvas.segment.ravel()).argmax())


def _neighbour(canvas: Canvas, rng: np.random.Generator, site: Site, size: int) -> Neighbour:
    """Paints what begins on one side of the scene."""
    towards = float(rng.uniform(0, 2 * np.pi))
    reach = rng.uniform(0.3, 0.46) * size * canvas.pixel
    centre_x, centre_y = canvas.x.mean(), canvas.y.mean()
    beyond: Float = (
        np.float32(np.sin(towards)) * (canvas.x - centre_x)[None]
        - np.float32(np.cos(towards)) * (canvas.y - centre_y)[:, None]
        - np.float32(reach)
    )
    beyond = beyond + 3 * smooth_noise(rng, canvas.shape, 40 / canvas.pixel)
    cover = _growing(rng, site)
    _parcel(canvas, rng, beyond > 0, cover)
    edge: Edge = _EDGES[int(rng.choice(len(_EDGES), p=_EDGE_SHARES))]
    near, shade = np.abs(beyond), int(rng.integers(99))
    if edge == "hedge":
        canvas.paint(near < 3.6, Cover.SHRUB, shade, 2.5)
    elif edge == "track":
        canvas.paint(near < 2.4, Cover.GRAVEL, shade)
    elif edge == "road":
        canvas.paint(near < 5.5, Cover.LAWN, shade)
        canvas.paint(near < 3.6, Cover.ASPHALT, shade)
    elif edge == "stream":
        canvas.paint(near < 6.5, Cover.BROADLEAF, shade, 7.0)
        canvas.paint(near < 3.2, Cover.WATER, shade)
    return Neighbour(towards, edge, cover)


def _growing(rng: np.random.Generator, site: Site) -> Cover:
    """What grows beside a site: crops where it is warm, grass and conifers where it is cold."""
    warm = float(np.clip((site.temperature - 5) / 7, 0, 1))
    shares = {
        Cover.WHEAT: 0.2 * warm, Cover.MAIZE: 0.15 * warm, Cover.RAPESEED: 0.12 * warm,
        Cover.PLOWED: 0.1 * warm, Cover.VINE: 0.08 * warm, Cover.MEADOW: 0.4 - 0.2 * warm,
        Cover.BROADLEAF: 0.15 + 0.05 * warm, Cover.CONIFER: 0.3 - 0.2 * warm, Cover.SHRUB: 0.12,
    }  # fmt: skip
    weights = np.array(list(shares.values()))
    return list(shares)[int(rng.choice(len(shares), p=weights / weights.sum()))]

"""The map that both sensors see: pieces of land with crooked borders, and fields within them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.bigearthnet.constants import CLASSES, CORINE
from fusionlab.data.synthetic.bigearthnet.config import BigEarthNetConfig
from fusionlab.data.synthetic.bigearthnet.covers import COVERS, OUTSIDE
from fusionlab.data.synthetic.landscape.noise import Float, smooth_noise

PIXEL = 10.0
"""Metres."""
_PARCELS = 16
"""A piece of land repeats its parcels after so many, in both directions."""
_AREA = 4200
"""Pixels of a piece of land on a large raster, about as many as on a patch."""


@dataclass(frozen=True)
class Land:
    """A map on a grid of 10 m.

    Attributes:
        segment: Piece of land of each pixel (H, W).
        cover: Position in `COVERS` of each of the S pieces.
        code: CORINE code of each piece.
        parcel: A number from -1 to 1 for each pixel (H, W), the same within a parcel.
    """

    segment: NDArray[np.int32]
    cover: NDArray[np.int64]
    code: NDArray[np.uint16]
    parcel: Float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.segment.shape[0], self.segment.shape[1]

    @property
    def codes(self) -> NDArray[np.uint16]:
        """The reference map: CORINE code of each pixel (H, W)."""
        return self.code[self.segment]

    def labels(self, least_share: float) -> list[str]:
        """Classes that cover at least a share of the map, ordered alphabetically."""
        return labels_of(self.codes, least_share)


def labels_of(codes: NDArray[np.uint16], least_share: float) -> list[str]:
    """Classes of a reference map.

    Args:
        codes: CORINE codes (H, W); those outside the 19 classes count as area without a class.
        least_share: Share of all pixels that a class must cover.

    Returns:
        Class names, ordered alphabetically.
    """
    values, counts = np.unique(codes, return_counts=True)
    area: dict[str, int] = {}
    for value, count in zip(values, counts, strict=True):
        if (name := CORINE.get(int(value))) is not None:
            area[name] = area.get(name, 0) + int(count)
    return sorted(name for name, count in area.items() if count >= least_share * codes.size)


def draw_patch(rng: np.random.Generator, config: BigEarthNetConfig, size: int) -> Land:
    """Draws the land of a patch.

    Args:
        rng: Source of randomness.
        config: Classes, numbers of pieces, and how often a code outside the classes occurs.
        size: Rows and columns.
    """
    count = int(rng.integers(config.fewest_segments, config.most_segments + 1))
    names = np.array([CLASSES.index(name) for name in config.classes])
    order = np.concatenate([rng.permutation(names) for _ in range(-(-count // len(names)))])
    segment = _pieces(rng, (size, size), _spread(rng, (size, size), count))
    cover = order[:count]
    if rng.random() < config.unlabelled:
        # Never so much that a patch would have been left out of the real data (over a quarter).
        field = smooth_noise(rng, segment.shape, size / 4)
        hidden = field < np.quantile(field, rng.uniform(0.04, 0.2))
        segment = np.where(hidden, np.int32(count), segment)
        cover = np.append(cover, rng.choice(OUTSIDE))
    return _land(rng, segment, cover)


def draw_region(
    rng: np.random.Generator, config: BigEarthNetConfig, shape: tuple[int, int]
) -> Land:
    """Draws the land of a larger region, in which like lies beside like.

    Args:
        rng: Source of randomness.
        config: Classes, and the share of codes outside them.
        shape: Rows and columns.
    """
    count = max(round(shape[0] * shape[1] / _AREA), 2)
    centres = _spread(rng, shape, count)
    segment = _pieces(rng, shape, centres)
    row, column = np.clip(centres.astype(np.int64).T, 0, np.array(shape)[:, None] - 1)
    favour = np.stack([smooth_noise(rng, shape, 160)[row, column] for _ in config.classes])
    favour += 0.7 * rng.gumbel(size=favour.shape)
    names = np.array([CLASSES.index(name) for name in config.classes])
    outside = rng.random(count) < config.unlabelled / 8
    cover = np.where(outside, rng.choice(OUTSIDE, count), names[favour.argmax(0)])
    return _land(rng, segment, cover)


def _spread(rng: np.random.Generator, shape: tuple[int, int], count: int) -> Float:
    """Points (count, 2) that keep their distance: the farthest of a few candidates each time."""
    extent = np.array(shape, dtype=np.float32)
    points = rng.random((1, 2), dtype=np.float32) * extent
    for _ in range(count - 1):
        candidates = rng.random((4, 2), dtype=np.float32) * extent
        distance = ((candidates[:, None] - points[None]) ** 2).sum(-1).min(1)
        points = np.concatenate([points, candidates[[distance.argmax()]]])
    return points


def _pieces(rng: np.random.Generator, shape: tuple[int, int], centres: Float) -> NDArray[np.int32]:
    """The nearest centre of each pixel (H, W), seen through a bent grid."""
    row, column = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    for wavelength, reach in ((45, 9), (14, 3)):
        row += reach * smooth_noise(rng, shape, wavelength)
        column += reach * smooth_noise(rng, shape, wavelength)
    nearest = np.full(shape, np.inf, dtype=np.float32)
    segment = np.zeros(shape, dtype=np.int32)
    for index, (y, x) in enumerate(centres):
        distance = (row - y) ** 2 + (column - x) ** 2
        closer = distance < nearest
        segment[closer] = index
        nearest[closer] = distance[closer]
    return segment


def _land(rng: np.random.Generator, segment: NDArray[np.int32], cover: NDArray[np.int64]) -> Land:
    """Gives each piece a code and its parcels, which lie in rows."""
    count = len(cover)
    code = [int(rng.choice(COVERS[index].codes)) for index in cover]
    angle = rng.uniform(0, np.pi, count).astype(np.float32)
    length = rng.uniform(18, 30, count).astype(np.float32)
    width = rng.uniform(8, 14, count).astype(np.float32)
    value = rng.uniform(-1, 1, (count, _PARCELS, _PARCELS)).astype(np.float32)
    row, column = np.mgrid[: segment.shape[0], : segment.shape[1]].astype(np.float32)
    cos, sin = np.cos(angle)[segment], np.sin(angle)[segment]
    along = np.floor((cos * column + sin * row) / length[segment]).astype(np.int32)
    across = np.floor((cos * row - sin * column) / width[segment]).astype(np.int32)
    parcel = value[segment, along % _PARCELS, across % _PARCELS]
    return Land(segment, cover, np.array(code, dtype=np.uint16), parcel)

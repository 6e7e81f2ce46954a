"""Rural blocks: oriented parcels of fields, woods, vines and scrub, and their fine patterns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.landscape.canvas import Canvas, draw_segments
from fusionlab.data.synthetic.landscape.covers import COVERS, LABELS, Cover
from fusionlab.data.synthetic.landscape.domain import Domain
from fusionlab.data.synthetic.landscape.noise import Int, compress, smooth_noise, smoothstep

SMALLEST = 1500.0
"""Parcels below this many square metres become a copse: Sentinel-2 could not tell a crop."""

_GROUPS = {
    "herbaceous": (Cover.MEADOW,),
    "crops": (Cover.WHEAT, Cover.MAIZE, Cover.RAPESEED),
    "plowed": (Cover.PLOWED,),
    "conifer": (Cover.CONIFER,),
    "broadleaf": (Cover.BROADLEAF,),
    "vine": (Cover.VINE,),
    "shrub": (Cover.SHRUB,),
}
SHARES: dict[str, dict[Cover, float]] = {
    "field": {
        Cover.MEADOW: 0.30, Cover.WHEAT: 0.11, Cover.MAIZE: 0.10, Cover.RAPESEED: 0.08,
        Cover.PLOWED: 0.24, Cover.SHRUB: 0.03, Cover.VINE: 0.03, Cover.RUBBLE: 0.03,
        Cover.BROADLEAF: 0.02, Cover.CONIFER: 0.02, Cover.GRAVEL: 0.02, Cover.GREENHOUSE: 0.015,
    },
    "wood": {
        Cover.CONIFER: 0.38, Cover.BROADLEAF: 0.38, Cover.MIXED_WOOD: 0.03,
        Cover.CLEAR_CUT: 0.03, Cover.PLANTATION: 0.03, Cover.SHRUB: 0.08, Cover.MEADOW: 0.05,
    },
    "vine": {
        Cover.VINE: 0.5, Cover.SHRUB: 0.22, Cover.MEADOW: 0.1, Cover.RUBBLE: 0.08,
        Cover.PLOWED: 0.1,
    },
    "nature": {
        Cover.SHRUB: 0.36, Cover.MEADOW: 0.18, Cover.RUBBLE: 0.18, Cover.BROADLEAF: 0.09,
        Cover.CONIFER: 0.09, Cover.GRAVEL: 0.06, Cover.OTHER: 0.02, Cover.SNOW: 0.015,
    },
}  # fmt: skip
KINDS = (*SHARES, "village", "industry")


def draw_parcels(
    canvas: Canvas,
    rng: np.random.Generator,
    domain: Domain,
    *,
    block: Int,
    kinds: NDArray[np.int64],
    common: bool,
) -> None:
    """Cuts rural blocks into parcels and gives each a cover.

    Args:
        canvas: Drawn on in place.
        rng: Source of randomness.
        domain: Look of the domain.
        block: Block of each pixel (H, W).
        kinds: Position in `KINDS` of each block.
        common: Leave out the rare labels 14 to 19.
    """
    index = np.flatnonzero((kinds < len(SHARES))[block])
    if not index.size:
        return
    here = block.reshape(-1)[index]
    x, y = canvas.places(index)
    # Woods and scrub have crooked edges, fields straight ones.
    crooked = np.isin(kinds, [KINDS.index("wood"), KINDS.index("nature")])[here] * np.float32(5)
    wave = 35 / canvas.pixel
    x = x + crooked * smooth_noise(rng, canvas.shape, wave).reshape(-1)[index]
    y = y + crooked * smooth_noise(rng, canvas.shape, wave).reshape(-1)[index]

    count = len(kinds)
    angle = rng.uniform(0, np.pi, count)
    length = (domain.parcel * rng.uniform(1.5, 2.4, count)).astype(np.float32)
    cos, sin = np.cos(angle).astype(np.float32)[here], np.sin(angle).astype(np.float32)[here]
    along, across = cos * x + sin * y, cos * y - sin * x
    strip = np.floor(across / length[here]).astype(np.int32)
    strip -= strip.min()
    width = (domain.parcel * rng.uniform(1, 2, (count, int(strip.max()) + 1))).astype(np.float32)
    parcel, number = compress(here, strip, np.floor(along / width[here, strip]).astype(np.int32))

    owner = np.zeros(number, dtype=np.int32)
    owner[parcel] = here
    covers = _choose(rng, domain, kinds[owner], common)
    area = np.bincount(parcel, minlength=number) * canvas.pixel**2
    copse = rng.choice([Cover.SHRUB, Cover.BROADLEAF, Cover.GRAVEL], number, p=[0.5, 0.4, 0.1])
    covers = np.where(area < SMALLEST, copse, covers)

    start = canvas.add(draw_segments(rng, covers, canvas.pixel))
    canvas.segment.reshape(-1)[index] = start + parcel
    sheds = covers[parcel] == Cover.GREENHOUSE
    gap = sheds & (np.mod(along, 11) > 9)
    canvas.paint(index[gap], Cover.GRAVEL, 0)
    canvas.height.reshape(-1)[index[sheds & ~gap]] = 4.0


def _choose(
    rng: np.random.Generator, domain: Domain, kinds: NDArray[np.int64], common: bool
) -> NDArray[np.int64]:
    """Draws the cover of each parcel from its block's shares."""
    table = np.zeros((len(SHARES), len(Cover)))
    for row, shares in zip(table, SHARES.values(), strict=True):
        for cover, share in shares.items():
            row[cover] = share
    for group, members in _GROUPS.items():
        table[:, list(members)] *= domain.favour[group]
    if common:
        table[:, LABELS > 13] = 0
    cumulative = np.cumsum(table / table.sum(1, keepdims=True), axis=1)
    draws = np.empty(len(kinds))
    for kind in np.unique(kinds):
        # Evenly spaced draws: few parcels still hold the covers in their shares.
        count = int((kinds == kind).sum())
        draws[kinds == kind] = rng.permutation((np.arange(count) + rng.random()) / count)
    covers: NDArray[np.int64] = (draws[:, None] > cumulative[kinds]).sum(1)
    return covers.clip(max=len(Cover) - 1)


def draw_patterns(canvas: Canvas, rng: np.random.Generator) -> None:
    """Spreads each segment's green and height as its cover does: crowns, rows, furrows, scrub.

    Args:
        canvas: Drawn on in place; heights already set (hedges, houses) are kept where higher.
        rng: Source of randomness.
    """
    shape, pixel, table = canvas.shape, canvas.pixel, canvas.segments
    crowns = smooth_noise(rng, shape, 3.2 / pixel) + 0.5 * smooth_noise(rng, shape, 8 / pixel)
    scrub = smooth_noise(rng, shape, 2.2 / pixel) + 0.4 * smooth_noise(rng, shape, 7 / pixel)
    mottle = smooth_noise(rng, shape, 18 / pixel)
    pattern = np.array([_ORDER.index(COVERS[c].pattern) for c in Cover], dtype=np.uint8)[
        table.cover
    ][canvas.segment]
    green, height = canvas.green.reshape(-1), canvas.height.reshape(-1)

    for name in ("field", "rows", "trees"):
        index = np.flatnonzero(pattern == _ORDER.index(name))
        segment = canvas.segment.reshape(-1)[index]
        x, y = canvas.places(index)
        cos, sin = np.cos(table.angle)[segment], np.sin(table.angle)[segment]
        turn = np.float32(2 * np.pi) / table.spacing[segment]
        wave = np.cos((cos * x + sin * y) * turn)
        canopy = table.canopy[segment]
        if name == "field":
            texture = table.rows[segment] * wave
            texture += table.mottle[segment] * mottle.reshape(-1)[index]
            green[index] = 1 + texture
            height[index] = np.maximum(height[index], canopy)
        elif name == "rows":
            row = smoothstep(wave, -0.6, 0.6)
            green[index], height[index] = 2 * row, canopy * row
        else:
            dots = wave + np.cos((cos * y - sin * x) * turn)
            tree = smoothstep(dots, -0.5, 0.7)
            green[index], height[index] = 2 * tree, canopy * tree

    index = np.flatnonzero(pattern == _ORDER.index("canopy"))
    crown = crowns.reshape(-1)[index]
    canopy = table.canopy[canvas.segment.reshape(-1)[index]]
    tall = np.where(height[index] > 0, height[index], canopy)
    green[index] = 1 + 0.06 * crown
    height[index] = tall * np.clip(0.85 + 0.13 * crown, 0.2, 1.15)

    index = np.flatnonzero(pattern == _ORDER.index("shrub"))
    bush = smoothstep(scrub.reshape(-1)[index], -0.6, 0.6)
    canopy = table.canopy[canvas.segment.reshape(-1)[index]]
    green[index], height[index] = 2 * bush, canopy * bush


_ORDER = ("plain", "field", "canopy", "shrub", "rows", "trees", "rough", "water")

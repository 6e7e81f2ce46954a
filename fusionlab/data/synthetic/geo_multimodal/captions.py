"""Captions composed of what is in a scene, in varied words, with parts left out.

Some name the use of the land; others say what can be seen on that day, as one who does not know the
place would; a few say next to nothing. Words for what can be seen are the same for all uses that
look the same.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from fusionlab.data.synthetic.geo_multimodal.config import GeoMultimodalConfig
from fusionlab.data.synthetic.geo_multimodal.scenes import Neighbour, Scene
from fusionlab.data.synthetic.geo_multimodal.uses import USES, LandUse
from fusionlab.data.synthetic.landscape.covers import Cover

T = TypeVar("T")

_DIRECTIONS = (
    "north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west",
)  # fmt: skip
LEADS = (
    "", "", "", "aerial view of ", "a view from above of ", "an image of ", "this is ",
    "an aerial photograph of ", "seen from the air: ",
)  # fmt: skip
_VAGUE = (
    "a piece of land", "a place in the country", "some land", "an area seen from above",
    "a rural place", "a part of the valley", "land near the village",
)  # fmt: skip
_FIELDS = {
    "green": ("a green field", "a field of dense green", "a lush field", "green open land"),
    "thin": ("a thinly grown field", "a patchy field", "a field with sparse growth"),
    "dry": ("a straw-coloured field", "a dry yellow field", "a field of dry stalks"),
    "bare": ("a bare field", "open soil", "a field without any growth", "brown bare ground"),
}
_WOODS = {
    True: ("dense woodland", "a closed canopy of trees", "a forest", "thick tree cover"),
    False: ("a wood without leaves", "leafless trees", "bare tree crowns"),
}
_ROWS = ("rows of small trees", "trees planted in rows", "evenly spaced trees", "lines of trees")
_WATERS = ("a sheet of water", "open water", "still water", "a body of water")
_HALLS = (
    "large flat-roofed buildings", "big halls in paved yards", "large buildings and car parks",
    "wide flat roofs and asphalt",
)  # fmt: skip
_EDGES = {
    "hedge": ("a hedge", "a line of bushes"),
    "track": ("a gravel track", "a farm track", "a dirt road"),
    "road": ("a road", "a paved road", "a street"),
    "stream": ("a stream", "a brook lined with trees"),
}
_BEYOND = {
    Cover.BROADLEAF: ("woodland", "trees"),
    Cover.CONIFER: ("woodland", "trees"),
    Cover.SHRUB: ("scrub", "bushes"),
    Cover.VINE: ("vines", "a vineyard"),
    Cover.MEADOW: ("grassland", "grass"),
}
_TREES = ("a few scattered trees", "some single trees", "a handful of trees")


def compose(
    rng: np.random.Generator,
    config: GeoMultimodalConfig,
    use: str,
    scene: Scene,
    *,
    season: str,
    state: tuple[float, float],
) -> str:
    """A caption, empty for some samples.

    Args:
        rng: Source of words and omissions.
        config: Says how often the use is named.
        use: Name of the land use.
        scene: What is in the image.
        season: When it was taken.
        state: Green share of what the scene is about on that day, and dry share of the rest.
    """
    if rng.random() < config.no_caption:
        return ""
    kind = rng.random()
    if kind < config.named:
        subject = _pick(rng, USES[use].names)
        if rng.random() < 0.35:
            subject += f", {_seen(rng, USES[use], scene, state)}"
    elif kind < config.named + config.vague:
        subject = _pick(rng, _VAGUE)
    else:
        subject = _seen(rng, USES[use], scene, state)
    details = _details(rng, scene, season)
    return _sentence(rng, subject, details)


def _seen(rng: np.random.Generator, use: LandUse, scene: Scene, state: tuple[float, float]) -> str:
    """What anybody can see in the image."""
    green, dry = state
    if use.look == "field":
        looks = "green" if green > 0.6 else "thin" if green > 0.25 else "dry" if dry > 0.5 else ""
        return _pick(rng, _FIELDS[looks or "bare"])
    if use.look == "wood":
        return _pick(rng, _WOODS[green > 0.3])
    if use.look == "tree rows":
        ground = _pick(rng, ("tilled soil", "bare earth") if scene.bare_ground else ("grass",))
        return _pick(rng, _ROWS) + (f" on {ground}" if rng.random() < 0.5 else "")
    return _pick(rng, _WATERS if use.look == "water" else _HALLS)


def _details(rng: np.random.Generator, scene: Scene, season: str) -> list[str]:
    """Some of the smaller things, in any order."""
    found = [
        detail
        for neighbour in scene.neighbours
        for detail in _around(rng, neighbour)
        if rng.random() < 0.55
    ]
    if scene.trees and rng.random() < 0.6:
        found.append(_pick(rng, _TREES))
    order = rng.permutation(len(found))
    found = [found[i] for i in order][:2]
    if rng.random() < 0.2:
        found.append(_pick(rng, (f"in {season}", f"taken in {season}")))
    return found


def _around(rng: np.random.Generator, neighbour: Neighbour) -> list[str]:
    towards = _DIRECTIONS[round(neighbour.towards / (np.pi / 4)) % 8]
    details = []
    if neighbour.edge != "none":
        thing = _pick(rng, _EDGES[neighbour.edge])
        details.append(thing + _pick(rng, (f" in the {towards}", f" along the {towards}", "")))
    beyond = _pick(rng, _BEYOND.get(neighbour.cover, ("farmland", "another field")))
    details.append(beyond + _pick(rng, (f" to the {towards}", " beyond", " next to it")))
    return details


def _sentence(rng: np.random.Generator, subject: str, details: list[str]) -> str:
    plain = [detail for detail in details if not detail.startswith(("in ", "taken"))]
    when = [detail for detail in details if detail not in plain]
    text = _pick(rng, LEADS) + subject
    if plain:
        listed = " and ".join(plain)
        if rng.random() < 0.25:
            text = f"{listed}; in the middle {subject}"
        else:
            text += _pick(rng, (" with ", ", ", ", beside it ")) + listed
    text = ", ".join([text, *when])
    end = _pick(rng, (".", ".", ""))
    return text[:1].upper() + text[1:] + end if rng.random() < 0.8 else text + end


def _pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]

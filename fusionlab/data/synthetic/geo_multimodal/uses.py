"""The twelve land uses: what each looks like from above, where it is found, and what it is called.

They come in pairs that a camera cannot tell apart, or not on every date. What separates a pair is
elsewhere, and for a reason:

| pair | what tells them apart |
|---|---|
| wheat, maize | when they are green: the weekly vegetation index, or the image and its season |
| hay meadow, alpine pasture | how high they lie, and with it how cold and how long under snow |
| broad-leaved, coniferous forest | leaves in winter, and which climate each can bear |
| fruit orchard, olive grove | the same: olives keep their leaves, and frost kills them |
| fish pond, reservoir | ponds are dug in plains, dams stand in valleys of rainy mountains |
| industrial estate, retail park | nothing but what people say of the place |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.synthetic.landscape.covers import Cover

Look = Literal["field", "wood", "tree rows", "water", "halls"]


@dataclass(frozen=True)
class Niche:
    """Where a use is found: a mean and a spread of each condition, None where it does not matter.

    Attributes:
        temperature: Mean of the year, °C.
        precipitation: Sum of the year, mm.
        elevation: Metres above the sea.
        relief: Differences in height around the site, metres (standard deviation).
    """

    temperature: tuple[float, float] | None = None
    precipitation: tuple[float, float] | None = None
    elevation: tuple[float, float] | None = None
    relief: tuple[float, float] | None = None


@dataclass(frozen=True)
class LandUse:
    """A use of land.

    Attributes:
        look: How a scene of it is drawn.
        cover: What grows, of crowns where there are tree rows; None for what is built or water.
        niche: Where it is found.
        names: What people call it, in captions.
    """

    look: Look
    cover: Cover | None
    niche: Niche
    names: tuple[str, ...]


USES: dict[str, LandUse] = {
    "wheat": LandUse(
        "field", Cover.WHEAT,
        Niche((11, 2.5), (650, 180), (150, 220), (15, 40)),
        ("wheat", "winter wheat", "a cereal crop of wheat", "wheat grown for grain",
         "a grain field", "cereals", "bread wheat", "barley and wheat"),
    ),
    "maize": LandUse(
        "field", Cover.MAIZE,
        Niche((12, 2.5), (720, 200), (150, 220), (15, 40)),
        ("maize", "corn", "maize for silage", "a crop of corn", "fodder maize", "sweetcorn",
         "cobs for cattle feed", "maize for biogas"),
    ),
    "hay meadow": LandUse(
        "field", Cover.MEADOW,
        Niche((10, 2.5), (800, 220), (320, 300), None),
        ("a hay meadow", "a meadow cut for hay", "mown grassland", "a meadow mown for hay",
         "a mowing meadow", "grass for silage", "fodder grass", "haymaking"),
    ),
    "alpine pasture": LandUse(
        "field", Cover.MEADOW,
        Niche((5, 2.5), (1100, 350), (1250, 350), None),
        ("an alpine pasture", "a mountain pasture", "summer grazing for cattle",
         "a pasture grazed in summer", "high grazing land", "sheep grazing on the mountain",
         "the pasture of a mountain dairy", "an alp with cows"),
    ),
    "broad-leaved forest": LandUse(
        "wood", Cover.BROADLEAF,
        Niche((10, 2.2), (800, 250), (400, 350), None),
        ("a broad-leaved forest", "beech wood", "oak forest", "deciduous woodland",
         "a hardwood stand", "oak and hornbeam", "chestnut coppice", "ash and maple"),
    ),
    "coniferous forest": LandUse(
        "wood", Cover.CONIFER,
        Niche((7.5, 2.5), (950, 300), (800, 450), None),
        ("a coniferous forest", "spruce forest", "pine wood", "coniferous woodland",
         "a softwood stand", "fir and spruce", "larch and pine", "planted Douglas fir"),
    ),
    "fruit orchard": LandUse(
        "tree rows", Cover.BROADLEAF,
        Niche((11, 1.8), (720, 180), (200, 220), (20, 50)),
        ("a fruit orchard", "an apple orchard", "cherry trees grown for fruit", "a pear orchard",
         "plum trees", "peach trees", "apple trees", "fruit growing"),
    ),
    "olive grove": LandUse(
        "tree rows", Cover.CONIFER,
        Niche((13.8, 1.2), (580, 130), (180, 180), None),
        ("an olive grove", "olive trees", "old olives", "a grove of olives",
         "olives grown for oil", "an olive plantation", "table olives", "trees of an oil mill"),
    ),
    "fish pond": LandUse(
        "water", None,
        Niche((11, 2.5), (700, 200), (100, 130), (10, 25)),
        ("a fish pond", "a carp pond", "a pond of a fish farm", "a pond where fish are bred",
         "trout farming", "the pond of a fishery", "aquaculture", "a pond stocked with carp"),
    ),
    "reservoir": LandUse(
        "water", None,
        Niche((8, 2.5), (1050, 250), (750, 350), (190, 70)),
        ("a reservoir", "a drinking water reservoir", "a storage lake behind a dam",
         "a reservoir of drinking water", "a dammed lake", "water stored for hydropower",
         "the lake of a power station", "an artificial lake"),
    ),
    "industrial estate": LandUse(
        "halls", None,
        Niche((11, 2.2), (720, 200), (120, 180), (10, 40)),
        ("an industrial estate", "a factory", "warehouses", "a works with its warehouses",
         "a steel works", "a sawmill", "a production plant", "a logistics centre"),
    ),
    "retail park": LandUse(
        "halls", None,
        Niche((11, 2.2), (720, 200), (120, 180), (10, 40)),
        ("a retail park", "a shopping centre", "a supermarket", "shops of a retail park",
         "a furniture store", "a hardware store", "shops and customers", "an outlet centre"),
    ),
}  # fmt: skip
"""Land uses by name, in the order of a data set's classes."""
CLASSES = tuple(USES)


def suitability(niche: Niche, conditions: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """How well places suit a use, 1 at best.

    Args:
        niche: of the use.
        conditions: ``temperature``, ``precipitation``, ``elevation`` and ``relief`` of N places.

    Returns:
        A normal curve about each condition's mean, multiplied, ``(N,)``.
    """
    away = np.zeros(len(conditions["elevation"]))
    for name, values in conditions.items():
        wanted: tuple[float, float] | None = getattr(niche, name)
        if wanted is not None:
            away += ((values - wanted[0]) / wanted[1]) ** 2
    fit: NDArray[np.float64] = np.exp(-away / 2)
    return fit

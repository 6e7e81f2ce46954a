"""Other words for the same in the texts of samples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from fusionlab.data.samples import Sample
from fusionlab.data.transforms.base import SampleTransform
from fusionlab.errors import InputError

EARTH_OBSERVATION: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "aerial": ("airborne",),
        "areas": ("regions", "zones"),
        "bare soil": ("barren soil", "naked ground"),
        "building": ("house",),
        "buildings": ("houses",),
        "built-up": ("developed",),
        "coast": ("shore", "seaside"),
        "conifers": ("coniferous trees",),
        "cropland": ("farmland", "tilled land"),
        "crops": ("field crops",),
        "dense": ("thick",),
        "desert": ("drylands",),
        "dry": ("parched",),
        "field": ("parcel", "plot"),
        "fields": ("parcels", "plots"),
        "flat": ("level",),
        "forest": ("woodland", "wood"),
        "forests": ("woodlands", "woods"),
        "grassland": ("grassy land", "meadows"),
        "green": ("verdant",),
        "highway": ("motorway",),
        "hill": ("rise",),
        "hills": ("rises",),
        "hilly": ("rolling",),
        "house": ("dwelling", "building"),
        "houses": ("dwellings", "buildings"),
        "images": ("pictures", "scenes"),
        "lake": ("water body",),
        "lakes": ("water bodies",),
        "large": ("big", "broad"),
        "meadow": ("pasture",),
        "meadows": ("pastures",),
        "near": ("close to",),
        "orchards": ("fruit plantations",),
        "pasture": ("grazing land", "meadow"),
        "photograph": ("photo",),
        "pond": ("pool",),
        "residential": ("housing",),
        "river": ("watercourse", "stream"),
        "rivers": ("watercourses", "streams"),
        "road": ("street", "roadway"),
        "roads": ("streets", "roadways"),
        "shrubs": ("bushes",),
        "small": ("little", "minor"),
        "snow": ("snow cover",),
        "sparse": ("scattered", "thin"),
        "steep": ("precipitous",),
        "town": ("settlement",),
        "trees": ("tree cover",),
        "vegetation": ("plant cover", "greenery"),
        "village": ("settlement", "hamlet"),
        "vineyard": ("wine-growing land",),
        "wet": ("moist", "damp"),
        "wetland": ("marsh", "marshland"),
        "wetlands": ("marshes", "marshland"),
        "wide": ("broad",),
    }
)
"""Words of captions of images from above, and others that mean the same there.

Those that begin with a vowel have synonyms that do, and the other way round: "an" stays right.
"""


class SynonymReplacement(SampleTransform):
    """Says the same in other words.

    Whole words, and expressions of several, are replaced, each by chance; they begin with a capital
    or are all capitals as the old ones were, and everything between them stays. Texts that are not
    available stay empty.

    Args:
        probability: of each word that has synonyms to be replaced.
        synonyms: words and what may stand for each, in the place of a small list of English words
            for what is seen from above.

    Raises:
        InputError: for a probability outside [0, 1], or a word without a synonym.
    """

    def __init__(
        self, probability: float = 0.3, *, synonyms: dict[str, list[str]] | None = None
    ) -> None:
        if not 0 <= probability <= 1:
            raise InputError(
                f"The probability of a SynonymReplacement lies in [0, 1], got {probability}."
            )
        given: Mapping[str, Sequence[str]] = EARTH_OBSERVATION if synonyms is None else synonyms
        empty = [word for word, others in given.items() if not word.strip() or not others]
        if empty or not given:
            raise InputError(
                f"SynonymReplacement has no synonyms for {empty or 'any word'}: give "
                "`synonyms: {word: [another, ...]}`."
            )
        self.probability = probability
        self.synonyms = {_key(word): tuple(others) for word, others in given.items()}
        # The longest first, so that an expression is not taken for its first word.
        words = sorted(self.synonyms, key=len, reverse=True)
        spaced = "|".join(r"\s+".join(map(re.escape, word.split())) for word in words)
        self._pattern = re.compile(rf"(?<![\w-])(?:{spaced})(?![\w-])", re.IGNORECASE)

    def __call__(self, sample: Sample) -> Sample:
        """A new sample; the one given is not changed."""
        inputs = {
            name: self._pattern.sub(self._replaced, value)
            if isinstance(value, str) and sample["available"][name]
            else value
            for name, value in sample["inputs"].items()
        }
        return {**sample, "inputs": inputs}

    def _replaced(self, match: re.Match[str]) -> str:
        word = match[0]
        others = self.synonyms.get(_key(word))
        if others is None or torch.rand(()) >= self.probability:
            return word
        other = others[int(torch.randint(len(others), ()))]
        if word.isupper() and len(word) > 1:
            return other.upper()
        return other[:1].upper() + other[1:] if word[:1].isupper() else other


def _key(word: str) -> str:
    return " ".join(word.casefold().split())

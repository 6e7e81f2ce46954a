"""What a synthetic BigEarthNet is made of: seed, numbers of patches, classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fusionlab.data.bigearthnet.constants import CLASSES
from fusionlab.errors import InputError

DEFAULT_CLASSES = (
    "Arable land",
    "Broad-leaved forest",
    "Complex cultivation patterns",
    "Coniferous forest",
    "Industrial or commercial units",
    "Inland waters",
    "Inland wetlands",
    "Pastures",
    "Transitional woodland, shrub",
    "Urban fabric",
)
MOST_TILES = 14
MOST_IN_TILE = 2000
"""Patches of one split that a tile has room for."""


@dataclass(frozen=True, kw_only=True)
class BigEarthNetConfig:
    """Numbers, classes and seed of a synthetic BigEarthNet.

    Attributes:
        seed: The only source of randomness; equal configurations give equal bytes.
        train: Patches of the split ``train``.
        validation: Patches of the split ``validation``.
        test: Patches of the split ``test``.
        snow_cloud: Patches of the table of those with snow, cloud or shadow, over all splits.
        tiles: Sentinel-2 products (a place and a date each) that the patches are spread over
            evenly; 1 to 14. Each holds all three splits in separate blocks, as the real ones do.
        classes: Those of the 19 classes that occur.
        fewest_segments: Fewest pieces of land of a patch.
        most_segments: Most pieces of land of a patch; no two of them have the same class while
            there are enough classes.
        least_share: Share of a patch that a class must cover to be among its labels.
        unlabelled: Share of the patches in which land of a code outside the 19 classes lies.
    """

    seed: int = 0
    train: int = 700
    validation: int = 200
    test: int = 300
    snow_cloud: int = 24
    tiles: int = 8
    classes: tuple[str, ...] = DEFAULT_CLASSES
    fewest_segments: int = 2
    most_segments: int = 5
    least_share: float = 0.03
    unlabelled: float = 0.15

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn.

        Raises:
            InputError: If a value is out of range; the message names the field.
        """
        object.__setattr__(self, "classes", tuple(self.classes))
        if not 1 <= self.tiles <= MOST_TILES:
            raise InputError(f"tiles must be 1 to {MOST_TILES}, found {self.tiles}.")
        room = self.tiles * MOST_IN_TILE
        counts = (self.train, self.validation, self.test, self.snow_cloud)
        for name, count in zip(("train", "validation", "test", "snow_cloud"), counts, strict=True):
            if not 0 <= count <= room:
                raise InputError(
                    f"{name} must be 0 to {room} ({MOST_IN_TILE} per tile), found {count}. "
                    "For more patches allow more tiles."
                )
        if max(counts[:3]) + self.snow_cloud > room:
            raise InputError(
                f"snow_cloud ({self.snow_cloud}) and the largest split ({max(counts[:3])}) "
                f"together must not exceed {room} patches. Allow more tiles."
            )
        if not sum(counts[:3]):
            raise InputError("At least one of train, validation and test must be over 0.")
        unknown = [name for name in self.classes if name not in CLASSES]
        if unknown or len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise InputError(
                f"classes must be two or more different ones of {list(CLASSES)}, "
                f"found {list(self.classes)}."
            )
        if not 1 <= self.fewest_segments <= self.most_segments <= 12:
            raise InputError(
                "segments must satisfy 1 <= fewest_segments <= most_segments <= 12, found "
                f"{self.fewest_segments} and {self.most_segments}."
            )
        if not 0 < self.least_share <= 0.05:
            raise InputError(f"least_share must be over 0 and at most 0.05: {self.least_share}.")
        if not 0 <= self.unlabelled <= 1:
            raise InputError(f"unlabelled must be 0 to 1, found {self.unlabelled}.")

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready primitives."""
        return asdict(self)

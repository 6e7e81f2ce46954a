"""What a user may choose of BigEarthNet: bands per modality, countries, seasons, and how many."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from fusionlab.data.base import Transform
from fusionlab.data.bigearthnet import constants
from fusionlab.data.bigearthnet.names import Sensor, Version
from fusionlab.data.transforms import ModalityDropout, RandomD4
from fusionlab.errors import InputError
from fusionlab.types import Modality

Upsampling = Literal["nearest", "bilinear"]
Part = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Recipe:
    """How a modality is made of bands.

    Attributes:
        name: of the modality.
        bands: their names, in the order of the channels.
        upsampling: how coarser bands are brought to the grid of the finest.
    """

    name: str
    bands: tuple[str, ...]
    upsampling: Upsampling = "nearest"

    @property
    def gsd(self) -> int:
        """Pixel size of the finest band, metres."""
        return min(constants.GSD[band] for band in self.bands)

    @cached_property
    def size(self) -> int:
        """Rows and columns."""
        return constants.PATCH_METRES // self.gsd

    @cached_property
    def sensors(self) -> tuple[Sensor, ...]:
        """Which sensors it needs; with one of them missing, it is missing."""
        wanted = [sensor_of(band) for band in self.bands]
        return tuple(sensor for sensor in get_args(Sensor) if sensor in wanted)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """As on disk (uint16) where nothing is computed; float32 for dB and means of pixels."""
        sizes = {constants.SIZE[band] for band in self.bands}
        averaged = self.upsampling == "bilinear" and len(sizes) > 1
        return np.dtype(np.float32 if averaged or "S1" in self.sensors else np.uint16)

    def modality(
        self, version: Version, *, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> Modality:
        """What the schema says of it, with the published statistics where none are given."""
        published = constants.STATISTICS[
            "v1" if version == "v1" else f"v2_{self.upsampling if self._mixed else 'nearest'}"
        ]
        return Modality(
            bands=self.bands,
            gsd=float(self.gsd),
            mean=tuple(mean or (published[band].mean for band in self.bands)),
            std=tuple(std or (published[band].std for band in self.bands)),
            preparation={"image_size": self.size, "upsampling": self.upsampling},
        )

    @property
    def _mixed(self) -> bool:
        return len({constants.GSD[band] for band in self.bands}) > 1


def sensor_of(band: str) -> Sensor:
    """The sensor that a band belongs to."""
    return "S1" if band in constants.S1_BANDS else "S2"


def recipes(
    modalities: Mapping[str, str | Sequence[str]], upsampling: Upsampling
) -> dict[str, Recipe]:
    """The modalities that a user chose.

    Args:
        modalities: per name, bands or names of published band sets, alone or in a list.
        upsampling: how coarser bands are brought to the grid of the finest.

    Raises:
        InputError: for no modality, one without bands, unknown or repeated bands.
    """
    require_known([upsampling], get_args(Upsampling), option="upsampling", what="way of upsampling")
    if not modalities:
        raise InputError(
            "modalities is empty: name at least one with its bands, such as s2: [B04, B03, B02]."
        )
    chosen = {}
    for name, given in modalities.items():
        names = [given] if isinstance(given, str) else list(given)
        known = (*constants.BANDS, *constants.BAND_SETS)
        require_known(names, known, option=f"modalities.{name}", what="band or band set")
        bands = [band for entry in names for band in constants.BAND_SETS.get(entry, (entry,))]
        repeated = sorted({band for band in bands if bands.count(band) > 1})
        if not bands or repeated:
            raise InputError(
                f"modalities.{name} must name bands, each once; got {names}"
                + (f", in which {repeated} come twice." if repeated else ".")
            )
        chosen[name] = Recipe(name, tuple(bands), upsampling)
    return chosen


def require_known(given: Sequence[str], known: Collection[str], *, option: str, what: str) -> None:
    """Refuses names that do not exist.

    Raises:
        InputError: names them, the names most like them, and all there are.
    """
    by_lower = {entry.lower(): entry for entry in known}
    for name in given:
        if name in known:
            continue
        given_lower = str(name).lower()
        near = get_close_matches(given_lower, by_lower, n=3, cutoff=0.5)
        near += [k for k in by_lower if len(k) > 2 and given_lower.startswith(k) and k not in near]
        hint = f" Did you mean {' or '.join(by_lower[n] for n in near)}?" if near else ""
        raise InputError(f"{option}: there is no {what} {name!r}.{hint} Known: {', '.join(known)}.")


def require_modalities(
    values: Mapping[str, object], known: Collection[str], *, option: str
) -> None:
    """Refuses an option for a modality that is not delivered.

    Raises:
        InputError: names it and the modalities.
    """
    require_known(list(values), known, option=option, what="modality")


def fractions(given: float | Mapping[str, float]) -> dict[str, float]:
    """The share of each split to keep; a plain number is that of the training split.

    Raises:
        InputError: for an unknown split, or a share outside (0, 1].
    """
    values = dict(given) if isinstance(given, Mapping) else {"train": given}
    require_known(list(values), get_args(Part), option="fraction", what="split")
    for name, value in values.items():
        if not 0 < value <= 1:
            raise InputError(f"fraction must lie in (0, 1], got {value} for {name!r}.")
    return values


def limits(given: int | Mapping[str, int] | None) -> dict[str, int]:
    """How many patches of each split to keep at most; a plain number holds for every split.

    Raises:
        InputError: for an unknown split, or a number below 1.
    """
    parts = get_args(Part)
    if given is None:
        return {}
    values = dict(given) if isinstance(given, Mapping) else dict.fromkeys(parts, given)
    require_known(list(values), parts, option="max_patches", what="split")
    for name, value in values.items():
        if value < 1:
            raise InputError(f"max_patches must be at least 1, got {value} for {name!r}.")
    return values


def months(seasons: Sequence[str] | None) -> frozenset[int] | None:
    """The calendar months of some seasons; None for all.

    Raises:
        InputError: for an unknown season.
    """
    if seasons is None:
        return None
    require_known(seasons, constants.SEASONS, option="seasons", what="season")
    return frozenset(month for season in seasons for month in constants.SEASONS[season])


def train_transforms(
    augment: bool | Transform, dropout: Mapping[str, float], modalities: Collection[str]
) -> list[Transform]:
    """What is done to training samples: augmentation, then the loss of modalities.

    Raises:
        InputError: if a modality to lose is not delivered.
    """
    transforms: list[Transform] = []
    if augment is True:
        transforms.append(RandomD4())
    elif augment is not False:
        transforms.append(augment)
    require_modalities(dropout, modalities, option="modality_dropout")
    if dropout:
        transforms.append(ModalityDropout(dropout))
    return transforms

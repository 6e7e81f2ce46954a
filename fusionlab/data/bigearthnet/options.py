"""What a user may choose of BigEarthNet: bands per modality, and seasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from fusionlab.data.bigearthnet import constants
from fusionlab.data.bigearthnet.names import Sensor, Version
from fusionlab.data.choices import require_known
from fusionlab.errors import InputError
from fusionlab.types import Modality

Upsampling = Literal["nearest", "bilinear"]


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

    def modality(self, version: Version) -> Modality:
        """What the schema says of it, with the published statistics."""
        published = constants.STATISTICS[
            "v1" if version == "v1" else f"v2_{self.upsampling if self._mixed else 'nearest'}"
        ]
        return Modality(
            bands=self.bands,
            gsd=float(self.gsd),
            mean=tuple(published[band].mean for band in self.bands),
            std=tuple(published[band].std for band in self.bands),
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


def months(seasons: Sequence[str] | None) -> frozenset[int] | None:
    """The calendar months of some seasons; None for all.

    Raises:
        InputError: for an unknown season.
    """
    if seasons is None:
        return None
    require_known(seasons, constants.SEASONS, option="seasons", what="season")
    return frozenset(month for season in seasons for month in constants.SEASONS[season])

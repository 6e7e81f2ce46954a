"""What is on disk of the patches that the metadata name, found out before training starts."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.bigearthnet.index import Patches
from fusionlab.data.bigearthnet.names import Sensor
from fusionlab.data.bigearthnet.options import Recipe
from fusionlab.data.bigearthnet.sources import REFERENCE_MAP, Source, bands_of
from fusionlab.errors import InputError

log = logging.getLogger(__name__)

CHECKED = 2000
"""Of how many patches at most the headers are read."""

Presence = dict[Sensor, NDArray[np.bool_]]
"""Per sensor ``(N,)``: which of the patches it has."""


def presence(source: Source, patches: Patches, sensors: Sequence[Sensor]) -> Presence:
    """Which patches there are, without opening any."""
    return {sensor: source.present(sensor, patches.names(sensor)) for sensor in sensors}


def require_present(part: str, source: Source, patches: Patches, present: Presence) -> None:
    """Refuses patches without one of the sensors.

    Raises:
        InputError: says how many, which, where they were looked for and what to do.
    """
    for sensor, there in present.items():
        absent = np.flatnonzero(~there)
        if len(absent):
            names = [str(patches.names(sensor)[int(row)].as_py()) for row in absent[:3]]
            raise InputError(
                f"{len(absent)} of {len(patches)} patches of the split {part!r} have no {sensor} "
                f"in {source.where(sensor)}: {', '.join(names)}{' …' if len(absent) > 3 else ''}. "
                "Complete it, or set allow_missing: true to go on without that modality in such "
                "patches."
            )


def usable(
    part: str, patches: Patches, present: Presence, recipes: Collection[Recipe]
) -> tuple[Patches, Presence]:
    """Leaves out the patches that have none of the modalities, and says how many.

    Raises:
        InputError: if that leaves none.
    """
    some = np.zeros(len(patches), bool)
    for recipe in recipes:
        some |= np.all([present[sensor] for sensor in recipe.sensors], axis=0)
    if some.all():
        return patches, present
    modalities = [recipe.name for recipe in recipes]
    if not some.any():
        raise InputError(
            f"None of the {len(patches)} patches of {part!r} has any of the modalities "
            f"{modalities} on disk."
        )
    log.warning(
        "%d of %d patches of %r have none of the modalities %s and are left out.",
        len(some) - some.sum(),
        len(some),
        part,
        modalities,
    )
    kept = patches.take(np.flatnonzero(some))
    return kept, {sensor: there[some] for sensor, there in present.items()}


def check_bands(
    source: Source, patches: Patches, present: Presence, recipes: Collection[Recipe]
) -> None:
    """Refuses patches whose bands are not all there, or of another size or type.

    Looks at all patches up to `CHECKED`, else at so many evenly spread.

    Raises:
        InputError: names the file or key, what was expected and what was found.
    """
    wanted = [band for recipe in recipes for band in recipe.bands]
    for sensor, there in present.items():
        rows, bands = np.flatnonzero(there), bands_of(sensor, wanted)
        for row in rows[_spread(len(rows))].tolist():
            source.check(sensor, patches.names(sensor)[row].as_py(), bands)


def check_maps(part: str, source: Source, patches: Patches) -> None:
    """Refuses patches without a reference map, or with one of another size or type.

    Raises:
        InputError: names a patch, what was expected and what was found.
    """
    absent = np.flatnonzero(~source.present(REFERENCE_MAP, patches.s2))
    if len(absent):
        raise InputError(
            f"{len(absent)} of {len(patches)} patches of the split {part!r} have no reference map "
            f"in {source.where(REFERENCE_MAP)}, e.g. {patches.s2[int(absent[0])]}. Complete them, "
            "or train on target: labels."
        )
    for row in _spread(len(patches)):
        source.check(REFERENCE_MAP, patches.s2[row].as_py(), [REFERENCE_MAP])


def _spread(total: int) -> list[int]:
    number = min(total, CHECKED)
    return [position * total // number for position in range(number)]

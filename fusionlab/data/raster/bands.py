"""Images whose bands come in files of their own, as satellite products are published."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fusionlab.data.raster.files import RasterFile, same_gsd
from fusionlab.errors import InputError

log = logging.getLogger(__name__)


def band_files(
    files: Sequence[RasterFile], wanted: Sequence[str], *, where: str
) -> dict[str, tuple[RasterFile, ...]] | None:
    """Which files hold which band, where no file needs to hold them all.

    Args:
        files: of one modality.
        wanted: the bands the model was trained with.
        where: config key, for error messages.

    Returns:
        Per band the files of its finest pixel size, each with that one band to read; None if the
        bands do not come in files of their own. Files without a wanted band are left out.

    Raises:
        InputError: if they do, and a band is in none of them.
    """
    held = [_held(file, wanted) for file in files]
    whole = [len(found) == len(wanted) for found in held]
    if all(whole) or not any(held):
        return None
    missing = [band for band in wanted if not any(band in found for found in held)]
    if len(wanted) > 1:
        unnamed = any(
            not found and file.count == len(wanted) for file, found in zip(files, held, strict=True)
        )
        if any(whole) or (missing and unnamed):
            return None
    if missing:
        names = {
            Path(file.path).name: list(found)
            for file, found in zip(files, held, strict=True)
            if found
        }
        raise InputError(
            f"{where}: the model was trained with the bands {list(wanted)}, the files hold {names}:"
            f" {missing} missing. Give a file for each, with the band's name as its description or "
            "in its file name between signs like _ or -."
        )
    for file, found in zip(files, held, strict=True):
        if not found:
            log.info("%s: %s holds none of the bands %s.", where, file.path, list(wanted))
    return {band: _finest(files, held, band) for band in wanted}


def _held(file: RasterFile, wanted: Sequence[str]) -> dict[str, int]:
    """Number of every wanted band that a file names."""
    described = {text.lower(): index for index, text in enumerate(file.descriptions, 1) if text}
    found = {band: described[band.lower()] for band in wanted if band.lower() in described}
    if found or file.count != 1:
        return found
    stem = Path(file.path).stem
    named = [
        band
        for band in wanted
        if re.search(rf"(?<![^\W_]){re.escape(band)}(?![^\W_])", stem, re.IGNORECASE)
    ]
    return {named[0]: 1} if len(named) == 1 else {}


def _finest(
    files: Sequence[RasterFile], held: Sequence[Mapping[str, int]], band: str
) -> tuple[RasterFile, ...]:
    holders = [
        replace(file, indexes=(found[band],))
        for file, found in zip(files, held, strict=True)
        if band in found
    ]
    gsd = min(file.gsd for file in holders)
    return tuple(file for file in holders if same_gsd(file.gsd, gsd))

"""Which files belong to which place, and what each says about itself, without reading pixels."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine

from fusionlab.data.damage import unreadable
from fusionlab.data.folders.options import NAME
from fusionlab.data.raster.ends import cut_off
from fusionlab.data.raster.files import alpha_bands, metres
from fusionlab.errors import InputError

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".png", ".img")
METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True, slots=True)
class Header:
    """What one raster says about itself.

    Attributes:
        path: where it is.
        height: rows.
        width: columns.
        count: bands.
        dtype: type of the values.
        crs: coordinate reference system, None if it has none on Earth.
        transform: pixel corner to ground coordinates; None if the file does not say.
        descriptions: of the bands, empty where there is none.
        alpha: which bands are marked as alpha, from 1.
    """

    path: str
    height: int
    width: int
    count: int
    dtype: np.dtype[Any]
    crs: CRS | None
    transform: Affine | None
    descriptions: tuple[str, ...]
    alpha: tuple[int, ...] = ()

    @property
    def bounds(self) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom; None if it has no place."""
        if self.transform is None:
            return None
        to_ground = self.transform
        left, top = to_ground.c, to_ground.f
        right = left + to_ground.a * self.width + to_ground.b * self.height
        bottom = top + to_ground.d * self.width + to_ground.e * self.height
        return left, top, right, bottom

    @property
    def unit(self) -> float | None:
        """Metres per unit of its reference system; None if it has none."""
        if self.crs is None:
            return None
        return METRES_PER_DEGREE if self.crs.is_geographic else metres(self.crs)

    @property
    def gsd(self) -> tuple[float, float] | None:
        """Height and width of a pixel in metres; None where the file does not know."""
        if self.crs is None or not self.crs.is_projected or self.transform is None:
            return None
        unit = metres(self.crs)
        return abs(self.transform.e) * unit, abs(self.transform.a) * unit


def read_header(path: str | Path, *, where: str) -> Header:
    """Opens a raster and closes it again.

    Raises:
        InputError: if it is none.
    """
    try:
        with rasterio.open(path) as source:
            crs = source.crs
            # A local system, as in the masks of FLAIR #2, knows no place on Earth.
            known = crs is not None and (crs.is_projected or crs.is_geographic)
            return Header(
                path=str(path),
                height=source.height,
                width=source.width,
                count=source.count,
                dtype=np.result_type(*source.dtypes),
                crs=crs if known else None,
                transform=None if source.transform.is_identity else source.transform,
                descriptions=tuple(text or "" for text in source.descriptions),
                alpha=alpha_bands(source),
            )
    except (RasterioError, TypeError) as error:  # TypeError: values that are no numbers
        raise unreadable(path, error, expected="a raster", where=where) from error


def read_whole_header(path: str | Path, *, where: str) -> Header:
    """The header of a raster that is there to its end, as far as `cut_off` can tell.

    Raises:
        InputError: if it is none, or not all of it is there.
    """
    header = read_header(path, where=where)
    if missing := cut_off(path):
        error = EOFError(missing)
        raise unreadable(path, error, expected="a whole raster", where=where) from error
    return header


def find(folder: Path, pattern: str | None, *, where: str) -> dict[str, str]:
    """Files of a folder and the folders below it, by the name of their place, in its order.

    A name is the path below the folder without suffix, or without what the pattern has around it.

    Args:
        folder: where to look.
        pattern: a file name with ``{name}`` in it; None takes every raster.
        where: config key, for error messages.

    Raises:
        InputError: if there is no such folder or no such file in it, or if two have the same name.
    """
    if not folder.is_dir():
        raise InputError(f"{where}: there is no folder {folder.absolute()}. Check root and path.")
    before, after = pattern.split(NAME) if pattern else ("", "")
    fits = re.compile(f"{re.escape(before)}(.+){re.escape(after)}") if pattern else None
    found: dict[str, str] = {}
    for directory, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        inside = Path(directory).relative_to(folder)
        for file in files:
            if file.startswith("."):
                continue
            stem, suffix = os.path.splitext(file)  # noqa: PTH122 - of a hundred thousand names
            if fits is not None:
                match = fits.fullmatch(file)
                if match is None:
                    continue
                stem = match[1]
            elif suffix.lower() not in SUFFIXES:
                continue
            name = (inside / stem).as_posix()
            path = str(Path(directory) / file)
            if name in found:
                raise InputError(
                    f"{where}: {found[name]} and {path} would both be {name!r}. Keep one, or say "
                    f"which with `files: '{NAME}{suffix}'`."
                )
            found[name] = path
    if not found:
        wanted = f"no file {pattern!r}" if pattern else f"no raster ({', '.join(SUFFIXES)})"
        raise InputError(f"{where}: the folder {folder.absolute()} holds {wanted}.")
    return dict(sorted(found.items()))


def band_indexes(header: Header, bands: tuple[str, ...], *, where: str) -> tuple[int, ...]:
    """Numbers, from 1, of the bands of a file, by its descriptions or by position.

    Args:
        header: of the file.
        bands: what the bands are called.
        where: config key, for error messages.

    Raises:
        InputError: if the file neither names all of these bands nor has as many.
    """
    described = {text.lower(): i for i, text in enumerate(header.descriptions, 1) if text}
    if all(band.lower() in described for band in bands):
        return tuple(described[band.lower()] for band in bands)
    if header.count == len(bands):
        return tuple(range(1, header.count + 1))
    if header.count - len(header.alpha) == len(bands):  # a picture with transparency
        return tuple(i for i in range(1, header.count + 1) if i not in header.alpha)
    raise InputError(
        f"{where}: {header.path} has {header.count} band(s)"
        f"{f' described as {list(header.descriptions)}' if any(header.descriptions) else ''}, "
        f"expected the {len(bands)} bands {list(bands)}. Name every band of the files, in order."
    )

"""Raster files: which there are, what each says about itself, and where it has observations.

Everything is read through windows, so memory does not depend on the size of a raster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from fusionlab.data.damage import unreadable
from fusionlab.errors import InputError

Values = NDArray[Any]
Mask = NDArray[np.bool_]

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2")
CACHE_MEGABYTES = 256
"""GDAL would keep up to 5 % of the machine's memory in decoded blocks; this is plenty."""
_SAME_GSD = 0.01
_OVERVIEW = 512


@dataclass(frozen=True)
class RasterFile:
    """What one file says about itself.

    Attributes:
        path: where it is.
        width: columns.
        height: rows.
        transform: pixel corner to ground coordinates; north up.
        crs: coordinate reference system.
        gsd: pixel size in units of the CRS.
        count: number of bands.
        indexes: the bands to read, from 1.
        descriptions: band descriptions, empty where there is none.
        alpha: which bands are marked as alpha, from 1.
        dtype: type of the values.
        nodata: value that means "no observation", if any.
    """

    path: str
    width: int
    height: int
    transform: Affine
    crs: CRS
    gsd: float
    count: int
    indexes: tuple[int, ...]
    descriptions: tuple[str, ...]
    alpha: tuple[int, ...]
    dtype: str
    nodata: float | None

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top."""
        left, top = self.transform.c, self.transform.f
        return (
            left,
            top + self.height * self.transform.e,
            left + self.width * self.transform.a,
            top,
        )


def expand(given: str | Path | Sequence[str | Path], *, where: str) -> list[str]:
    """Files behind a path, a folder, a pattern or a list of them, sorted within each.

    Raises:
        InputError: if there is no such file, or a folder or pattern holds no raster.
    """
    if not isinstance(given, str | Path):
        if not given:
            raise InputError(f"{where}: an empty list of rasters. Name at least one file.")
        return [path for part in given for path in expand(part, where=where)]
    path = Path(given).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        if not found:
            raise InputError(
                f"{where}: the folder {path} holds no raster ({', '.join(SUFFIXES)}). "
                "Name the folder that holds the files themselves; subfolders are not searched."
            )
    elif any(sign in path.name for sign in "*?["):
        found = sorted(p for p in path.parent.glob(path.name) if p.is_file())
        if not found:
            raise InputError(f"{where}: no file matches {path}. Check the pattern and its folder.")
    else:
        if not path.is_file():
            raise InputError(f"{where}: there is no file {path.absolute()}. Check the path.")
        found = [path]
    return [str(p) for p in found]


def inspect(path: str, *, where: str) -> RasterFile:
    """Opens a file once, checks that it can be used and that its last pixel can be read.

    Raises:
        InputError: if it is no raster, is damaged, is rotated, or has no projected CRS.
    """
    try:
        with rasterio.open(path) as dataset:
            corner = Window(dataset.width - 1, dataset.height - 1, 1, 1)
            crs, transform = dataset.crs, dataset.transform
            info = RasterFile(
                path=path,
                width=dataset.width,
                height=dataset.height,
                transform=transform,
                crs=crs,
                gsd=abs(transform.a),
                count=dataset.count,
                indexes=tuple(range(1, dataset.count + 1)),
                descriptions=tuple(d or "" for d in dataset.descriptions),
                alpha=alpha_bands(dataset),
                dtype=np.result_type(*dataset.dtypes).name,
                nodata=dataset.nodata,
            )
            dataset.read(dataset.count, window=corner)
    except RasterioError as error:
        raise unreadable(path, error, expected="a raster", where=where) from error
    if crs is None:
        raise InputError(
            f"{where}: {path} has no coordinate reference system, so it cannot be placed beside "
            "the others. Assign the right one, e.g. `gdal_edit.py -a_srs EPSG:2154 FILE`."
        )
    if not crs.is_geographic and not crs.is_projected:
        # A local system, as in the masks of FLAIR #2, knows no place on Earth and often no metre.
        raise InputError(
            f"{where}: {path} has a local coordinate system without a place on Earth. Assign the "
            "right one, e.g. `gdal_edit.py -a_srs EPSG:2154 FILE`."
        )
    if crs.is_geographic:
        raise InputError(
            f"{where}: {path} is in degrees ({crs.to_string()}), but pixel sizes are in metres. "
            "Project it first, e.g. `gdalwarp -t_srs EPSG:2154 IN OUT`."
        )
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise InputError(
            f"{where}: {path} is rotated or not north up. Straighten it with `gdalwarp IN OUT`."
        )
    return info


def largest(files: Iterable[RasterFile], *, above: float, where: str) -> float:
    """The largest value observed, or the first one found above a limit, which ends the search.

    Files are read at reduced resolution: values may be missed, but none is made up.

    Raises:
        InputError: if a file cannot be read.
    """
    found = -np.inf
    for file in files:
        try:
            with rasterio.open(file.path) as dataset:
                shape = (min(file.height, _OVERVIEW), min(file.width, _OVERVIEW))
                for index in file.indexes:
                    values = dataset.read(index, out_shape=shape, masked=True).compressed()
                    values = values[np.isfinite(values)]
                    found = max(found, float(values.max(initial=found)))
                    if found > above:
                        return found
        except RasterioError as error:
            raise unreadable(file.path, error, expected="a raster", where=where) from error
    return found


def same_crs(a: CRS, b: CRS) -> bool:
    """Whether two descriptions mean the same reference system."""
    if a == b:
        return True
    code = a.to_epsg()
    return code is not None and code == b.to_epsg()


def same_gsd(a: float, b: float) -> bool:
    """Whether two pixel sizes agree within 1 %."""
    return abs(a - b) <= _SAME_GSD * b


def metres(crs: CRS) -> float:
    """Metres per unit of a projected reference system."""
    return float(crs.linear_units_factor[1])


def intersects(a: RasterFile, b: RasterFile) -> bool:
    """Whether two rasters share ground."""
    left, bottom, right, top = a.bounds
    other = b.bounds
    return left < other[2] and other[0] < right and bottom < other[3] and other[1] < top


def alpha_bands(dataset: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Numbers, from 1, of the bands marked as alpha."""
    return tuple(i for i, kind in enumerate(dataset.colorinterp, 1) if kind == ColorInterp.alpha)


def observed(
    dataset: Any,  # noqa: ANN401
    window: Window,
    indexes: Sequence[int],
    values: Values | None = None,
) -> Mask:
    """Where bands hold an observation: ``(bands, height, width)``.

    Nodata values, NaN, mask files and alpha bands all count as none. A band marked as alpha that is
    read as data (GDAL marks the fourth of four 8-bit bands so, infrared or not) masks nothing.

    Args:
        dataset: an open raster.
        window: the part to look at, inside the raster.
        indexes: bands, from 1.
        values: these bands in this window, if they have been read already.
    """
    indexes = list(indexes)
    if values is None:
        values = dataset.read(indexes, window=window)
    mask = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    flags = dataset.mask_flag_enums[indexes[0] - 1]
    if MaskFlags.nodata in flags:
        for band, index in enumerate(indexes):
            nodata = dataset.nodatavals[index - 1]
            if nodata is not None and not np.isnan(nodata):
                mask[band] &= values[band] != nodata
    elif MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        mask &= dataset.read_masks(indexes[0], window=window)[None] > 0
    # GDAL itself heeds alpha only as the last of two or four bands.
    alpha = alpha_bands(dataset)
    if alpha and not set(alpha) & set(indexes):
        mask &= dataset.read(alpha[0], window=window)[None] > 0
    return mask

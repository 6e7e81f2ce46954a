"""What the user calls a modality, as files on disk: an image in tiles, or a series of dates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.raster.bands import band_files
from fusionlab.data.raster.crops import Handles, Upsampling, read_patch
from fusionlab.data.raster.files import Mask, RasterFile, Values, inspect, same_crs
from fusionlab.errors import InputError

_DATE = re.compile(r"(?<!\d)((?:19|20)\d{2})([-_]?)(\d{2})\2(\d{2})(?!\d)")
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Layers:
    """A modality of new tiles.

    Attributes:
        files: one list per group of bands that is read together: one group for an image or a
            stack, one per date for a folder of dates, several for an image whose bands come in
            files of their own. The files of a group lie side by side.
        bands: bands per date.
        dates: ``(T,)`` int64, days since 1970-01-01, ascending; None for an image.
        dtype: type the values are delivered in.
        order: of an image in several groups, which of their bands, one group after the other, is
            the first, second… of the model.
    """

    files: tuple[tuple[RasterFile, ...], ...]
    bands: int
    dates: NDArray[np.int64] | None
    dtype: np.dtype[Any]
    order: tuple[int, ...] = ()

    @property
    def grid(self) -> tuple[RasterFile, ...]:
        """The files to map if no other grid is given: of the finest bands, or of the first date."""
        if self.dates is not None:
            return self.files[0]
        return min(self.files, key=lambda group: group[0].gsd)

    @property
    def all_files(self) -> list[RasterFile]:
        """Every file once."""
        return list({file.path: file for group in self.files for file in group}.values())

    def read(
        self,
        handles: Handles,
        center: tuple[float, float],
        *,
        size: int,
        gsd: float,
        where: str,
        first: str = "",
        upsampling: Upsampling = "bilinear",
    ) -> tuple[Values, Mask, tuple[float, float]]:
        """A crop of all dates around a point.

        Args:
            handles: open files.
            center: x and y on the ground.
            size: rows and columns of the crop.
            gsd: pixel size of the crop, in units of the CRS.
            where: what is asking, for error messages.
            first: path of the file that counts where files overlap.
            upsampling: how files of coarser pixels are resampled.

        Returns:
            Values ``(T, bands, size, size)`` (T = 1 for an image), where they were observed in the
            same shape, and the offset as in `fusionlab.data.raster.crops.Patch`.
        """
        patches = [
            read_patch(
                handles,
                sorted(group, key=lambda file: file.path != first),
                center,
                size=size,
                gsd=gsd,
                bands=len(group[0].indexes),
                dtype=self.dtype,
                where=where,
                upsampling=upsampling,
            )
            for group in self.files
        ]
        shape = (-1, self.bands, size, size)
        values = np.concatenate([patch.values for patch in patches]).reshape(shape)
        mask = np.concatenate([patch.observed for patch in patches]).reshape(shape)
        if self.order:
            values, mask = values[:, self.order], mask[:, self.order]
        offset = next((p.offset for p in patches if p.observed.any()), (0.0, 0.0))
        return values, mask, offset

    def seen(self, mask: Mask) -> Mask:
        """Where an image or a date was observed: in any of the bands that one file holds together.

        Where bands come in files of their own, all of these must have something to show: Sentinel-1
        and Sentinel-2 bands of one modality, say.

        Args:
            mask: where bands were observed, ``(T, bands, height, width)``.

        Returns:
            ``(T, height, width)``.
        """
        if not self.order:
            return _any(mask)
        where = np.argsort(self.order)  # of every band of the groups, its place in the model
        ends = np.cumsum([len(group[0].indexes) for group in self.files])
        parts = np.split(where, ends[:-1])
        seen: Mask = np.all([_any(mask[:, part]) for part in parts], axis=0)
        return seen


def _any(mask: Mask) -> Mask:
    seen: Mask = np.any(mask, axis=1)
    return seen


def image_layers(
    paths: Sequence[str], wanted: Sequence[str], *, names: Sequence[str] | None, where: str
) -> Layers:
    """An image in one or many files.

    Args:
        paths: the files, side by side or each with bands of its own.
        wanted: the bands the model was trained with.
        names: what the file's bands are, in order, if the user says so.
        where: config key, for error messages.

    Raises:
        InputError: if a file is unusable or its bands are not those wanted.
    """
    infos = [inspect(path, where=where) for path in paths]
    if names is None and len(infos) > 1:
        holders = band_files(infos, wanted, where=where)
        if holders is not None:
            return _split_layers(holders, wanted, where=where)
    files = tuple(select(info, wanted, names=names, where=where) for info in infos)
    return _layers((files,), len(wanted), None, where=where)


def _split_layers(
    holders: Mapping[str, tuple[RasterFile, ...]], wanted: Sequence[str], *, where: str
) -> Layers:
    """Bands that lie in the same files are read together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for band in wanted:
        groups.setdefault(tuple(file.path for file in holders[band]), []).append(band)
    files = tuple(
        tuple(
            replace(file, indexes=tuple(holders[band][i].indexes[0] for band in bands))
            for i, file in enumerate(holders[bands[0]])
        )
        for bands in groups.values()
    )
    read = [band for bands in groups.values() for band in bands]
    layers = _layers(files, len(wanted), None, where=where)
    return replace(layers, order=tuple(read.index(band) for band in wanted))


def series_layers(
    paths: Sequence[str],
    wanted: Sequence[str],
    *,
    names: Sequence[str] | None,
    dates_file: str | None,
    where: str,
) -> Layers:
    """A series: one file per date, or a date-major stack with a file of dates.

    Args:
        paths: the files; those of one date lie side by side.
        wanted: the bands the model was trained with.
        names: what the bands of one date are, in order, if the user says so.
        dates_file: text file with one date per line; makes the files stacks.
        where: config key, for error messages.

    Raises:
        InputError: if a file is unusable, has no date in its name or not the bands wanted, or if
            bands and dates do not agree.
    """
    infos = [inspect(path, where=where) for path in paths]
    if dates_file is None:
        by_date: dict[int, list[RasterFile]] = {}
        for info in infos:
            day = date_in(info.path, where=where, bands=info.count, per_date=len(names or wanted))
            chosen = select(info, wanted, names=names, where=where)
            by_date.setdefault(day, []).append(chosen)
        days = sorted(by_date)
        groups = tuple(tuple(by_date[day]) for day in days)
        return _layers(groups, len(wanted), np.array(days, np.int64), where=where)
    stack_days = read_dates(dates_file, where=f"data.dates.{where.rpartition('.')[2]}")
    order = np.argsort(stack_days, kind="stable")
    per_date = len(names or wanted)
    files = []
    for info in infos:
        if info.count % per_date or info.count // per_date != len(stack_days):
            raise InputError(
                f"{where}: {info.path} has {info.count} bands, but {len(stack_days)} dates in "
                f"{dates_file} with {per_date} bands each make {len(stack_days) * per_date}. "
                "Give the dates file of this stack: one line per date, in the stack's order, all "
                f"bands of the first date first; bands of a date: {list(names or wanted)}."
            )
        one = replace(info, count=per_date, descriptions=("",) * per_date, alpha=())
        inner = select(one, wanted, names=names, where=where).indexes
        indexes = tuple(int(step) * per_date + band for step in order for band in inner)
        files.append(replace(info, indexes=indexes))
    return _layers((tuple(files),), len(wanted), stack_days[order], where=where)


def _layers(
    groups: tuple[tuple[RasterFile, ...], ...],
    bands: int,
    dates: NDArray[np.int64] | None,
    *,
    where: str,
) -> Layers:
    first = groups[0][0]
    for file in (file for group in groups for file in group):
        check_crs(file, first, where=where)
    dtype = np.result_type(*(file.dtype for group in groups for file in group))
    if dtype == np.float64 or dtype == np.uint64:
        dtype = np.dtype(np.float32)
    elif dtype == np.uint32:
        dtype = np.dtype(np.int64)
    return Layers(groups, bands, dates, dtype)


def check_crs(file: RasterFile, reference: RasterFile, *, where: str) -> None:
    """Refuses a raster in another reference system.

    Raises:
        InputError: naming both files and their systems.
    """
    if not same_crs(file.crs, reference.crs):
        code = reference.crs.to_string()
        raise InputError(
            f"{where}: {file.path} is in {file.crs.to_string()}, but {reference.path} is in "
            f"{code}. Bring all rasters to one, e.g. `gdalwarp -t_srs {code} IN OUT`."
        )


def select(
    file: RasterFile, wanted: Sequence[str], *, names: Sequence[str] | None, where: str
) -> RasterFile:
    """Chooses a file's bands by name if they are named, otherwise by position.

    Args:
        file: the file.
        wanted: names of the bands the model was trained with.
        names: what the file's bands are, in order, if the user says so.
        where: config key, for error messages.

    Raises:
        InputError: if names contradict, or there are neither names nor the right number of bands.
    """
    colors = [i for i in range(1, file.count + 1) if i not in file.alpha]
    modality = where.rpartition(".")[2]
    remedy = (
        f"Say what the file's bands are, in order: `data.bands.{modality}: [...]`, or give a file "
        "with these bands."
    )
    if names is not None:
        if len(names) not in (file.count, len(colors)):
            raise InputError(
                f"{where}: {file.path} has {file.count} bands, but data.bands.{modality} names "
                f"{len(names)}: {list(names)}. Name every band of the file, in its order."
            )
        positions = list(range(1, file.count + 1)) if len(names) == file.count else colors
        labels = dict(zip([n.lower() for n in names], positions, strict=True))
    else:
        labels = {d.lower(): i for i, d in enumerate(file.descriptions, 1) if d}
    found = [labels.get(band.lower()) for band in wanted]
    if all(index is not None for index in found):
        return replace(file, indexes=tuple(index for index in found if index is not None))
    if names is not None or any(index is not None for index in found):
        delivered = list(names) if names is not None else list(file.descriptions)
        missing = [band for band, index in zip(wanted, found, strict=True) if index is None]
        raise InputError(
            f"{where}: the model was trained with the bands {list(wanted)}, {file.path} has "
            f"{delivered}: {missing} missing. {remedy}"
        )
    if file.count == len(wanted):
        return replace(file, indexes=tuple(range(1, file.count + 1)))
    if len(colors) == len(wanted):
        return replace(file, indexes=tuple(colors))
    described = [d or f"band {i}" for i, d in enumerate(file.descriptions, 1)]
    raise InputError(
        f"{where}: the model was trained with {len(wanted)} bands {list(wanted)}, {file.path} has "
        f"{file.count}: {described}. {remedy}"
    )


def date_in(path: str, *, where: str, bands: int, per_date: int) -> int:
    """Days since 1970-01-01 of the first date in a file's name.

    Raises:
        InputError: if there is none; a stack is told what it lacks.
    """
    for match in _DATE.finditer(Path(path).stem):
        try:
            day = date(int(match[1]), int(match[3]), int(match[4]))
        except ValueError:
            continue
        return (day - _EPOCH).days
    modality = where.rpartition(".")[2]
    hint = ""
    if bands > per_date and bands % per_date == 0:
        hint = (
            f" Its {bands} bands could be a stack of {bands // per_date} dates: then give their "
            f"dates with `data.dates.{modality}: dates.txt`, one YYYYMMDD per line."
        )
    raise InputError(
        f"{where}: no date in the name of {path}. A series has one file per date, the date in its "
        f"name as YYYYMMDD or YYYY-MM-DD.{hint}"
    )


def read_dates(path: str, *, where: str) -> NDArray[np.int64]:
    """Days since 1970-01-01 from a text file with one date per line.

    Raises:
        InputError: if there is no such file, a line is no date, or there is none at all.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: cannot read the dates file {path} ({error}).") from error
    days = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _DATE.search(line)
        try:
            if match is None:
                raise ValueError("no date")
            day = date(int(match[1]), int(match[3]), int(match[4]))
        except ValueError as error:
            raise InputError(
                f"{where}: line {number} of {path} is no date: {line.strip()!r}. Write one "
                "YYYYMMDD per line."
            ) from error
        days.append((day - _EPOCH).days)
    if not days:
        raise InputError(f"{where}: the dates file {path} is empty. Write one YYYYMMDD per line.")
    return np.array(days, np.int64)

"""Mean and standard deviation of every band, of all pixels of the training split, computed once.

Files are read in strips and summed up one after the other, in double precision, so that memory does
not grow and the result does not depend on how many threads read. Sums are joined as in "Updating
Formulae and a Pairwise Algorithm for Computing Sample Variances" (Chan, Golub and LeVeque, 1979).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from fusionlab.data.folders.files import band_indexes, read_header
from fusionlab.data.folders.layers import Layer
from fusionlab.data.folders.reading import opened, read_values
from fusionlab.data.folders.tiles import ImageFile
from fusionlab.errors import InputError

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]
_READERS = 4
_STRIP = 2**22
"""Values that are read at once, of all bands together."""
_VERSION = 1


@dataclass(frozen=True)
class Moments:
    """Sums over pixels, per band.

    Attributes:
        count: how many were observed.
        mean: their mean.
        squares: sum of squared deviations from it.
    """

    count: Floats
    mean: Floats
    squares: Floats

    @classmethod
    def none(cls, bands: int) -> Moments:
        """Of no pixel at all."""
        zeros = np.zeros(bands)
        return cls(zeros, zeros, zeros)

    @classmethod
    def of(cls, values: NDArray[Any], mask: NDArray[np.bool_]) -> Moments:
        """Of an image ``(bands, height, width)`` where it was observed."""
        count = mask.sum(axis=(1, 2)).astype(np.float64)
        known = np.where(mask, values, 0).astype(np.float64)
        mean = known.sum(axis=(1, 2)) / np.maximum(count, 1)
        deviations = np.where(mask, known - mean[:, None, None], 0)
        return cls(count, mean, np.square(deviations).sum(axis=(1, 2)))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * self.count * share
        return Moments(count, self.mean + apart * share, squares)


@dataclass(frozen=True)
class Statistics:
    """Of the raw values of a modality, per band: mean and standard deviation."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def band_statistics(name: str, layer: Layer, names: Sequence[str], *, folder: Path) -> Statistics:
    """Statistics of the files of some places, from the store where they are known.

    They are known as long as bands, nodata and files are the same: which there are, how large they
    are and when they were written last.

    Args:
        name: of the modality.
        layer: its files and bands.
        names: of the places to read; those without a file are left out.
        folder: the store, one file per result; it may be shared by runs and processes.

    Raises:
        InputError: if a file cannot be read, or a band has no observed pixel in any of them.
    """
    paths = [layer.files[place] for place in names if place in layer.files]
    path = folder / f"{name}-{_digest(layer, names)}.json"
    known = _load(path, len(layer.bands))
    if known is not None:
        return known
    log.info("Computing mean and standard deviation of %r over %d files.", name, len(paths))
    total = Moments.none(len(layer.bands))
    with ThreadPoolExecutor(_READERS) as pool:
        for moments in pool.map(partial(_moments, layer), paths):
            total += moments
    unseen = [b for b, count in zip(layer.bands, total.count, strict=True) if not count]
    if unseen:
        raise InputError(
            f"{layer.where}: the bands {unseen} have no observed pixel in any of the {len(paths)} "
            "training files, so there is no mean. Check nodata, or give mean and std."
        )
    deviation = np.sqrt(total.squares / total.count)
    if constant := [b for b, std in zip(layer.bands, deviation, strict=True) if std == 0]:
        log.warning("%s: the bands %s are constant in all training files.", layer.where, constant)
        deviation[deviation == 0] = 1.0
    result = Statistics(tuple(total.mean.tolist()), tuple(deviation.tolist()))
    _store(path, result, layer, files=len(paths), pixels=total.count)
    return result


def default_folder() -> Path:
    """Where results are kept unless the user says otherwise: the cache folder of the user."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "fusionlab" / "statistics"


def file_moments(file: ImageFile, *, nodata: float | None, where: str) -> Moments:
    """Of one file, strip by strip.

    Args:
        file: what to read.
        nodata: value that means "no observation", beside what the file declares.
        where: config key, for error messages.

    Raises:
        InputError: if it cannot be read.
    """
    total = Moments.none(len(file.indexes))
    with opened(file.path, where=where) as source:
        rows = max(1, _STRIP // (source.width * len(file.indexes)))
        for first in range(0, source.height, rows):
            window = Window(0, first, source.width, min(rows, source.height - first))
            values, mask = read_values(
                {file.path: source}, file, window, nodata=nodata, where=where
            )
            total += Moments.of(values, mask)
    return total


def _moments(layer: Layer, path: str) -> Moments:
    header = read_header(path, where=layer.where)
    file = ImageFile(path, band_indexes(header, layer.bands, where=layer.where))
    return file_moments(file, nodata=layer.nodata, where=layer.where)


def _digest(layer: Layer, names: Sequence[str]) -> str:
    files = []
    for place in names:
        if place in layer.files:
            stat = Path(layer.files[place]).stat()
            files.append((place, stat.st_size, stat.st_mtime_ns))
    content = [_VERSION, layer.bands, layer.nodata, files]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=12).hexdigest()


def _load(path: Path, bands: int) -> Statistics | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = Statistics(tuple(content["mean"]), tuple(content["std"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if len(known.mean) == len(known.std) == bands else None


def _store(path: Path, result: Statistics, layer: Layer, *, files: int, pixels: Floats) -> None:
    content = {
        "bands": list(layer.bands),
        "mean": list(result.mean),
        "std": list(result.std),
        "files": files,
        "pixels": [int(count) for count in pixels],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8"
        ) as file:
            json.dump(content, file, indent=1)
        Path(file.name).replace(path)
    except OSError as error:  # the next run computes them again
        log.warning("Cannot keep the statistics in %s (%s).", path, error)

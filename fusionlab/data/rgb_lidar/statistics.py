"""Mean and standard deviation of every channel over the training pairs, computed once and stored.

A file is named after a digest of all that the numbers depend on, and holds it: which pairs there
are, how large their files are and when they were written last, and the size they are resized to.
Data, splits or sizes that differ look for another file, so that none is ever out of date.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusionlab.data.folders.statistics import Moments
from fusionlab.data.rgb_lidar.index import BANDS, Pairs, Sensor
from fusionlab.data.rgb_lidar.loading import Loader
from fusionlab.errors import InputError

log = logging.getLogger(__name__)

_VERSION = 1
_TOGETHER = 64


@dataclass(frozen=True)
class Statistics:
    """Of the raw values of a sensor, per channel: mean and standard deviation."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def channel_statistics(pairs: Pairs, sensor: Sensor, loader: Loader, *, folder: Path) -> Statistics:
    """Statistics over all pixels of some pairs, from the store where they are known.

    Args:
        pairs: those to train on; those without a file of the sensor are left out.
        sensor: whose channels.
        loader: reads them.
        folder: the store; it may be shared by runs and processes.

    Raises:
        InputError: if a file cannot be read, or none of the pairs has one.
    """
    digest = _digest(pairs, sensor, loader.size)
    path = folder / f"statistics-{sensor}-{digest[:12]}.json"
    known = _load(path, digest)
    if known is not None:
        return known
    present = int(pairs.present[sensor].sum())
    log.info("Computing mean and standard deviation of %r over %d pairs.", sensor, present)
    total = Moments.none(len(BANDS[sensor]))
    for _, block in loader.blocks(pairs, sensor):
        for first in range(0, len(block), _TOGETHER):
            part = block[first : first + _TOGETHER]
            values = part.transpose(0, 1).flatten(1, 2).numpy()
            total += Moments.of(values, np.isfinite(values))
    if not total.count.all():
        raise InputError(
            f"data.root: none of the {len(pairs)} training pairs in {pairs.root} has a value of "
            f"{sensor!r}, so there is no mean. Leave it out of `modalities`, or give mean and std."
        )
    deviation = np.sqrt(total.squares / total.count)
    result = Statistics(tuple(total.mean.tolist()), tuple(deviation.tolist()))
    _store(path, result, digest, sensor, pairs=present, size=loader.size)
    return result


def _digest(pairs: Pairs, sensor: Sensor, size: int) -> str:
    files = []
    for row in np.flatnonzero(pairs.present[sensor]).tolist():
        stat = pairs.path(sensor, row).stat()
        files.append((pairs.short(sensor, row), stat.st_size, stat.st_mtime_ns))
    angles = []
    if sensor == "lidar":
        for name in pairs.folders:
            for kind in ("azimuth", "zenith"):
                path = pairs.root / name / f"{kind}.npy"
                angles.append(path.read_bytes().hex() if path.is_file() else "")
    content = json.dumps([_VERSION, sensor, size, files, angles])
    return hashlib.blake2b(content.encode(), digest_size=20).hexdigest()


def _load(path: Path, digest: str) -> Statistics | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = Statistics(
            tuple(float(value) for value in content["mean"]),
            tuple(float(value) for value in content["std"]),
        )
        fits = content["of"] == digest and len(known.mean) == len(known.std) == 4
        if fits and np.isfinite((known.mean, known.std)).all() and min(known.std) >= 0:
            return known
    except (OSError, ValueError, KeyError, TypeError):
        pass
    log.warning("%s is damaged or belongs to other data, and is computed anew.", path)
    return None


def _store(
    path: Path, result: Statistics, digest: str, sensor: Sensor, *, pairs: int, size: int
) -> None:
    content = {
        "of": digest,
        "bands": list(BANDS[sensor]),
        "mean": list(result.mean),
        "std": list(result.std),
        "pairs": pairs,
        "size": size,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8"
        ) as file:
            json.dump(content, file, indent=1)
        Path(file.name).replace(path)
    except OSError as error:  # the next run computes them again
        log.warning(
            "Cannot keep the statistics in %s (%s); name a folder with data.statistics.",
            path,
            error,
        )

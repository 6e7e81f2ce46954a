"""Everything that is wrong with the files of a data set, found and said at once before training."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from fusionlab.data.rgb_lidar.files import Shape, image_shape, read_angles, scan_shape
from fusionlab.data.rgb_lidar.index import SENSORS, Mask, Pairs, Sensor
from fusionlab.data.rgb_lidar.scan import Floats
from fusionlab.errors import InputError

log = logging.getLogger(__name__)

Angles = tuple[Floats, Floats]
"""Azimuth of every row and zenith of every column, radians."""
_Result = TypeVar("_Result")

_READERS = 4
_NAMED = 3
"""Files that a message names for each reason."""
_REASONS = 4
"""Reasons that a message gives."""
_OTHER: dict[Sensor, Sensor] = {"rgb": "lidar", "lidar": "rgb"}
_WHAT: dict[Sensor, str] = {"rgb": "RGB image", "lidar": "LiDAR file"}


class Problems:
    """Files that cannot be used, by reason.

    Args:
        root: folder that they lie in.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[str, list[str]] = {}

    def add(self, reason: str, file: str) -> None:
        """Notes a file, by its path below the root, and why it cannot be used."""
        self.found.setdefault(reason, []).append(file)

    def refuse(self, advice: str = "") -> None:
        """Raises one error for all of them; does nothing if there are none.

        Raises:
            InputError: names the first files of each reason, and says how many there are.
        """
        if not self.found:
            return
        reasons = sorted(self.found.items(), key=lambda entry: -len(entry[1]))
        sentences = []
        for reason, files in reasons[:_REASONS]:
            more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
            sentences.append(f"{', '.join(files[:_NAMED])}{more}: {reason}.")
        total = sum(len(files) for files in self.found.values())
        if len(reasons) > _REASONS:
            left = sum(len(files) for _, files in reasons[_REASONS:])
            sentences.append(f"{left} more for other reasons.")
        for reason, files in reasons:
            log.debug("%s: %s", reason, ", ".join(files))
        count = f"{total} files" if total > 1 else "a file"
        raise InputError(
            f"{self.root}: {count} cannot be used. {' '.join(sentences)} "
            f"{advice or 'Repair or remove them.'}"
        )


def check_pairs(
    pairs: Pairs, sensors: Sequence[Sensor], *, allow_missing: bool
) -> dict[int, Angles]:
    """Looks at all files of a data set and refuses those that cannot be used, all at once.

    Args:
        pairs: what there is.
        sensors: those whose files are wanted; others need not be there.
        allow_missing: whether the partner of a file may be missing.

    Returns:
        The angles of the scans in each folder, by its index; none if scans are not wanted.

    Raises:
        InputError: names files and reasons.
    """
    problems = Problems(pairs.root)
    incomplete = False
    if not allow_missing:
        for sensor in sensors:
            absent = np.flatnonzero(~pairs.present[sensor])
            incomplete |= len(absent) > 0
            for row in absent.tolist():
                problems.add(
                    f"no {_WHAT[sensor]} of that name beside it", pairs.short(_OTHER[sensor], row)
                )
    angles: dict[int, Angles] = {}
    for sensor in SENSORS:
        if sensor not in sensors:
            continue
        shapes = _shapes(pairs, sensor, problems)
        if sensor == "lidar":
            angles = _all_angles(pairs, problems)
            shapes = _fitting(pairs, shapes, angles, problems)
        _refuse_odd_ones(pairs, sensor, shapes, problems)
    advice = (
        "Complete the pairs, or set allow_missing: true to go on without the missing files."
        if incomplete and len(problems.found) <= len(sensors)
        else ""
    )
    problems.refuse(advice)
    return angles


def usable(part: str, pairs: Pairs, sensors: Sequence[Sensor]) -> Pairs:
    """Leaves out pairs that have none of the sensors wanted, and says how many.

    Raises:
        InputError: if that leaves none.
    """
    some: Mask = np.any([pairs.present[sensor] for sensor in sensors], axis=0)
    if some.all():
        return pairs
    if not some.any():
        raise InputError(
            f"None of the {len(pairs)} pairs of {part!r} in {pairs.root} has any of the modalities "
            f"{list(sensors)}."
        )
    log.warning(
        "%d of %d pairs of %r have none of the modalities %s and are left out.",
        len(some) - some.sum(),
        len(some),
        part,
        list(sensors),
    )
    return pairs.take(some)


def each(
    pairs: Pairs,
    sensor: Sensor,
    rows: Iterable[int],
    read: Callable[[Path], _Result],
    problems: Problems,
) -> dict[int, _Result]:
    """Reads the files of some rows on a few threads.

    Args:
        pairs: all there are.
        sensor: whose files.
        rows: which of them.
        read: reads one; its error is a reason.
        problems: receives the files that cannot be read.

    Returns:
        What was read, by row.
    """

    def attempt(row: int) -> tuple[int, _Result | None, str]:
        try:
            return row, read(pairs.path(sensor, row)), ""
        except InputError as error:
            return row, None, str(error)

    found = {}
    with ThreadPoolExecutor(_READERS) as pool:
        for row, result, why in pool.map(attempt, rows):
            if result is None:
                problems.add(why, pairs.short(sensor, row))
            else:
                found[row] = result
    return found


def _shapes(pairs: Pairs, sensor: Sensor, problems: Problems) -> dict[int, Shape]:
    rows = np.flatnonzero(pairs.present[sensor]).tolist()
    return each(pairs, sensor, rows, image_shape if sensor == "rgb" else scan_shape, problems)


def _all_angles(pairs: Pairs, problems: Problems) -> dict[int, Angles]:
    """Of every folder that has scans."""
    angles = {}
    for i in np.unique(pairs.folder[pairs.present["lidar"]]).tolist():
        read = []
        for name in ("azimuth.npy", "zenith.npy"):
            file = "/".join(filter(None, (pairs.folders[i], name)))
            try:
                read.append(read_angles(pairs.root / file))
            except InputError as error:
                problems.add(str(error), file)
        if len(read) == 2:
            angles[i] = (read[0], read[1])
    return angles


def _fitting(
    pairs: Pairs, shapes: dict[int, Shape], angles: dict[int, Angles], problems: Problems
) -> dict[int, Shape]:
    """The scans that have a row for every azimuth and a column for every zenith."""
    fitting = {}
    for row, shape in shapes.items():
        found = angles.get(int(pairs.folder[row]))
        if found is None or shape == (len(found[0]), len(found[1])):
            fitting[row] = shape
        else:
            problems.add(
                f"is {shape[0]} × {shape[1]}, but azimuth.npy and zenith.npy have {len(found[0])} "
                f"and {len(found[1])} angles",
                pairs.short("lidar", row),
            )
    return fitting


def _refuse_odd_ones(
    pairs: Pairs, sensor: Sensor, shapes: dict[int, Shape], problems: Problems
) -> None:
    """All must have one size: what is resized differently looks different, whatever it shows."""
    if not shapes:
        return
    usual, count = Counter(shapes.values()).most_common(1)[0]
    for row, shape in shapes.items():
        if shape != usual:
            problems.add(
                f"is {shape[0]} × {shape[1]}, but {count} others are {usual[0]} × {usual[1]}",
                pairs.short(sensor, row),
            )

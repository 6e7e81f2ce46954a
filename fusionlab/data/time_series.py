"""What any data set of satellite image time series needs: dates, clouds, crops, monthly means.

Arrays are NumPy, so that a memory-mapped file is read only where it is needed. Time is the first
axis, rows and columns are the last two; dates are days since 1970-01-01 as int64.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusionlab.errors import InputError

Array = NDArray[Any]
Days = NDArray[np.int64]
Steps = NDArray[np.intp]

_SENSING_TIME = re.compile(r"_(\d{8})T\d{6}")


def product_date(name: str) -> int:
    """The day on which a Sentinel product was sensed, from its name.

    Args:
        name: such as ``S2A_MSIL2A_20210415T105021_N0300_R051_T31UDP_20210415T135921``.

    Returns:
        Days since 1970-01-01.

    Raises:
        InputError: if the name holds no date.
    """
    match = _SENSING_TIME.search(name)
    try:
        if match is None:
            raise ValueError
        digits = match[1]
        date = np.datetime64(f"{digits[:4]}-{digits[4:6]}-{digits[6:]}", "D")
    except ValueError:
        raise InputError(
            f"No sensing date in the product name {name!r}: expected a part like "
            "'_20210415T105021'."
        ) from None
    return int(date.astype(np.int64))


def read_product_dates(path: Path) -> Days:
    """The dates of a list of Sentinel products, one name per line, in the order of the lines.

    Args:
        path: the text file. Blank lines are skipped.

    Returns:
        ``(T,)`` days since 1970-01-01.

    Raises:
        InputError: if the file cannot be read or a line holds no date; names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read the list of products {path}: {error}.") from error
    days = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                days.append(product_date(line.strip()))
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from None
    return np.array(days, dtype=np.int64)


def hidden(probabilities: Array, *, threshold: float) -> NDArray[np.bool_]:
    """Where cloud or snow hides the ground.

    Args:
        probabilities: ``(T, 2, H, W)``, of snow and of cloud, in the unit of the threshold.
        threshold: from which probability on a pixel counts as hidden.

    Returns:
        ``(T, H, W)``.
    """
    covered: NDArray[np.bool_] = np.any(probabilities >= threshold, axis=1)
    return covered


def cloud_cover(probabilities: Array, *, threshold: float) -> NDArray[np.float32]:
    """The fraction of dates on which cloud or snow hides a pixel, ``(1, H, W)`` in [0, 1].

    Args:
        probabilities: ``(T, 2, H, W)``, of snow and of cloud. Without a date, all is hidden.
        threshold: from which probability on a pixel counts as hidden.
    """
    if len(probabilities) == 0:
        return np.ones((1, *probabilities.shape[-2:]), dtype=np.float32)
    counts = np.count_nonzero(hidden(probabilities, threshold=threshold), axis=0, keepdims=True)
    return (counts / len(probabilities)).astype(np.float32)


def clear_dates(
    probabilities: Array, *, threshold: float = 60, area_threshold: float = 0.5
) -> Steps:
    """The dates worth keeping: the filter of the FLAIR #2 baseline.

    Counts pixels of snow plus pixels of cloud, as published, so that a pixel that is both counts
    twice.

    Args:
        probabilities: ``(T, 2, H, W)``, of snow and of cloud, 0 to 100.
        threshold: from which probability on a pixel counts.
        area_threshold: a date is kept if the counted share of the area is below it.

    Returns:
        Positions on the time axis, ascending; may be empty.
    """
    share = (probabilities >= threshold).mean(axis=(2, 3)).sum(axis=1)
    return np.flatnonzero(share < area_threshold)


def seen_dates(values: Array, observed: NDArray[np.bool_] | None = None) -> Steps:
    """The dates that show anything: those with a finite value other than 0, Sentinel-2's nodata.

    Args:
        values: ``(T, C, H, W)``.
        observed: where pixels were observed, the same shape; everywhere if None.

    Returns:
        Positions on the time axis, ascending; may be empty.
    """
    seen = values != 0
    if values.dtype.kind == "f":
        seen &= np.isfinite(values)
    if observed is not None:
        seen &= observed
    return np.flatnonzero(seen.any(axis=(1, 2, 3)))


def evenly_spaced(steps: Steps, limit: int | None) -> Steps:
    """At most so many of the steps, spread evenly from the first to the last.

    Args:
        steps: positions on the time axis, ascending.
        limit: how many to keep; None keeps all, 1 the one in the middle.
    """
    if limit is None or len(steps) <= limit:
        return steps
    if limit == 1:
        return steps[[(len(steps) - 1) // 2]]
    return steps[np.linspace(0, len(steps) - 1, limit).round().astype(np.intp)]


def monthly_means(
    values: Array, dates: Days, *, observed: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float32], Days]:
    """The mean of each calendar month that has a date.

    The FLAIR #2 baseline averages likewise; months without a date are left out, not filled. Only
    what was observed is averaged.

    Args:
        values: ``(T, ...)``.
        dates: ``(T,)``, in any order.
        observed: where pixels were observed, the same shape; by default where values are finite.

    Returns:
        ``(M, ...)`` means, NaN where a month has no observation, and ``(M,)`` dates, the 15th of
        each month, ascending.
    """
    if observed is None and values.dtype.kind == "f":
        observed = np.isfinite(values)
    months, month_of = np.unique(
        dates.astype("datetime64[D]").astype("datetime64[M]"), return_inverse=True
    )
    means = np.empty((len(months), *values.shape[1:]), dtype=np.float32)
    for i in range(len(months)):
        chosen = month_of == i
        if observed is None:
            means[i] = values[chosen].mean(axis=0, dtype=np.float32)
            continue
        counts = np.count_nonzero(observed[chosen], axis=0).astype(np.float32)
        sums = values[chosen].sum(axis=0, dtype=np.float32, where=observed[chosen])
        means[i] = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return means, months.astype("datetime64[D]").astype(np.int64) + 14


def padded_crop(
    array: Array, centre: Sequence[int], size: int, *, steps: Steps | None = None
) -> Array:
    """A square window, ``[row - size // 2 : row + size // 2]`` and the same in columns.

    Past the border the nearest pixel is repeated: the window keeps its size and holds measured
    values only.

    Args:
        array: ``(..., H, W)``; of a memory-mapped file only the window is read.
        centre: row and column, inside the array.
        size: height and width, even.
        steps: positions on the first axis to read, in this order; None reads all.

    Returns:
        ``(..., size, size)``, a copy.
    """
    lows, highs, padding = [], [], [(0, 0)] * (array.ndim - 2)
    for middle, length in zip(centre, array.shape[-2:], strict=True):
        low, high = middle - size // 2, middle + size // 2
        lows.append(max(low, 0))
        highs.append(min(high, length))
        padding.append((lows[-1] - low, high - highs[-1]))
    rows, cols = (slice(low, high) for low, high in zip(lows, highs, strict=True))
    inside = array[..., rows, cols] if steps is None else array[steps, ..., rows, cols]
    return np.pad(np.asarray(inside), padding, mode="edge")

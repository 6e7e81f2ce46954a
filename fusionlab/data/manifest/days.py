"""Dates in the forms in which files hold them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fusionlab.data.time_series import product_date
from fusionlab.errors import InputError

Days = NDArray[np.int64]

DATES = "2021-04-15, 20210415, or days since 1970-01-01"
"""What is taken for a date, for error messages."""
_DIGITS = re.compile(r"(\d{4})(\d{2})(\d{2})")
_FIRST, _LAST = 1900_01_01, 2200_12_31  # as numbers; so many days are in no year of interest
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")
_FIRST_DAY = (date(1980, 1, 1) - date(1970, 1, 1)).days
"""Smaller numbers of days are taken for what they more likely are: a year, or months."""
_AHEAD = timedelta(days=366)
"""Forecasts reach so far. Larger numbers count from 1900, as in spreadsheets, or seconds."""


def days_of(dates: Sequence[Any] | NDArray[Any] | pa.Array) -> Days:
    """Dates as days since 1970-01-01.

    Of times of day and time zones nothing is heeded: the calendar date counts as it is written, or,
    of timestamps with a time zone, as it is in that zone.

    Args:
        dates: datetimes of NumPy or Arrow; integers such as 20210415, or days already, from
            1980-01-01 to a year from today; or texts: 2021-04-15 (what follows is left out), such
            integers, or names of Sentinel products.

    Returns:
        ``(T,)`` int64.

    Raises:
        ValueError: names the first that is no date.
    """
    if isinstance(dates, pa.Array):
        if pa.types.is_timestamp(dates.type) and dates.type.tz is not None:
            dates = pc.local_timestamp(dates)
        if pa.types.is_date(dates.type) or pa.types.is_timestamp(dates.type):
            return np.asarray(dates.cast(pa.date32(), safe=False).cast(pa.int32()), np.int64)
        dates = dates.to_numpy(zero_copy_only=False)
    array = np.asarray(dates).reshape(-1)
    if array.dtype.kind == "M":
        if np.isnat(array).any():
            raise ValueError("NaT")
        return array.astype("datetime64[D]").astype(np.int64)
    if array.dtype.kind == "f" and np.array_equal(array, np.round(array)):
        array = array.astype(np.int64)
    if array.dtype.kind in "iu":
        return _of_numbers(array)
    return _parsed([t.decode() if isinstance(t, bytes) else str(t) for t in array.tolist()])


def _of_numbers(numbers: NDArray[Any]) -> Days:
    """Numbers such as 20210415, and days."""
    last = (date.today() + _AHEAD - date(1970, 1, 1)).days
    written = (numbers >= _FIRST) & (numbers <= _LAST)
    neither = ~written & ((numbers < _FIRST_DAY) | (numbers > last))
    if neither.any():
        raise ValueError(repr(int(numbers[neither][0])))
    days = numbers.astype(np.int64)
    days[written] = _parsed([str(number) for number in numbers[written].tolist()])
    return days


def _parsed(texts: Sequence[str]) -> Days:
    starts = pa.array([text[:10] for text in texts], pa.string())
    if pc.all(pc.match_substring_regex(starts, rf"^{_ISO.pattern}$")).as_py():
        try:
            return np.array(starts.to_pylist(), "datetime64[D]").astype(np.int64)
        except ValueError:
            pass  # named below
    return np.array([_day(text.strip()) for text in texts], np.int64)


def _day(text: str) -> int:
    if match := _ISO.match(text):
        iso = match[0]
    elif match := _DIGITS.fullmatch(text):
        iso = "-".join(match.groups())
    elif text.isascii() and text.isdigit() and len(text) < 18:
        return int(_of_numbers(np.array([int(text)]))[0])
    else:
        try:
            return product_date(text)
        except InputError:
            raise ValueError(repr(text)) from None
    try:
        return int(np.datetime64(iso, "D").astype(np.int64))
    except ValueError:
        raise ValueError(repr(text)) from None

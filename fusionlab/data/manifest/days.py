"""Dates in the forms in which files hold them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fusionlab.data.time_series import product_date
from fusionlab.errors import InputError

Days = NDArray[np.int64]
_DIGITS = re.compile(r"(\d{4})(\d{2})(\d{2})")
_FIRST, _LAST = 1900_01_01, 2200_12_31  # as numbers; so many days are in no year of interest
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")


def days_of(dates: Sequence[Any] | NDArray[Any] | pa.Array) -> Days:
    """Dates as days since 1970-01-01.

    Args:
        dates: datetimes of NumPy or Arrow; integers such as 20210415, or days already; or texts:
            2021-04-15 (what follows is left out), 20210415, or names of Sentinel products.

    Returns:
        ``(T,)`` int64.

    Raises:
        ValueError: names the first that is no date.
    """
    if isinstance(dates, pa.Array):
        if pa.types.is_date(dates.type) or pa.types.is_timestamp(dates.type):
            return np.asarray(dates.cast(pa.date32()).cast(pa.int32()), np.int64)
        dates = dates.to_numpy(zero_copy_only=False)
    array = np.asarray(dates).reshape(-1)
    if array.dtype.kind == "M":
        return array.astype("datetime64[D]").astype(np.int64)
    if array.dtype.kind == "f" and np.array_equal(array, np.round(array)):
        array = array.astype(np.int64)
    if array.dtype.kind in "iu":
        if len(array) and array.min() >= _FIRST and array.max() <= _LAST:
            return _parsed([str(number) for number in array.tolist()])
        return array.astype(np.int64)
    texts = [text.decode() if isinstance(text, bytes) else str(text) for text in array.tolist()]
    return _parsed(texts)


def _parsed(texts: Sequence[str]) -> Days:
    return np.array([_day(text.strip()) for text in texts], np.int64)


def _day(text: str) -> int:
    if match := _ISO.match(text):
        iso = match[0]
    elif match := _DIGITS.fullmatch(text):
        iso = "-".join(match.groups())
    else:
        try:
            return product_date(text)
        except InputError:
            raise ValueError(repr(text)) from None
    try:
        return int(np.datetime64(iso, "D").astype(np.int64))
    except ValueError:
        raise ValueError(repr(text)) from None

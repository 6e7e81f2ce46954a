"""Numbers that stand for "no value" in tables and series, and those that look as if they did."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

_USUAL = (-9999, -99999)
_BEYOND = 1e20
"""Nothing that is measured is as large; 1e30 and the like fill gaps."""


def without_fill(values: NDArray[Any], nodata: Sequence[float]) -> NDArray[Any]:
    """The values with NaN in place of those that stand for none.

    Args:
        values: floats of any shape.
        nodata: such numbers, compared in the precision in which values are delivered, too.
    """
    if not nodata:
        return values
    with np.errstate(over="ignore"):
        rounded = np.isin(values.astype(np.float32), np.asarray(nodata, np.float32))
    return np.where(rounded | np.isin(values, nodata), np.nan, values)


def fill_columns(values: NDArray[Any], names: Sequence[str]) -> dict[str, float]:
    """Columns that hold a number which looks as if it stood for no value, and the first of these.

    Args:
        values: ``(N, C)``.
        names: of the columns.
    """
    strange = np.isin(values, _USUAL) | (np.abs(values) > _BEYOND)
    found = np.flatnonzero(strange.any(axis=0)).tolist()
    return {names[i]: float(values[strange[:, i], i][0]) for i in found}


def warn_of_fill(found: dict[str, float], *, where: str) -> None:
    """Warns of such columns, if there are any."""
    if found:
        numbers = {name: np.float32(value) for name, value in found.items()}  # in full
        listed = ", ".join(f"{number} in {name!r}" for name, number in numbers.items())
        log.warning(
            "%s: %s. Where that means no value, say so: `nodata: [%s]`.",
            where, listed, next(iter(numbers.values())),
        )  # fmt: skip

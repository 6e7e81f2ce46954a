"""Values for pixels that were not observed, chosen so that networks do not see them as objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fusionlab.data.raster.files import Mask, Values


def fill(
    values: Values, mask: Mask, neutral: Values, *, border: Literal["reflect", "edge"]
) -> None:
    """Fills what was not observed, in place, so that networks see neither frames nor −9999.

    Outside the observed rectangle the image goes on; holes inside it get the neutral value.

    Args:
        values: ``(bands, height, width)``.
        mask: where observed, the same shape.
        neutral: per band, the raw value that normalises to about zero; NaN for floats.
        border: how it goes on: mirrored, or with its outermost pixels repeated.
    """
    if mask.all():
        return
    np.copyto(values, neutral[:, None, None], where=~mask)
    any_band = np.logical_or.reduce(mask, axis=0)
    rows, columns = np.flatnonzero(any_band.any(axis=1)), np.flatnonzero(any_band.any(axis=0))
    if not len(rows):
        return
    r0, r1, c0, c1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    height, width = any_band.shape
    if (r1 - r0, c1 - c0) != (height, width):
        frame = ((0, 0), (r0, height - r1), (c0, width - c1))
        values[:] = np.pad(values[:, r0:r1, c0:c1], frame, mode=border)


def neutral_values(dtype: np.dtype[Any], mean: Sequence[float], scale: Sequence[float]) -> Values:
    """Per band, the raw value of the mean; NaN for floats, which experts take for the mean."""
    if dtype.kind == "f":
        return np.full(len(mean), np.nan, dtype)
    raw = np.round(np.asarray(mean, np.float64) / np.asarray(scale, np.float64))
    limits = np.iinfo(dtype)
    return np.clip(raw, limits.min, limits.max).astype(dtype)

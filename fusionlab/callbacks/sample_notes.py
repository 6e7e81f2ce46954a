"""What samples say that is no picture: texts, tables and series of values, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

import numpy as np
from torch import Tensor

from fusionlab.callbacks.sample_figure import FAINT, INK, LETTERS, Line
from fusionlab.types import Batch, Modality, Raw, Schema, TimeSeries

MOST_LINES = 4
"""Lines that a modality may take; what is longer is cut."""
_MOST_LETTERS = 10 * LETTERS
"""No more of a text is looked at; the longest are whole books."""


def notes(batch: Batch, i: int, schema: Schema) -> list[Line]:
    """What a sample's modalities say that are no images, in their order.

    Args:
        batch: as delivered.
        i: which of its samples.
        schema: what the data deliver.

    Returns:
        Per modality its name, then a text; the cells of a table; how long a series is.
    """
    lines: list[Line] = []
    for name, values in batch["inputs"].items():
        modality = schema.modalities.get(name)
        if modality is None or modality.kind == "image":
            continue
        lines.append(Line(name, FAINT, heading=True))
        if not bool(batch["available"][name][i]):
            lines.append(Line("not available", FAINT))
            continue
        said = "    ".join(_said(values, i, modality))
        short = said[:_MOST_LETTERS]
        # No word is torn apart unless it is longer than a line.
        first = wrap(short, LETTERS, break_on_hyphens=False) or [""]
        if len(first) > MOST_LINES or len(short) < len(said):
            first = [*first[: MOST_LINES - 1], f"{first[MOST_LINES - 1][: LETTERS - 2]} …"]
        lines.extend(Line(line.replace("$", r"\$"), INK) for line in first)
    return lines


def _said(values: Raw, i: int, modality: Modality) -> Iterator[str]:
    if isinstance(values, list):
        yield values[i]
    elif isinstance(values, TimeSeries):
        yield from _course(values, i, modality)
    else:
        yield from _cells(values[i], modality)


def _cells(row: Tensor, modality: Modality) -> Iterator[str]:
    """Names and values of the cells that are not empty."""
    for column, value in zip(modality.bands, row.tolist(), strict=True):
        if value != value:  # NaN
            continue
        names = modality.categories.get(column)
        if names is None:
            yield f"{column} {value:.4g}"
        else:
            listed = [*names, *modality.others.get(column, ())]
            yield f"{column} {listed[int(value)] if value < len(listed) else 'unknown'}"


def _course(series: TimeSeries, i: int, modality: Modality) -> Iterator[str]:
    """Its dates, and from where to where each variable goes."""
    valid = series.valid[i]
    dates = series.dates[i][valid].tolist()
    if not dates:
        return
    first, last = (np.datetime64(day, "D") for day in (min(dates), max(dates)))
    yield f"{len(dates)} dates, {first} to {last}"
    values = series.values[i][valid].float().cpu().numpy()
    for variable, course in zip(modality.bands, values.T, strict=True):
        if np.isfinite(course).any():
            yield f"{variable} {np.nanmin(course):.3g} to {np.nanmax(course):.3g}"

"""Samples with labels instead of maps: pictures of each, and beside them what is right or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from fusionlab.callbacks.sample_figure import (
    FAINT,
    INK,
    LETTERS,
    DescribedSample,
    Line,
    samples_figure,
)

# Told apart by sign and word, and by colours that colour-blind readers tell apart, too.
_GROUPS = (
    ("correct", "✓", "#00704f"),
    ("missed", "○", "#b35900"),
    ("false", "✗", "#b3003b"),
)


@dataclass(frozen=True)
class LabelledSample:
    """A sample to draw.

    Attributes:
        name: of the sample.
        pictures: uint8 ``(H, W, 3)`` by title; None for what is missing in this sample.
        true: indices of its classes; None where they are unknown.
        predicted: indices of the classes that the model names.
        notes: what else is known of it, below its labels.
    """

    name: str
    pictures: Mapping[str, NDArray[Any] | None]
    true: frozenset[int] | None
    predicted: frozenset[int]
    notes: Sequence[Line] = ()


def labels_figure(samples: Sequence[LabelledSample], classes: Sequence[str]) -> Figure:
    """One row per sample: its pictures, then its labels, correct, missed and false ones apart.

    Args:
        samples: what to draw.
        classes: class names.

    Raises:
        InputError: if there is nothing to show.
    """
    return samples_figure(
        [DescribedSample(s.name, s.pictures, [*_lines(s, classes), *s.notes]) for s in samples]
    )


def _lines(sample: LabelledSample, classes: Sequence[str]) -> list[Line]:
    true = sample.true
    if true is None:
        groups = [("predicted, truth unknown", "•", INK, sample.predicted)]
    else:
        parts = (sample.predicted & true, true - sample.predicted, sample.predicted - true)
        groups = [(*how, part) for how, part in zip(_GROUPS, parts, strict=True)]
    lines = []
    for heading, sign, color, part in groups:
        if not part:
            continue
        lines.append(Line(heading, color, heading=True))
        for index in sorted(part):
            first, *rest = wrap(classes[index], LETTERS) or [""]
            lines.append(Line(f"{sign}  {first}", color))
            lines.extend(Line(f"     {more}", color) for more in rest)
    return lines or [Line("no label, and none predicted", FAINT)]

"""Samples with labels instead of maps: pictures of each, and beside them what is right or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from numpy.typing import NDArray

from fusionlab.errors import InputError

_INK = "#333333"
_FAINT = "#777777"
_LINE = 0.175
"""Inches from one line of text to the next."""
_LETTERS = 52
_PICTURE = 2.3
_TEXT = 4.3
_TITLE = 0.34

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
    """

    name: str
    pictures: Mapping[str, NDArray[Any] | None]
    true: frozenset[int] | None
    predicted: frozenset[int]


def labels_figure(samples: Sequence[LabelledSample], classes: Sequence[str]) -> Figure:
    """One row per sample: its pictures, then its labels, correct, missed and false ones apart.

    Args:
        samples: what to draw.
        classes: class names.

    Raises:
        InputError: if there is nothing to show.
    """
    if not samples:
        raise InputError("There are no samples to show.")
    texts = [_lines(sample, classes) for sample in samples]
    columns = max(len(sample.pictures) for sample in samples)
    heights = [max(_PICTURE, _LINE * (len(lines) + 1)) + _TITLE for lines in texts]
    width = columns * (_PICTURE + 0.15) + _TEXT + 0.15
    figure = Figure(figsize=(width, sum(heights) + 0.1), dpi=150, facecolor="white")
    grid = GridSpec(
        len(samples),
        columns + 1,
        figure,
        left=0.1 / width,
        right=1 - 0.05 / width,
        top=1 - 0.05 / (sum(heights) + 0.1),
        bottom=0.05 / (sum(heights) + 0.1),
        wspace=0,
        hspace=0,
        width_ratios=[_PICTURE + 0.15] * columns + [_TEXT],
        height_ratios=heights,
    )
    for row, (sample, lines) in enumerate(zip(samples, texts, strict=True)):
        for column, (title, picture) in enumerate(sample.pictures.items()):
            _draw_picture(figure.add_subplot(grid[row, column]), title, picture, heights[row])
        _draw_lines(figure.add_subplot(grid[row, columns]), sample.name, lines, heights[row])
    return figure


def _lines(sample: LabelledSample, classes: Sequence[str]) -> list[tuple[str, str, bool]]:
    """Text, colour, and whether it is a heading."""
    true = sample.true
    if true is None:
        groups = [("predicted, truth unknown", "•", _INK, sample.predicted)]
    else:
        parts = (sample.predicted & true, true - sample.predicted, sample.predicted - true)
        groups = [(*how, part) for how, part in zip(_GROUPS, parts, strict=True)]
    lines = []
    for heading, sign, color, part in groups:
        if not part:
            continue
        lines.append((heading, color, True))
        for index in sorted(part):
            first, *rest = wrap(classes[index], _LETTERS) or [""]
            lines.append((f"{sign}  {first}", color, False))
            lines.extend((f"     {more}", color, False) for more in rest)
    return lines or [("no label, and none predicted", _FAINT, False)]


def _draw_picture(axes: Axes, title: str, picture: NDArray[Any] | None, height: float) -> None:
    """The picture hangs from the top of its row, below its title, in its own proportions."""
    axes.axis("off")
    inside = axes.inset_axes(
        (
            0,
            1 - (_PICTURE + _TITLE - 0.08) / height,
            1 - 0.15 / _PICTURE,
            (_PICTURE - 0.08) / height,
        )
    )
    inside.set_anchor("NW")
    inside.set_xticks([])
    inside.set_yticks([])
    inside.set_title(title, fontsize=9, color=_INK, loc="left", pad=4)
    if picture is None:
        inside.set_facecolor("#eeeeee")
        inside.set_aspect("equal")
        inside.text(
            0.5, 0.5, "not available", ha="center", va="center", fontsize=9, color=_FAINT,
            style="italic", transform=inside.transAxes,
        )  # fmt: skip
    else:
        inside.imshow(picture, interpolation="nearest")
    for spine in inside.spines.values():
        spine.set_visible(False)


def _draw_lines(
    axes: Axes, name: str, lines: Sequence[tuple[str, str, bool]], height: float
) -> None:
    axes.axis("off")
    axes.text(
        0.02, 1 - 0.26 / height, name, fontsize=7.5, color=_FAINT, va="baseline",
        transform=axes.transAxes,
    )  # fmt: skip
    for i, (text, color, heading) in enumerate(lines):
        axes.text(
            0.02,
            1 - (_TITLE + 0.04 + _LINE * (i + 0.5)) / height,
            text,
            fontsize=8 if heading else 9,
            color=color,
            fontweight="bold" if heading else "normal",
            va="center",
            transform=axes.transAxes,
        )

"""Samples with an answer for the whole of each: pictures, and beside them what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from numpy.typing import NDArray

from fusionlab.errors import InputError

INK = "#333333"
FAINT = "#777777"
LETTERS = 52
"""The most that a line of text has place for."""
_LINE = 0.175
"""Inches from one line of text to the next."""
_PICTURE = 2.3
_TEXT = 4.3
_TITLE = 0.34


class Line(NamedTuple):
    """A line of text.

    Attributes:
        text: at most `LETTERS` letters or so.
        color: of the letters.
        heading: whether it stands above others.
    """

    text: str
    color: str = INK
    heading: bool = False


@dataclass(frozen=True)
class DescribedSample:
    """A sample to draw.

    Attributes:
        name: of the sample.
        pictures: uint8 ``(H, W, 3)`` by title; None for what is missing in this sample.
        lines: what is said of it.
    """

    name: str
    pictures: Mapping[str, NDArray[Any] | None]
    lines: Sequence[Line]


def samples_figure(samples: Sequence[DescribedSample]) -> Figure:
    """One row per sample: its pictures, then what is said of it.

    Args:
        samples: what to draw.

    Raises:
        InputError: if there is nothing to show.
    """
    if not samples:
        raise InputError("There are no samples to show.")
    columns = max(len(sample.pictures) for sample in samples)
    heights = [max(_PICTURE, _LINE * (len(sample.lines) + 1)) + _TITLE for sample in samples]
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
    for row, sample in enumerate(samples):
        for column, (title, picture) in enumerate(sample.pictures.items()):
            _draw_picture(figure.add_subplot(grid[row, column]), title, picture, heights[row])
        _draw_lines(figure.add_subplot(grid[row, columns]), sample.name, sample.lines, heights[row])
    return figure


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
    inside.set_title(title, fontsize=9, color=INK, loc="left", pad=4)
    if picture is None:
        inside.set_facecolor("#eeeeee")
        inside.set_aspect("equal")
        inside.text(
            0.5, 0.5, "not available", ha="center", va="center", fontsize=9, color=FAINT,
            style="italic", transform=inside.transAxes,
        )  # fmt: skip
    else:
        inside.imshow(picture, interpolation="nearest")
    for spine in inside.spines.values():
        spine.set_visible(False)


def _draw_lines(axes: Axes, name: str, lines: Sequence[Line], height: float) -> None:
    axes.axis("off")
    axes.text(
        0.02, 1 - 0.26 / height, name, fontsize=7.5, color=FAINT, va="baseline",
        transform=axes.transAxes,
    )  # fmt: skip
    for i, line in enumerate(lines):
        axes.text(
            0.02,
            1 - (_TITLE + 0.04 + _LINE * (i + 0.5)) / height,
            line.text,
            fontsize=8 if line.heading else 9,
            color=line.color,
            fontweight="bold" if line.heading else "normal",
            va="center",
            transform=axes.transAxes,
        )

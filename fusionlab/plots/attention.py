"""Where a model that fuses by attention looks: on images, and at words, columns and dates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from fusionlab.errors import InputError
from fusionlab.plots.style import INK, SERIES, bare, new_figure

_MOST = 16
"""Bars of one chart; of more tokens those that weigh most are shown, in their order. More dates
are a curve."""
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_LETTERS = 18
_SIDE = 2.5
"""Inches of a picture."""


@dataclass(frozen=True)
class TokenWeights:
    """How much the tokens of one expert are looked at.

    Attributes:
        names: of the tokens: words, columns, dates; empty for what only pads.
        weights: ``(M,)`` in [0, 1], with a sum of 1.
    """

    names: Sequence[str]
    weights: ArrayLike


@dataclass(frozen=True)
class AttendedSample:
    """A sample to draw.

    Attributes:
        name: of the sample.
        pictures: uint8 ``(H, W, 3)`` by title, shown as they are; None for what is missing.
        maps: by title, a picture ``(H, W, 3)`` and how much its cells are looked at, ``(h, w)``;
            None for what is missing.
        tokens: by title; None for what is missing.
    """

    name: str
    pictures: Mapping[str, NDArray[Any] | None] = field(default_factory=dict)
    maps: Mapping[str, tuple[NDArray[Any], ArrayLike] | None] = field(default_factory=dict)
    tokens: Mapping[str, TokenWeights | None] = field(default_factory=dict)


def attention_figure(samples: Sequence[AttendedSample]) -> Figure:
    """One row per sample: pictures, maps of where these are looked at, and charts of other tokens.

    Tokens are bars; more dates than fit are drawn over time.

    A map is bright where the picture is looked at more than evenly, and dark where less.

    Args:
        samples: what to draw; all with the same titles.

    Raises:
        InputError: if there is nothing to show.
    """
    if not samples:
        raise InputError("There are no samples to show.")
    first = samples[0]
    pictures, charts = len(first.pictures) + len(first.maps), len(first.tokens)
    if not pictures + charts:
        raise InputError("There is nothing to show of the samples.")
    widths = [_SIDE] * pictures + [1.25 * _SIDE] * charts
    heights = [_height(sample) for sample in samples]
    figure = new_figure(sum(widths) + 0.3, sum(heights))
    grid = figure.subplots(
        len(samples), len(widths), squeeze=False, width_ratios=widths, height_ratios=heights
    )
    for row, sample in zip(grid, samples, strict=True):
        cells = iter(row)
        for title, picture in sample.pictures.items():
            _picture(next(cells), title, picture)
        for title, map_ in sample.maps.items():
            _map(next(cells), title, map_)
        for title, tokens in sample.tokens.items():
            _tokens(next(cells), title, tokens)
        row[0].text(
            0, -0.04, sample.name, fontsize=7, color="#777777", va="top", clip_on=False,
            transform=row[0].transAxes, parse_math=False,
        )  # fmt: skip
    return figure


def _height(sample: AttendedSample) -> float:
    given = [tokens for tokens in sample.tokens.values() if tokens is not None]
    bars = [len(_shown(tokens)[0]) for tokens in given if not _is_curve(tokens)]
    return max([_SIDE + 0.35, *(0.17 * count + 0.6 for count in bars)])


def _picture(axes: Axes, title: str, picture: NDArray[Any] | None) -> None:
    _empty(axes, title)
    if picture is None:
        _absent(axes)
    else:
        axes.imshow(picture, interpolation="nearest")


def _map(axes: Axes, title: str, map_: tuple[NDArray[Any], ArrayLike] | None) -> None:
    _empty(axes, title)
    if map_ is None:
        _absent(axes)
        return
    picture, weights = map_
    values = np.asarray(weights, dtype=float)
    rows, columns = picture.shape[:2]
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    grey = picture.mean(axis=2) / 255
    axes.imshow(0.35 + 0.65 * grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    even = values * values.size  # as a multiple of looking evenly
    most = float(even.max())
    axes.imshow(
        even,
        cmap="inferno",
        vmin=0,
        vmax=max(most, 2.0),  # so that small differences look small
        alpha=0.5,
        extent=extent,
        interpolation="bilinear",
    )
    axes.set_xlabel(f"up to {most:.1f} times an even look", fontsize=7, color="#777777")


def _tokens(axes: Axes, title: str, tokens: TokenWeights | None) -> None:
    axes.set_title(title, fontsize=9, color=INK, loc="left", pad=4)
    if tokens is None:
        _empty(axes, title)
        _absent(axes)
    elif _is_curve(tokens):
        _curve(axes, tokens)
    else:
        _bars(axes, tokens)


def _is_curve(tokens: TokenWeights) -> bool:
    names = [name for name in tokens.names if name]
    return len(names) > _MOST and all(_DATE.fullmatch(name) for name in names)


def _curve(axes: Axes, tokens: TokenWeights) -> None:
    """How much each date is looked at, over the dates."""
    known = [i for i, name in enumerate(tokens.names) if name]
    dates = np.array([tokens.names[i] for i in known], dtype="datetime64[D]")
    weights = 100 * np.asarray(tokens.weights, dtype=float)[known]
    axes.vlines(dates, 0, weights, color=SERIES[0], lw=2)
    axes.axhline(100 / len(known), color="#777777", lw=0.8, ls="--")
    axes.set_ylim(0, 1.1 * max(float(weights.max()), 200 / len(known)))
    axes.set_ylabel("%", fontsize=7.5)
    years = AutoDateLocator(maxticks=5)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(years)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(years))  # type: ignore[no-untyped-call]
    axes.tick_params(labelsize=7)
    axes.set_xlabel("dashed: an even look", fontsize=7, color="#777777")
    axes.set_anchor("NW")
    axes.set_box_aspect(0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _bars(axes: Axes, tokens: TokenWeights) -> None:
    names, weights, left_out = _shown(tokens)
    n = len(names)
    axes.barh(range(n), weights, height=0.72, color=SERIES[0], lw=0)
    axes.set_yticks(range(n), [_short(name) for name in names], fontsize=7.5, parse_math=False)
    axes.set_ylim(max(n, 4) - 0.5, -0.5)
    top = max(float(weights.max(initial=0)), 1e-9)
    axes.set_xlim(0, 1.25 * top)
    axes.set_xticks([])
    for row, weight in enumerate(weights):
        axes.text(weight + 0.02 * top, row, f"{100 * weight:.0f} %", va="center", fontsize=7,
                  color=INK)  # fmt: skip
    if left_out:
        axes.set_xlabel(f"and {left_out} more", fontsize=7, color="#777777")
    bare(axes)


def _shown(tokens: TokenWeights) -> tuple[list[str], NDArray[np.float64], int]:
    """Names and weights to draw, and how many are left out."""
    values = np.asarray(tokens.weights, dtype=float)
    there = [i for i, name in enumerate(tokens.names) if name and i < len(values)]
    kept = sorted(sorted(there, key=lambda i: -values[i])[:_MOST])
    return [tokens.names[i] for i in kept], values[kept], len(there) - len(kept)


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"


def _empty(axes: Axes, title: str) -> None:
    axes.set_anchor("NW")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=9, color=INK, loc="left", pad=4)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _absent(axes: Axes) -> None:
    axes.set_facecolor("#eeeeee")
    axes.set_box_aspect(1)
    axes.text(
        0.5, 0.5, "not available", ha="center", va="center", fontsize=9, color="#777777",
        style="italic", transform=axes.transAxes,
    )  # fmt: skip

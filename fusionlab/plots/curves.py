"""Curves of a run, from the table that it logs."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fusionlab.errors import InputError
from fusionlab.plots.style import INK, SERIES, bare, new_figure

_STAGES = ("train", "val", "test")
_CONSTANT = ("classes_evaluated",)
"""Logged beside the scores, but nothing that a training changes."""


def curves_chart(metrics: Path) -> Figure:
    """Curves of a run, one panel per quantity, with training, validation and test in one panel.

    Args:
        metrics: ``metrics.csv`` as Lightning's CSV logger writes it, with columns named
            ``<stage>/<quantity>``. Scores of single classes and counts are left out.

    Raises:
        InputError: if the file has no such column.
    """
    series = _read_series(metrics)
    quantities = sorted({quantity for quantity, _ in series}, key=_in_order)
    if not quantities:
        raise InputError(f"{metrics} has no column named <stage>/<quantity>: nothing to draw.")
    columns = 2 if len(quantities) == 4 else min(len(quantities), 3)
    rows = -(-len(quantities) // columns)
    figure = new_figure(4.2 * columns, 2.9 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(quantities) :]:
        axes.remove()
    shown: dict[str, str] = {}
    last = max(max(steps) for steps, _ in series.values()) or 1
    for axes, quantity in zip(grid.flat, quantities, strict=False):
        for stage, color in zip(_STAGES, SERIES, strict=False):
            steps, values = series.get((quantity, stage), ([], []))
            if steps:
                marker = "o" if len(steps) < 30 else None
                axes.plot(steps, values, color=color, lw=1.6, marker=marker, ms=3.5)
                shown[stage] = color
        axes.set_title(quantity, loc="left", fontsize=11, color=INK)
        axes.set_xlim(-0.02 * last, 1.02 * last)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(color="#e6e6e6", lw=0.8)
        axes.set_xlabel("step", color=INK)
        bare(axes)
    lines = [Line2D([], [], color=color, lw=2, label=stage) for stage, color in shown.items()]
    figure.legend(handles=lines, loc="outside upper right", ncols=3, frameon=False)
    return figure


def _read_series(metrics: Path) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """Steps and values by (quantity, stage)."""
    series: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    with metrics.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file)):
            step = float(row.get("step") or line)
            for name, text in row.items():
                stage, _, quantity = name.partition("/")
                if stage not in _STAGES or not quantity or "/" in quantity or not text:
                    continue
                if quantity in _CONSTANT:
                    continue
                if quantity.endswith("_step") and f"{name.removesuffix('_step')}_epoch" in row:
                    continue
                key = (quantity.removesuffix("_epoch").removesuffix("_step"), stage)
                steps, values = series.setdefault(key, ([], []))
                steps.append(step)
                values.append(float(text))
    return series


def _in_order(quantity: str) -> tuple[bool, list[str | int]]:
    """Losses first; numbers in names by their size."""
    parts = re.split(r"(\d+)", quantity)
    return "loss" not in quantity, [int(part) if part.isdigit() else part for part in parts]

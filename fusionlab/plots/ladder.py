"""The modality ladder: which modalities a member is given, and what it scores.

Laid out as in Lex et al., "UpSet: Visualization of Intersecting Sets", IEEE TVCG 20(12), 2014: a
dot for each modality of a row, and the row's value beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fusionlab.errors import InputError
from fusionlab.plots.comparison import member_label
from fusionlab.plots.style import INK, SERIES, bare, new_figure

_EMPTY = "#e3e3e3"


def ladder_chart(
    rungs: Mapping[str, tuple[Sequence[str], Sequence[float]]],
    modalities: Sequence[str],
    *,
    x_label: str,
    others: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Scores of the same fusion with some of the modalities, from few to many.

    Args:
        rungs: by member, the modalities that it is given, and its finite score with each seed; a
            member without any is drawn without a bar.
        modalities: all of them, in the order of the columns.
        x_label: name of the score.
        others: members over all modalities that are fused otherwise, likewise.

    Raises:
        InputError: if there is no score.
    """
    rows: list[tuple[str, Sequence[str], Sequence[float]]] = [
        (member, kept, scores) for member, (kept, scores) in rungs.items()
    ]
    rows.sort(key=lambda row: len(row[1]))
    rows += [(member, modalities, scores) for member, scores in (others or {}).items()]
    if not any(len(scores) for _, _, scores in rows):
        raise InputError("There is no score to draw: no rung of the ladder has any.")
    columns = len(modalities)
    figure = new_figure(7.2 + 0.55 * columns, 1.3 + 0.33 * len(rows))
    dots, bars = figure.subplots(
        1, 2, sharey=True, gridspec_kw={"width_ratios": (0.55 * columns + 0.2, 6)}
    )
    for y, (member, kept, scores) in enumerate(rows):
        inside = [i for i, name in enumerate(modalities) if name in kept]
        dots.plot(range(columns), [y] * columns, "o", ms=8, color=_EMPTY, mew=0, zorder=1)
        dots.plot(inside, [y] * len(inside), "o-", ms=8, lw=2, color=INK, mew=0, zorder=2)
        color = SERIES[min(len(inside), columns) % len(SERIES) - 1] if inside else INK
        if member in rungs and not len(scores):
            bars.text(0, y, "no score", va="center", fontsize=8, color="#888888", style="italic")
        elif len(scores):
            mean = float(np.mean(scores))
            alpha = 0.85 if member in rungs else 0.45
            bars.barh(y, mean, height=0.72, color=color, alpha=alpha, lw=0, zorder=2)
            offsets = np.linspace(-0.16, 0.16, len(scores)) if len(scores) > 1 else [0.0]
            bars.plot(scores, np.add(offsets, y), "o", ms=3.5, color=INK, mew=0, zorder=3)
            label = f"{mean:.1f}" if member in rungs else f"{mean:.1f}  {member_label(member)}"
            bars.annotate(
                label, (max([mean, *scores]), y), xytext=(6, 0), textcoords="offset points",
                va="center", fontsize=8, color=INK,
            )  # fmt: skip
    for y in _steps([len(kept) for _, kept, _ in rows], len(rungs)):
        for axes in (dots, bars):
            axes.axhline(y - 0.5, color="#cccccc", lw=0.8, zorder=0)
    dots.set_xticks(range(columns), modalities, rotation=40, ha="left", fontsize=9)
    dots.xaxis.tick_top()
    dots.set_xlim(-0.6, columns - 0.4)
    dots.set_yticks([])
    dots.set_ylim(len(rows) - 0.5, -0.5)
    bars.margins(x=0.14 if not others else 0.3)
    bars.grid(axis="x", color="#e6e6e6", lw=0.8, zorder=0)
    bars.set_xlabel(x_label, color=INK)
    for axes in (dots, bars):
        bare(axes)
    return figure


def _steps(sizes: Sequence[int], rungs: int) -> list[int]:
    """Rows at which there is one modality more than before, and where the ladder ends."""
    return [i for i in range(1, len(sizes)) if sizes[i] != sizes[i - 1] or i == rungs]

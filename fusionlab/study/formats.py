"""A comparison as Markdown, CSV, JSON, and as tables in a terminal."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box, get_console
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusionlab.study.gains import gains, gains_table
from fusionlab.study.scores import label
from fusionlab.study.significance import PairedTest, Significance, difference_text, p_text
from fusionlab.study.table import Column, Comparison, MemberRow, statistic

_COSTS_FROM = "epochs"
"""Columns from here on are of what a member costs."""


def seeds_text(row: MemberRow) -> str:
    """How many seeds a row is made of."""
    note = "" if row.stage == "test" else f" ({row.stage})"
    return f"{len(row.seeds)}{note}"


def markdown(
    comparison: Comparison,
    significance: Significance | None = None,
    *,
    remarks: Sequence[str] = (),
    failed: Mapping[str, str] | None = None,
) -> str:
    """The comparison as Markdown: the table, remarks, all scores, the tests; the best in bold.

    Args:
        comparison: what to write.
        significance: the tests of its ranking score, if there are any.
        remarks: on how far the terms were the same.
        failed: members or runs that are not there, with the reason.
    """
    parts = [_markdown_table(comparison, comparison.columns)]
    if told := _caveats(comparison, remarks, failed or {}):
        parts.append("\n".join(f"- {_plain(line)}" for line in told))
    if len(comparison.score_columns) > 2:
        parts += ["All scores:", _markdown_table(comparison, comparison.score_columns)]
    if ladder := gains_table(comparison):
        parts += ["What each modality adds:", _markdown_lines(ladder)]
    if significance is not None:
        parts += [_plain(line) for line in (*significance.sentences(), *significance.limits())]
    return "\n\n".join(parts) + "\n"


def _caveats(
    comparison: Comparison, remarks: Sequence[str], failed: Mapping[str, str]
) -> list[str]:
    """All that a reader of the table must know, members that are not in it first."""
    missing = [f"Not compared: {n}: {(r.splitlines() or [''])[0]}" for n, r in failed.items()]
    return [*missing, *remarks, *comparison.remarks]


def _markdown_table(comparison: Comparison, columns: Sequence[Column]) -> str:
    lines = [["member", "seeds", *(column.label for column in columns)]]
    for row in comparison.rows:
        cells = [row.member, seeds_text(row), *(c.text(row.values.get(c.key)) for c in columns)]
        cells = [_plain(cell) for cell in cells]
        if row.rank == 1:
            cells[0], cells[2] = f"**{cells[0]}**", f"**{cells[2]}**"
        lines.append(cells)
    return _markdown_lines(lines)


def _markdown_lines(lines: Sequence[Sequence[str]]) -> str:
    """A table of cells, with its heading first."""
    head, *rows = lines
    every = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in every)


def _plain(text: str) -> str:
    """A text of which Markdown takes nothing for markup."""
    for sign in "\\|*_<`":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def table_csv(comparison: Comparison) -> str:
    """One line per member, numbers in full: ``<column>_mean`` and ``<column>_std``."""
    columns = all_columns(comparison)
    head = ["member", "rank", "stage", "seeds"]
    head += [f"{c.key}_{what}" for c in columns for what in ("mean", "std")]
    lines: list[list[Any]] = []
    for row in comparison.rows:
        values = [row.values.get(c.key) for c in columns]
        numbers = [x for v in values for x in ((v.mean, v.std) if v else (None, None))]
        seeds = " ".join(str(seed) for seed in row.seeds)
        lines.append([row.member, row.rank, row.stage, seeds, *numbers])
    return _csv([head, *lines])


def per_class_csv(comparison: Comparison) -> str:
    """One line per member, score and class: mean and standard deviation over seeds."""
    head = ["member", "stage", "score", "class", "mean", "std", "seeds"]
    lines: list[list[Any]] = []
    for row in comparison.rows:
        runs = comparison.runs[row.member]
        names: dict[tuple[str, str], None] = {}
        for run in runs:
            names |= {(s, c): None for s, by_class in run.per_class.items() for c in by_class}
        for score, of in names:
            value = statistic(run.per_class.get(score, {}).get(of) for run in runs)
            plain = score.removeprefix(f"{row.stage}/")
            mean, std, n = value or (None, None, 0)
            lines.append([row.member, row.stage, plain, of, mean, std, n])
    return _csv([head, *lines])


def _csv(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def all_columns(comparison: Comparison) -> list[Column]:
    """All scores and all costs, each once."""
    shown = {c.key: c for c in (*comparison.score_columns, *comparison.columns)}
    return list(shown.values())


def as_json(
    comparison: Comparison,
    significance: Significance | None,
    *,
    folder: Path,
    failed: Mapping[str, str],
    remarks: Sequence[str],
) -> str:
    """All that was compared, for programs: aggregates, every run, tests, failures.

    Args:
        comparison: what to write.
        significance: the tests of its ranking score, if there are any.
        folder: that the file is for; folders of runs are named relative to it.
        failed: members or runs that are not there, with the reason.
        remarks: on how far the terms were the same.
    """
    columns = all_columns(comparison)
    content = {
        "score": comparison.score,
        "direction": comparison.direction,
        "stage": comparison.stage,
        "members": [
            {
                "member": row.member,
                "rank": row.rank,
                "stage": row.stage,
                "seeds": row.seeds,
                "values": {
                    c.key: v._asdict() if (v := row.values.get(c.key)) else None for c in columns
                },
                "runs": [
                    {
                        "seed": run.seed,
                        "folder": Path(os.path.relpath(run.folder, folder)).as_posix(),
                        "stage": run.stage,
                        "scores": run.scores,
                        "per_class": run.per_class,
                        "measures": run.measures,
                    }
                    for run in comparison.runs[row.member]
                ],
            }
            for row in comparison.rows
        ],
        "gains": [
            {
                "modality": gain.modality,
                "alone": gain.alone and gain.alone._asdict(),
                "added": {str(n): value._asdict() for n, value in gain.added.items()},
            }
            for gain in gains(comparison)
        ],
        "significance": significance and {
            "score": significance.score,
            "best": significance.best,
            "tests": [vars(test) for test in significance.tests],
        },
        "failed": dict(failed),
        "remarks": [*remarks, *comparison.remarks],
    }  # fmt: skip
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:  # noqa: ANN401
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value if isinstance(value, str | int | bool | None) else str(value)


def print_comparison(
    comparison: Comparison,
    significance: Significance | None,
    *,
    remarks: Sequence[str] = (),
    failed: Mapping[str, str] | None = None,
) -> None:
    """Prints what the members reach, what they cost, what is remarked, and what the tests say.

    A file gets every row in one line, without colours; a terminal that is too narrow gets names in
    several lines, never numbers.

    Args:
        comparison: what to print.
        significance: the tests of its ranking score, if there are any.
        remarks: on how far the terms were the same.
        failed: members or runs that are not there, with the reason.
    """
    console = get_console()
    if not console.is_terminal:
        console = Console(width=10_000)
    for title, columns in column_groups(comparison).items():
        console.print()
        console.print(_table(title, comparison, columns), crop=False)
    if lines := gains_table(comparison):
        console.print()
        console.print(_cells_table("What each modality adds", lines), crop=False)
    if told := _caveats(comparison, remarks, failed or {}):
        console.print()
        for line in told:
            console.print(Text(f"- {line}"))
    if significance is not None:
        console.print()
        for line in significance.sentences():
            console.print(Text(line))


def column_groups(comparison: Comparison) -> dict[str, tuple[Column, ...]]:
    """The columns in two tables that fit a screen: what members reach, and what they cost."""
    keys = [column.key for column in comparison.columns]
    split = keys.index(_COSTS_FROM) if _COSTS_FROM in keys else len(keys)
    groups = {"Scores": comparison.columns[:split], "Cost": comparison.columns[split:]}
    return {title: columns for title, columns in groups.items() if columns}


def _table(title: str, comparison: Comparison, columns: Sequence[Column]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("member", overflow="fold")
    head = ("seeds", *(column.label for column in columns))
    rows = [
        [seeds_text(row), *(column.text(row.values.get(column.key)) for column in columns)]
        for row in comparison.rows
    ]
    for i, name in enumerate(head):
        width = max(len(cells[i]) for cells in rows)
        table.add_column(Text(name), justify="right", overflow="fold", min_width=width)
    marked = {0, 2} if columns[0].key == comparison.score else {0}
    for row, cells in zip(comparison.rows, rows, strict=True):
        bold = marked if row.rank == 1 else set()
        line = (row.member, *cells)
        table.add_row(*[Text(c, "bold" if i in bold else "") for i, c in enumerate(line)])
    return table


def _cells_table(title: str, lines: Sequence[Sequence[str]]) -> Table:
    """Cells, with their heading first, as a table."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for i, name in enumerate(lines[0]):
        table.add_column(Text(name), justify="right" if i else "left", overflow="fold")
    for cells in lines[1:]:
        table.add_row(*map(Text, cells))
    return table


def paired_cells(test: PairedTest, score: str) -> tuple[str, str, str, str, str]:
    """A test in cells: member, seeds, mean difference, interval, corrected p-value."""
    interval = (
        "–"
        if test.low is None
        else f"{difference_text(test.low, score)} to {difference_text(test.high, score)}"
    )
    difference = difference_text(test.difference, score)
    return test.member, f"{len(test.seeds)}", difference, interval, p_text(test.corrected)


def difference_label(score: str) -> str:
    """The heading over differences of a score."""
    name = label(score)
    return f"lead in {name.removesuffix(', %')}" + (", points" if name.endswith(", %") else "")

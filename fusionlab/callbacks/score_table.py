"""The scores of an evaluation as tables to read: those over all, and a row for each class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich import box, get_console
from rich.console import Console
from rich.table import Table
from rich.text import Text

_COUNTS = frozenset({"support", "classes_evaluated"})
_UNBOUNDED = 10_000  # columns; rich takes a file for 80 columns wide and would break lines there


def print_scores(title: str, scores: Mapping[str, float], classes: Sequence[str]) -> None:
    """Prints one table of the scores over all, and one of those per class if there are any.

    A metric is one per class if each class has a value ``<metric>/<class>``. Whatever is not
    stands in the first table, so that no score is left out. Values are those given, to four
    decimals; what is no number (NaN), such as the score of a class that does not occur, is a dash.

    A terminal narrower than a table gets its names in several lines. A file gets every row in one
    line, without colours.

    Args:
        title: of the first table, such as ``Test scores``.
        scores: by name, in the order to show them, without a stage before the name.
        classes: class names in index order; none of a model that predicts numbers.
    """
    console = get_console()
    if not console.is_terminal:
        console = Console(width=_UNBOUNDED)
    metrics = _metrics_per_class(scores, classes)
    per_class = {f"{metric}/{name}" for metric in metrics for name in classes}

    tables = []
    overall = {n: [_number(n, v)] for n, v in scores.items() if n not in per_class}
    if overall:
        tables.append(_table(title, ["score", "value"], overall, console))
    if metrics:
        rows = {n: [_number(m, scores[f"{m}/{n}"]) for m in metrics] for n in classes}
        tables.append(_table(f"{title} by class", ["class", *metrics], rows, console))
    for table in tables:
        console.print()
        console.print(table, crop=False)
    console.print()


def _metrics_per_class(scores: Mapping[str, float], classes: Sequence[str]) -> list[str]:
    """Those that every class has a value of: names may hold slashes, or be that of a modality."""
    if not classes:
        return []
    ending = f"/{classes[0]}"
    candidates = [name.removesuffix(ending) for name in scores if name.endswith(ending)]
    return [m for m in candidates if all(f"{m}/{name}" in scores for name in classes)]


def _number(metric: str, value: float) -> str:
    if math.isnan(value):
        return "–"
    if metric in _COUNTS:
        return f"{value:.0f}"
    if 0 < abs(value) < 5e-5:
        return f"{value:.0e}"  # not the same as none
    return f"{value:.4f}"


def _table(
    title: str, header: Sequence[str], rows: Mapping[str, Sequence[str]], console: Console
) -> Table:
    """A column of names, and columns of numbers, which are never broken."""
    first, *columns = header
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column(first, overflow="fold")
    for name, numbers in zip(columns, zip(*rows.values(), strict=True), strict=True):
        width = max(map(len, numbers))
        table.add_column(_text(name, console), justify="right", overflow="fold", min_width=width)
    for name, values in rows.items():
        table.add_row(*[_text(cell, console) for cell in (name, *values)])
    return table


def _text(cell: str, console: Console) -> Text:
    """A text as it is, of which nothing is taken for markup, in signs that can be printed."""
    encoding = console.encoding
    if not encoding.startswith("utf"):
        cell = cell.replace("–", "-").encode(encoding, "replace").decode(encoding)
    return Text(cell)

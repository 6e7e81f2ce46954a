"""What the demonstrations share: running commands, spreads over seeds, tables."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fusionlab.cli import run as fusionlab

console = Console()


def run(*args: object) -> float:
    """Runs a fusionlab command and returns how many seconds it took."""
    command = [str(arg) for arg in args]
    text = escape(" ".join(command))
    console.print(f"\n[bold cyan]$ fusionlab {text}", highlight=False, soft_wrap=True)
    start = time.perf_counter()
    fusionlab(command)
    return time.perf_counter() - start


def configs(*names: str) -> list[str]:
    """Arguments for configuration files by name, e.g. ``demo/flair2/aerial``."""
    return [arg for name in names for arg in ("--config", f"configs/{name}.yaml")]


def scores(output: Path, stage: str = "test") -> dict[str, Any]:
    """What a test left in its folder; a validation with the stage ``val``."""
    return dict(json.loads((output / f"{stage}_metrics.json").read_text()))


def spread(values: Sequence[float]) -> str:
    """Mean, and the standard deviation where there is one."""
    text = f"{statistics.mean(values):.1f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.1f}"


def tables(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[Table, list[str]]:
    """A table for the terminal, and the same as Markdown lines."""
    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    for row in rows:
        table.add_row(*row)
        lines.append("| " + " | ".join(row) + " |")
    return table, lines

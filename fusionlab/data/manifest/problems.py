"""What is wrong with the rows of a manifest, gathered, so that it can be mended in one go."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusionlab.errors import InputError

LISTED = 20
"""How many problems an error message lists; the others are counted."""
_NAMED = 3
"""Of rows with one and the same problem, how many are named."""


class Problems:
    """Problems of rows, in the order of the rows.

    Args:
        manifest: the file, for the error message.
    """

    def __init__(self, manifest: Path) -> None:
        self.manifest = manifest
        self._found: dict[tuple[int, str], str] = {}
        self._rows: set[int] | None = None

    def __len__(self) -> int:
        return len(self._found)

    def add(self, row: int, problem: str, *, file: str = "") -> None:
        """Notes a problem.

        Args:
            row: position of the row, from 0.
            problem: which column, and what is wrong.
            file: the file that is named; with other files, the problem is the same.
        """
        if self._rows is None or int(row) in self._rows:
            self._found[(int(row), problem)] = problem.replace(file, "") if file else problem

    def only(self, rows: NDArray[np.int64]) -> None:
        """From now on, and of those before, heeds only problems of these rows."""
        self._rows = set(rows.tolist())
        self._found = {k: alike for k, alike in self._found.items() if k[0] in self._rows}

    def include(self, others: Problems) -> None:
        """Takes the problems of others, of whatever rows."""
        self._found.update(others._found)

    def refuse(self) -> None:
        """Ends the run if there is any problem; then they are forgotten.

        Raises:
            InputError: lists the first with their rows, and counts the others. One that several
                rows share is one line; of many files with the same, the first is named.
        """
        if not self._found:
            return
        found = sorted(self._found, key=lambda item: item[0])
        times = Counter(self._found.values())
        groups: dict[str, list[tuple[int, str]]] = {}
        for row, problem in found:
            alike = self._found[row, problem]
            # A few files are all named, of many the first.
            groups.setdefault(alike if times[alike] > _NAMED else problem, []).append(
                (row, problem)
            )
        listed = list(groups.values())[:LISTED]
        lines = [f"  {_named([row for row, _ in group])}, {group[0][1]}" for group in listed]
        if rest := len(found) - sum(map(len, listed)):
            lines.append(f"  and {rest} more.")
        self._found.clear()
        many = f"{len(found)} problems" if len(found) > 1 else "a problem"
        raise InputError(
            f"data.manifest: {self.manifest} has {many} (the first row below the header is row "
            "1):\n" + "\n".join(lines) + "\nMend these, or take the rows out."
        )


def _named(rows: list[int]) -> str:
    """``row 3``, ``rows 3, 5``, or ``rows 3, 5, 7 … (8 rows)``, counted from 1."""
    numbers = ", ".join(str(row + 1) for row in rows[:_NAMED])
    if len(rows) == 1:
        return f"row {numbers}"
    return f"rows {numbers}" + (f" … ({len(rows)} rows)" if len(rows) > _NAMED else "")

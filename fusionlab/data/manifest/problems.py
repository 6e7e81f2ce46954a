"""What is wrong with the rows of a manifest, gathered, so that it can be mended in one go."""

from __future__ import annotations

from pathlib import Path

from fusionlab.errors import InputError

LISTED = 20
"""How many problems an error message lists; the others are counted."""


class Problems:
    """Problems of rows, in the order of the rows.

    Args:
        manifest: the file, for the error message.
    """

    def __init__(self, manifest: Path) -> None:
        self.manifest = manifest
        self._found: dict[tuple[int, str], None] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, row: int, problem: str) -> None:
        """Notes a problem.

        Args:
            row: position of the row, from 0.
            problem: which column, and what is wrong.
        """
        self._found[(int(row), problem)] = None

    def refuse(self) -> None:
        """Ends the run if there is any problem; then they are forgotten.

        Raises:
            InputError: lists the first with their rows, and counts the others.
        """
        if not self._found:
            return
        found = sorted(self._found, key=lambda item: item[0])
        lines = [f"  row {row + 1}, {problem}" for row, problem in found[:LISTED]]
        if len(found) > LISTED:
            lines.append(f"  and {len(found) - LISTED} more.")
        self._found.clear()
        many = f"{len(found)} problems" if len(found) > 1 else "a problem"
        raise InputError(
            f"data.manifest: {self.manifest} has {many} (the first row below the header is row "
            "1):\n" + "\n".join(lines) + "\nMend these, or take the rows out."
        )

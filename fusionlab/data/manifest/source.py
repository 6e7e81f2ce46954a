"""What every modality of a manifest has in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fusionlab.data.manifest.problems import Problems
from fusionlab.data.manifest.table import Manifest, present
from fusionlab.types import Modality, TimeSeries

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
READERS = 8
"""Threads that open files; most of the time is spent waiting for the disk."""


class Source:
    """One modality: what its rows hold, and how a sample's part is read.

    Args:
        name: of the modality.

    Attributes:
        where: config key, for error messages.
        there: per row, whether its cell holds anything, ``(N,)``.
        modality: as it is delivered; set by `describe`.
    """

    there: Mask
    modality: Modality
    section: ClassVar[str]

    def __init__(self, name: str) -> None:
        self.name = name
        self.where = f"{self.section}.{name}"

    def find(self, rows: Rows, problems: Problems) -> None:
        """Notes the rows whose files do not exist."""

    def prepare(self) -> None:
        """Learns from the first file what the user does not say; before files are checked.

        Raises:
            InputError: if that does not say it either.
        """

    def check(self, rows: Rows, problems: Problems) -> None:
        """Opens the files of some rows, each only once, and notes what is wrong with them."""

    def describe(self, training: Rows, *, store: Path, verify: Callable[[], None]) -> None:
        """Says what it delivers, by what the rows of the training split hold.

        Args:
            training: the rows; none if there is no such split.
            store: folder in which results are kept.
            verify: checks all files of the manifest, or ends the run; called before any is read.
        """
        raise NotImplementedError

    def read(self, row: int) -> Tensor | TimeSeries | str | None:
        """The part of a sample; None if nothing was observed."""
        raise NotImplementedError

    def blank(self) -> Tensor | TimeSeries | str:
        """What stands for a missing one."""
        raise NotImplementedError


class FileColumn:
    """A column of paths.

    Args:
        manifest: the table.
        column: its name.
        root: folder that relative paths are below.
        where: config key, for error messages.

    Attributes:
        column: its name.
        there: per row, whether it names a file, ``(N,)``.

    Raises:
        InputError: if there is no such column.
    """

    def __init__(self, manifest: Manifest, column: str, root: Path, *, where: str) -> None:
        self.column = column
        self.root = root
        self._cells = manifest.texts(column, where=where)
        self.there = present(self._cells)
        self._exists: dict[int, bool] = {}

    def path(self, row: int) -> str:
        """The path in a row."""
        return str(self.root / Path(self._cells[int(row)].as_py()).expanduser())

    def check(self, rows: Rows, problems: Problems) -> Rows:
        """Notes the rows whose file does not exist.

        Returns:
            The rows that name a file which does.
        """
        named = rows[self.there[rows]]
        new = [row for row in named.tolist() if row not in self._exists]
        if new:
            with ThreadPoolExecutor(READERS) as pool:
                exist = pool.map(os.path.isfile, map(self.path, new))
                self._exists.update(zip(new, exist, strict=True))
        for row in named.tolist():
            if not self._exists[row]:
                path = self.path(row)
                problems.add(row, f"{self.column}: there is no file {path}.", file=path)
        found: Rows = named[np.array([self._exists[row] for row in named.tolist()], bool)]
        return found

    def readable(self, row: int) -> bool:
        """Whether a row names a file that was found."""
        return self._exists.get(int(row), False)

    def first(self) -> str | None:
        """The first file that is there, of the rows that were checked, if any were; or None."""
        rows = sorted(self._exists) or np.flatnonzero(self.there).tolist()
        paths = (self.path(row) for row in rows)
        return next((path for path in paths if Path(path).is_file()), None)

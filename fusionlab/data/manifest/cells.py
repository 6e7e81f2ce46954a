"""Tables: columns of a manifest with numbers and categories, as one vector per row."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionlab.data.folders.statistics import Moments
from fusionlab.data.manifest.fill import fill_columns, warn_of_fill, without_fill
from fusionlab.data.manifest.options import TableColumns
from fusionlab.data.manifest.problems import Problems
from fusionlab.data.manifest.source import Rows, Source
from fusionlab.data.manifest.statistics import finished
from fusionlab.data.manifest.table import Manifest
from fusionlab.types import Modality

log = logging.getLogger(__name__)


class TableSource(Source):
    """Numbers as they are, categories as their index, NaN where a cell is empty.

    Categories that are not among those of the training rows have the indices that follow on.

    Args:
        name: of the modality.
        options: what the user says of it.
        manifest: the table.
        problems: takes cells that hold no number where one is expected.

    Raises:
        InputError: if there is no such column.
    """

    section = "tables"

    def __init__(
        self, name: str, options: TableColumns, manifest: Manifest, problems: Problems
    ) -> None:
        super().__init__(name)
        self.options = options
        self._texts: dict[str, pa.Array] = {}
        self._values = np.full((len(manifest), len(options.columns)), np.nan, np.float32)
        self.there = np.zeros(len(manifest), bool)
        for i, column in enumerate(options.columns):
            if column in options.categories:
                self._texts[column] = manifest.texts(column, where=self.where, names=True)
                self.there |= self._texts[column].is_valid().to_numpy(False)
            else:
                numbers = manifest.numbers(column, where=self.where, problems=problems)
                with np.errstate(over="ignore"):
                    self._values[:, i] = without_fill(numbers, options.nodata)
                for row in np.flatnonzero(np.isinf(self._values[:, i])).tolist():
                    problems.add(row, f"{column}: {numbers[row]:g} is too large for float32.")
                self.there |= ~np.isnan(self._values[:, i])

    def describe(self, training: Rows, *, store: Path, verify: Callable[[], None]) -> None:
        """See `Source.describe`: lists categories, and takes statistics of numbers in memory."""
        options = self.options
        given = options.categories if isinstance(options.categories, dict) else {}
        categories: dict[str, list[str]] = {}
        others: dict[str, list[str]] = {}
        for column, texts in self._texts.items():
            seen = texts.take(training) if len(training) else texts
            categories[column] = list(given.get(column) or sorted_names(seen))
            known = set(categories[column])
            others[column] = [name for name in sorted_names(texts) if name not in known]
            self._index(column, categories[column], others[column])
        numeric = [c for c in options.columns if c not in categories]
        rows = training if len(training) else slice(None)
        positions = [options.columns.index(c) for c in numeric]
        warn_of_fill(fill_columns(self._values[rows][:, positions], numeric), where=self.where)
        mean, std = dict(options.mean or {}), dict(options.std or {})
        numeric = [c for c in numeric if c not in mean]
        if numeric and len(training):
            columns = [options.columns.index(c) for c in numeric]
            values = self._values[training][:, columns].T[:, None]
            found = finished(Moments.of(values, ~np.isnan(values)), numeric, where=self.where)
            mean |= zip(numeric, found.mean, strict=True)
            std |= zip(numeric, found.std, strict=True)
        self.modality = Modality(
            tuple(options.columns),
            mean=tuple(mean.get(c, 0.0) for c in options.columns),
            std=tuple(std.get(c, 1.0) for c in options.columns),
            kind="table",
            categories=categories,
            others=others,
        )

    def read(self, row: int) -> Tensor | None:
        """``(F,)`` float32; None if every cell is empty."""
        return torch.from_numpy(self._values[row].copy()) if self.there[row] else None

    def blank(self) -> Tensor:
        """Zeros ``(F,)``."""
        return torch.zeros(self._values.shape[1])

    def _index(self, column: str, names: list[str], others: list[str]) -> None:
        texts = self._texts[column]
        found = pc.index_in(texts, value_set=pa.array([*names, *others], pa.large_string()))
        index: NDArray[np.float64] = found.cast(pa.float64()).to_numpy(zero_copy_only=False)
        strange = int((index >= len(names)).sum())
        if strange:
            log.warning(
                "%s: %d rows have a category in %r that the training split has not, such as %s.",
                self.where, strange, column, others[:5],
            )  # fmt: skip
        self._values[:, self.options.columns.index(column)] = index


def sorted_names(texts: pa.Array) -> list[str]:
    """The different texts of a column; numbers among them by their size."""
    names: list[str] = pc.unique(texts.drop_null()).to_pylist()
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)

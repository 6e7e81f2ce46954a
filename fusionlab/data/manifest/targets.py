"""Targets of whole samples: one class, any number of classes, or values."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionlab.data.manifest.cells import sorted_names
from fusionlab.data.manifest.options import TargetColumn
from fusionlab.data.manifest.problems import Problems
from fusionlab.data.manifest.source import Rows
from fusionlab.data.manifest.table import NUMBER, Manifest, parsed, present
from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX, Modality, Schema


class SampleTarget(ABC):
    """The target of every row, in memory.

    Args:
        options: what the user says of it.

    Attributes:
        values: per row its target, ``(N, ...)``.
    """

    values: NDArray[Any]

    def __init__(self, options: TargetColumn) -> None:
        self.options = options

    @abstractmethod
    def schema(self, modalities: dict[str, Modality]) -> Schema:
        """What the data deliver."""

    @abstractmethod
    def check(self, rows: Rows, problems: Problems) -> None:
        """Notes the rows that have no usable target."""

    def read(self, row: int) -> Tensor:
        """The target of a row: an index, or values ``(K,)``."""
        return torch.as_tensor(self.values[row])


class ClassTarget(SampleTarget):
    """One class per sample, int64, 255 where unknown.

    Args:
        options: what the user says of it.
        manifest: the table.
        rows: those of all splits, whose classes are listed unless the user does.

    Raises:
        InputError: if there is no such column, or there are too many classes.
    """

    def __init__(self, options: TargetColumn, manifest: Manifest, rows: Rows) -> None:
        super().__init__(options)
        assert options.column is not None
        self._texts = manifest.texts(options.column, where="target.column", names=True)
        self.classes = list(options.classes or sorted_names(self._texts.take(rows)))
        if len(self.classes) > IGNORE_INDEX:
            raise InputError(
                f"target: {options.column!r} holds {len(self.classes)} classes such as "
                f"{self.classes[:3]}, expected at most {IGNORE_INDEX}. Is it another column, or "
                "one of values (kind: values)?"
            )
        self.values = np.full(len(manifest), IGNORE_INDEX, np.int64)
        distinct = self._texts.dictionary_encode()
        names = distinct.dictionary.to_pylist()
        codes = distinct.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        found = np.append(_class_indices(names, self.classes), -1)[codes]
        self.values[found >= 0] = found[found >= 0]

    def schema(self, modalities: dict[str, Modality]) -> Schema:
        """See `SampleTarget.schema`."""
        colors = self.options.colors or ()
        return Schema(modalities, self.classes, colors=colors, target="multiclass")

    def check(self, rows: Rows, problems: Problems) -> None:
        """See `SampleTarget.check`."""
        there = present(self._texts)
        index = "" if _numbered(self.classes) else ", nor an index of one"
        for row in rows[self.values[rows] == IGNORE_INDEX].tolist():
            if there[row]:
                problems.add(
                    row,
                    f"{self.options.column}: {self._texts[row].as_py()!r} is none of the classes "
                    f"{self.classes}{index}.",
                )
            elif not self.options.allow_missing:
                problems.add(row, f"{self.options.column}: no class.")


class ClassesTarget(SampleTarget):
    """Any number of classes per sample, ``(K,)`` float of 0 and 1.

    Args:
        options: what the user says of it.
        manifest: the table.
        rows: those of all splits, whose classes are listed unless the user does.

    Raises:
        InputError: if there is no such column.
    """

    def __init__(self, options: TargetColumn, manifest: Manifest, rows: Rows) -> None:
        super().__init__(options)
        self._unknown: list[tuple[int, str]] = []
        if options.columns is not None:
            self.classes = list(options.classes or options.columns)
            self._cells = [manifest.texts(c, where="target.columns") for c in options.columns]
            columns = [_flags(cells) for cells in self._cells]
            self._numbers: NDArray[np.float64] | None = np.stack(columns, axis=1)
            self.values = np.nan_to_num(self._numbers).astype(np.float32)
            return
        assert options.column is not None
        self._numbers = None
        texts = manifest.texts(options.column, where="target.column", names=True).fill_null("")
        parts = pc.split_pattern(texts, options.separator)
        row_of = pc.list_parent_indices(parts).to_numpy()
        names = pc.utf8_trim_whitespace(pc.list_flatten(parts))
        filled = pc.not_equal(names, "").to_numpy(False)
        row_of, names = row_of[filled], names.filter(pa.array(filled))
        self.classes = list(
            options.classes or sorted_names(names.filter(pa.array(np.isin(row_of, rows))))
        )
        distinct = names.dictionary_encode()
        listed = distinct.dictionary.to_pylist()
        index = _class_indices(listed, self.classes)
        of = index[distinct.indices.to_numpy(False)] if len(listed) else np.zeros(0, np.int64)
        known = of >= 0
        self.values = np.zeros((len(manifest), len(self.classes)), np.float32)
        self.values[row_of[known], of[known]] = 1
        strangers = np.flatnonzero(~known)
        self._unknown = [(int(row_of[i]), names[int(i)].as_py()) for i in strangers]

    def schema(self, modalities: dict[str, Modality]) -> Schema:
        """See `SampleTarget.schema`."""
        colors = self.options.colors or ()
        return Schema(modalities, self.classes, colors=colors, target="multilabel")

    def check(self, rows: Rows, problems: Problems) -> None:
        """See `SampleTarget.check`."""
        wanted = set(rows.tolist())
        for row, name in self._unknown:
            if row in wanted:
                problems.add(
                    row, f"{self.options.column}: {name!r} is none of the classes {self.classes}."
                )
        if self._numbers is None:
            return
        wrong = ~np.isin(self._numbers[rows], (0, 1))
        for i, k in zip(*np.nonzero(wrong), strict=True):
            column = cast("list[str]", self.options.columns)[k]
            text = self._cells[k][int(rows[i])].as_py()
            found = "an empty cell" if text is None else repr(text)
            problems.add(int(rows[i]), f"{column}: expected 0 or 1, got {found}.")


class ValueTarget(SampleTarget):
    """Values of variables per sample, ``(V,)`` float32, NaN where unknown.

    Args:
        options: what the user says of it.
        manifest: the table.
        problems: takes cells that hold no number.

    Raises:
        InputError: if there is no such column, or names do not fit the columns.
    """

    def __init__(self, options: TargetColumn, manifest: Manifest, problems: Problems) -> None:
        super().__init__(options)
        columns = options.columns or [cast("str", options.column)]
        self.variables = list(options.variables or columns)
        self.units = list(options.units or [""] * len(columns))
        if not len(self.variables) == len(self.units) == len(columns):
            raise InputError(
                f"target: {len(self.variables)} variables and {len(self.units)} units for "
                f"{len(columns)} columns: give one each."
            )
        self.values = np.stack(
            [manifest.numbers(c, where="target.columns", problems=problems) for c in columns],
            axis=1,
        ).astype(np.float32)

    def schema(self, modalities: dict[str, Modality]) -> Schema:
        """See `SampleTarget.schema`."""
        return Schema(
            modalities, target="scalar_regression", variables=self.variables, units=self.units
        )

    def check(self, rows: Rows, problems: Problems) -> None:
        """See `SampleTarget.check`."""
        if self.options.allow_missing:
            return
        columns = ", ".join(self.options.columns or [str(self.options.column)])
        for row in rows[np.isnan(self.values[rows]).all(axis=1)].tolist():
            problems.add(row, f"{columns}: no value.")


def sample_target(
    options: TargetColumn, manifest: Manifest, rows: Rows, problems: Problems
) -> SampleTarget | None:
    """The target of whole samples; None for masks."""
    if options.kind == "class":
        return ClassTarget(options, manifest, rows)
    if options.kind == "classes":
        return ClassesTarget(options, manifest, rows)
    return ValueTarget(options, manifest, problems) if options.kind == "values" else None


def _flags(texts: pa.Array) -> NDArray[np.float64]:
    """What cells of 0 and 1, or of false and true, say as numbers; NaN where they say neither."""
    lower = pc.utf8_lower(texts)
    for word, digit in (("false", "0"), ("true", "1")):
        lower = pc.if_else(pc.equal(lower, word), pa.scalar(digit, lower.type), lower)
    return np.array(parsed(lower)[0].to_numpy(zero_copy_only=False), np.float64)


def _class_indices(names: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Of names, or of indices as texts where no class is called by a number; -1 for any other."""
    index = {name: i for i, name in enumerate(classes)}
    if not _numbered(classes):
        index |= {str(i): i for i in range(len(classes))}
        digits = [name not in index and name.isascii() and name.isdigit() for name in names]
        names = [str(int(n)) if one else n for n, one in zip(names, digits, strict=True)]  # 01
    return np.array([index.get(name, -1) for name in names], np.int64)


def _numbered(classes: Sequence[str]) -> bool:
    """Whether a class is called by a number, so that an index might mean another."""
    return any(re.fullmatch(NUMBER, name) for name in classes)

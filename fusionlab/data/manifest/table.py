"""The manifest itself: a CSV or Parquet file, read once and held in memory column by column."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fusionlab.data.damage import reason
from fusionlab.data.manifest.problems import Problems
from fusionlab.errors import InputError

Floats = NDArray[np.float64]

EMPTY = ("", "nan", "NaN", "NAN", "NA", "NULL", "null")
"""What an empty cell of numbers, texts and paths may say, spaces around it aside."""
_NAMELESS = EMPTY[:4]
"""Of columns of names; NA may be one."""
_PARQUET = (".parquet", ".pq")
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
"""What a number looks like."""


class Manifest:
    """A table with one row per sample.

    A CSV file is taken as text throughout: a name such as 007 stays what it is, and what is a
    number is found out where numbers are wanted.

    Args:
        path: the file.

    Attributes:
        path: the file.
        columns: names of its columns.

    Raises:
        InputError: if it cannot be read, has no rows, or two columns of one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise InputError(f"data.manifest: there is no file {path.absolute()}.")
        try:
            self._table = _parquet(path) if path.suffix.lower() in _PARQUET else _csv(path)
        except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
            raise InputError(
                f"data.manifest: {path} cannot be read ({reason(error)}). Expected a table in CSV "
                "(UTF-8, names of columns in the first line) or Parquet."
            ) from error
        self.columns: tuple[str, ...] = tuple(self._table.column_names)
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise InputError(f"data.manifest: {path} has the columns {twice} more than once.")
        if not len(self):
            raise InputError(f"data.manifest: {path} has no rows. Expected one per sample.")
        self._texts: dict[tuple[str, bool], pa.Array] = {}

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def require(self, column: str, *, where: str) -> None:
        """Refuses a column that is not there.

        Raises:
            InputError: names those most like it, and all.
        """
        if column in self.columns:
            return
        near = get_close_matches(column, self.columns, n=2)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise InputError(
            f"{where}: {self.path} has no column {column!r}.{hint} It has {list(self.columns)}."
        )

    def texts(self, column: str, *, where: str, names: bool = False) -> pa.Array:
        """A column as texts, null where a cell is empty, or says ``NA``, ``NULL`` or ``nan``.

        Args:
            column: its name.
            where: config key, for the error message.
            names: whether it holds names, of categories, classes or places, of which ``NA`` and
                ``NULL`` may be some.

        Returns:
            A string array in one piece.

        Raises:
            InputError: if it is not there, or holds lists or the like.
        """
        if (column, names) not in self._texts:
            self.require(column, where=where)
            self._texts[column, names] = self._as_texts(column, where=where, names=names)
        return self._texts[column, names]

    def numbers(self, column: str, *, where: str, problems: Problems) -> Floats:
        """A column as numbers, ``(N,)``, NaN where a cell is empty.

        Args:
            column: its name.
            where: config key, for the problems.
            problems: takes the rows that hold something else.

        Raises:
            InputError: if it is not there.
        """
        self.require(column, where=where)
        values = self._table.column(column)
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int8())
        if _is_number(values.type):
            numbers = values.cast(pa.float64(), safe=False)
        else:
            texts = self.texts(column, where=where)
            numbers, wrong = parsed(texts)
            self._add_texts(wrong, texts, column, where=where, problems=problems)
        array: Floats = np.array(numbers.to_numpy(zero_copy_only=False), np.float64)
        for row in np.flatnonzero(np.isinf(array)).tolist():
            problems.add(row, f"{column}: expected a finite number, got {array[row]}.")
        return array

    def _add_texts(
        self, rows: list[int], texts: pa.Array, column: str, *, where: str, problems: Problems
    ) -> None:
        """Notes texts in place of numbers; a column that holds nothing else is one problem."""
        if len(rows) > 1 and len(rows) == len(texts) - texts.null_count:
            hint = "one of `categories:`" if where.startswith("tables.") else "another column"
            problem = (
                f"{column}: expected a number, got {texts[rows[0]].as_py()!r} and no number in any "
                f"row. Is it {hint}?"
            )
            for row in rows:
                problems.add(row, problem)
            return
        for row in rows:
            problems.add(row, f"{column}: expected a number, got {texts[row].as_py()!r}.")

    def _as_texts(self, column: str, *, where: str, names: bool) -> pa.Array:
        values = self._table.column(column).combine_chunks()
        if isinstance(values, pa.ChunkedArray):  # older releases of pyarrow
            values = pa.concat_arrays(values.chunks)
        if pa.types.is_floating(values.type):
            # Whole numbers beside gaps, as pandas writes them: 3.0 means 3.
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
            if pc.all(pc.equal(values, pc.floor(values))).as_py():
                values = values.cast(pa.int64(), safe=False)
        try:
            texts = values.cast(pa.large_string())
        except pa.ArrowException as error:
            raise InputError(
                f"{where}: the column {column!r} of {self.path} holds {values.type}, expected "
                "texts or numbers."
            ) from error
        bare = pc.utf8_trim_whitespace(texts)
        empty = pc.is_in(bare, value_set=pa.array(_NAMELESS if names else EMPTY, pa.large_string()))
        return pc.if_else(empty, pa.scalar(None, pa.large_string()), bare)


def parsed(texts: pa.Array) -> tuple[pa.Array, list[int]]:
    """Texts as numbers, null where they are none; and the rows whose text is no number."""
    wrong = pc.invert(pc.match_substring_regex(texts, NUMBER))
    numbers = pc.if_else(wrong, pa.scalar(None, texts.type), texts).cast(pa.float64())
    rows: list[int] = np.flatnonzero(pc.fill_null(wrong, False).to_numpy(False)).tolist()
    return numbers, rows


def present(texts: pa.Array) -> NDArray[np.bool_]:
    """Where cells are not empty, ``(N,)``."""
    there: NDArray[np.bool_] = texts.is_valid().to_numpy(False)
    return there


def numbered(pattern: str, columns: Sequence[str], *, where: str) -> dict[int, str]:
    """Columns that fit a pattern with ``*`` in place of a number, by that number, ascending.

    Raises:
        InputError: if two have one number, as ``ndvi_1`` and ``ndvi_01``.
    """
    before, after = pattern.split("*")
    fits = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
    found: dict[int, str] = {}
    for column in columns:
        if match := fits.fullmatch(column):
            other = found.setdefault(int(match[1]), column)
            if other != column:
                raise InputError(
                    f"{where}: the columns {other!r} and {column!r} both have the number "
                    f"{int(match[1])}. Keep one of them, or name it otherwise."
                )
    return dict(sorted(found.items()))


def _is_number(kind: Any) -> bool:  # noqa: ANN401
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def delimiter_of(path: str | Path) -> str:
    """Comma, semicolon (spreadsheets of many countries) or tab: the most frequent in the header."""
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
    return max(",;\t", key=head.count)


def _csv(path: Path) -> pa.Table:
    delimiter = delimiter_of(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file, delimiter=delimiter), [])
    return pa_csv.read_csv(
        path,
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=False
        ),
    )


def _parquet(path: Path) -> pa.Table:
    table = pq.read_table(path)
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):  # pandas categories
            decoded = table.column(i).cast(field.type.value_type)
            table = table.set_column(i, field.name, decoded)
    return table

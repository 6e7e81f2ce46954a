"""Series of values: weather, vegetation indices, prices; from a file per row, or from columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from fusionlab.data.damage import reason
from fusionlab.data.folders.statistics import Moments, Statistics
from fusionlab.data.manifest.days import DATES, Days, days_of
from fusionlab.data.manifest.fill import fill_columns, warn_of_fill, without_fill
from fusionlab.data.manifest.options import SeriesColumns
from fusionlab.data.manifest.problems import Problems
from fusionlab.data.manifest.source import READERS, FileColumn, Rows, Source
from fusionlab.data.manifest.statistics import file_facts, finished, stored
from fusionlab.data.manifest.table import EMPTY, Manifest, delimiter_of, numbered
from fusionlab.errors import InputError
from fusionlab.types import Modality, TimeSeries

Floats = NDArray[np.float32]
_CHUNK = 4096
"""Rows whose values are summed up at once."""


class SeriesSource(Source):
    """Base of series: values of all rows in one array, each row a piece of it.

    Worker processes share the arrays; nothing is parsed twice.

    Attributes:
        variables: names of the values.
    """

    section = "series"
    variables: tuple[str, ...]

    def __init__(self, name: str, options: SeriesColumns, rows: int) -> None:
        super().__init__(name)
        self.options = options
        self._first = np.zeros(rows, np.int64)
        self._steps = np.zeros(rows, np.int64)
        self._values: Floats = np.zeros((0, 0), np.float32)
        self._dates: Days = np.zeros(0, np.int64)

    def describe(self, training: Rows, *, store: Path, verify: Callable[[], None]) -> None:
        """See `Source.describe`."""
        for option in (self.options.mean, self.options.std):
            if option is not None and len(option) != len(self.variables):
                raise InputError(
                    f"{self.where}: {len(option)} numbers for the {len(self.variables)} variables "
                    f"{list(self.variables)} in mean or std: give one per variable."
                )
        found = Statistics(tuple(self.options.mean or ()), tuple(self.options.std or ()))
        if not found.mean and len(training):
            found = self._statistics(training[self.there[training]], store, verify)
        self.modality = Modality(
            self.variables, mean=found.mean, std=found.std, temporal=True, kind="series"
        )

    def read(self, row: int) -> TimeSeries | None:
        """Values ``(T, C)`` float32, NaN where one is missing; None if all are."""
        first, steps = int(self._first[row]), int(self._steps[row])
        if not self.there[row] or not steps:
            return None
        piece = slice(first, first + steps)
        return TimeSeries(
            torch.from_numpy(self._values[piece].copy()),
            torch.from_numpy(self._dates[piece].copy()),
            torch.ones(steps, dtype=torch.bool),
        )

    def blank(self) -> TimeSeries:
        """One date that is not valid."""
        return TimeSeries(
            torch.zeros(1, len(self.variables)),
            torch.zeros(1, dtype=torch.int64),
            torch.zeros(1, dtype=torch.bool),
        )

    def _statistics(self, rows: Rows, store: Path, verify: Callable[[], None]) -> Statistics:
        total = Moments.none(len(self.variables))
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            steps = self._steps[some]
            within = np.arange(steps.sum()) - np.repeat(steps.cumsum() - steps, steps)
            values = self._values[np.repeat(self._first[some], steps) + within].T[:, None]
            total += Moments.of(values, ~np.isnan(values))
        return finished(total, self.variables, where=self.where)


class WideSeries(SeriesSource):
    """Series in columns of the manifest, one per date and variable.

    Args:
        name: of the modality.
        options: what the user says of it.
        manifest: the table.
        problems: takes cells that hold no number or date.

    Raises:
        InputError: if no column fits a pattern.
    """

    def __init__(
        self, name: str, options: SeriesColumns, manifest: Manifest, problems: Problems
    ) -> None:
        super().__init__(name, options, len(manifest))
        assert options.wide is not None
        self.variables = tuple(options.variables or options.wide)
        found = {
            v: numbered(options.wide[v], manifest.columns, where=f"{self.where}.wide.{v}")
            for v in self.variables
        }
        for variable, columns in found.items():
            if not columns:
                raise InputError(
                    f"{self.where}.wide.{variable}: no column of {manifest.path} fits "
                    f"{options.wide[variable]!r}. It has {list(manifest.columns)}."
                )
        numbers = [number for columns in found.values() for number in columns]
        first, steps = min(numbers), max(numbers) - min(numbers) + 1
        values = np.full((len(manifest), steps, len(self.variables)), np.nan, np.float32)
        for i, columns in enumerate(found.values()):
            for number, column in columns.items():
                cells = manifest.numbers(column, where=self.where, problems=problems)
                values[:, number - first, i] = without_fill(cells, options.nodata)
        self.there = np.any(~np.isnan(values), axis=(1, 2))
        starts = self._starts(manifest, problems)
        dates = starts[:, None] + options.step * np.arange(steps)
        self._values = values.reshape(-1, len(self.variables))
        warn_of_fill(fill_columns(self._values, self.variables), where=self.where)
        self._dates = dates.ravel()
        self._first = np.arange(len(manifest)) * steps
        self._steps[:] = steps

    def _starts(self, manifest: Manifest, problems: Problems) -> Days:
        start = self.options.start
        assert start is not None
        if start not in manifest.columns:
            try:
                return np.repeat(days_of([start]), len(manifest))
            except ValueError:
                raise InputError(
                    f"{self.where}.start: {start!r} is neither a date ({DATES}) nor one of the "
                    f"columns {list(manifest.columns)}."
                ) from None
        texts = manifest.texts(start, where=f"{self.where}.start").fill_null("")
        distinct = texts.dictionary_encode()
        codes = distinct.indices.to_numpy(zero_copy_only=False)
        names = distinct.dictionary.to_pylist()
        days, wrong = np.zeros(len(names), np.int64), np.zeros(len(names), bool)
        for i, name in enumerate(names):
            try:
                days[i] = days_of([name])[0]
            except ValueError:
                wrong[i] = True
        for row in np.flatnonzero(wrong[codes] & self.there).tolist():
            found = repr(names[codes[row]]) if names[codes[row]] else "an empty cell"
            problems.add(row, f"{start}: expected a date ({DATES}), got {found}.")
        starts: Days = days[codes]
        return starts


class FileSeries(SeriesSource):
    """Series in files, one per row.

    Args:
        name: of the modality.
        options: what the user says of it.
        manifest: the table.
        root: folder that relative paths are below.

    Raises:
        InputError: if there is no such column.
    """

    def __init__(self, name: str, options: SeriesColumns, manifest: Manifest, root: Path) -> None:
        super().__init__(name, options, len(manifest))
        assert options.column is not None
        self.files = FileColumn(manifest, options.column, root, where=self.where)
        self.there = self.files.there.copy()
        self.variables = tuple(options.variables or ())
        self._read = np.zeros(len(manifest), bool)
        self._warned: set[str] = set()

    def find(self, rows: Rows, problems: Problems) -> None:
        """See `Source.find`."""
        self.files.check(rows, problems)

    def prepare(self) -> None:
        """See `Source.prepare`."""
        path = self.files.first()
        if self.variables or path is None:
            return
        try:
            columns = _columns(path)
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise InputError(
                f"{self.where}: {path} cannot be read ({reason(error)}). Expected CSV (UTF-8) or "
                "Parquet."
            ) from error
        self.variables = tuple(c for c in columns if c != self.options.date)

    def check(self, rows: Rows, problems: Problems) -> None:
        """See `Source.check`; keeps what the files hold."""
        found = self.files.check(rows, problems)
        new = found[~self._read[found]].tolist()
        if not new:
            return
        parse = partial(
            _series,
            variables=self.variables,
            date=self.options.date,
            nodata=self.options.nodata,
        )
        with ThreadPoolExecutor(READERS) as pool:
            parsed = list(pool.map(parse, map(self.files.path, new)))
        values, dates = [self._values.reshape(-1, len(self.variables))], [self._dates]
        at = len(self._dates)
        for row, series in zip(new, parsed, strict=True):
            if isinstance(series, str):
                path = self.files.path(row)
                problems.add(row, f"{self.files.column}: {path} {series}", file=path)
                continue
            self._first[row], self._steps[row] = at, len(series[0])
            at += len(series[0])
            dates.append(series[0])
            values.append(series[1])
            self._read[row] = True
            self.there[row] = bool(np.isfinite(series[1]).any())
        fill = fill_columns(np.concatenate(values[1:] or values), self.variables)
        warn_of_fill({n: v for n, v in fill.items() if n not in self._warned}, where=self.where)
        self._warned |= fill.keys()
        self._values, self._dates = np.concatenate(values), np.concatenate(dates)

    def _statistics(self, rows: Rows, store: Path, verify: Callable[[], None]) -> Statistics:
        facts = file_facts([self.files.path(row) for row in rows.tolist()])

        def compute() -> Statistics:
            verify()
            return super(FileSeries, self)._statistics(rows[self.there[rows]], store, verify)

        content = [list(self.variables), self.options.date, self.options.nodata, facts]
        return stored(store, self.name, content, self.variables, compute)


def _columns(path: str) -> list[str]:
    if path.lower().endswith((".parquet", ".pq")):
        return list(pq.read_schema(path).names)
    with pa_csv.open_csv(path, parse_options=_parse_options(path)) as file:
        return list(file.schema.names)


def _series(
    path: str, *, variables: tuple[str, ...], date: str, nodata: Sequence[float]
) -> tuple[Days, Floats] | str:
    """Dates ``(T,)`` and values ``(T, C)``, ascending; or what is wrong with the file."""
    try:
        table = _read(path, variables, date)
        columns = table.column_names  # decoded here
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        return f"cannot be read ({reason(error)}). Expected CSV (UTF-8) or Parquet."
    missing = [c for c in (date, *variables) if c not in columns]
    if missing:
        return f"has the columns {columns}: {missing} missing."
    try:
        values = np.stack([_floats(table.column(c)) for c in variables], axis=1)
    except pa.ArrowException as error:
        return f"holds something else than numbers ({reason(error)})."
    values = without_fill(values, nodata)
    values[np.isinf(values)] = np.nan
    given = table.column(date)
    if given.null_count:
        return f"has {given.null_count} rows without a {date}."
    try:
        dates = days_of(given.combine_chunks())
    except ValueError as error:
        return f"has a {date} that is none: {error}. Expected {DATES}."
    order = np.argsort(dates, kind="stable")
    return dates[order], values[order].astype(np.float32)


def _read(path: str, variables: tuple[str, ...], date: str) -> pa.Table:
    if path.lower().endswith((".parquet", ".pq")):
        return pq.read_table(path, use_threads=False)
    return pa_csv.read_csv(
        path,
        read_options=pa_csv.ReadOptions(use_threads=False),
        parse_options=_parse_options(path),
        convert_options=pa_csv.ConvertOptions(
            # As texts, dates are not moved to another day by their time zone.
            column_types={date: pa.string(), **{v: pa.float64() for v in variables}},
            null_values=list(EMPTY),
            strings_can_be_null=True,
        ),
    )


def _parse_options(path: str) -> pa_csv.ParseOptions:
    return pa_csv.ParseOptions(delimiter=delimiter_of(path))


def _floats(column: Any) -> NDArray[np.float64]:  # noqa: ANN401
    values = pc.cast(column, pa.float64(), safe=False)
    return np.array(values.to_numpy(zero_copy_only=False), np.float64)

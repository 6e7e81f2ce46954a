"""Series of images of a manifest: an ``.npz`` or ``.h5`` file per row."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusionlab.data import time_series
from fusionlab.data.damage import reason
from fusionlab.data.folders.statistics import Moments
from fusionlab.data.manifest.days import DATES, Days, days_of
from fusionlab.data.manifest.images import ImageSource, Values
from fusionlab.data.manifest.options import ImageColumn
from fusionlab.data.manifest.problems import Problems
from fusionlab.data.manifest.source import READERS, Mask, Rows
from fusionlab.data.manifest.table import Manifest
from fusionlab.errors import InputError
from fusionlab.types import TimeSeries

_HDF5 = (".h5", ".hdf5", ".he5", ".nc")


class StackSource(ImageSource):
    """A series of images per row, ``(T, C, h, w)`` and a date of each, in order of the dates.

    Dates that clouds or snow hide, and dates that show nothing, are left out.

    Arguments are those of `ImageSource`.
    """

    def __init__(self, name: str, options: ImageColumn, manifest: Manifest, root: Path) -> None:
        super().__init__(name, options, manifest, root)
        assert options.temporal is not None
        self.temporal = options.temporal
        self._checked: set[int] = set()

    def prepare(self) -> None:
        """See `Source.prepare`."""
        path = self.files.first()
        if path is None:
            return
        try:
            with _arrays(path) as arrays:
                self.first_is(*_array(arrays, self.temporal.values).shape[-2:])
        except _ERRORS as error:
            raise InputError(
                f"{self.where}: {path} cannot be read ({_why(error)}). Expected .npz or .h5 with "
                f"the images in {self.temporal.values!r}."
            ) from error

    def check(self, rows: Rows, problems: Problems) -> None:
        """See `Source.check`."""
        found = self.files.check(rows, problems)
        new = [row for row in found.tolist() if row not in self._checked]
        if not new:
            return
        with ThreadPoolExecutor(READERS) as pool:
            facts = list(pool.map(self._facts, map(self.files.path, new)))
        for row, fact in zip(new, facts, strict=True):
            path = self.files.path(row)
            if isinstance(fact, str):
                problems.add(row, f"{self.files.column}: {fact}", file=path)
                continue
            height, width, dtype = fact
            self.seen(dtype)
            if misfit := self.misfit(height, width, path):
                problems.add(row, f"{self.files.column}: {misfit}", file=path)
            else:
                self._checked.add(row)

    def read(self, row: int) -> TimeSeries | None:
        """See `Source.read`.

        Raises:
            InputError: if the file cannot be read; names it.
        """
        kept = self._kept(row) if self.there[row] else None
        if kept is None:
            return None
        values, mask, days = kept
        values, mask = self.fitted(values, mask)
        return TimeSeries(
            self.filled(values, mask), torch.from_numpy(days), torch.ones(len(days)).bool()
        )

    def blank(self) -> TimeSeries:
        """One date that is not valid, zeros ``(1, C, h, w)``."""
        shape = (1, len(self.bands), *self.blank_shape)
        return TimeSeries(
            torch.from_numpy(np.zeros(shape, self.dtype)),
            torch.zeros(1, dtype=torch.int64),
            torch.zeros(1, dtype=torch.bool),
        )

    def moments(self, rows: Rows) -> Moments:
        """See `ImageSource.moments`."""
        total = Moments.none(len(self.bands))
        with ThreadPoolExecutor(READERS) as pool:
            for kept in pool.map(self._kept, rows.tolist()):
                if kept is not None:
                    values, mask = (part.swapaxes(0, 1) for part in kept[:2])
                    total += Moments.of(*(p.reshape(len(p), 1, -1) for p in (values, mask)))
        return total

    def recipe(self) -> list[Any]:
        """See `ImageSource.recipe`."""
        return [asdict(self.temporal)]

    def preparation(self) -> dict[str, Any]:
        """See `ImageSource.preparation`."""
        temporal = self.temporal
        told = {"monthly_means": temporal.monthly_means, "max_dates": temporal.max_dates}
        return super().preparation() | told

    def _facts(self, path: str) -> tuple[int, int, np.dtype[Any]] | str:
        """Rows, columns and type of the images; or what is wrong with the file."""
        temporal = self.temporal
        try:
            with _arrays(path) as arrays:
                values = _array(arrays, temporal.values)
                shape, dtype = tuple(values.shape), np.dtype(values.dtype)
                written = _array(arrays, temporal.dates)[()]
                hidden = _array(arrays, temporal.hidden).shape if temporal.hidden else None
        except _ERRORS as error:
            return f"{path} cannot be read ({_why(error)})."
        try:
            dates = days_of(written)
        except (ValueError, TypeError) as error:
            return (
                f"{path} has a date in {temporal.dates!r} that is none: {error}. Expected {DATES}."
            )
        if len(shape) != 4 or shape[1] != len(self.bands):
            return (
                f"{path} has {temporal.values!r} of the shape {shape}, expected (dates, "
                f"{len(self.bands)} bands, rows, columns)."
            )
        if len(dates) != shape[0]:
            return f"{path} has {shape[0]} images and {len(dates)} dates."
        if hidden is not None and (hidden[0] != shape[0] or hidden[-2:] != shape[-2:]):
            return f"{path} has {temporal.hidden!r} of the shape {hidden} for images of {shape}."
        return shape[-2], shape[-1], dtype

    def _kept(self, row: int) -> tuple[Values, Mask, Days] | None:
        """What is left of a series: values, where they were observed, and days."""
        temporal, path = self.temporal, self.files.path(row)
        try:
            with _arrays(path) as arrays:
                values: Values = _array(arrays, temporal.values)[()]
                days = days_of(_array(arrays, temporal.dates)[()])
                hidden: NDArray[Any] | None = None
                if temporal.hidden is not None and temporal.hidden_area is not None:
                    hidden = _array(arrays, temporal.hidden)[()]
        except _ERRORS as error:
            raise InputError(
                f"{self.where}: {path} cannot be read ({_why(error)}). It is damaged or "
                "incomplete: copy or download it again."
            ) from error
        mask = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
        if self.options.nodata is not None:
            mask &= values != self.options.nodata
        steps = np.argsort(days, kind="stable")
        if hidden is not None:
            kinds = hidden if hidden.ndim == 4 else hidden[:, None]
            share = time_series.hidden(kinds, threshold=temporal.threshold).mean(axis=(1, 2))
            steps = steps[share[steps] < temporal.hidden_area]
        seen = time_series.seen_dates(values, mask)
        steps = steps[np.isin(steps, seen)]
        if not len(steps):
            return None
        if temporal.monthly_means:
            means, months = time_series.monthly_means(
                values[steps], days[steps], observed=mask[steps]
            )
            values, days, mask = means, months, np.isfinite(means)
            steps = np.arange(len(months))
        steps = time_series.evenly_spaced(steps, temporal.max_dates)
        return values[steps], mask[steps], days[steps]

    def seen(self, dtype: np.dtype[Any]) -> None:
        """See `ImageSource.seen`; means are floats."""
        super().seen(np.dtype(np.float32) if self.temporal.monthly_means else dtype)


_ERRORS = (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile)


@contextmanager
def _arrays(path: str) -> Iterator[Any]:
    """The arrays of a file, by name."""
    if path.lower().endswith(_HDF5):
        try:
            import h5py
        except ImportError as error:
            raise InputError(
                f"{path} is an HDF5 file: `pip install 'fusionlab[hdf5]'` to read it."
            ) from error
        with h5py.File(path, "r") as file:
            yield file
        return
    with np.load(path, allow_pickle=False) as file:
        yield file


def _array(arrays: Any, name: str) -> Any:  # noqa: ANN401
    """An array of a file, or of a group in it.

    Raises:
        KeyError: names it, and the arrays that there are.
    """
    found = arrays.get(name)
    if hasattr(found, "shape"):
        return found
    names: list[str] = []
    if hasattr(arrays, "visititems"):  # HDF5
        arrays.visititems(lambda n, item: names.append(n) if hasattr(item, "shape") else None)
    raise KeyError(f"no array {name!r} among {names or list(arrays)}")


def _why(error: Exception) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else reason(error)

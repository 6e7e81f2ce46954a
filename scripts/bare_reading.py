"""What the benchmark of reading measures: bare loops over files and values, and the data module."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import rasterio
import torch
from numpy.typing import NDArray
from safetensors.numpy import load
from torch.utils.data import Dataset, get_worker_info

from fusionlab.data.base import Split
from fusionlab.data.bigearthnet import BigEarthNetDataModule, BigEarthNetDataset, geotiff
from fusionlab.data.bigearthnet.database import RicoDatabase
from fusionlab.data.bigearthnet.grid import stack
from fusionlab.data.bigearthnet.names import Sensor
from fusionlab.data.bigearthnet.sources import GeoTiffFolders, Source, bands_of
from fusionlab.data.samples import Sample

RASTERIO, BYTES = "rasterio", "bytes of the files"
VALUES, DECODED, ONE_GRID = "copying the values", "and safetensors", "and one grid"
SAMPLES = "samples of the module"

Loop = Callable[[Sequence[int]], None]
"""Reads these patches."""


class Clock:
    """A source that adds up how long reading takes, in each process.

    Args:
        source: what is read.
        gdal: read as if no file could do without GDAL, and add up the time in GDAL only.

    Attributes:
        spent: ``(64,)`` seconds per worker, shared between processes.
    """

    def __init__(self, source: Source, *, gdal: bool) -> None:
        self.source = source
        self.gdal = gdal
        self.spent = torch.zeros(64, dtype=torch.float64)
        self.spent.share_memory_()  # type: ignore[no-untyped-call]

    def read(self, sensor: Sensor, name: str, bands: Sequence[str]) -> list[NDArray[Any]]:
        """As the source does."""
        if not self.gdal:
            return cast(list[NDArray[Any]], self._timed(self.source.read, sensor, name, bands))
        plain, through_gdal = geotiff.plain_layout, geotiff._through_gdal
        geotiff.plain_layout = lambda content: None
        geotiff._through_gdal = lambda path: self._timed(through_gdal, path)
        try:
            return self.source.read(sensor, name, bands)
        finally:
            geotiff.plain_layout, geotiff._through_gdal = plain, through_gdal

    def total(self) -> float:
        """Seconds spent in all processes."""
        return float(self.spent.sum())

    def _timed(self, work: Callable[..., Any], *given: object) -> Any:  # noqa: ANN401
        start = time.perf_counter()
        try:
            return work(*given)
        finally:
            worker = get_worker_info()
            self.spent.numpy()[worker.id if worker else 0] += time.perf_counter() - start


class Again(Dataset[Sample]):
    """The same samples several times, so that an epoch is long enough to measure."""

    def __init__(self, dataset: BigEarthNetDataset | BareSamples, times: int) -> None:
        self.dataset = dataset
        self.times = times

    def __len__(self) -> int:
        return len(self.dataset) * self.times

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index % len(self.dataset)]


class RepeatedDataModule(BigEarthNetDataModule):
    """The data module under test, with longer epochs.

    Attributes:
        once: the training samples, not repeated.
        source: what they are read from.
        clock: between the two.
        bare: the same from an LMDB without the module; None for GeoTIFFs.
    """

    once: BigEarthNetDataset
    source: Source
    clock: Clock
    bare: BareSamples | None = None

    def __init__(self, *, reads: int, gdal: bool, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.reads = reads
        self.gdal = gdal

    def dataset(self, split: Split) -> Dataset[Sample]:  # type: ignore[override]
        """The training samples, repeated until there are enough; no other split is needed."""
        if hasattr(self, "once"):
            return Again(self.once, 1)
        self.once = super().dataset("train")
        self.source = self.once.source
        self.clock = Clock(self.source, gdal=self.gdal)
        self.once.source = cast(Source, self.clock)
        if isinstance(self.source, RicoDatabase):
            self.bare = BareSamples(self.once, self.source.path)
        return Again(self.once, -(-self.reads // len(self.once)))


class BareSamples(Dataset[Sample]):
    """The tensors of the module's samples, read from an LMDB with nothing around it.

    Args:
        samples: those of the module.
        path: of the LMDB.
    """

    def __init__(self, samples: BigEarthNetDataset, path: Path) -> None:
        self.path = path
        self.recipes = samples.recipes
        self.keys = [
            [samples.patches.names(sensor)[row].as_py().encode() for sensor in samples.present]
            for row in range(len(samples))
        ]
        self._process = -1
        self._environment: Any = None
        self._transaction: Any = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:
        bands = self.bands(index)
        return {
            "inputs": {
                recipe.name: torch.from_numpy(
                    stack(
                        [bands[band] for band in recipe.bands],
                        recipe.size,
                        recipe.dtype,
                        upsampling=recipe.upsampling,
                    )
                )
                for recipe in self.recipes
            }
        }

    def values(self, index: int) -> list[bytes]:
        """Copies of what the database holds of a patch."""
        if self._process != os.getpid():
            import lmdb

            self._environment = lmdb.open(str(self.path), readonly=True, lock=False, meminit=False)
            self._transaction = self._environment.begin()
            self._process = os.getpid()
        return [self._transaction.get(key) for key in self.keys[index]]

    def close(self) -> None:
        """Closes the database, which a process may open only once."""
        if self._environment is not None:
            self._transaction.abort()
            self._environment.close()
        self._environment = self._transaction = None
        self._process = -1

    def bands(self, index: int) -> dict[str, NDArray[Any]]:
        """Arrays of all bands of a patch."""
        return {name: band for blob in self.values(index) for name, band in load(blob).items()}


def loops_of(data: RepeatedDataModule) -> dict[str, Loop]:
    """What to measure besides the module's batches."""
    if data.bare is None:
        paths = list(band_files(data))
        return {
            RASTERIO: lambda rows: read_each(rows, paths, through_rasterio),
            BYTES: lambda rows: read_each(rows, paths, as_bytes),
        }
    bare = data.bare
    return {
        VALUES: lambda rows: exhaust(bare.values(row) for row in rows),
        DECODED: lambda rows: exhaust(bare.bands(row) for row in rows),
        ONE_GRID: lambda rows: exhaust(bare[row] for row in rows),
        SAMPLES: lambda rows: exhaust(data.once[row] for row in rows),
    }


def exhaust(things: Iterable[object]) -> None:
    """Makes all, keeps none."""
    for _ in things:
        pass


def read_each(rows: Sequence[int], paths: Sequence[list[str]], read: Callable[[str], None]) -> None:
    """Reads the files of patches."""
    for row in rows:
        for path in paths[row]:
            read(path)


def through_rasterio(path: str) -> None:
    """As one would write it."""
    with rasterio.open(path) as source:
        source.read(1)


def as_bytes(path: str) -> None:
    """Makes no pixels of them."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # a Path costs as much
        file.read()


def band_files(data: RepeatedDataModule) -> Iterator[list[str]]:
    """Per patch, the files of its delivered bands."""
    assert isinstance(data.source, GeoTiffFolders)
    wanted = [band for recipe in data.once.recipes for band in recipe.bands]
    for row in range(len(data.once)):
        yield [
            data.source.path(sensor, data.once.patches.names(sensor)[row].as_py(), band)
            for sensor in data.once.present
            for band in bands_of(sensor, wanted)
        ]


def raced(loop: Loop, rows: Sequence[int], processes: int) -> float:
    """Seconds per patch of processes that share the patches."""
    if processes == 1:
        start = time.perf_counter()
        loop(rows)
        return (time.perf_counter() - start) / len(rows)
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(processes + 1)

    def part(first: int) -> None:
        ready.wait()
        loop(rows[first::processes])

    running = [context.Process(target=part, args=(first,)) for first in range(processes)]
    for process in running:
        process.start()
    ready.wait()
    start = time.perf_counter()
    for process in running:
        process.join()
    if any(process.exitcode for process in running):
        raise RuntimeError("A process that reads has failed; see above.")
    return (time.perf_counter() - start) / len(rows)


def prepare(data: RepeatedDataModule, *, cold: bool) -> None:
    """Before a pass: closes the database and, if cold, makes the system forget the files."""
    gc.collect()
    paths: Iterable[str] = ()
    if isinstance(data.source, RicoDatabase):
        data.source.close()  # a process opens it once, and pages in use are not forgotten
        assert data.bare is not None
        data.bare.close()
        paths = [str(data.source.path / "data.mdb")]
    elif cold:
        paths = [path for files in band_files(data) for path in files]
    for path in paths if cold else ():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)

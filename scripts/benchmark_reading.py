"""How fast BigEarthNet is read, and what its data module adds to bare reading.

    python scripts/benchmark_reading.py                    # writes a small set and reads it
    python scripts/benchmark_reading.py --root data/bigearthnet
    python scripts/benchmark_reading.py --root data/bigearthnet --lmdb data/bigearthnet/lmdb

Bare reading is a loop over the same patches and bands that does nothing else:

* GeoTIFF: opens and reads each file with rasterio; or takes its bytes, as the data module does with
  files that are not compressed.
* LMDB: copies the two values of a patch out of the database; and makes arrays of them with
  safetensors; and brings these to one grid, as any model needs them.

The data module delivers batches, through its DataLoader. All are measured in turn, round after
round, and compared within a round, so that what else the machine does falls on all alike. Files
that were just written or read come from memory: `--cold` makes the system forget them before each
pass, as a set does that is larger than memory.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from torch.utils.data import Dataset

from fusionlab.data.base import Sample, Split
from fusionlab.data.bigearthnet import BigEarthNetDataModule, BigEarthNetDataset
from fusionlab.data.bigearthnet.database import RicoDatabase
from fusionlab.data.bigearthnet.geotiff import read_band
from fusionlab.data.bigearthnet.sources import GeoTiffFolders, bands_of

Measure = Callable[[], float]
"""Does one pass and gives seconds per patch."""


class Again(Dataset[Sample]):
    """The same samples several times, so that an epoch is long enough to measure."""

    def __init__(self, dataset: BigEarthNetDataset, times: int) -> None:
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
    """

    once: BigEarthNetDataset

    def __init__(self, *, reads: int, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.reads = reads

    def dataset(self, split: Split) -> Dataset[Sample]:  # type: ignore[override]
        """The training samples, repeated until there are enough; no other split is needed."""
        self.once = super().dataset("train")
        return Again(self.once, -(-self.reads // len(self.once)))


def main() -> None:
    """Measures and prints."""
    options = arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.root is None and options.lmdb is None:
            options.root, options.lmdb = generated(Path(folder), options.patches)
        where = "disk" if options.cold else "memory"
        print(
            f"{os.cpu_count()} CPUs; ten bands of Sentinel-2 and two of Sentinel-1 per patch; "
            f"medians of {options.rounds} rounds; files come from {where}"
        )
        if options.root is not None and (options.root / "BigEarthNet-S2").is_dir():
            report("GeoTIFF", options, lmdb=None)
        if options.lmdb is not None:
            report("LMDB", options, lmdb=options.lmdb)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of the data set; writes one if not given")
    parser.add_argument("--lmdb", type=Path, help="folder of the LMDB of the same set")
    parser.add_argument("--patches", type=int, default=300, help="how many different patches")
    parser.add_argument("--reads", type=int, default=4000, help="patches per pass of the loader")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="forget the files before each pass")
    options = parser.parse_args()
    options.reads = max(options.reads, 2 * options.batch_size)  # the first batch is not counted
    return options


def generated(folder: Path, patches: int) -> tuple[Path, Path | None]:
    """Writes a synthetic set as GeoTIFFs and LMDB."""
    from fusionlab.data.synthetic.bigearthnet import BigEarthNetConfig, write_bigearthnet

    print(f"writing {patches} synthetic patches …")
    config = BigEarthNetConfig(train=patches, validation=1, test=1, snow_cloud=0)
    written = write_bigearthnet(folder / "bigearthnet", config, lmdb=True)
    return written.root, written.lmdb


def report(name: str, options: argparse.Namespace, *, lmdb: Path | None) -> None:
    """Measures one way of storing the patches, and prints rates and what the module adds."""
    passes: dict[str, Measure] = {}
    first: BigEarthNetDataset | None = None
    for workers in options.workers:
        data = RepeatedDataModule(
            reads=options.reads, root=options.root, lmdb=lmdb, max_samples=options.patches,
            augment=False, batch_size=options.batch_size, num_workers=workers, drop_last=False,
        )  # fmt: skip
        data.setup("fit")
        first = first or data.once
        passes[f"data module, {workers} workers"] = lambda data=data: batches(data)  # type: ignore[misc]
    assert first is not None
    bare = bare_database(first, lmdb) if lmdb else bare_files(first)
    seconds: dict[str, list[float]] = {key: [] for key in (*bare, *passes)}
    for _ in range(options.rounds):
        for key, measure in {**bare, **passes}.items():
            if options.cold:
                forget(first, lmdb)
            gc.collect()
            seconds[key].append(measure())
    print(f"\n{name}: {len(first)} patches, patches per second, and how much longer than …")
    print(" " * 36 + "".join(f"{title:>24}" for title in ("", *bare)))
    for key, values in seconds.items():
        added = [
            statistics.median(a / b - 1 for a, b in zip(values, seconds[base], strict=True))
            for base in bare
        ]
        columns = "".join(f"{value:>+24.0%}" for value in added) if key in passes else ""
        print(f"{key:36}{1 / statistics.median(values):>24,.0f}{columns}")
    reading = seconds[next(iter(bare))] if lmdb else seconds[BYTES]
    module = seconds[next(iter(passes))]
    share = statistics.median(a / b for a, b in zip(reading, module, strict=True))
    what = "LMDB" if lmdb else "reading the files (which needs no GDAL unless compressed)"
    print(f"share of the data module's time, {next(iter(passes))[13:]}, in {what}: {share:.0%}")


def batches(data: RepeatedDataModule) -> float:
    """Seconds per patch of an epoch after its first batch, so that workers have started."""
    count, start = 0, 0.0
    for batch in data.train_dataloader():
        count += len(batch["sample_id"])
        if not start:
            count, start = 0, time.perf_counter()
    return (time.perf_counter() - start) / count


RASTERIO, BYTES = "rasterio", "bytes of the files"


def bare_files(dataset: BigEarthNetDataset) -> dict[str, Measure]:
    """Loops over the band files of a data set."""
    paths = [list(files) for files in band_files(dataset)]

    def through_rasterio() -> None:
        for files in paths:
            for path in files:
                with rasterio.open(path) as source:
                    source.read(1)

    def as_bytes() -> None:
        for files in paths:
            for path in files:
                read_band(path)

    return {
        RASTERIO: lambda: seconds_of(through_rasterio, len(paths)),
        BYTES: lambda: seconds_of(as_bytes, len(paths)),
    }


def band_files(dataset: BigEarthNetDataset) -> Iterator[Iterator[str]]:
    """Per patch, the files of its delivered bands, in an order without order."""
    source = dataset.source
    assert isinstance(source, GeoTiffFolders)
    wanted = [band for recipe in dataset.recipes for band in recipe.bands]
    for row in np.random.default_rng(0).permutation(len(dataset)).tolist():
        yield (
            source.path(sensor, dataset.patches.names(sensor)[row].as_py(), band)
            for sensor in dataset.present
            for band in bands_of(sensor, wanted)
        )


def bare_database(dataset: BigEarthNetDataset, path: Path) -> dict[str, Measure]:
    """Loops over the values of a data set in an LMDB."""
    import lmdb
    from safetensors.numpy import load

    rows = np.random.default_rng(0).permutation(len(dataset)).tolist()
    keys = [
        [dataset.patches.names(sensor)[row].as_py().encode() for sensor in dataset.present]
        for row in rows
    ]
    bands = [band for recipe in dataset.recipes for band in recipe.bands]

    def values(use: Callable[[list[bytes]], object]) -> float:
        assert isinstance(dataset.source, RicoDatabase)
        dataset.source.close()  # a process opens a database only once
        environment = lmdb.open(str(path), readonly=True, lock=False, meminit=False)

        def loop() -> None:
            with environment.begin() as reader:
                for names in keys:
                    use([reader.get(name) for name in names])

        try:
            return seconds_of(loop, len(keys))
        finally:
            environment.close()

    def decoded(blobs: list[bytes]) -> dict[str, Any]:
        return {name: band for blob in blobs for name, band in load(blob).items()}

    def on_one_grid(blobs: list[bytes]) -> list[Any]:
        tensors = decoded(blobs)
        fine = {}
        for band in bands:
            factor = 120 // len(tensors[band])
            fine[band] = tensors[band].repeat(factor, 0).repeat(factor, 1)
        return [np.stack([fine[band] for band in recipe.bands]) for recipe in dataset.recipes]

    return {
        "copying the values": lambda: values(lambda blobs: None),
        "and safetensors": lambda: values(decoded),
        "and one grid": lambda: values(on_one_grid),
    }


def seconds_of(work: Callable[[], None], patches: int) -> float:
    """Seconds per patch."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / patches


def forget(dataset: BigEarthNetDataset, lmdb: Path | None) -> None:
    """Makes the system forget what it keeps of the files in memory."""
    if isinstance(dataset.source, RicoDatabase):
        dataset.source.close()  # pages in use are not forgotten
    paths = [str(lmdb / "data.mdb")] if lmdb else [p for fs in band_files(dataset) for p in fs]
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


if __name__ == "__main__":
    main()

"""How fast BigEarthNet is read, and what its data module adds to bare reading.

    python scripts/benchmark_reading.py                    # writes a small set and reads it
    python scripts/benchmark_reading.py --root data/bigearthnet
    python scripts/benchmark_reading.py --root data/bigearthnet --lmdb data/bigearthnet/lmdb

Bare reading is a loop over the same patches and bands that does nothing else, in as many processes
as the data module has workers, and at least one:

* GeoTIFF: opens and reads each file with rasterio, as one would write it; or takes its bytes only.
* LMDB: copies the two values of a patch out of the database; and makes arrays of them with
  safetensors; and brings these to one grid with the package's own resampling, which gives the
  tensors of a sample; and has a DataLoader of PyTorch make batches of these in its workers.

The module is to add less than 20 %: for GeoTIFFs, to reading with rasterio; for an LMDB, to bare
reading of the same tensors. Its samples one after another are held against the loop that ends with
one grid, and its batches against the DataLoader over the same loop, because what the workers of
PyTorch need to hand a batch over is much, and not the module's. The output says whether both hold,
and what the batches add to each of the other loops.

GeoTIFFs are read as bytes, and through GDAL where they are compressed or tiled: the module is
measured as it is, and once more as if no file could do without GDAL. A clock inside it says which
share of the time of its workers goes into files, GDAL or the LMDB, of whose values it takes views:
they are copied when they are brought to one grid.

All are measured in turn, round after round, and compared within a round, so that what else the
machine does falls on all alike. Files that were just written or read come from memory: `--cold`
makes the system forget them before each pass, as a set does that is larger than memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bare_reading import (
    ONE_GRID,
    RASTERIO,
    SAMPLES,
    Again,
    RepeatedDataModule,
    loops_of,
    prepare,
    raced,
)
from torch.utils.data import DataLoader

LOADER = "and a DataLoader"
MODULE = "data module"
BOUND = 0.2
"""How much the data module may add to the bare reading that it is held against."""


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
            report("GeoTIFF", options, "the files")
            report("GeoTIFF as if compressed", options, "GDAL")
        if options.lmdb is not None:
            report("LMDB", options, "the LMDB", lmdb=options.lmdb)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of the data set; writes one if not given")
    parser.add_argument("--lmdb", type=Path, help="folder of the LMDB of the same set")
    parser.add_argument("--patches", type=int, default=300, help="how many different patches")
    parser.add_argument(
        "--reads", type=int, default=4000, help="patches per pass; a fifth of that through GDAL"
    )
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="forget the files before each pass")
    return parser.parse_args()


def generated(folder: Path, patches: int) -> tuple[Path, Path | None]:
    """Writes a synthetic set as GeoTIFFs and LMDB."""
    from fusionlab.data.synthetic.bigearthnet import BigEarthNetConfig, write_bigearthnet

    print(f"writing {patches} synthetic patches …")
    config = BigEarthNetConfig(train=patches, validation=1, test=1, snow_cloud=0)
    written = write_bigearthnet(folder / "bigearthnet", config, lmdb=True)
    return written.root, written.lmdb


def report(
    name: str, options: argparse.Namespace, reading: str, *, lmdb: Path | None = None
) -> None:
    """Measures one way of storing the patches; prints rates, what the module adds and where.

    Args:
        name: of that way.
        options: the command line.
        reading: what the clock measures.
        lmdb: the database; GeoTIFFs if none.
    """
    slow = max(
        options.reads // 5, (1 + max([1, *options.workers])) * options.batch_size
    )  # the first batch is not counted
    fast = max(options.reads, (1 + max([1, *options.workers])) * options.batch_size)
    gdal = reading == "GDAL"
    seconds: dict[tuple[str, int], list[float]] = {}
    shares: dict[int, list[float]] = {workers: [] for workers in options.workers}
    modules = {}
    for workers in options.workers:
        modules[workers] = RepeatedDataModule(
            reads=slow if gdal else fast, gdal=gdal, root=options.root, lmdb=lmdb, augment=False,
            max_samples=options.patches, batch_size=options.batch_size, num_workers=workers,
        )  # fmt: skip
        modules[workers].setup("fit")
    for _ in range(options.rounds):
        for workers, data in modules.items():
            order = np.random.default_rng(0).permutation(len(data.once)).tolist()
            for loop, read in loops_of(data).items():
                prepare(data, cold=options.cold)
                rows = order * -(-(slow if loop == RASTERIO else fast) // len(order))
                passed = raced(read, rows, max(workers, 1))
                seconds.setdefault((loop, workers), []).append(passed)
            if data.bare is not None:
                prepare(data, cold=options.cold)
                bare = Again(data.bare, -(-fast // len(data.once)))
                loader = DataLoader(bare, batch_size=options.batch_size, num_workers=workers)
                passed = epoch(loader, lambda: 0.0)[0]
                seconds.setdefault((LOADER, workers), []).append(passed)
            prepare(data, cold=options.cold)
            passed, spent = epoch(data.train_dataloader(), data.clock.total)
            seconds.setdefault((MODULE, workers), []).append(passed)
            shares[workers].append(spent / max(workers, 1))
    print(f"\n{name}: {len(modules[options.workers[0]].once)} patches; patches per second")
    print_rates(seconds, shares, reading)
    if lmdb is None:
        print_verdict(seconds, MODULE, RASTERIO)
    else:
        print_verdict(seconds, SAMPLES, ONE_GRID)
        print_verdict(seconds, MODULE, LOADER)


def epoch(loader: DataLoader[Any], spent: Callable[[], float]) -> tuple[float, float]:
    """Seconds per patch when the workers have all started, and what share of it is spent.

    Args:
        loader: its batches.
        spent: seconds so far of which to give the share.
    """
    count, start, before = 0, 0.0, 0.0
    for number, batch in enumerate(loader, 1):
        count += len(next(iter(batch["inputs"].values())))
        if number == max(loader.num_workers, 1):  # each has brought its first
            count, start, before = 0, time.perf_counter(), spent()
    seconds = time.perf_counter() - start
    return seconds / count, (spent() - before) / seconds


def print_rates(
    seconds: Mapping[tuple[str, int], Sequence[float]],
    shares: Mapping[int, Sequence[float]],
    reading: str,
) -> None:
    """Prints a column per number of workers.

    Args:
        seconds: per patch, of each round, by what was measured and number of workers.
        shares: of reading in the module's time, by number of workers.
        reading: what the share is of.
    """
    print(" " * 24 + "".join(f"{f'{workers} workers':>18}" for workers in shares))
    for what in dict.fromkeys(what for what, _ in seconds):
        cells = []
        for workers in shares:
            rate = f"{1 / statistics.median(seconds[what, workers]):,.0f}"
            added = over(seconds[MODULE, workers], seconds[what, workers])
            cells.append(f"{rate:>18}" if what == MODULE else f"{rate:>10} {f'({added:+.0%})':>7}")
        print(f"{what:24}{''.join(cells)}")
    print("(in brackets: how much longer the data module takes than that)")
    cells = [f"{statistics.median(values):>18.0%}" for values in shares.values()]
    print(f"{'share in ' + reading:24}{''.join(cells)}")


def print_verdict(seconds: Mapping[tuple[str, int], Sequence[float]], what: str, base: str) -> None:
    """Prints whether something takes less than the bound longer than bare reading."""
    added = {
        workers: over(seconds[what, workers], seconds[base, workers])
        for name, workers in seconds
        if name == what
    }
    verdict = "less than" if max(added.values()) < BOUND else "NOT less than"
    numbers = ", ".join(f"{value:+.0%} with {workers}" for workers, value in added.items())
    print(f"{what}: {verdict} {BOUND:.0%} over {base!r}: {numbers} workers")


def over(seconds: Sequence[float], base: Sequence[float]) -> float:
    """How much longer than something else, relative to it; compared round by round."""
    return statistics.median(a / b - 1 for a, b in zip(seconds, base, strict=True))


if __name__ == "__main__":
    main()

"""Writes a synthetic BigEarthNet, and rasters of a new place to be mapped, all or nothing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rasterio.crs import CRS
from rasterio.transform import Affine

from fusionlab.data.bigearthnet.constants import GSD, PATCH_METRES, S1_BANDS, S2_BANDS
from fusionlab.data.synthetic.bigearthnet.config import BigEarthNetConfig
from fusionlab.data.synthetic.bigearthnet.files import (
    LMDB_FOLDER,
    METADATA,
    METADATA_SNOW_CLOUD,
    lmdb_values,
    write_lmdb,
    write_metadata,
    write_patch_tifs,
    write_tif,
)
from fusionlab.data.synthetic.bigearthnet.land import PIXEL, draw_patch, draw_region
from fusionlab.data.synthetic.bigearthnet.look import draw_look
from fusionlab.data.synthetic.bigearthnet.places import NEW_PLACE, SPLITS, Patch, plan
from fusionlab.data.synthetic.bigearthnet.sensors import render_sentinel1, render_sentinel2
from fusionlab.data.synthetic.folder import write_whole
from fusionlab.data.synthetic.landscape.config import generator
from fusionlab.errors import InputError

VERSION = 1
"""Raised when the same configuration gives other bytes than before."""


@dataclass(frozen=True)
class BigEarthNetSet:
    """What `write_bigearthnet` wrote.

    Attributes:
        root: Folder of the set.
        metadata: Table of the clean patches.
        metadata_snow_cloud: Table of the patches with snow, cloud or shadow.
        lmdb: Folder of the LMDB, None if there is none.
        patches: Number of clean patches per split.
        written: False if the folder already held this set.
    """

    root: Path
    metadata: Path
    metadata_snow_cloud: Path
    lmdb: Path | None
    patches: dict[str, int]
    written: bool


@dataclass(frozen=True)
class NewPlace:
    """What `write_rasters` wrote.

    Attributes:
        root: Folder of the rasters.
        s2: GeoTIFF of 12 bands named as Sentinel-2's, uint16, reflectance times 10,000.
        s1: GeoTIFF of the bands VV and VH, float32, decibel.
        truth: GeoTIFF of CORINE codes, uint16, 0 = no data.
        written: False if the folder already held these rasters.
    """

    root: Path
    s2: Path
    s1: Path
    truth: Path
    written: bool


class _Drawn(NamedTuple):
    """What drawing a patch leaves for the tables and the LMDB."""

    labels: list[str]
    values: dict[str, bytes]


def write_bigearthnet(
    root: str | Path,
    config: BigEarthNetConfig,
    *,
    geotiff: bool = True,
    lmdb: bool = False,
    overwrite: bool = False,
    workers: int = 1,
) -> BigEarthNetSet:
    """Writes a set of patches in the layout of BigEarthNet v2.

    Args:
        root: Folder to create. A folder that holds the same set is left as it is.
        config: What to write.
        geotiff: Write ``BigEarthNet-S2``, ``BigEarthNet-S1`` and ``Reference_Maps``.
        lmdb: Write the folder ``lmdb`` as rico-hdl does, with the same values.
        overwrite: Replace whatever `root` holds.
        workers: Processes; the bytes written do not depend on it.

    Returns:
        What was written.

    Raises:
        InputError: If neither form is wanted, if `root` holds anything else and `overwrite` is
            False, or if the package lmdb is needed and missing.
    """
    if not (geotiff or lmdb):
        raise InputError("Neither GeoTIFFs nor an LMDB: set geotiff=True or lmdb=True, or both.")
    target = Path(root)
    patches = plan(config)

    def fill(folder: Path) -> None:
        labels: list[list[str]] = []

        def keep(results: Iterable[_Drawn]) -> Iterator[dict[str, bytes]]:
            for result in results:
                labels.append(result.labels)
                yield result.values

        draw = partial(_draw, config, folder, geotiff, lmdb)
        share = max(1, min(8, len(patches) // (4 * max(workers, 1))))
        with _pool(workers) as pool:
            results = pool.map(draw, patches, chunksize=share) if pool else map(draw, patches)
            if lmdb:
                write_lmdb(folder / LMDB_FOLDER, len(patches), keep(results))
            else:
                list(keep(results))
        write_metadata(folder, patches, labels)

    record = {
        "kind": "bigearthnet", "version": VERSION, "config": config.to_dict(),
        "geotiff": geotiff, "lmdb": lmdb,
    }  # fmt: skip
    written = write_whole(target, record, fill, overwrite=overwrite)
    return BigEarthNetSet(
        root=target,
        metadata=target / METADATA,
        metadata_snow_cloud=target / METADATA_SNOW_CLOUD,
        lmdb=target / LMDB_FOLDER if lmdb else None,
        patches={
            split: sum(patch.split == split and patch.clean for patch in patches)
            for split in SPLITS
        },
        written=written,
    )


def _pool(workers: int) -> AbstractContextManager[ProcessPoolExecutor | None]:
    """Processes that draw patches, or None where this one does it."""
    if workers <= 1:
        return nullcontext()
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _draw(config: BigEarthNetConfig, root: Path, geotiff: bool, lmdb: bool, patch: Patch) -> _Drawn:
    """Draws a patch and writes its GeoTIFFs.

    Args:
        config: The set's configuration.
        root: Folder of the set.
        geotiff: Write the GeoTIFFs.
        lmdb: Return the values of the LMDB.
        patch: Which one.
    """
    tile = patch.tile
    look = draw_look(config.seed, tile.name, patch.split, tile.date)
    keys = (tile.name, patch.column, patch.row)
    land = draw_patch(generator(config.seed, *keys, "land"), config, round(PATCH_METRES / PIXEL))
    s2 = render_sentinel2(
        land, look, generator(config.seed, *keys, "s2"), snow=patch.snow, cloud=patch.cloud
    )
    s1 = render_sentinel1(land, look, generator(config.seed, *keys, "s1"))
    if geotiff:
        write_patch_tifs(root, patch, s2, s1, land.codes)
    values = lmdb_values(patch, s2, s1, land.codes) if lmdb else {}
    return _Drawn(land.labels(config.least_share), values)


def write_rasters(
    folder: str | Path,
    config: BigEarthNetConfig,
    *,
    size: tuple[int, int] = (700, 940),
    overwrite: bool = False,
) -> NewPlace:
    """Writes co-registered rasters of a place that no patch shows, as a user would map it.

    Args:
        folder: Folder to create. A folder that holds the same rasters is left as it is.
        config: Seed and classes; the numbers of patches and tiles do not matter.
        size: Rows and columns at 10 m. By default no multiple of a patch's 120, so that patches at
            the edge are cut off.
        overwrite: Replace whatever `folder` holds.

    Returns:
        What was written. All bands lie on one grid of 10 m; those that Sentinel-2 measures at 20 m
        and 60 m are repeated.

    Raises:
        InputError: If a side is less than a pixel of 60 m, or if `folder` holds anything else and
            `overwrite` is False.
    """
    if min(size) < 6:
        raise InputError(f"size must be at least 6 x 6 pixels of 10 m, found {size}.")
    target = Path(folder)

    def fill(root: Path) -> None:
        look = draw_look(config.seed, NEW_PLACE.name, "map", NEW_PLACE.date)
        land = draw_region(generator(config.seed, NEW_PLACE.name, "land"), config, size)
        s2 = render_sentinel2(land, look, generator(config.seed, NEW_PLACE.name, "s2"))
        s1 = render_sentinel1(land, look, generator(config.seed, NEW_PLACE.name, "s1"))
        left, top = NEW_PLACE.corner
        grid = Affine(PIXEL, 0, left + 10 * PATCH_METRES, 0, -PIXEL, top - 20 * PATCH_METRES)
        crs = CRS.from_epsg(NEW_PLACE.epsg)
        fine = []
        for band in S2_BANDS:
            factor = round(GSD[band] / PIXEL)
            fine.append(s2[band].repeat(factor, 0).repeat(factor, 1)[: size[0], : size[1]])
        write_tif(root / "s2.tif", fine, grid, crs, nodata=0, compress="deflate",
                  descriptions=S2_BANDS)  # fmt: skip
        write_tif(root / "s1.tif", [s1[band] for band in S1_BANDS], grid, crs, compress="deflate",
                  descriptions=S1_BANDS)  # fmt: skip
        write_tif(root / "truth.tif", [land.codes], grid, crs, nodata=0, compress="deflate")

    record = {
        "kind": "rasters", "version": VERSION, "config": config.to_dict(), "size": list(size),
    }  # fmt: skip
    written = write_whole(target, record, fill, overwrite=overwrite)
    return NewPlace(
        root=target,
        s2=target / "s2.tif",
        s1=target / "s1.tif",
        truth=target / "truth.tif",
        written=written,
    )

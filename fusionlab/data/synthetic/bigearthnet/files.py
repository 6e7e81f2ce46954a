"""Files of a patch as they are published: GeoTIFFs, values of an LMDB, and the Parquet tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import rasterio
import safetensors.numpy
from numpy.typing import NDArray
from rasterio.crs import CRS

from fusionlab.data.bigearthnet.constants import GSD
from fusionlab.data.synthetic.bigearthnet.places import Patch
from fusionlab.errors import InputError

METADATA = "metadata.parquet"
METADATA_SNOW_CLOUD = "metadata_for_patches_with_snow_cloud_or_shadow.parquet"
LMDB_FOLDER = "lmdb"
_VALUE_BYTES = 320 * 1024
"""More than the three values of a patch take, in whole pages of an LMDB."""

Bands = Mapping[str, NDArray[Any]]


def write_tif(
    path: Path,
    bands: Sequence[NDArray[Any]],
    transform: rasterio.Affine,
    crs: CRS,
    *,
    nodata: int | None = None,
    compress: str | None = None,
    descriptions: Sequence[str] = (),
) -> None:
    """Writes one GeoTIFF.

    Args:
        path: The file; its folder exists.
        bands: (H, W) each, of one type.
        transform: Pixel corner to ground.
        crs: Coordinate reference system.
        nodata: Value of pixels without an observation.
        compress: GDAL's name of a compression; none by default.
        descriptions: Name of each band.
    """
    options = {"compress": compress} if compress else {}
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=bands[0].shape[0],
        width=bands[0].shape[1], dtype=bands[0].dtype, crs=crs, transform=transform,
        nodata=nodata, **options,
    ) as file:  # fmt: skip
        for index, band in enumerate(bands, start=1):
            file.write(band, index)
        if descriptions:
            file.descriptions = tuple(descriptions)


def write_patch_tifs(root: Path, patch: Patch, s2: Bands, s1: Bands, codes: NDArray[Any]) -> None:
    """Writes the 15 GeoTIFFs of a patch below the root of a set."""
    crs = CRS.from_epsg(patch.tile.epsg)
    scene = root / "BigEarthNet-S1" / patch.scene / patch.s1_name
    product = root / "BigEarthNet-S2" / patch.tile.name / patch.patch_id
    reference = root / "Reference_Maps" / patch.tile.name / patch.patch_id
    for folder in (scene, product, reference):
        folder.mkdir(parents=True, exist_ok=True)
    for name, band in s2.items():
        path = product / f"{patch.patch_id}_{name}.tif"
        write_tif(path, [band], patch.transform(GSD[name]), crs, nodata=0)
    for name, band in s1.items():
        write_tif(scene / f"{patch.s1_name}_{name}.tif", [band], patch.transform(GSD[name]), crs)
    path = reference / f"{patch.patch_id}_reference_map.tif"
    write_tif(path, [codes], patch.transform(10), crs, nodata=0, compress="deflate")


def lmdb_values(patch: Patch, s2: Bands, s1: Bands, codes: NDArray[Any]) -> dict[str, bytes]:
    """The three values of a patch as rico-hdl writes them, by key."""
    return {
        patch.patch_id: safetensors.numpy.save(dict(s2)),
        patch.s1_name: safetensors.numpy.save(dict(s1)),
        f"{patch.patch_id}_reference_map": safetensors.numpy.save({"Data": codes}),
    }


def write_lmdb(folder: Path, patches: int, values: Iterable[Mapping[str, bytes]]) -> None:
    """Writes an LMDB.

    Args:
        folder: The folder to create.
        patches: How many patches come, for the size of the map.
        values: Values by key, patch after patch.

    Raises:
        InputError: If the package lmdb is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise InputError(
            "An LMDB needs the package lmdb: install fusionlab[bigearthnet], or write GeoTIFFs."
        ) from error
    folder.mkdir()
    size = patches * _VALUE_BYTES + 2**20
    with lmdb.open(str(folder), map_size=size, readahead=False) as environment:
        for some in values:
            with environment.begin(write=True) as transaction:
                for key, value in some.items():
                    transaction.put(key.encode(), value)


def write_metadata(root: Path, patches: Sequence[Patch], labels: Sequence[list[str]]) -> None:
    """Writes both tables: that of the clean patches, and that of those with snow or cloud.

    Args:
        root: Folder of the set.
        patches: In the order of the rows.
        labels: Class names of each patch, ordered alphabetically.
    """
    text, flag = pyarrow.string(), pyarrow.bool_()
    schema = pyarrow.schema(
        [
            ("patch_id", text),
            ("labels", pyarrow.list_(pyarrow.field("element", text))),
            ("split", text),
            ("country", text),
            ("s1_name", text),
            ("s2v1_name", text),
            ("contains_seasonal_snow", flag),
            ("contains_cloud_or_shadow", flag),
        ]
    )
    for name, clean in ((METADATA, True), (METADATA_SNOW_CLOUD, False)):
        rows = [
            {
                "patch_id": patch.patch_id,
                "labels": names,
                "split": patch.split,
                "country": patch.tile.country,
                "s1_name": patch.s1_name,
                "s2v1_name": patch.s2v1_name,
                "contains_seasonal_snow": patch.snow,
                "contains_cloud_or_shadow": patch.cloud,
            }
            for patch, names in zip(patches, labels, strict=True)
            if patch.clean == clean
        ]
        table = pyarrow.Table.from_pylist(rows, schema=schema)
        pyarrow.parquet.write_table(table, root / name)

"""Writes a tiny BigEarthNet in the published layouts, for tests to read and to damage."""

import json
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from rasterio.transform import from_origin

from fusionlab.data import BigEarthNetDataModule
from fusionlab.data.bigearthnet.constants import GSD, S1_BANDS, S2_BANDS

AUSTRIA = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP"
IRELAND = "S2B_MSIL2A_20180204T113321_N9999_R080_T29UPU"
FINLAND = "S2B_MSIL2A_20170924T093019_N9999_R136_T35VPK"


class Row(NamedTuple):
    """One row of the metadata."""

    s2: str
    s1: str
    split: str
    country: str
    labels: tuple[str, ...]
    snow: bool = False


# Not in the order of names; numbers of Sentinel-1 have no leading zeros.
ROWS = (
    Row(f"{IRELAND}_04_55", "S1A_IW_GRDH_1SDV_20180203T064724_29UPU_4_55", "train", "Ireland",
        ("Arable land", "Pastures")),
    Row(f"{AUSTRIA}_26_57", "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57", "train", "Austria",
        ("Arable land", "Broad-leaved forest", "Mixed forest")),
    Row(f"{AUSTRIA}_27_07", "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_27_7", "train", "Austria",
        ("Urban fabric",)),
    Row(f"{AUSTRIA}_28_57", "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_28_57", "validation", "Austria",
        ("Coniferous forest", "Inland waters")),
    Row(f"{FINLAND}_69_24", "S1A_IW_GRDH_1SDV_20170925T043256_35VPK_69_24", "test", "Finland",
        ("Inland wetlands", "Mixed forest")),
    Row(f"{IRELAND}_36_85", "S1A_IW_GRDH_1SDV_20180203T064724_29UPU_36_85", "test", "Ireland",
        ("Marine waters",)),
    Row(f"{FINLAND}_70_24", "S1A_IW_GRDH_1SDV_20170925T043256_35VPK_70_24", "test", "Finland",
        ("Arable land",), True),
)  # fmt: skip

V1_ROWS = (
    ("S2A_MSIL2A_20170613T101031_26_57", "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57", "train",
     ("Non-irrigated arable land", "Transitional woodland/shrub", "Airports")),
    ("S2B_MSIL2A_20180204T94161_4_55", "S1A_IW_GRDH_1SDV_20180204T043253_35VPK_4_55", "val",
     ("Peatbogs", "Inland marshes")),
    ("S2B_MSIL2A_20170924T93020_69_24", "S1A_IW_GRDH_1SDV_20170925T043256_35VPK_69_24", "test",
     ("Bare rock",)),
)  # fmt: skip
"""Names as sloppy as the published ones: hours of one digit, 61 seconds."""

CODES = (0, 111, 112, 211, 231, 312, 333, 423, 523, 999)


def pixels(name: str, band: str) -> np.ndarray:
    """The values of a band of a patch, the same whenever they are asked for."""
    random = np.random.default_rng(zlib.crc32(f"{name} {band}".encode()))
    if band == "reference_map":
        return random.choice(np.array(CODES, np.uint16), (120, 120))
    size = 1200 // GSD[band]
    if band in S1_BANDS:
        return random.normal(-12 if band == "VV" else -19, 5, (size, size)).astype(np.float32)
    return random.integers(1, 12000, (size, size), dtype=np.uint16)


def write_tif(path: Path, values: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": height,
        "width": width,
        "dtype": values.dtype,
        "crs": "EPSG:32633",
        "transform": from_origin(300000, 5300040, 1200 / width, 1200 / height),
    }
    if values.dtype == np.uint16:
        profile["nodata"] = 0
    with rasterio.open(path, "w", **profile | options) as file:
        file.write(values, 1)


def write_patch(folder: Path, name: str, bands: tuple[str, ...], suffix: str = ".tif") -> None:
    for band in bands:
        write_tif(folder / name / f"{name}_{band}{suffix}", pixels(name, band))


def write_v2(root: Path, rows: tuple[Row, ...] = ROWS, *, suffix: str = ".tif") -> Path:
    """The layout of v2, with reference maps and both tables."""
    for row in rows:
        write_patch(s2_folder(root, row).parent, row.s2, S2_BANDS, suffix)
        write_patch(s1_folder(root, row).parent, row.s1, S1_BANDS, suffix)
        tile = row.s2.rsplit("_", 2)[0]
        path = root / "Reference_Maps" / tile / row.s2 / f"{row.s2}_reference_map{suffix}"
        write_tif(path, pixels(row.s2, "reference_map"), compress="deflate")
    write_metadata(root, rows)
    return root


def s2_folder(root: Path, row: Row) -> Path:
    return root / "BigEarthNet-S2" / row.s2.rsplit("_", 2)[0] / row.s2


def s1_folder(root: Path, row: Row) -> Path:
    return root / "BigEarthNet-S1" / row.s1.rsplit("_", 3)[0] / row.s1


def write_metadata(root: Path, rows: tuple[Row, ...] = ROWS) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, snow in (
        ("metadata.parquet", False),
        ("metadata_for_patches_with_snow_cloud_or_shadow.parquet", True),
    ):
        kept = [row for row in rows if row.snow == snow]
        pq.write_table(table(kept), root / name)


def table(rows: list[Row]) -> pa.Table:
    return pa.table(
        {
            "patch_id": pa.array([row.s2 for row in rows], pa.string()),
            "labels": pa.array([list(row.labels) for row in rows], pa.list_(pa.string())),
            "split": pa.array([row.split for row in rows], pa.string()),
            "country": pa.array([row.country for row in rows], pa.string()),
            "s1_name": pa.array([row.s1 for row in rows], pa.string()),
            "s2v1_name": pa.array([row.s2 for row in rows], pa.string()),
            "contains_seasonal_snow": pa.array([row.snow for row in rows]),
            "contains_cloud_or_shadow": pa.array([False for row in rows]),
        }
    )


def write_v1(root: Path) -> Path:
    """The layout of v1: flat folders, labels in JSON, lists of splits."""
    for s2, s1, split, labels in V1_ROWS:
        write_patch(root / "BigEarthNet-v1.0", s2, S2_BANDS)
        write_patch(root / "BigEarthNet-S1-v1.0", s1, S1_BANDS)
        for folder, name, more in (
            ("BigEarthNet-v1.0", s2, {}),
            ("BigEarthNet-S1-v1.0", s1, {"corresponding_s2_patch": s2}),
        ):
            content = json.dumps({"labels": list(labels), **more})
            (root / folder / name / f"{name}_labels_metadata.json").write_text(content)
        (root / f"{split}.csv").write_text(f"{s2},{s1}\n")
    return root


def write_lmdb(folder: Path, rows: tuple[Row, ...] = ROWS) -> Path:
    """The same patches as rico-hdl writes them, the metadata beside the database."""
    import lmdb
    from safetensors.numpy import save

    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=2**26) as database, database.begin(write=True) as writer:
        for row in rows:
            s2 = {band: pixels(row.s2, band) for band in reversed(S2_BANDS)}
            s1 = {band: pixels(row.s1, band) for band in ("VH", "VV")}
            codes = {"Data": pixels(row.s2, "reference_map")}
            for key, values in ((row.s2, s2), (row.s1, s1), (f"{row.s2}_reference_map", codes)):
                writer.put(key.encode(), save(values))
    write_metadata(folder.parent, rows)
    return folder


def remove_keys(folder: Path, *keys: str) -> None:
    """Takes patches out of an LMDB."""
    import lmdb

    with lmdb.open(str(folder), map_size=2**26) as database, database.begin(write=True) as writer:
        for key in keys:
            assert writer.delete(key.encode())


def bigearthnet(root: Path | None, **options) -> BigEarthNetDataModule:
    """A data module that leaves samples as they are on disk."""
    return BigEarthNetDataModule(root, **{"augment": False, "batch_size": 2, **options})


def samples(data: BigEarthNetDataModule, split: str) -> list[dict]:
    """All samples of a split."""
    dataset = data.dataset(split)
    return [dataset[i] for i in range(len(dataset))]

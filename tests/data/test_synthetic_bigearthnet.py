"""Synthetic BigEarthNet: the published layout, determinism, and what each sensor can tell."""

import re
from pathlib import Path

import lmdb
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import rasterio
import safetensors.numpy
from synthetic_sets import CONFIG

from fusionlab.data.bigearthnet.constants import (
    CLASSES,
    CORINE,
    GSD,
    S1_BANDS,
    S2_BANDS,
    SIZE,
    UNLABELLED,
)
from fusionlab.data.synthetic.bigearthnet import (
    DEFAULT_CLASSES,
    BigEarthNetConfig,
    write_bigearthnet,
)
from fusionlab.data.synthetic.bigearthnet.places import TILES, Tile, plan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_bigearthnet(tmp_path_factory.mktemp("synthetic") / "set", CONFIG, lmdb=True)


@pytest.fixture(scope="module")
def rows(made) -> list[dict]:
    tables = (made.metadata, made.metadata_snow_cloud)
    return [row for table in tables for row in pyarrow.parquet.read_table(table).to_pylist()]


def s2_path(root: Path, row: dict, band: str) -> Path:
    name = row["patch_id"]
    return root / "BigEarthNet-S2" / "_".join(name.split("_")[:-2]) / name / f"{name}_{band}.tif"


def s1_path(root: Path, row: dict, band: str) -> Path:
    name = row["s1_name"]
    return root / "BigEarthNet-S1" / "_".join(name.split("_")[:-3]) / name / f"{name}_{band}.tif"


def map_path(root: Path, row: dict) -> Path:
    name = row["patch_id"]
    tile = "_".join(name.split("_")[:-2])
    return root / "Reference_Maps" / tile / name / f"{name}_reference_map.tif"


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def test_every_file_is_where_it_is_published_and_no_other(made, rows):
    expected = {made.metadata, made.metadata_snow_cloud, made.root / "synthetic.json"}
    expected |= {made.root / "lmdb" / name for name in ("data.mdb", "lock.mdb")}
    for row in rows:
        expected |= {s2_path(made.root, row, band) for band in S2_BANDS}
        expected |= {s1_path(made.root, row, band) for band in S1_BANDS}
        expected.add(map_path(made.root, row))
    assert {path for path in made.root.rglob("*") if path.is_file()} == expected


def test_rasters_are_as_published_and_share_one_grid(made, rows):
    for row in rows[::5]:
        corners = set()
        for band in S2_BANDS:
            with rasterio.open(s2_path(made.root, row, band)) as file:
                assert (file.count, *file.shape) == (1, SIZE[band], SIZE[band])
                assert (file.dtypes[0], file.nodata) == ("uint16", 0)
                assert (file.compression, file.res) == (None, (GSD[band], GSD[band]))
                corners.add((file.crs.to_epsg(), *file.bounds))
                assert file.read().min() > 0
        for band in S1_BANDS:
            with rasterio.open(s1_path(made.root, row, band)) as file:
                assert (file.count, *file.shape) == (1, 120, 120)
                assert (file.dtypes[0], file.nodata, file.compression) == ("float32", None, None)
                corners.add((file.crs.to_epsg(), *file.bounds))
                values = file.read()
                assert np.isfinite(values).all()
                assert values.min() > -45
                assert values.max() < 25
        with rasterio.open(map_path(made.root, row)) as file:
            assert (file.dtypes[0], file.nodata) == ("uint16", 0)
            assert file.compression is rasterio.enums.Compression.deflate
            corners.add((file.crs.to_epsg(), *file.bounds))
        assert len(corners) == 1
        epsg, left, bottom, right, top = corners.pop()
        assert epsg == 32600 + int(row["patch_id"].split("_T")[1][:2])
        assert (right - left, top - bottom) == (1200, 1200)


def test_values_have_the_size_of_real_ones(made, rows):
    clean = [row for row in rows if not row["contains_seasonal_snow"]][::4]
    nir = np.mean([read(s2_path(made.root, row, "B08")).mean() for row in clean])
    red = np.mean([read(s2_path(made.root, row, "B04")).mean() for row in clean])
    vv, vh = (np.mean([read(s1_path(made.root, row, b)).mean() for row in clean]) for b in S1_BANDS)
    assert 1200 < nir < 3200
    assert 300 < red < 1100
    assert -16 < vv < -9
    assert vv - 10 < vh < vv - 4


def test_places_follow_the_grid_of_sentinel_2(made, rows):
    # Upper left corners of five real patches of BigEarthNet.
    known = {
        ("33UUP", 87, 48): (404400, 5342400),
        ("29UPU", 4, 55): (604800, 5834040),
        ("35VPK", 69, 24): (682800, 6971220),
        ("29SND", 56, 35): (567180, 4358040),
    }
    for (mgrs, column, row), corner in known.items():
        left, top = Tile(f"S2A_MSIL2A_20170613T101031_N9999_R022_T{mgrs}", "", ()).corner
        assert (left + column * 1200, top - row * 1200) == corner
    for row in rows:
        tile = next(tile for tile in TILES if row["patch_id"].startswith(tile.name))
        column, line = (int(number) for number in row["patch_id"].split("_")[-2:])
        with rasterio.open(s1_path(made.root, row, "VV")) as file:
            left, top = tile.corner
            assert file.transform.c == left + column * 1200
            assert file.transform.f == top - line * 1200


def test_names(rows):
    for row in rows:
        s2 = re.fullmatch(
            r"(S2[AB]_MSIL2A_\d{8}T)0?(\d{5,6})_N9999_R\d{3}_T(\d{2}[A-Z]{3})_(\d{2})_(\d{2})",
            row["patch_id"],
        )
        day, hour, mgrs, column, line = s2.groups()
        column, line = int(column), int(line)
        assert row["s2v1_name"] == f"{day}{hour}_{column}_{line}"
        place = rf"_{mgrs}_{column}_{line}"
        assert re.fullmatch(rf"S1[AB]_IW_GRDH_1SDV_\d{{8}}T\d{{6}}{place}", row["s1_name"])
    places = [row["patch_id"].split("_")[-2:] for row in rows]
    assert any(number.startswith("0") for place in places for number in place)
    for column in ("patch_id", "s1_name"):
        assert len({row[column] for row in rows}) == len(rows)


def test_metadata(made):
    clean = pyarrow.parquet.read_table(made.metadata)
    hidden = pyarrow.parquet.read_table(made.metadata_snow_cloud)
    text = pyarrow.string()
    for table in (clean, hidden):
        assert table.schema.names == [
            "patch_id", "labels", "split", "country", "s1_name", "s2v1_name",
            "contains_seasonal_snow", "contains_cloud_or_shadow",
        ]  # fmt: skip
        assert table.schema.types == [
            text, pyarrow.list_(pyarrow.field("element", text)), text, text, text, text,
            pyarrow.bool_(), pyarrow.bool_(),
        ]  # fmt: skip
        names = table["patch_id"].to_pylist()
        assert names == sorted(names)
        for labels in table["labels"].to_pylist():
            assert labels
            assert labels == sorted(set(labels))
            assert set(labels) <= set(DEFAULT_CLASSES)
    splits = clean["split"].to_pylist()
    assert {name: splits.count(name) for name in set(splits)} == made.patches
    assert made.patches == {"train": 24, "validation": 5, "test": 7}
    assert not any(clean["contains_seasonal_snow"].to_pylist())
    assert not any(clean["contains_cloud_or_shadow"].to_pylist())
    flags = list(
        zip(
            hidden["contains_seasonal_snow"].to_pylist(),
            hidden["contains_cloud_or_shadow"].to_pylist(),
            strict=True,
        )
    )
    assert len(flags) == 6
    assert set(flags) == {(True, False), (False, True)}
    assert len(set(hidden["split"].to_pylist())) == 3


def test_places_and_days_differ(rows):
    assert len({row["country"] for row in rows}) == 5
    for row in rows:
        tile = next(tile for tile in TILES if row["patch_id"].startswith(tile.name))
        assert row["country"] == tile.country
        assert any(row["s1_name"].startswith(scene) for scene in tile.scenes)
    months = {tile.date.month for tile in TILES[:8]}
    assert {2, 5, 7, 9, 11} <= months
    for tile in TILES:
        for scene in tile.scenes:
            day = int(scene.split("_")[4][6:8])
            assert scene.split("_")[4][:6] == f"{tile.date:%Y%m}" or day >= 28


def test_splits_are_blocks_of_a_tile():
    patches = plan(BigEarthNetConfig(train=400, validation=400, test=400, tiles=1))
    reach = {
        split: [max(abs(p.column - 45), abs(p.row - 45)) for p in patches if p.split == split]
        for split in ("train", "validation", "test")
    }
    assert max(reach["test"]) < min(reach["validation"])
    assert max(reach["validation"]) < min(reach["train"])
    assert max(reach["train"]) <= 45


def test_labels_are_what_covers_the_reference_map(made, rows):
    outside = 0
    for row in rows:
        codes = read(map_path(made.root, row))
        assert set(np.unique(codes)) <= set(CORINE) | set(UNLABELLED)
        share = {
            name: np.isin(codes, [code for code, of in CORINE.items() if of == name]).mean()
            for name in CLASSES
        }
        assert row["labels"] == [name for name in CLASSES if share[name] >= 0.03]
        assert sum(share.values()) > 0.75
        outside += sum(share.values()) < 1
    assert outside > 5


def test_snow_and_clouds_are_bright(made, rows):
    def brightest(row: dict) -> float:
        return np.quantile(read(s2_path(made.root, row, "B02")), 0.9)

    clean = [brightest(row) for row in rows[:36]]
    for row in rows[36:]:
        assert brightest(row) > 1.3 * np.quantile(clean, 0.9), row["patch_id"]
    snow = [row for row in rows if row["contains_seasonal_snow"]]
    cloud = [row for row in rows if row["contains_cloud_or_shadow"]]
    dark, bright = (
        np.mean([np.quantile(read(s2_path(made.root, row, "B11")), 0.95) for row in some])
        for some in (snow, cloud)
    )
    assert dark < bright  # snow absorbs the short-wave infrared, clouds do not


def test_lmdb_holds_the_same_values(made, rows):
    with lmdb.open(str(made.lmdb), readonly=True, lock=False) as environment:
        assert environment.stat()["entries"] == 3 * len(rows)
        with environment.begin() as transaction:

            def value(key: str) -> dict[str, np.ndarray]:
                return safetensors.numpy.load(transaction.get(key.encode()))

            for row in rows[::6]:
                s2, s1 = value(row["patch_id"]), value(row["s1_name"])
                codes = value(f"{row['patch_id']}_reference_map")
                assert (set(s2), set(s1)) == (set(S2_BANDS), set(S1_BANDS))
                assert set(codes) == {"Data"}
                for bands, path in ((s2, s2_path), (s1, s1_path)):
                    for band, values in bands.items():
                        stored = read(path(made.root, row, band))
                        assert values.dtype == stored.dtype
                        np.testing.assert_array_equal(values, stored)
                np.testing.assert_array_equal(codes["Data"], read(map_path(made.root, row)))
    assert (made.lmdb / "data.mdb").stat().st_size < len(rows) * 320 * 1024 + 2**20


def test_a_patch_does_not_depend_on_how_many_there_are(tmp_path, made, rows):
    small = BigEarthNetConfig(**CONFIG.to_dict() | {"train": 5, "test": 0, "validation": 0})
    root = write_bigearthnet(tmp_path / "small", small).root
    some = pyarrow.parquet.read_table(root / "metadata.parquet").to_pylist()
    known = {row["patch_id"] for row in rows}
    assert len(some) == 5
    for row in some:
        assert row["patch_id"] in known
        path = s1_path(root, row, "VH").relative_to(root)
        np.testing.assert_array_equal(read(root / path), read(made.root / path))

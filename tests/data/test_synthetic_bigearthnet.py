"""Synthetic BigEarthNet: the published layout, determinism, and what each sensor can tell."""

import hashlib
import os
import re
import runpy
import sys
from itertools import combinations
from pathlib import Path

import lmdb
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import rasterio
import safetensors.numpy

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
    radar_alike,
    reflectance_alike,
    write,
    write_bigearthnet,
    write_rasters,
)
from fusionlab.data.synthetic.bigearthnet.covers import COVERS, OUTSIDE
from fusionlab.data.synthetic.bigearthnet.land import draw_patch
from fusionlab.data.synthetic.bigearthnet.look import draw_look
from fusionlab.data.synthetic.bigearthnet.places import TILES, Tile, plan
from fusionlab.data.synthetic.bigearthnet.sensors import render_sentinel1, render_sentinel2
from fusionlab.data.synthetic.landscape.config import generator
from fusionlab.errors import InputError

CONFIG = BigEarthNetConfig(train=24, validation=5, test=7, snow_cloud=6, tiles=5, unlabelled=0.5)
TINY = BigEarthNetConfig(train=3, validation=0, test=2, snow_cloud=1, tiles=2)
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_bigearthnet"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_bigearthnet(tmp_path_factory.mktemp("synthetic") / "set", CONFIG, lmdb=True)


@pytest.fixture(scope="module")
def rows(made) -> list[dict]:
    tables = (made.metadata, made.metadata_snow_cloud)
    return [row for table in tables for row in pyarrow.parquet.read_table(table).to_pylist()]


def digests(folder: Path) -> dict[str, str]:
    """Of every file but the lock of an LMDB, which holds process numbers."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock.mdb"
    }


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


def test_the_seed_decides(tmp_path):
    for name in ("one", "two"):
        write_bigearthnet(tmp_path / name, TINY, lmdb=True)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    other = BigEarthNetConfig(**TINY.to_dict() | {"seed": 1})
    write_bigearthnet(tmp_path / "other", other, geotiff=False, lmdb=True)
    assert [path.name for path in (tmp_path / "other").iterdir() if path.is_dir()] == ["lmdb"]
    mine, theirs = digests(tmp_path / "one"), digests(tmp_path / "other")
    assert mine["lmdb/data.mdb"] != theirs["lmdb/data.mdb"]


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    write_bigearthnet(tmp_path / "one", CONFIG, lmdb=True)
    write_bigearthnet(tmp_path / "two", CONFIG, lmdb=True, workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


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


def test_all_or_nothing(tmp_path, monkeypatch):
    target = tmp_path / "set"
    first = write_bigearthnet(target, TINY, geotiff=False, lmdb=True)
    before = digests(target)

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(write, "write_metadata", broken)
    with pytest.raises(OSError, match="disk full"):
        write_bigearthnet(target, TINY, overwrite=True)
    assert digests(target) == before
    with pytest.raises(OSError, match="disk full"):
        write_bigearthnet(tmp_path / "new", TINY, lmdb=True)
    assert list(tmp_path.iterdir()) == [target]
    again = write_bigearthnet(target, TINY, geotiff=False, lmdb=True)
    assert (first.written, again.written) == (True, False)


def test_what_is_there_is_not_overwritten(tmp_path):
    target = tmp_path / "set"
    write_bigearthnet(target, TINY, geotiff=False, lmdb=True)
    with pytest.raises(InputError, match=r"another configuration.*--overwrite"):
        write_bigearthnet(target, TINY, lmdb=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("text")
    with pytest.raises(InputError, match="something else"):
        write_bigearthnet(mine, TINY)
    with pytest.raises(InputError, match="is a file"):
        write_rasters(mine / "thesis.txt", TINY)
    assert (mine / "thesis.txt").read_text() == "text"
    with pytest.raises(InputError, match="Neither"):
        write_bigearthnet(tmp_path / "none", TINY, geotiff=False)


def test_a_missing_package_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(InputError, match=r"fusionlab\[bigearthnet\]"):
        write_bigearthnet(tmp_path / "set", TINY, lmdb=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tiles": 15}, "tiles must be 1 to 14"),
        ({"train": -1}, "train must be 0"),
        ({"train": 3000, "tiles": 1}, "more tiles"),
        ({"test": 1990, "snow_cloud": 20, "tiles": 1}, "together"),
        ({"train": 0, "validation": 0, "test": 0}, "At least one"),
        ({"classes": ("Pastures", "Meadows")}, "Meadows"),
        ({"classes": ("Pastures",)}, "two or more"),
        ({"fewest_segments": 6}, "fewest_segments"),
        ({"least_share": 0.0}, "least_share"),
        ({"unlabelled": 1.5}, "unlabelled"),
    ],
)
def test_what_cannot_be_drawn_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        BigEarthNetConfig(**values)


def test_rasters_of_a_new_place(tmp_path):
    place = write_rasters(tmp_path / "new", CONFIG, size=(250, 310))
    with (
        rasterio.open(place.s2) as s2,
        rasterio.open(place.s1) as s1,
        rasterio.open(place.truth) as truth,
    ):
        assert (s2.descriptions, s1.descriptions) == (S2_BANDS, S1_BANDS)
        assert (s2.dtypes[0], s1.dtypes[0], truth.dtypes[0]) == ("uint16", "float32", "uint16")
        assert s2.shape == s1.shape == truth.shape == (250, 310)
        assert s2.transform == s1.transform == truth.transform
        assert s2.crs == s1.crs == truth.crs
        assert s2.res == (10, 10)
        names = {CORINE[code] for code in np.unique(truth.read()) if code in CORINE}
        assert names <= set(DEFAULT_CLASSES)
        assert len(names) > 4
        coarse = s2.read(S2_BANDS.index("B01") + 1)
        assert (coarse[:246:6] == coarse[5:246:6]).all()
        for tile in TILES:  # it lies on no patch: the zone is another, or the tile is
            left, top = tile.corner
            inside = (
                left <= s2.bounds.left < left + 109_200 and top - 109_200 < s2.bounds.top <= top
            )
            assert s2.crs.to_epsg() != tile.epsg or not inside
    before = digests(place.root)
    assert not write_rasters(tmp_path / "new", CONFIG, size=(250, 310)).written
    write_rasters(tmp_path / "again", CONFIG, size=(250, 310))
    assert digests(tmp_path / "again") == before
    with pytest.raises(InputError, match="at least 6"):
        write_rasters(tmp_path / "small", CONFIG, size=(5, 100))


def means(classes: tuple[str, ...], tiles: int, patches: int) -> tuple[np.ndarray, ...]:
    """Class (N,), mean reflectance (N, 12) and mean decibel (N, 2) of pieces of land."""
    config = BigEarthNetConfig(classes=classes, unlabelled=0.0)
    found, s2, s1 = [], [], []
    for number in range(patches):
        tile = TILES[number % tiles]
        look = draw_look(0, tile.name, "train", tile.date)
        rng = generator(7, number)
        land = draw_patch(rng, config, 120)
        optical, radar = render_sentinel2(land, look, rng), render_sentinel1(land, look, rng)
        area = np.bincount(land.segment.ravel(), minlength=len(land.cover))
        bands = [values.repeat(120 // len(values), 0).repeat(120 // len(values), 1)
                 for values in (*optical.values(), *radar.values())]  # fmt: skip
        total = np.stack([np.bincount(land.segment.ravel(), b.ravel(), len(area)) for b in bands])
        large = area > 500
        mean = (total[:, large] / area[large]).T
        found.append(land.cover[large])
        s2.append(mean[:, :12])
        s1.append(mean[:, 12:])
    return np.concatenate(found), np.concatenate(s2), np.concatenate(s1)


def test_alike_to_one_sensor_is_not_alike_to_the_other():
    found, s2, s1 = means(CLASSES, tiles=1, patches=260)
    s2 = np.log(s2)
    s2 = np.concatenate([s2, s2 - s2.mean(1, keepdims=True)], axis=1)  # level, and shape

    def contrast(values: np.ndarray, pair: tuple[str, str]) -> float:
        """Largest difference of the means over bands, in standard deviations within a class."""
        a, b = (values[found == CLASSES.index(name)] for name in pair)
        spread = np.sqrt((a.var(0) + b.var(0)) / 2)
        return float((np.abs(a.mean(0) - b.mean(0)) / spread).max())

    assert not set(reflectance_alike()) & set(radar_alike())
    for pair in reflectance_alike():
        assert contrast(s2, pair) < 1, pair
        assert contrast(s1, pair) > 1.5, pair
    for pair in radar_alike():
        assert contrast(s1, pair) < 1, pair
        assert contrast(s2, pair) > 1.5, pair
    alike = {name for pair in (*reflectance_alike(), *radar_alike()) for name in pair}
    assert alike == set(CLASSES)


def test_neither_sensor_suffices_over_seasons_and_places():
    found, s2, s1 = means(DEFAULT_CLASSES, tiles=8, patches=160)

    def accuracy(values: np.ndarray) -> float:
        """Of Bayes with a normal distribution of each class, learned on even and tried on odd."""
        score = []
        for index in np.unique(found):
            known = values[::2][found[::2] == index]
            cov = np.cov(known.T) + 0.02 * np.eye(values.shape[1])
            off = values[1::2] - known.mean(0)
            distance = np.einsum("nd,de,ne->n", off, np.linalg.inv(cov), off)
            score.append(distance + np.linalg.slogdet(cov)[1])
        return float((np.unique(found)[np.argmin(score, 0)] == found[1::2]).mean())

    few = np.log(s2[:, [1, 3, 5, 7, 10, 11]])  # blue, red, red edge, near and short-wave infrared
    few, s1 = ((v - v.mean(0)) / v.std(0) for v in (few, s1))
    alone = max(accuracy(few), accuracy(s1))
    assert alone > 0.35
    assert accuracy(np.concatenate([few, s1], axis=1)) > alone + 0.1


def test_covers_name_their_codes():
    for name, cover in zip(CLASSES, COVERS, strict=False):
        assert {CORINE[code] for code in cover.codes} == {name}
    for index in OUTSIDE:
        assert set(COVERS[index].codes) <= set(UNLABELLED)
    looks = [(cover.optical, cover.radar) for cover in COVERS[: len(CLASSES)]]
    assert not any(a == b for a, b in combinations(looks, 2))


def test_script(tmp_path, monkeypatch, capsys):
    command = [
        str(SCRIPT), str(tmp_path / "set"), "--train", "2", "--validation", "1", "--test", "1",
        "--snow-cloud", "0", "--tiles", "1", "--classes", "all", "--lmdb", "--no-geotiff",
        "--rasters", str(tmp_path / "new"), "--rasters-size", "60", "90",
    ]  # fmt: skip

    def run(*more: str) -> int:
        monkeypatch.setattr(sys, "argv", [*command, *more])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return end.value.code

    assert os.access(SCRIPT, os.X_OK)
    assert run() == 0
    assert "2 train, 1 validation, 1 test patches" in capsys.readouterr().out
    assert (tmp_path / "set" / "lmdb" / "data.mdb").is_file()
    with rasterio.open(tmp_path / "new" / "s1.tif") as file:
        assert file.shape == (60, 90)
    assert run("--seed", "3") == 2
    assert capsys.readouterr().err.startswith("make_bigearthnet: ")

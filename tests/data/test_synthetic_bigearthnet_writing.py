"""Writing synthetic BigEarthNet: by seed, whole or not at all, refusals, the script."""

import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from synthetic_sets import CONFIG, TINY, digests

from fusionlab.data.bigearthnet.constants import CORINE, S1_BANDS, S2_BANDS
from fusionlab.data.synthetic.bigearthnet import (
    DEFAULT_CLASSES,
    BigEarthNetConfig,
    write,
    write_bigearthnet,
    write_rasters,
)
from fusionlab.data.synthetic.bigearthnet.places import TILES
from fusionlab.errors import InputError

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_bigearthnet"


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

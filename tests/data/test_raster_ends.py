"""Files that were cut off are told from whole ones without reading pixels."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from manifest_files import BANDS, MASK, change, manifest_data, write_manifest, write_raster
from PIL import Image

from fusionlab.data.raster.ends import cut_off
from fusionlab.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 255, (3, 96, 80)).astype(np.uint8)
FORMS = {
    "strips.tif": {},
    "tiles.tif": {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
    "big.tif": {"BIGTIFF": "YES", "tiled": True, "blockxsize": 32, "blockysize": 32},
    "motorola.tif": {"ENDIANNESS": "BIG", "interleave": "band"},
    "a.png": {},
    "a.jpg": {},
    "progressive.jpg": {"progressive": True},
}


def write(path: Path, **options) -> Path:
    if path.suffix == ".tif":
        return write_raster(path, PIXELS, **options)
    Image.fromarray(PIXELS.transpose(1, 2, 0)).save(path, **options)
    return path


@pytest.mark.parametrize("name", FORMS)
def test_whole_files_are_whole_and_every_cut_is_seen(name, tmp_path):
    path = write(tmp_path / name, **FORMS[name])
    content = path.read_bytes()
    assert cut_off(path) is None
    for share in (0.4, 0.7, 0.99):
        path.write_bytes(content[: int(len(content) * share)])
        assert f"{int(len(content) * share)} " in cut_off(path)


def test_what_follows_the_end_does_not_matter(tmp_path):
    for name in ("a.png", "a.jpg", "strips.tif"):
        path = write(tmp_path / name)
        path.write_bytes(path.read_bytes() + b"\0" * 100 + b"more")
        assert cut_off(path) is None


def test_overviews_and_masks_count_and_holes_do_not(tmp_path):
    path = write(tmp_path / "a.tif", tiled=True, blockxsize=16, blockysize=16)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    assert cut_off(path) is None
    path.write_bytes(path.read_bytes()[:-40])
    assert cut_off(path)
    sparse = {"SPARSE_OK": "TRUE", "tiled": True, "blockxsize": 16, "blockysize": 16}
    hollow = tmp_path / "hollow.tif"
    with rasterio.open(hollow, "w", "GTiff", 80, 96, 1, dtype="uint8", **sparse) as file:
        file.write(PIXELS[:1, :16, :16], window=rasterio.windows.Window(0, 0, 16, 16))
    assert cut_off(hollow) is None


def test_other_files_are_none_of_its_business(tmp_path):
    for content in (b"", b"x", b"II*\0", b"II*\0\xff\xff\xff\xff", b"\xff\xd8\xff"):
        (tmp_path / "a").write_bytes(content)
        cut_off(tmp_path / "a")
    assert cut_off(tmp_path / "none") is None


@pytest.mark.parametrize("target", [{"column": "land_use"}, MASK], ids=["class", "mask"])
def test_all_files_that_were_cut_off_are_listed_before_training(target, tmp_path):
    manifest = write_manifest(tmp_path, rows=12)
    for name in ("images/p001.tif", "images/p009.tif"):
        path = tmp_path / name
        with rasterio.open(path) as file:
            values, profile = file.read(), file.profile
        profile |= {"tiled": False, "compress": None}
        shutil.copy(path, tmp_path / "copy.tif")
        with rasterio.open(path, "w", **profile) as file:
            file.write(values)
        content = path.read_bytes()
        path.write_bytes(content[:-200])
    change(manifest, 9, split="val")
    options = {"images": {"image": {"column": "image", "bands": BANDS}}, "target": target}
    with pytest.raises(InputError) as caught:
        manifest_data(manifest, **options).setup("fit")
    said = str(caught.value)
    assert "row 2, image: " in said
    assert "row 10, image: " in said
    assert said.count("bytes or more are there") == 2

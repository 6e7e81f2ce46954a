from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from patch_scenes import patch_schema, patches, radar, write_optical
from raster_scenes import smooth_image, windows, write

from fusionlab.data.raster import RasterDataModule
from fusionlab.data.raster.windows import grid_starts
from fusionlab.errors import InputError
from fusionlab.types import Modality, Schema


@given(
    st.integers(1, 3000),
    st.integers(1, 300).flatmap(lambda w: st.tuples(st.just(w), st.integers(1, w))),
)
def test_patches_cover_an_axis_on_a_regular_grid(length, sizes):
    window, stride = sizes
    first = grid_starts(length, window=window, stride=stride)
    assert first == [i * stride for i in range(len(first))]
    assert first[-1] + window >= length
    assert first[-1] < length
    if len(first) > 1:  # and no more of them than need be
        assert first[-2] + window < length


@pytest.mark.parametrize(("overlap", "step"), [(None, 12), (4, 8)])
def test_patches_are_as_large_as_in_training_and_the_last_ones_stick_out(tmp_path, overlap, step):
    image = np.random.default_rng(0).integers(1, 5000, (3, 40, 65)).astype(np.uint16)
    s2 = write_optical(tmp_path / "zone.tif", 40, 65, image=image)
    data = patches(RasterDataModule({"s2": s2}, overlap=overlap))
    last = (
        len(grid_starts(40, window=12, stride=step)),
        len(grid_starts(65, window=12, stride=step)),
    )
    assert len(data) == last[0] * last[1]
    mirrored = np.pad(image, ((0, 0), (0, 24), (0, 24)), mode="reflect")
    for i, sample in enumerate(data):
        row, column = step * (i // last[1]), step * (i % last[1])
        height, width = min(12, 40 - row), min(12, 65 - column)
        placement = sample["placement"]
        assert placement["window"].tolist() == [row, column, height, width]
        assert placement["shape"].tolist() == [12, 12]
        assert placement["stride"].tolist() == [step, step]
        found = sample["inputs"]["s2"].numpy()
        inside = np.s_[:, row : row + height, column : column + width]
        assert np.array_equal(found[:, :height, :width], image[inside])
        if min(height, width) > 6:  # of what is narrower, the mirror image is mirrored again
            window = np.s_[:, row : row + 12, column : column + 12]
            assert np.array_equal(found, mirrored[window])
        assert sample["available"]["s2"]


def test_patches_of_a_map_model_stay_inside(aerial):
    data = windows(RasterDataModule({"aerial": aerial}, window=128, overlap=64))
    assert data[len(data) - 1]["placement"]["window"].tolist() == [172, 292, 128, 128]


def test_the_patch_has_the_size_on_the_ground_that_it_had_in_training(tmp_path, caplog):
    # The grid has pixels of 5 m, the model's images of 10 m.
    s2 = write_optical(tmp_path / "zone.tif", 48, 48)
    grid = write(tmp_path / "fine.tif", smooth_image(96, 96, bands=1), gsd=5)
    data = patches(RasterDataModule({"s2": s2}, grid=grid))
    assert len(data) == 16
    assert data[0]["placement"]["shape"].tolist() == [24, 24]
    assert data[0]["inputs"]["s2"].shape == (3, 12, 12)
    with rasterio.open(s2) as file:
        image = file.read()
    assert np.array_equal(data[5]["inputs"]["s2"].numpy(), image[:, 12:24, 12:24])
    assert not [r for r in caplog.records if "data.window" in r.getMessage()]
    own = patches(RasterDataModule({"s2": s2}, window=8))
    assert len(own) == 36
    assert "trained on patches of 12 pixels" in caplog.text
    with pytest.raises(InputError, match=r"does not say how large.*Set --data\.window"):
        patches(RasterDataModule({"s2": s2}), patch_schema(image_size=None))
    assert len(patches(RasterDataModule({"s2": s2}, window=24), patch_schema(image_size=None))) == 4
    with pytest.raises(InputError, match="overlap 12 and window 12"):
        patches(RasterDataModule({"s2": s2}, overlap=12))


def test_a_window_alone_has_half_overlap(aerial):
    data = windows(RasterDataModule({"aerial": aerial}, window=128))
    assert data[1]["placement"]["window"].tolist() == [0, 64, 128, 128]


def test_sentinel1_without_a_nodata_value_is_missing_where_it_is_nan(tmp_path):
    vv = radar(24, 48)
    vv[:, :, 24:36] = np.nan
    vv[:, 2, 2] = np.nan
    s1 = write(tmp_path / "s1.tif", vv, gsd=10)
    s2 = write_optical(tmp_path / "s2.tif", 24, 48)
    data = patches(RasterDataModule({"s1": s1, "s2": s2}))
    assert [bool(sample["available"]["s1"]) for sample in data] == [True, True, False, True] * 2
    first = data[0]["inputs"]["s1"]
    assert first.dtype == torch.float32
    assert torch.equal(first.isnan(), torch.from_numpy(np.isnan(vv[:, :12, :12])))
    order = patches(RasterDataModule({"s1": s1, "s2": s2}, bands={"s1": ["VH", "VV"]}))
    assert np.array_equal(order[0]["inputs"]["s1"].numpy()[::-1], first.numpy(), equal_nan=True)


MIXED = Schema(
    {
        "all": Modality(
            ("VV", "B02", "B05", "B8A"),
            10.0,
            preparation={"image_size": 12, "upsampling": "nearest"},
        )
    },
    ("a", "b"),
    target="multilabel",
)


def write_bands(folder):
    """Bands in files of their own, as products are published; returns them."""
    rng = np.random.default_rng(0)
    values = {
        "VV": rng.normal(-12, 3, (1, 24, 36)).astype(np.float32),
        "B02": rng.integers(1, 4000, (1, 24, 36)).astype(np.uint16),
        "B05": rng.integers(1, 4000, (1, 12, 18)).astype(np.uint16),
        "B8A": rng.integers(1, 4000, (1, 12, 18)).astype(np.uint16),
    }
    for band, image in values.items():
        nodata = {} if band == "VV" else {"nodata": 0}
        gsd = 10 if image.shape[1] == 24 else 20
        write(folder / f"T33_2017B11_{band}_{gsd}m.tif", image, gsd=gsd, **nodata)
    return values


def test_bands_in_files_of_their_own_are_one_image(tmp_path):
    values = write_bands(tmp_path / "in")
    coarse = np.full((1, 12, 18), 9, np.uint16)
    write(tmp_path / "in" / "T33_2017B11_B02_20m.tif", coarse, gsd=20)  # the finer one counts
    write(tmp_path / "in" / "T33_2017B11_TCI_10m.tif", smooth_image(24, 36, bands=3), gsd=10)
    data = patches(RasterDataModule({"all": str(tmp_path / "in")}), MIXED)
    assert len(data) == 6
    fine = {
        band: image if image.shape[1] == 24 else image.repeat(2, axis=1).repeat(2, axis=2)
        for band, image in values.items()
    }
    expected = np.concatenate([fine[band] for band in ("VV", "B02", "B05", "B8A")])
    for sample in data:
        row, column, *_ = sample["placement"]["window"].tolist()
        found = sample["inputs"]["all"].numpy()
        assert np.array_equal(found, expected[:, row : row + 12, column : column + 12])
        assert sample["available"]["all"]
        assert sample["offset"]["all"].tolist() == [0, 0]


def test_coarser_bands_are_resampled_as_in_training(tmp_path):
    write_bands(tmp_path / "in")
    smooth = replace(MIXED.modalities["all"], preparation={"image_size": 12})
    schema = Schema({"all": smooth}, MIXED.classes, target="multilabel")
    nearest, bilinear = (
        patches(RasterDataModule({"all": str(tmp_path / "in")}), s)[0]["inputs"]["all"]
        for s in (MIXED, schema)
    )
    assert torch.equal(nearest[:2], bilinear[:2])
    assert not torch.equal(nearest[2:], bilinear[2:])
    # Halfway to the next coarse pixel a fine one holds three quarters of its own, one of the next.
    a, b = (nearest[2, i::2].float() for i in (1, 2))
    row = 0.75 * a[:-1] + 0.25 * b
    expected = 0.75 * row[:, 1:-1:2] + 0.25 * row[:, 2::2]
    assert torch.allclose(bilinear[2, 1:-1:2, 1:-1:2].float(), expected, atol=1)


def test_an_image_of_two_sensors_needs_both(tmp_path):
    values = write_bands(tmp_path / "in")
    vv = values["VV"].copy()
    vv[:, :12, :12] = np.nan
    write(tmp_path / "in" / "T33_2017B11_VV_10m.tif", vv, gsd=10)
    grid = write(tmp_path / "grid.tif", smooth_image(24, 36, bands=1), gsd=10)
    data = patches(RasterDataModule({"all": str(tmp_path / "in")}, grid=grid), MIXED)
    assert [bool(s["available"]["all"]) for s in data] == [False, *[True] * 5]


def test_one_band_of_many_files_is_found_by_name(tmp_path):
    values = write_bands(tmp_path / "in")
    one = Schema(
        {"s2": Modality(("b02",), 10.0, preparation={"image_size": 24})},
        ("a",),
        target="multilabel",
    )
    sample = patches(RasterDataModule({"s2": str(tmp_path / "in")}), one)[0]
    assert np.array_equal(sample["inputs"]["s2"].numpy(), values["B02"][:, :, :24])


def test_a_band_that_no_file_holds_is_named(tmp_path):
    write_bands(tmp_path / "in")
    (tmp_path / "in" / "T33_2017B11_B8A_20m.tif").unlink()
    with pytest.raises(InputError, match=r"data\.rasters\.all: .*\['B8A'\] missing"):
        patches(RasterDataModule({"all": str(tmp_path / "in")}), MIXED)


@pytest.mark.shared
def test_a_published_patch_is_read_as_in_training(shared):
    folder = next((shared / "data/bigearthnet_v2/BigEarthNet-S2").glob("*/*"))
    bands = ("B04", "B05", "B12", "B02")
    made = {"image_size": 120, "upsampling": "nearest"}
    schema = Schema({"s2": Modality(bands, 10.0, preparation=made)}, ("a",), target="multilabel")
    (sample,) = patches(RasterDataModule({"s2": str(folder)}), schema)
    for found, band in zip(sample["inputs"]["s2"].numpy(), bands, strict=True):
        with rasterio.open(next(folder.glob(f"*_{band}.tif"))) as file:
            image = file.read(1)
        times = 120 // len(image)
        assert np.array_equal(found, image.repeat(times, axis=0).repeat(times, axis=1))

from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from raster_folders import small, write_folder, write_one_date
from raster_scenes import LEFT, SCHEMA, TOP, series, smooth_image, windows, write
from torch.utils.data import DataLoader

from fusionlab.data.base import collate
from fusionlab.data.raster.crops import Handles, read_patch
from fusionlab.data.raster.files import inspect
from fusionlab.data.raster.windows import WholeSources, starts
from fusionlab.errors import InputError
from fusionlab.types import Modality, Schema


@given(
    st.integers(1, 5000),
    st.integers(1, 700).flatmap(lambda w: st.tuples(st.just(w), st.integers(1, w))),
)
def test_windows_cover_an_axis_without_gap_and_stay_inside(length, sizes):
    window, stride = sizes
    first = starts(length, window=window, stride=stride)
    assert first[0] == 0
    assert first == sorted(set(first))
    assert max(first[-1] + window, window) >= length
    assert all(b - a <= window for a, b in pairwise(first))
    assert len(first) == 1 or first[-1] + window == length


@given(st.lists(st.integers(1, 20), min_size=1, max_size=9), st.integers(1, 4))
def test_every_raster_belongs_to_one_process_whole_and_in_order(lengths, world_size):
    data = list(range(sum(lengths)))
    shares = [
        list(WholeSources(data, lengths, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert sorted(chain.from_iterable(shares)) == data
    owner = {index: rank for rank, share in enumerate(shares) for index in share}
    ends = np.cumsum([0, *lengths])
    for a, b in pairwise(ends):
        assert len({owner[index] for index in range(a, b)}) == 1
    assert all(share == sorted(share) for share in shares)


def test_windows_are_what_lies_in_the_file(aerial):
    data = windows(small({"aerial": aerial}))
    with rasterio.open(aerial) as file:
        image = file.read()
    assert len(data) == 4 * 6
    corners = []
    for i in range(len(data)):
        sample = data[i]
        row, column, height, width = sample["placement"]["window"].tolist()
        expected = image[:, row : row + height, column : column + width]
        assert sample["inputs"]["aerial"].dtype == torch.uint8
        assert np.array_equal(sample["inputs"]["aerial"].numpy(), expected)
        assert sample["available"]["aerial"]
        assert not sample["available"]["sentinel2"]
        corners.append((row, column))
    assert corners == sorted(corners)
    assert data[0]["sample_id"] == "zone_0_0"
    assert data[0]["placement"]["shape"].tolist() == [128, 128]
    assert data[0]["placement"]["gsd"].item() == pytest.approx(0.2)


def test_a_raster_smaller_than_a_window_is_mirrored(tmp_path):
    path = write(tmp_path / "a.tif", smooth_image(40, 130), gsd=0.2)
    (sample, last) = list(windows(small({"aerial": path})))[:2]
    image = sample["inputs"]["aerial"].numpy()
    assert image.shape == (5, 128, 128)
    assert sample["placement"]["window"].tolist() == [0, 0, 40, 128]
    assert last["placement"]["window"].tolist() == [0, 2, 40, 128]
    assert np.array_equal(image[:, 40:79], image[:, 38::-1][:, :39])


def test_a_crop_lies_around_the_centre_of_the_window(tmp_path, aerial):
    # Every pixel of the raster holds its own position, so a crop says where it was taken.
    rows, columns = np.mgrid[:60, :60].astype(np.uint16)
    folder = write_folder(tmp_path / "s2", np.stack([[rows, columns, rows]] * 3), x=-252.5, y=-247)
    data = windows(small({"aerial": aerial, "sentinel2": folder}))
    for sample in data:
        row, column, height, width = sample["placement"]["window"].tolist()
        expected = ((row + height / 2) * 0.2 + 247) / 10, ((column + width / 2) * 0.2 + 252.5) / 10
        values = sample["inputs"]["sentinel2"].values.float()
        found = values[0, :2].mean(dim=(1, 2)) + 0.5 + sample["offset"]["sentinel2"]
        assert found.tolist() == pytest.approx(expected, abs=1e-3)
        assert sample["offset"]["sentinel2"].abs().max() <= 0.5


def test_a_raster_with_other_pixels_is_resampled(tmp_path, aerial):
    x = np.arange(300, dtype=np.float32)
    image = np.broadcast_to(x, (3, 300, 300)).copy()  # the value is the column, 2 m each
    folder = write_one_date(tmp_path / "s2", image, gsd=2, x=-250, y=-250)
    sample = windows(small({"aerial": aerial, "sentinel2": folder}))[0]
    values = sample["inputs"]["sentinel2"].values[0, 0]
    centre = (250 + 12.8) / 2 - 0.5
    expected = centre + (torch.arange(40) - 19.5) * 5
    assert torch.allclose(values.mean(dim=0), expected, atol=0.05)
    assert sample["offset"]["sentinel2"].tolist() == [0, 0]


def test_files_side_by_side_are_one_image(tmp_path):
    image = smooth_image(64, 96)
    whole = write(tmp_path / "whole.tif", image, gsd=0.2)
    left = write(tmp_path / "left.tif", image[..., :50], gsd=0.2)
    right = write(tmp_path / "right.tif", image[..., 50:], gsd=0.2, x=10)
    args = {"size": 48, "gsd": 0.2, "bands": 5, "dtype": np.dtype("uint8"), "where": "x"}
    centre = (
        inspect(whole, where="x").transform.c + 10,
        inspect(whole, where="x").transform.f - 6.4,
    )
    one = read_patch(Handles(), [inspect(whole, where="x")], centre, **args)
    two = read_patch(Handles(), [inspect(p, where="x") for p in (left, right)], centre, **args)
    assert one.observed.all()
    assert np.array_equal(one.values, two.values)
    assert np.array_equal(one.observed, two.observed)


def test_bands_are_found_by_name_whatever_their_order(tmp_path):
    image = smooth_image(128, 128)
    order = [4, 2, 1, 0, 3]
    names = [list(SCHEMA.modalities["aerial"].bands)[i] for i in order]
    path = write(tmp_path / "a.tif", image[order], gsd=0.2)
    named = windows(small({"aerial": path}, bands={"aerial": names}))[0]["inputs"]["aerial"]
    assert np.array_equal(named.numpy(), image)
    with rasterio.open(path, "r+") as file:
        file.descriptions = [name.upper() for name in names]
    described = windows(small({"aerial": path}))[0]["inputs"]["aerial"]
    assert np.array_equal(described.numpy(), image)
    with rasterio.open(path, "r+") as file:
        file.descriptions = ["red", "green", "blue", "alpha", "beta"]
    with pytest.raises(InputError, match=r"'infrared', 'height'\] missing"):
        windows(small({"aerial": path}))


def test_a_fourth_band_that_gdal_calls_alpha_is_data(tmp_path):
    schema = Schema({"aerial": Modality(("red", "green", "blue", "infrared"), 0.2)}, ("a", "b"))
    image = smooth_image(128, 128, bands=4)
    image[3, :60] = 0
    path = write(tmp_path / "a.tif", image, gsd=0.2, photometric="RGB", alpha="yes")
    assert inspect(path, where="x").alpha == (4,)
    sample = windows(small({"aerial": path}), schema)[0]
    assert np.array_equal(sample["inputs"]["aerial"].numpy(), image)


def test_nodata_is_filled_with_the_mean(tmp_path):
    image = smooth_image(128, 128).clip(1)
    image[:, :30, :30] = 0
    path = write(tmp_path / "a.tif", image, gsd=0.2, nodata=0)
    values = windows(small({"aerial": path}))[0]["inputs"]["aerial"]
    assert (values[:, :30, :30] == 100).all()
    assert np.array_equal(values[:, 30:].numpy(), image[:, 30:])


def test_reading_in_workers_is_the_same(tmp_path, aerial):
    folder = write_folder(tmp_path / "s2", series(3, 60), x=-250, y=-250)
    data = windows(small({"aerial": aerial, "sentinel2": folder}))
    _ = data[0]  # opens files in this process first
    for expected, found in zip(
        DataLoader(data, 5, collate_fn=collate),
        DataLoader(data, 5, collate_fn=collate, num_workers=2),
        strict=True,
    ):
        assert torch.equal(expected["inputs"]["aerial"], found["inputs"]["aerial"])
        for a, b in zip(
            *(batch["inputs"]["sentinel2"] for batch in (expected, found)), strict=True
        ):
            assert torch.equal(a, b)


def test_resampling_respects_extent_nodata_and_alpha(tmp_path):
    image = np.full((3, 30, 30), 7, np.uint8)
    image[:, :10] = 0
    alpha = np.where(image[:1] > 0, 255, 0).astype(np.uint8)
    centre = (LEFT + 10, TOP - 40)
    paths = {
        "nodata": write(tmp_path / "n.tif", image, gsd=2, nodata=0),
        "alpha": write(
            tmp_path / "a.tif",
            np.concatenate([image, alpha]),
            gsd=2,
            photometric="RGB",
            alpha="yes",
        ),
    }
    options = {"size": 20, "gsd": 5, "bands": 3, "dtype": np.dtype("uint8"), "where": "x"}
    for path in paths.values():
        file = replace(inspect(path, where="x"), indexes=(1, 2, 3))
        patch = read_patch(Handles(), [file], centre, **options)
        # The crop spans 100 m around x = 10, y = 40; the raster 60 m, its upper 20 m empty.
        expected = np.zeros((20, 20), bool)
        expected[6:14, 8:20] = True
        assert np.array_equal(patch.observed, np.broadcast_to(expected, (3, 20, 20)))
        assert (patch.values[:, expected] == 7).all()

from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from patch_scenes import patch_schema, patches, radar, write_optical
from raster_scenes import LEFT, SCHEMA, TOP, series, smooth_image, windows, write
from torch.utils.data import DataLoader

from fusionlab.data.base import collate
from fusionlab.data.raster import RasterDataModule
from fusionlab.data.raster.crops import Handles, read_patch
from fusionlab.data.raster.files import inspect
from fusionlab.data.raster.windows import WholeSources, grid_starts, starts
from fusionlab.errors import InputError
from fusionlab.types import Modality, Schema, TimeSeries

NAMES = ("S2_20210115.tif", "S2A_2021-06-03_x.tif", "S2_20210920T105021.tif")
DAYS = [18642, 18781, 18890]


def write_folder(folder, values, **options):
    for name, image in zip(NAMES, values, strict=True):
        write(folder / name, image, gsd=10, **options)
    return str(folder)


@pytest.fixture
def aerial(tmp_path):
    return write(tmp_path / "zone.tif", smooth_image(300, 420), gsd=0.2)


def small(rasters, **options):
    return RasterDataModule(rasters, **{"window": 128, "overlap": 64, **options})


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


def test_folder_and_stack_give_the_same_samples(tmp_path, aerial):
    values = series(3, 60)
    options = {"x": -250, "y": -250, "nodata": 0}
    folder = write_folder(tmp_path / "s2", values, **options)
    order = [2, 0, 1]  # a stack need not be in the order of time
    stack = write(tmp_path / "stack.tif", values[order].reshape(9, 60, 60), gsd=10, **options)
    dates = tmp_path / "dates.txt"
    dates.write_text("20210920\n20210115\n20210603\n")
    one = windows(small({"aerial": aerial, "sentinel2": folder}))
    other = windows(small({"aerial": aerial, "sentinel2": stack}, dates={"sentinel2": str(dates)}))
    for i in range(len(one)):
        a, b = one[i], other[i]
        assert a["inputs"]["sentinel2"].dates.tolist() == DAYS
        assert a["inputs"]["sentinel2"].values.dtype == torch.uint16
        assert a["inputs"]["sentinel2"].values.shape == (3, 3, 40, 40)
        for x, y in zip(a["inputs"]["sentinel2"], b["inputs"]["sentinel2"], strict=True):
            assert torch.equal(x, y)
        assert torch.equal(a["offset"]["sentinel2"], b["offset"]["sentinel2"])
        assert a["available"]["sentinel2"]
        assert b["available"]["sentinel2"]


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
    folder = write_folder_gsd(tmp_path / "s2", image, gsd=2, x=-250, y=-250)
    sample = windows(small({"aerial": aerial, "sentinel2": folder}))[0]
    values = sample["inputs"]["sentinel2"].values[0, 0]
    centre = (250 + 12.8) / 2 - 0.5
    expected = centre + (torch.arange(40) - 19.5) * 5
    assert torch.allclose(values.mean(dim=0), expected, atol=0.05)
    assert sample["offset"]["sentinel2"].tolist() == [0, 0]


def write_folder_gsd(folder, image, **options):
    write(folder / "a_20210101.tif", image, **options)
    return str(folder)


def test_where_a_series_does_not_reach_it_is_missing(tmp_path, aerial):
    folder = write_folder(tmp_path / "s2", series(3, 10), x=-58, y=-20)  # the left 42 of 84 m
    data = windows(small({"aerial": aerial, "sentinel2": folder}))
    for sample in data:
        column = sample["placement"]["window"][1].item()
        inside = (column + 128) * 0.2 <= 42
        outside = column * 0.2 >= 42
        available = bool(sample["available"]["sentinel2"])
        assert available or not inside
        assert not (available and outside)
        assert sample["inputs"]["sentinel2"].valid.any() == available
        if available:  # context outside the raster repeats its border instead of showing a frame
            assert (sample["inputs"]["sentinel2"].values.float() > 0).all()
    batch = next(iter(DataLoader(data, batch_size=len(data), collate_fn=collate)))
    assert isinstance(batch["inputs"]["sentinel2"], TimeSeries)
    assert batch["inputs"]["sentinel2"].values.shape == (24, 3, 3, 40, 40)


def test_dates_without_observation_are_left_out(tmp_path, aerial):
    values = series(3, 60)
    values[1] = 0
    folder = write_folder(tmp_path / "s2", values, x=-250, y=-250, nodata=0)
    sample = windows(small({"aerial": aerial, "sentinel2": folder}))[0]
    assert sample["inputs"]["sentinel2"].dates.tolist() == [DAYS[0], DAYS[2]]


@pytest.mark.parametrize("layout", ["folder", "stack"])
def test_cloudy_dates_are_left_out_and_all_cloudy_is_missing(tmp_path, aerial, layout):
    place = {"x": -250, "y": -250}
    values = series(3, 60)
    masks = np.zeros((3, 2, 60, 60), np.uint8)
    masks[0, 1] = 100  # a cloudy date
    masks[2, 0] = 59  # snow below the threshold
    options = {}
    if layout == "folder":
        s2, clouds = (
            write_folder(tmp_path / n, v, **place) for n, v in (("s", values), ("m", masks))
        )
    else:
        s2 = write(tmp_path / "s.tif", values.reshape(9, 60, 60), gsd=10, **place)
        clouds = write(tmp_path / "m.tif", masks.reshape(6, 60, 60), gsd=10, **place)
        (tmp_path / "d.txt").write_text("20210115\n20210603\n20210920\n")
        options = {"dates": {"sentinel2": str(tmp_path / "d.txt")}}
    rasters = {"aerial": aerial, "sentinel2": s2}
    sample = windows(small(rasters, cloud_masks={"sentinel2": clouds}, **options))[0]
    assert sample["inputs"]["sentinel2"].dates.tolist() == DAYS[1:]
    assert sample["cloud_cover"]["sentinel2"].shape == (1, 40, 40)
    assert torch.allclose(sample["cloud_cover"]["sentinel2"], torch.tensor(1 / 3))

    masks[:, 1] = 80
    cloudy = write_folder(tmp_path / "all", masks, **place)
    series_folder = write_folder(tmp_path / "again", values, **place)
    data = windows(
        small({"aerial": aerial, "sentinel2": series_folder}, cloud_masks={"sentinel2": cloudy})
    )
    assert not any(sample["available"]["sentinel2"] for sample in data)
    assert not data[0]["inputs"]["sentinel2"].valid.any()
    assert data[0]["available"]["aerial"]


def trained(**preparation) -> Schema:
    """The schema of a model whose series were made in such a way."""
    modalities = dict(SCHEMA.modalities)
    modalities["sentinel2"] = replace(modalities["sentinel2"], preparation=preparation)
    return Schema(modalities, SCHEMA.classes)


def test_series_are_made_as_in_training_unless_told_otherwise(tmp_path, aerial):
    folder = write_folder(tmp_path / "s2", series(3, 60), x=-250, y=-250)
    rasters = {"aerial": aerial, "sentinel2": folder}
    schema = trained(crop_size=16, monthly_means=True, max_dates=2)
    found = windows(small(rasters), schema)[0]["inputs"]["sentinel2"]
    assert found.values.shape == (2, 3, 16, 16)
    assert found.values.dtype == torch.float32
    days = found.dates.numpy().astype("datetime64[D]").astype(str)
    assert list(days) == ["2021-01-15", "2021-09-15"]
    own = small(rasters, crop={"sentinel2": 20}, monthly_means=False, max_dates=3)
    found = windows(own, schema)[0]["inputs"]["sentinel2"]
    assert found.values.shape == (3, 3, 20, 20)
    assert found.dates.tolist() == DAYS


def test_clouds_are_those_of_training(tmp_path, aerial):
    place = {"x": -250, "y": -250}
    masks = np.zeros((3, 2, 60, 60), np.uint8)
    masks[0, 1] = 50
    s2, clouds = (
        write_folder(tmp_path / n, v, **place) for n, v in (("s", series(3, 60)), ("m", masks))
    )
    data = small({"aerial": aerial, "sentinel2": s2}, cloud_masks={"sentinel2": clouds})
    lenient, strict = trained(), trained(cloud_probability=40, cloud_area=0.5)
    assert windows(data, lenient)[0]["inputs"]["sentinel2"].dates.tolist() == DAYS
    assert (
        windows(
            small({"aerial": aerial, "sentinel2": s2}, cloud_masks={"sentinel2": clouds}), strict
        )[0]["inputs"]["sentinel2"].dates.tolist()
        == DAYS[1:]
    )


def test_a_series_without_cloud_masks_is_warned_of_once(tmp_path, aerial, caplog):
    rasters = {
        "aerial": aerial,
        "sentinel2": write_folder(tmp_path / "s2", series(3, 60), x=-250, y=-250),
    }
    data = windows(small(rasters), trained(cloud_area=0.5))
    assert data[0]["available"]["sentinel2"]
    assert [r.levelname for r in caplog.records if "cloud_masks" in r.getMessage()] == ["WARNING"]
    caplog.clear()
    windows(small(rasters), trained(cloud_area=None))
    assert "cloud_masks" not in caplog.text


def test_months_average_what_was_observed_only(tmp_path, aerial):
    values = np.full((3, 3, 60, 60), 100, np.uint16)
    values[1], values[2] = 300, 900
    values[0, :, 26, 26] = 0  # a hole in June's first date only
    values[:2, :, 27, 27] = 0  # in all dates of June
    values[2, :, 0, 0] = 0
    folder = tmp_path / "s2"
    for day, image in zip(("20210603", "20210620", "20210910"), values, strict=True):
        write(folder / f"S2_{day}.tif", image, gsd=10, x=-250, y=-250, nodata=0)
    sample = windows(small({"aerial": aerial, "sentinel2": str(folder)}, monthly_means=True))[0]
    june, september = sample["inputs"]["sentinel2"].values
    assert sorted(set(june[~june.isnan()].tolist())) == [200, 300]
    assert (june == 300).sum() == 3
    assert june.isnan().sum() == 3  # which experts take for the mean
    assert (september == 900).all()


def test_dates_of_zeros_are_left_out_before_dates_are_chosen(tmp_path, aerial):
    values = series(3, 60)
    values[0] = 0  # without a nodata value in the file
    folder = write_folder(tmp_path / "s2", values, x=-250, y=-250)
    rasters = {"aerial": aerial, "sentinel2": folder}
    sample = windows(small(rasters, max_dates=2))[0]
    assert sample["inputs"]["sentinel2"].dates.tolist() == DAYS[1:]


def test_values_are_brought_to_the_unit_of_training(tmp_path):
    image = smooth_image(128, 128).clip(1)
    image[:, :30, :30] = 0
    path = write(tmp_path / "a.tif", image, gsd=0.2, nodata=0)
    values = series(3, 60)
    values[1] = 0
    folder = write_folder(tmp_path / "s2", values, x=-250, y=-250)
    rasters = {"aerial": path, "sentinel2": folder}
    plain = windows(small(rasters))[0]["inputs"]
    data = small(rasters, scale={"aerial": [1, 1, 1, 1, 5]}, offset={"sentinel2": -1000})
    moved = windows(data)[0]["inputs"]
    assert moved["aerial"].dtype == torch.float32
    factors = torch.tensor([1, 1, 1, 1, 5]).view(-1, 1, 1)
    seen = torch.ones(128, 128, dtype=torch.bool)
    seen[:30, :30] = False
    assert torch.equal(moved["aerial"][:, seen], (plain["aerial"] * factors.float())[:, seen])
    assert moved["aerial"][:, ~seen].isnan().all()  # which experts take for the mean
    assert moved["sentinel2"].dates.tolist() == [DAYS[0], DAYS[2]]  # nodata is nodata before that
    assert torch.equal(moved["sentinel2"].values, plain["sentinel2"].values.float() - 1000)
    for options, message in (
        ({"scale": {"aerial": [1, 5]}}, "data.scale.aerial: .* 5 bands, got"),
        ({"offset": {"sentinel2": float("nan")}}, "data.offset.sentinel2: "),
        ({"offset": {"radar": 1}}, r"data.offset names \['radar'\]"),
    ):
        with pytest.raises(InputError, match=message):
            windows(small(rasters, **options))


def test_a_missing_series_has_the_type_of_the_others(tmp_path, aerial):
    folder = write_folder(tmp_path / "s2", series(3, 10), x=-58, y=-20)  # the left 42 of 84 m
    rasters = {"aerial": aerial, "sentinel2": folder}
    data = windows(small(rasters, offset={"sentinel2": -1000}))
    (batch,) = DataLoader(data, batch_size=len(data), collate_fn=collate)
    assert len(set(batch["available"]["sentinel2"].tolist())) == 2
    assert {sample["inputs"]["sentinel2"].values.dtype for sample in data} == {torch.float32}


@pytest.mark.parametrize(("unit", "refused"), [(1, True), (100, False)])
def test_cloud_masks_are_in_percent(tmp_path, aerial, unit, refused):
    place = {"x": -250, "y": -250}
    masks = np.zeros((3, 2, 60, 60), np.float32)
    masks[2, 1, :20] = 0.9 * unit
    s2, clouds = (
        write_folder(tmp_path / n, v, **place) for n, v in (("s", series(3, 60)), ("m", masks))
    )
    data = small({"aerial": aerial, "sentinel2": s2}, cloud_masks={"sentinel2": clouds})
    if refused:
        with pytest.raises(InputError, match=r"data.cloud_masks.sentinel2: .*percent"):
            windows(data)
    else:
        windows(data)


def test_monthly_means_and_fewer_dates(tmp_path, aerial):
    folder = write_folder(tmp_path / "s2", series(3, 60), x=-250, y=-250)
    rasters = {"aerial": aerial, "sentinel2": folder}
    sample = windows(small(rasters, monthly_means=True))[0]
    days = sample["inputs"]["sentinel2"].dates.numpy().astype("datetime64[D]").astype(str)
    assert list(days) == ["2021-01-15", "2021-06-15", "2021-09-15"]
    assert sample["inputs"]["sentinel2"].values.dtype == torch.float32
    sample = windows(small(rasters, max_dates=2))[0]
    assert sample["inputs"]["sentinel2"].dates.tolist() == [DAYS[0], DAYS[2]]


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


def bad_inputs(tmp_path):
    aerial = write(tmp_path / "zone.tif", smooth_image(64, 64), gsd=0.2)
    image = series(1, 20)[0]
    place = {"gsd": 10, "x": -100, "y": -100}
    plain = write(tmp_path / "nodate.tif", image, **place)
    stack = write(tmp_path / "stack.tif", np.concatenate([image, image[:1]]), **place)
    two = write(tmp_path / "two.tif", np.concatenate([image, image]), **place)
    far = write(tmp_path / "far_20210101.tif", image, gsd=10, x=90000)
    utm = write(tmp_path / "utm_20210101.tif", image, crs="EPSG:32631", **place)
    bare = write(tmp_path / "bare.tif", smooth_image(64, 64), gsd=0.2, crs=None)
    degrees = write(tmp_path / "deg.tif", smooth_image(64, 64), gsd=0.2, crs="EPSG:4326")
    system = 'LOCAL_CS["RGF93 v1 / Lambert-93",UNIT["metre",1]]'  # as the masks of FLAIR #2 say
    local = write(tmp_path / "local.tif", smooth_image(64, 64), gsd=0.2, crs=system)
    coarse = write(tmp_path / "coarse.tif", smooth_image(64, 64), gsd=0.25)
    rgb = write(tmp_path / "rgb.tif", smooth_image(64, 64, bands=3), gsd=0.2)
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    cut = tmp_path / "cut.tif"
    cut.write_bytes((tmp_path / "zone.tif").read_bytes()[:-3000])
    twin = write(tmp_path / "other" / "zone.tif", smooth_image(64, 64), gsd=0.2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "dates.txt").write_text("20210101\n")
    (tmp_path / "wrong.txt").write_text("20210101\nyesterday\n")
    dates = {"dates": {"sentinel2": str(tmp_path / "dates.txt")}}
    return {
        "no crs": ({"aerial": bare}, {}, "bare.tif has no coordinate reference system"),
        "degrees": ({"aerial": degrees}, {}, "deg.tif is in degrees"),
        "far": ({"aerial": aerial, "sentinel2": far}, {}, "none of its rasters overlaps"),
        "crs": ({"aerial": aerial, "sentinel2": utm}, {}, "utm_.* is in EPSG:32631.*gdalwarp"),
        "missing": ({"aerial": str(tmp_path / "none.tif")}, {}, "there is no file .*none.tif"),
        "pattern": ({"aerial": str(tmp_path / "x*.tif")}, {}, "no file matches"),
        "empty": ({"aerial": aerial, "sentinel2": str(tmp_path / "empty")}, {}, "holds no raster"),
        "date": ({"aerial": aerial, "sentinel2": plain}, {}, "no date in the name of .*nodate.tif"),
        "stack": ({"aerial": aerial, "sentinel2": two}, {}, "could be a stack of 2 dates"),
        "count": ({"aerial": aerial, "sentinel2": stack}, dates, "stack.tif has 4 bands, but 1"),
        "line": (
            {"aerial": aerial, "sentinel2": plain},
            {"dates": {"sentinel2": str(tmp_path / "wrong.txt")}},
            "^data.dates.sentinel2: line 2 of .*wrong.txt",
        ),
        "corrupt": ({"aerial": str(text)}, {}, "text.tif cannot be read"),
        "truncated": ({"aerial": str(cut)}, {}, "cut.tif cannot be read"),
        "pixel size": ({"aerial": coarse}, {}, r"coarse.tif has pixels of 0.25 .*gdalwarp"),
        "bands": ({"aerial": rgb}, {}, "5 bands .*rgb.tif has 3"),
        "twins": ({"aerial": [aerial, twin]}, {}, "have the same name"),
        "unknown": ({"aerial": aerial, "lidar": aerial}, {}, r"\['lidar'\], but the model"),
        "window": ({"sentinel2": far}, {}, "10 pixels of 40.*--data.window 10 --data.overlap 5"),
        "crop": (
            {"sentinel2": far},
            {"window": 32, "overlap": 0, "crop": {"sentinel2": 20}},
            "is 32 pixels of sentinel2, more than its crop of 20.*--data.window 5 --data.overlap 2",
        ),
        "grid": ({"aerial": aerial}, {"grid": bare}, "data.grid: .*bare.tif has no coordinate"),
        "local": ({"aerial": aerial}, {"grid": local}, "local.tif has a local .*gdal_edit.py"),
        "grids": (
            {"aerial": aerial},
            {"grid": [aerial, coarse]},
            "data.grid: .*coarse.tif has pixels of 0.25 .*zone.tif has 0.2 m",
        ),
        "grid far": ({"aerial": aerial}, {"grid": far}, "aerial: none of its rasters overlaps"),
        "grid crs": ({"aerial": aerial}, {"grid": utm}, "zone.tif is in EPSG:2154, but .*utm_"),
        "typo": ({"aerial": aerial}, {"crop": {"sentinel": 40}}, r"data.crop names \['sentinel'\]"),
    }


def test_unusable_input_is_refused_before_predicting(tmp_path):
    for rasters, options, message in bad_inputs(tmp_path).values():
        with pytest.raises(InputError, match=message):
            windows(small(rasters, **options))


def test_unusable_arguments_are_refused():
    with pytest.raises(InputError, match="overlap must be"):
        RasterDataModule({"aerial": "a.tif"}, window=64, overlap=64)
    with pytest.raises(InputError, match="No rasters"):
        RasterDataModule({})
    with pytest.raises(InputError, match="no labels"):
        RasterDataModule({"aerial": "a.tif"}).setup("fit")


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


@pytest.mark.shared
def test_a_published_mask_is_no_grid(shared, aerial):
    mask = shared / "data/flair2/flair_labels_train/D004_2021/Z6_NU/msk/MSK_000473.tif"
    with pytest.raises(InputError, match=r"data.grid: .*MSK_000473.*gdal_edit.py -a_srs EPSG:2154"):
        windows(small({"aerial": aerial}, grid=str(mask)))


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

from dataclasses import replace

import numpy as np
import pytest
import torch
from raster_folders import DAYS, small, write_folder
from raster_scenes import SCHEMA, series, smooth_image, windows, write
from torch.utils.data import DataLoader

from fusionlab.data.base import collate
from fusionlab.errors import InputError
from fusionlab.types import Schema, TimeSeries


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

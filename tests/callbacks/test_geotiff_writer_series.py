from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from map_predictions import predict_map, read
from matplotlib.image import imread
from raster_scenes import SCHEMA, SERIES_SCHEMA, LatestExpert, smooth_image, write

from fusionlab.callbacks.map_layers import ClassLayer
from fusionlab.callbacks.map_stream import MapStream
from fusionlab.models.align import Footprint
from fusionlab.tasks import SegmentationTask


def loud_series(folder, size, *, x=0.0, y=0.0, dates=("20210110", "20210610"), **options):
    """A series whose last date says one class per pixel; returns it and these classes."""
    classes = np.random.default_rng(3).integers(0, 3, (size, size))
    loud = (classes[None] == np.arange(3)[:, None, None]) * 5000 + 100
    for day in dates:
        image = loud if day == dates[-1] else np.full_like(loud, 100)
        write(folder / f"S2_{day}.tif", image.astype(np.uint16), gsd=10, x=x, y=y, **options)
    return str(folder), classes.astype(np.uint8)


def series_task(**options):
    return SegmentationTask(SERIES_SCHEMA, LatestExpert, **options)


@pytest.mark.parametrize("crop", [40, 20, 10, 41])
@pytest.mark.parametrize("window", [10, 9])
def test_a_series_alone_is_mapped_on_its_own_pixels(tmp_path, crop, window):
    folder, expected = loud_series(tmp_path / "s2", 53)
    data = {"window": window, "overlap": 5, "crop": {"sentinel2": crop}}
    options = {"quicklook": True, "probabilities": "uint8"}
    predict_map(
        {"sentinel2": folder}, tmp_path / "maps", task=series_task(), data=data, writer=options
    )
    path = tmp_path / "maps" / "S2_20210110_classes.tif"
    with rasterio.open(Path(folder) / "S2_20210110.tif") as source, rasterio.open(path) as file:
        assert (file.crs, file.transform, file.shape) == (source.crs, source.transform, (53, 53))
        assert np.array_equal(file.read(1), expected)
    assert (tmp_path / "maps" / "S2_20210110_quicklook.png").is_file()


def test_a_stack_alone_is_mapped(tmp_path):
    folder, expected = loud_series(tmp_path / "s2", 23)
    images = [read(path) for path in sorted(Path(folder).iterdir())]
    stack = write(tmp_path / "stack.tif", np.concatenate(images), gsd=10)
    (tmp_path / "dates.txt").write_text("20210110\n20210610\n")
    data = {"window": 10, "overlap": 5, "dates": {"sentinel2": str(tmp_path / "dates.txt")}}
    writer = {"quicklook": True}
    predict_map(
        {"sentinel2": stack}, tmp_path / "maps", task=series_task(), data=data, writer=writer
    )
    assert np.array_equal(read(tmp_path / "maps" / "stack_classes.tif")[0], expected)


def test_a_series_is_mapped_on_another_rasters_grid(tmp_path):
    # Pixels of 2 m, shifted against those of 10 m by parts of a pixel, and a hole in the grid.
    folder, classes = loud_series(tmp_path / "s2", 60, x=-203, y=-204)
    image = smooth_image(90, 110, bands=3).clip(1)
    image[:, 50:, :20] = 0
    grid = write(tmp_path / "zone.tif", image, gsd=2, nodata=0)
    predict_map(
        {"sentinel2": folder},
        tmp_path / "maps",
        task=series_task(alignment=Footprint),
        data={"grid": grid, "window": 50, "overlap": 25},
        writer={"quicklook": True},
    )
    with rasterio.open(grid) as source, rasterio.open(tmp_path / "maps/zone_classes.tif") as file:
        assert (file.crs, file.transform, file.shape) == (source.crs, source.transform, (90, 110))
        values = file.read(1)
    hole = image[0] == 0
    assert (values[hole] == 255).all()
    rows = np.floor(((np.arange(90) + 0.5) * 2 + 204) / 10).astype(int)
    columns = np.floor(((np.arange(110) + 0.5) * 2 + 203) / 10).astype(int)
    expected = classes[np.ix_(rows, columns)]
    # Bilinear logits round the corners of the squares off; nothing is shifted.
    assert (values == expected)[~hole].mean() > 0.9
    shifted = [(np.roll(values, s, a) == expected)[~hole].mean() for s in (-1, 1) for a in (0, 1)]
    assert (values == expected)[~hole].mean() > max(shifted)
    picture = imread(tmp_path / "maps" / "zone_quicklook.png")
    assert np.ptp(picture[..., :3], axis=-1).max() > 0.2


def test_where_no_modality_is_available_the_map_has_no_data(tmp_path):
    grid = write(tmp_path / "zone.tif", smooth_image(128, 384, bands=3), gsd=2)
    folder, _ = loud_series(tmp_path / "s2", 40)  # the left 400 of 768 m
    data = {"grid": grid, "window": 32, "overlap": 0, "min_cover": 0.99}
    writer = {"probabilities": "uint8"}
    predict_map(
        {"sentinel2": folder}, tmp_path / "maps", task=series_task(), data=data, writer=writer
    )
    values = read(tmp_path / "maps" / "zone_classes.tif")[0]
    assert (values[:, :192] < 3).all()
    assert (values[:, 192:] == 255).all()
    probabilities = read(tmp_path / "maps" / "zone_probabilities.tif")
    assert ((probabilities == 255).all(axis=0) == (values == 255)).all()


def test_what_the_model_does_not_read_makes_no_map(tmp_path):
    # The aerial image is there everywhere, the series only on the left, and only it is read.
    aerial = write(tmp_path / "zone.tif", smooth_image(128, 384), gsd=0.2)
    folder, _ = loud_series(tmp_path / "s2", 7, x=-20, y=-20)
    predict_map(
        {"aerial": aerial, "sentinel2": folder},
        tmp_path / "maps",
        task=SegmentationTask(
            SCHEMA, partial(LatestExpert, modality="sentinel2"), alignment=Footprint
        ),
        data={"grid": aerial, "window": 32, "overlap": 0, "min_cover": 0.99},
    )
    values = read(tmp_path / "maps" / "zone_classes.tif")[0]
    assert (values[:, :224] < 3).all()
    assert (values[:, 256:] == 255).all()


def test_dates_without_observation_leave_no_data_in_the_map(tmp_path):
    folder, expected = loud_series(tmp_path / "s2", 30)
    for path in Path(folder).iterdir():
        with rasterio.open(path, "r+") as file:
            image = file.read()
            image[:, :12] = 0
            file.write(image)
            file.nodata = 0
    data = {"window": 10, "overlap": 5}
    predict_map({"sentinel2": folder}, tmp_path / "maps", task=series_task(), data=data)
    values = read(tmp_path / "maps" / "S2_20210110_classes.tif")[0]
    assert (values[:12] == 255).all()
    assert np.array_equal(values[12:], expected[12:])


def test_an_answer_to_nothing_counts_for_nothing(tmp_path):
    path = write(tmp_path / "a.tif", smooth_image(30, 40), gsd=0.2)
    layers = [ClassLayer("ab", ["#000000"] * 2)]
    stream = MapStream(path, tmp_path, window_height=30, layers=layers, answers=2, band_counts=[5])
    answer = np.stack([np.zeros((30, 20)), np.ones((30, 20))]).astype(np.float32)
    stream.add(0, 0, answer)
    stream.add(0, 10, np.full_like(answer, np.nan), present=False)
    stream.add(0, 20, np.full_like(answer, np.nan), present=False)
    stream.close()
    assert stream.complete
    values = read(tmp_path / "a_classes.tif")[0]
    assert (values[:, :20] == 1).all()
    assert (values[:, 20:] == 255).all()

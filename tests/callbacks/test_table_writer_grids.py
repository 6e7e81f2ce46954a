import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from patch_scenes import CLASSES, PATCH, PatchTask, optical, write_optical
from raster_scenes import trainer
from table_predictions import HEIGHT, WIDTH, grid_of, names, patch_means, predict, table

from fusionlab.callbacks import TableWriter
from fusionlab.callbacks.patch_grid import PatchGrid
from fusionlab.data.raster import RasterDataModule

pyogrio = pytest.importorskip("pyogrio")


def test_a_pixel_of_the_grid_is_a_patch_on_the_ground(zone, tmp_path):
    predict({"s2": zone}, tmp_path)
    with rasterio.open(zone) as source, rasterio.open(tmp_path / "zone_patches.tif") as file:
        assert file.crs == source.crs
        assert file.shape == (4, 6)
        assert file.res == (120, 120)
        assert file.descriptions == CLASSES
        assert file.dtypes == ("float32",) * 3
        assert np.isnan(file.nodata)
        values = file.read()
        for row, column in np.ndindex(4, 6):
            assert file.xy(row, column, offset="ul") == source.xy(
                row * PATCH, column * PATCH, offset="ul"
            )
            centre = file.xy(row, column)
            r, c = source.index(*centre)
            if r < HEIGHT and c < WIDTH:  # the middle of the last patches lies beyond the edge
                expected = source.read()[:, r, c] / 1000
                assert values[:, row, column] == pytest.approx(expected, rel=1e-6)
        assert json.loads(file.tags()["THRESHOLD"]) == 0.5
    assert values == pytest.approx(patch_means(optical(HEIGHT, WIDTH)), rel=1e-6)


def test_overlapping_patches_make_a_finer_grid(zone, tmp_path):
    predict({"s2": zone}, tmp_path, data={"overlap": 8})
    with rasterio.open(zone) as source, rasterio.open(tmp_path / "zone_patches.tif") as file:
        assert file.res == (40, 40)
        assert file.shape == (8, 15)  # the last patches start at 28 of 40, and at 56 of 65
        values, image = file.read(), source.read() / 1000
        for row, column in ((0, 0), (3, 5), (7, 13)):
            r, c = 4 * row, 4 * column
            window = rasterio.windows.Window(c, r, PATCH, PATCH)
            left, bottom, right, top = source.window_bounds(window)
            middle = ((left + right) / 2, (bottom + top) / 2)
            assert file.xy(row, column) == pytest.approx(middle)
            expected = image[:, r : r + PATCH, c : c + PATCH].mean(axis=(1, 2))
            assert values[:, row, column] == pytest.approx(expected, rel=1e-5)


def test_polygons_are_the_patches(zone, tmp_path):
    predict({"s2": zone}, tmp_path, writer={"grid": ["geotiff", "geopackage"]})
    path = tmp_path / "zone_patches.gpkg"
    assert "zone_patches.tif" in names(tmp_path)
    info = pyogrio.read_info(path)
    assert info["crs"] == "EPSG:2154"
    assert info["geometry_type"] == "Polygon"
    assert info["features"] == 24
    assert pyogrio.list_layers(path)[:, 0].tolist() == ["patches"]
    meta, _, geometry, fields = pyogrio.raw.read(path)
    columns = dict(zip(meta["fields"], fields, strict=True))
    rows = table(tmp_path)
    assert list(columns) == list(rows)
    assert columns["labels"].tolist() == ["; ".join(labels) for labels in rows["labels"]]
    for name in set(columns) - {"labels"}:
        assert columns[name].tolist() == rows[name], name
    _, boxes = pyogrio.read_bounds(path)
    with rasterio.open(zone) as source:
        for i, box in enumerate(boxes.T):
            row, column, height, width = (
                rows[name][i] for name in ("row", "column", "height", "width")
            )
            window = rasterio.windows.Window(column, row, width, height)
            assert tuple(box) == pytest.approx(source.window_bounds(window), abs=1e-9)
        whole = tuple(source.bounds)
    assert (*boxes[:2].min(axis=1), *boxes[2:].max(axis=1)) == pytest.approx(whole)
    ring = np.frombuffer(geometry[0][-80:]).reshape(5, 2)  # counter-clockwise, closed
    assert np.array_equal(ring[0], ring[-1])
    area = (ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]).sum() / 2
    assert area == pytest.approx(120 * 120)


def test_polygons_can_be_found_by_place_and_are_written_in_parts(zone, tmp_path, monkeypatch):
    monkeypatch.setattr("fusionlab.callbacks.patch_polygons._CHUNK_ROWS", 7)
    predict({"s2": zone}, tmp_path, writer={"grid": "geopackage"})
    path = tmp_path / "zone_patches.gpkg"
    assert pyogrio.read_info(path)["features"] == 24
    fids, boxes = pyogrio.read_bounds(path)
    left, bottom, right, top = boxes[:, 13]
    inside = (left + 1, bottom + 1, right - 1, top - 1)
    assert pyogrio.read_bounds(path, bbox=inside)[0].tolist() == [fids[13]]
    said = pyogrio.read_info(path)
    meta = {**(said.get("dataset_metadata") or {}), **(said.get("layer_metadata") or {})}
    assert json.loads(meta["classes"]) == list(CLASSES)


def test_several_rasters_and_a_batch_over_their_border(tmp_path):
    paths = [
        write_optical(tmp_path / "in" / f"{n}.tif", 40, 50 + 13 * n, seed=n, x=n * 2000)
        for n in range(3)
    ]
    writer = {"grid": ["geotiff", "geopackage"]}
    predict({"s2": str(tmp_path / "in")}, tmp_path / "all", data={"batch_size": 7}, writer=writer)
    every = pq.read_table(tmp_path / "all" / "predictions.parquet")
    single = []
    for path in paths:
        predict({"s2": path}, tmp_path / "one", writer=writer)
        name = f"{Path(path).stem}_patches.tif"
        assert np.array_equal(grid_of(tmp_path / "all" / name), grid_of(tmp_path / "one" / name))
        gpkg = name.replace("tif", "gpkg")
        assert np.array_equal(
            pyogrio.read_bounds(tmp_path / "all" / gpkg)[1],
            pyogrio.read_bounds(tmp_path / "one" / gpkg)[1],
        )
        single += pq.read_table(tmp_path / "one" / "predictions.parquet").to_pylist()
    assert every.to_pylist() == single


def test_a_grid_of_many_rows_is_written_in_strips(tmp_path, monkeypatch):
    zone = write_optical(tmp_path / "zone.tif", 130, 70)
    predict({"s2": zone}, tmp_path / "one", data={"overlap": 8})
    monkeypatch.setattr("fusionlab.callbacks.patch_grid._STRIP", 4)
    predict({"s2": zone}, tmp_path / "many", data={"overlap": 8})
    one, many = (grid_of(tmp_path / name / "zone_patches.tif") for name in ("one", "many"))
    assert one.shape[1] > 8
    assert np.array_equal(one, many)


def test_patches_out_of_order_or_off_the_grid_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("fusionlab.callbacks.patch_grid._STRIP", 2)
    zone = write_optical(tmp_path / "zone.tif", 72, 24)
    grid = PatchGrid(zone, tmp_path, window=12, stride=12, names=["a"], colors=["#000000"], tags={})
    one = np.zeros((1, 1), np.float32)
    grid.add(np.array([36]), np.array([0]), one)
    with pytest.raises(RuntimeError, match="row by row"):
        grid.add(np.array([0]), np.array([0]), one)
    with pytest.raises(RuntimeError, match="do not lie 12 pixels apart"):
        grid.add(np.array([37]), np.array([0]), one)
    grid.abort()
    assert names(tmp_path) == ["zone.tif"]


def test_a_raster_with_missing_patches_has_rows_but_no_grid(zone, tmp_path, caplog):
    predict({"s2": zone}, tmp_path / "out", limit_predict_batches=2)
    assert names(tmp_path / "out") == ["predictions.parquet"]
    assert len(table(tmp_path / "out")["sample"]) == 10
    assert "no grid written" in caplog.text


def test_samples_without_a_place_are_a_table_alone(zone, tmp_path):
    class Placeless(RasterDataModule):
        def dataset(self, split):
            samples = super().dataset(split)
            return [{k: v for k, v in s.items() if k != "placement"} for s in samples]

        def predict_dataloader(self):
            return self._loader(self._datasets["predict"])

    writer = TableWriter(tmp_path / "out", grid=["geotiff", "geopackage"])
    trainer(writer).predict(PatchTask(), Placeless({"s2": zone}, batch_size=5))
    assert names(tmp_path / "out") == ["predictions.parquet"]
    assert list(table(tmp_path / "out"))[:2] == ["sample", "labels"]

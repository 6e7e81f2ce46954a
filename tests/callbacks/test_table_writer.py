import csv
import json
import resource
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.shutil
import torch
from lightning.pytorch import Callback
from patch_scenes import (
    CLASSES,
    COLORS,
    PATCH,
    PatchTask,
    optical,
    patch_schema,
    radar,
    write_optical,
)
from raster_scenes import TinyTask, smooth_image, trainer, write
from torch.utils.data import DataLoader

from fusionlab.callbacks import GeoTiffWriter, TableWriter
from fusionlab.callbacks.patch_grid import PatchGrid
from fusionlab.callbacks.prediction_table import TableFile
from fusionlab.data.base import collate
from fusionlab.data.raster import RasterDataModule
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert
from fusionlab.models import FeatureFusion
from fusionlab.tasks import ClassificationTask

pyogrio = pytest.importorskip("pyogrio")
MULTICLASS = patch_schema("multiclass")
HEIGHT, WIDTH = 40, 65  # no multiples of the patch of 12: 4 by 6 patches


def predict(rasters, output, *, task=None, writer=None, data=None, **options):
    task = task or PatchTask()
    module = RasterDataModule(rasters, **{"batch_size": 5, **(data or {})})
    trainer(TableWriter(output, **(writer or {})), **options).predict(task, module)
    return task


def table(folder, name="predictions.parquet"):
    return pq.read_table(Path(folder) / name).to_pydict()


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def grid_of(path):
    with rasterio.open(path) as file:
        return file.read()


def patch_means(image):
    """Mean over 1000 of every band of every patch, as far as it lies on the image, (K, r, c)."""
    rows, columns = (range(0, n, PATCH) for n in image.shape[1:])
    return np.array([
        [[band[r : r + PATCH, c : c + PATCH].mean() for c in columns] for r in rows]
        for band in image / 1000
    ])  # fmt: skip


@pytest.fixture
def zone(tmp_path):
    return write_optical(tmp_path / "zone.tif", HEIGHT, WIDTH)


def test_a_row_per_patch_says_where_it_is_and_what_it_shows(zone, tmp_path):
    predict({"s2": zone}, tmp_path / "out", writer={"grid": "none"})
    assert names(tmp_path / "out") == ["predictions.parquet"]
    found = table(tmp_path / "out")
    assert list(found) == [
        "patch", "source", "row", "column", "height", "width", "labels",
        "available_s1", "available_s2", *(f"probability_{name}" for name in CLASSES),
    ]  # fmt: skip
    means = patch_means(optical(HEIGHT, WIDTH))
    assert len(found["patch"]) == means[0].size == 24
    for i, row in enumerate(found["row"]):
        column = found["column"][i]
        assert found["patch"][i] == f"zone_{row}_{column}"
        assert found["source"][i] == zone
        assert found["height"][i] == min(PATCH, HEIGHT - row)
        assert found["width"][i] == min(PATCH, WIDTH - column)
        expected = means[:, row // PATCH, column // PATCH]
        probabilities = [found[f"probability_{name}"][i] for name in CLASSES]
        assert probabilities == pytest.approx(expected, rel=1e-6)
        assert found["labels"][i] == [n for n, p in zip(CLASSES, expected, strict=True) if p >= 0.5]
    assert {len(labels) for labels in found["labels"]} > {0, 1}
    assert not any(found["available_s1"])
    assert all(found["available_s2"])


def test_the_file_says_where_it_comes_from(zone, tmp_path):
    predict({"s2": zone}, tmp_path, writer={"grid": "none"})
    meta = pq.read_schema(tmp_path / "predictions.parquet").metadata
    said = json.loads(meta[b"fusionlab"])
    assert said["classes"] == list(CLASSES)
    assert said["threshold"] == 0.5
    assert said["target"] == "multilabel"
    assert said["modalities"] == {"s1": ["VV", "VH"], "s2": ["B02", "B03", "B04"]}


def test_one_class_per_patch_is_a_label(zone, tmp_path):
    predict({"s2": zone}, tmp_path, task=PatchTask(MULTICLASS))
    found = table(tmp_path)
    best = patch_means(optical(HEIGHT, WIDTH)).argmax(axis=0)
    assert "labels" not in found
    assert found["label"] == [CLASSES[i] for i in best.ravel()]
    path = tmp_path / "zone_patches_classes.tif"
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(1), best)
        assert file.nodata == 255
        assert file.colormap(1)[1] == (*bytes.fromhex(COLORS[1][1:]), 255)
        assert json.loads(file.tags()["CLASS_NAMES"]) == list(CLASSES)
        assert file.tags(1)["CLASS_0"] == CLASSES[0]
    rasterio.shutil.copy(path, tmp_path / "legend.vrt", driver="VRT")  # what GIS programs read
    assert f"<Category>{CLASSES[0]}</Category>" in (tmp_path / "legend.vrt").read_text("utf-8")


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


def test_where_nothing_was_seen_there_is_no_answer(tmp_path):
    # Sentinel-1 covers the left third; Sentinel-2 has a hole, in part where Sentinel-1 is.
    image = optical(48, 72)
    image[:, 12:24, :48] = 0
    s2 = write_optical(tmp_path / "zone.tif", 48, 72, image=image)
    vv = radar(48, 24)
    vv[:, 36:] = np.nan
    s1 = write(tmp_path / "s1.tif", vv, gsd=10)
    for target in ("multilabel", "multiclass"):
        out = tmp_path / target
        writer = {"grid": ["geotiff", "geopackage"], "contributions": True, "embeddings": True}
        task = PatchTask(patch_schema(target))
        predict({"s1": s1, "s2": s2}, out, task=task, writer=writer)
        rows = table(out)
        s2_there = np.ones((4, 6), bool)
        s2_there[1, :4] = False
        s1_there = np.zeros((4, 6), bool)
        s1_there[:3, :2] = True
        assert np.array_equal(np.reshape(rows["available_s2"], (4, 6)), s2_there)
        assert np.array_equal(np.reshape(rows["available_s1"], (4, 6)), s1_there)
        seen = (s1_there | s2_there).ravel()
        for name in ("share_s2", "embedding_fused", *(f"probability_{n}" for n in CLASSES)):
            assert [value is not None for value in rows[name]] == seen.tolist(), name
        if target == "multilabel":
            assert all(rows["labels"][i] == [] for i in np.flatnonzero(~seen))
        else:
            assert [label is not None for label in rows["label"]] == seen.tolist()
            classes = grid_of(out / "zone_patches_classes.tif")[0]
            assert np.array_equal(classes != 255, seen.reshape(4, 6))
        values = grid_of(out / "zone_patches.tif")
        assert np.array_equal(~np.isnan(values), np.broadcast_to(seen.reshape(4, 6), (3, 4, 6)))
        assert values[:, 1, 0] == pytest.approx([0.3] * 3)  # Sentinel-1 answers alone
        _, _, _, fields = pyogrio.raw.read(
            out / "zone_patches.gpkg", columns=[f"probability_{CLASSES[0]}"]
        )
        assert np.array_equal(~np.isnan(fields[0]), seen)


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


def test_shares_and_embeddings_are_written_on_request(zone, tmp_path):
    predict({"s2": zone}, tmp_path, writer={"contributions": True, "embeddings": True})
    schema = pq.read_schema(tmp_path / "predictions.parquet")
    assert schema.names[-4:] == ["share_s1", "share_s2", "embedding_s2", "embedding_fused"]
    found = table(tmp_path)
    assert found["share_s2"] == [1.0] * 24
    means = patch_means(optical(HEIGHT, WIDTH)).reshape(3, -1).T
    assert np.array(found["embedding_fused"]) == pytest.approx(np.hstack([means, means]), rel=1e-6)
    assert np.array(found["embedding_s2"]) == pytest.approx(means, rel=1e-3)
    predict({"s2": zone}, tmp_path / "plain")
    plain = pq.read_schema(tmp_path / "plain" / "predictions.parquet")
    assert not any(name.startswith(("share_", "embedding_")) for name in plain.names)


class BandMeans(Expert):
    """Its embedding is the mean of every band."""

    def features(self, values, *, pooled=True):
        return self.inputs(values).mean(dim=(2, 3))

    @property
    def embedding_dim(self):
        return len(self.inputs)


@pytest.mark.parametrize("target", ["multilabel", "multiclass"])
def test_a_fusion_of_features_writes_all_it_has(tmp_path, target):
    """Sentinel-1 covers the left half: its expert has an embedding there only."""
    torch.manual_seed(0)
    experts = {
        "radar": partial(BandMeans, modality="s1"),
        "optical": partial(BandMeans, modality="s2", scale=[1e-3] * 3),
    }
    task = ClassificationTask(patch_schema(target), partial(FeatureFusion, experts=experts))
    image = optical(24, 48)
    s2 = write_optical(tmp_path / "zone.tif", 24, 48, image=image)
    s1 = write(tmp_path / "s1.tif", radar(24, 24), gsd=10)
    asked = {"contributions": True, "embeddings": True, "grid": ["geotiff", "geopackage"]}
    rasters = {"s1": s1, "s2": s2}
    predict(rasters, tmp_path / "out", task=task, writer=asked, data={"grid": s2})
    found = table(tmp_path / "out")
    assert found["available_s1"] == [True, True, False, False] * 2
    assert [e is not None for e in found["embedding_radar"]] == found["available_s1"]
    means = patch_means(image).reshape(3, -1).T
    assert np.array(found["embedding_optical"]) == pytest.approx(means, rel=1e-5)
    assert {len(e) for e in found["embedding_fused"]} == {5}
    shares = np.array([found["share_radar"], found["share_optical"]])
    assert shares.sum(axis=0) == pytest.approx(np.ones(8), abs=1e-5)
    assert (shares[0] == 0).tolist() == [False, False, True, True] * 2
    probabilities = np.array([found[f"probability_{name}"] for name in CLASSES])
    if target == "multiclass":
        assert probabilities.sum(axis=0) == pytest.approx(np.ones(8), abs=1e-5)
        assert found["label"] == [CLASSES[i] for i in probabilities.argmax(axis=0)]
    else:
        chosen = [[n for n, p in zip(CLASSES, q, strict=True) if p >= 0.5] for q in probabilities.T]
        assert found["labels"] == chosen
    values = grid_of(tmp_path / "out" / "zone_patches.tif")
    assert values.reshape(3, -1) == pytest.approx(probabilities)
    meta = pq.read_schema(tmp_path / "out" / "predictions.parquet").metadata
    assert "FeatureFusion" in json.loads(meta[b"fusionlab"])["model"]["class_path"]


def test_csv_is_read_as_it_was_meant_whatever_the_names(zone, tmp_path):
    predict({"s2": zone}, tmp_path / "csv", writer={"format": "csv", "contributions": True})
    predict({"s2": zone}, tmp_path / "parquet", writer={"contributions": True})
    assert names(tmp_path / "csv") == ["predictions.csv", "zone_patches.tif"]
    expected = table(tmp_path / "parquet")
    path = tmp_path / "csv" / "predictions.csv"
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == list(expected)
    columns = dict(zip(header, zip(*lines, strict=True), strict=True))
    assert list(columns["labels"]) == ["; ".join(labels) for labels in expected["labels"]]
    assert any(CLASSES[0] in labels and CLASSES[1] in labels for labels in columns["labels"])
    for name in CLASSES:
        assert np.array_equal(
            np.array(columns[f"probability_{name}"], np.float32),
            np.array(expected[f"probability_{name}"], np.float32),
        )
    again = pa_csv.read_csv(path).to_pydict()
    assert again["row"] == expected["row"]
    assert again["available_s2"] == expected["available_s2"]


def test_what_csv_says_of_a_patch_without_data(tmp_path):
    image = optical(24, 24)
    image[:, :12] = 0
    s2 = write_optical(tmp_path / "zone.tif", 24, 24, image=image)
    predict({"s2": s2}, tmp_path, writer={"format": "csv"})
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = f"probability_{CLASSES[1]}"
    assert [row[column] == "" for row in rows] == [True, True, False, False]
    assert rows[0]["labels"] == ""


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("fusionlab.callbacks.prediction_table._GROUP_ROWS", 10)
    zone = write_optical(tmp_path / "zone.tif", 120, 120)
    waiting = []

    class Watch(Callback):
        def on_predict_batch_end(self, trainer, *_):
            (writer,) = (c for c in trainer.callbacks if isinstance(c, TableWriter))
            waiting.append(len(writer._table._waiting))

    module = RasterDataModule({"s2": zone}, batch_size=3)
    trainer(TableWriter(tmp_path), Watch()).predict(PatchTask(), module)
    assert max(waiting) <= 4
    file = pq.ParquetFile(tmp_path / "predictions.parquet")
    assert file.metadata.num_row_groups == 9
    assert file.metadata.num_rows == 100
    assert [f"zone_{r}_{c}" for r in range(0, 120, 12) for c in range(0, 120, 12)] == (
        file.read(["patch"])["patch"].to_pylist()
    )


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
    options = {"window": 12, "stride": 12, "classes": ["a"], "colors": ["#000000"], "tags": {}}
    grid = PatchGrid(zone, tmp_path, single=True, **options)
    one = np.zeros((1, 1), np.float32)
    grid.add(np.array([36]), np.array([0]), one)
    with pytest.raises(RuntimeError, match="row by row"):
        grid.add(np.array([0]), np.array([0]), one)
    with pytest.raises(RuntimeError, match="do not lie 12 pixels apart"):
        grid.add(np.array([37]), np.array([0]), one)
    grid.abort()
    assert names(tmp_path) == ["zone.tif"]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_an_interruption_leaves_nothing_behind(tmp_path, interrupt):
    # The first raster is whole by then.
    for n in range(2):
        write_optical(tmp_path / "in" / f"{n}.tif", 24, 36, x=500 * n)
    task = PatchTask(MULTICLASS, fail_at=2)
    task.interrupt = interrupt
    writer = {"grid": ["geotiff", "geopackage"]}
    with pytest.raises((SystemExit, RuntimeError)):
        predict({"s2": str(tmp_path / "in")}, tmp_path / "out", task=task, writer=writer)
    assert names(tmp_path / "out") == []


def test_an_interruption_keeps_what_an_earlier_run_wrote(zone, tmp_path):
    writer = {"grid": ["geotiff", "geopackage"]}
    predict({"s2": zone}, tmp_path / "out", writer=writer)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    task = PatchTask(fail_at=2)
    task.interrupt = RuntimeError()
    with pytest.raises(RuntimeError):
        predict({"s2": zone}, tmp_path / "out", task=task, writer=writer)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_nothing_stays_of_an_earlier_run(zone, tmp_path):
    out = tmp_path / "out"
    predict({"s2": zone}, out, task=PatchTask(MULTICLASS), writer={"format": "csv"})
    for name in ("predictions_rank0.parquet", "predictions_rank1.csv", "zone_patches.gpkg"):
        (out / name).write_text("old")
    (out / "zone_patches.tif.aux.xml").write_text("statistics")
    kept = ("other_patches.tif", "predictions_of_mine.csv", "zone_classes.tif")
    for name in kept:
        (out / name).write_text("not ours")
    predict({"s2": zone}, out)
    assert names(out) == sorted([*kept, "predictions.parquet", "zone_patches.tif"])


def test_processes_write_a_table_each(zone, tmp_path):
    """As the callback is called in two processes of one run."""

    class Rank:
        world_size = 2
        ckpt_path = None

        def __init__(self, rank):
            self.global_rank = rank
            self.is_global_zero = rank == 0
            self.predict_loop = type("Loop", (), {})()

    for name in ("predictions.parquet", "predictions_rank1.csv", "predictions_rank2.parquet"):
        (tmp_path / name).write_text("old")
    module = RasterDataModule({"s2": zone}, batch_size=4)
    task = PatchTask()
    module.trainer = trainer()
    module.trainer.strategy._lightning_module = task
    module.setup("predict")
    data = module._datasets["predict"]
    for rank in (1, 0):
        writer, process = TableWriter(tmp_path, grid="none"), Rank(rank)
        writer.setup(process, task, "predict")
        writer.on_predict_start(process, task)
        mine = [data[i] for i in range(rank, len(data), 2)]
        for i, batch in enumerate(DataLoader(mine, 4, collate_fn=collate)):
            answer = task.predict_step(batch, i)
            writer.on_predict_batch_end(process, task, answer, batch, i)
        writer.on_predict_end(process, task)
        writer.teardown(process, task, "predict")
    assert names(tmp_path) == ["predictions_rank0.parquet", "predictions_rank1.parquet", "zone.tif"]
    parts = [table(tmp_path, f"predictions_rank{rank}.parquet")["patch"] for rank in (0, 1)]
    predict({"s2": zone}, tmp_path / "one")
    whole = table(tmp_path / "one")["patch"]
    assert parts == [whole[::2], whole[1::2]]


def test_a_raster_with_missing_patches_has_rows_but_no_grid(zone, tmp_path, caplog):
    predict({"s2": zone}, tmp_path / "out", limit_predict_batches=2)
    assert names(tmp_path / "out") == ["predictions.parquet"]
    assert len(table(tmp_path / "out")["patch"]) == 10
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
    assert list(table(tmp_path / "out"))[:2] == ["patch", "labels"]


def test_a_full_disk_leaves_nothing_behind(zone, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    writer = {"grid": ["geotiff", "geopackage"]}
    predict({"s2": zone}, tmp_path / "whole", writer=writer)
    before = names(tmp_path / "whole")
    for cls, method in (
        (TableFile, "_flush"),
        (PatchGrid, "_flush"),
        (PatchGrid, "commit"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(cls, method, full)
            for out in ("new", "whole"):
                with pytest.raises(InputError, match="No space left on device"):
                    predict({"s2": zone}, tmp_path / out, writer=writer)
    assert names(tmp_path / "new") == []
    assert names(tmp_path / "whole") == before


@pytest.mark.parametrize(
    ("writer", "largest"),
    [
        ({"grid": "none"}, 60_000),
        ({"grid": "none", "format": "csv"}, 60_000),
        ({"grid": "geotiff"}, 60_000),
        ({"grid": "geopackage"}, 120_000),
    ],
    ids=["parquet", "csv", "geotiff", "geopackage"],
)
def test_a_file_that_cannot_grow_leaves_nothing_behind(tmp_path, monkeypatch, writer, largest):
    """The operating system refuses to write on, as when the disk is full."""
    zone = write_optical(tmp_path / "zone.tif", 48, 1200)
    task = PatchTask(patch_schema(classes=[f"class {i}" for i in range(60)], colors=()))
    task.predict_step = lambda batch, batch_idx: {
        "probabilities": torch.rand(len(batch["sample_id"]), 60),
        "labels": torch.ones(len(batch["sample_id"]), 60, dtype=torch.bool),
    }
    if writer["grid"] != "none":  # so that the table is not what fails
        monkeypatch.setattr(TableFile, "_flush", lambda self: None)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
        with pytest.raises(InputError, match="Cannot write predictions into"):
            predict(
                {"s2": zone}, tmp_path / "out", task=task, writer=writer, data={"batch_size": 100}
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize("short", [1, 50, 400, 3000, 6000])
def test_a_grid_that_is_cut_when_it_is_closed_is_noticed(tmp_path, short):
    zone = write_optical(tmp_path / "zone.tif", 480, 480)
    rows, columns = np.divmod(np.arange(1600), 40) * np.array(PATCH)
    values = np.random.default_rng(0).random((1600, 2)).astype(np.float32)

    def write_grid():
        grid = PatchGrid(
            zone, tmp_path, window=PATCH, stride=PATCH, classes=("a", "b"),
            colors=("#000000", "#ffffff"), single=True, tags={},
        )  # fmt: skip
        try:
            grid.add(rows, columns, values)
            grid.close()
            grid.commit()
        except BaseException:
            grid.abort()
            raise

    write_grid()
    path = tmp_path / "zone_patches.tif"
    before, present = path.read_bytes(), names(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - short, limits[1]))
        with pytest.raises((OSError, rasterio.errors.RasterioError)):
            write_grid()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert names(tmp_path) == present


def test_writers_that_do_not_suit_the_model_are_refused_by_name(zone, tmp_path):
    aerial = write(tmp_path / "aerial.tif", smooth_image(64, 64), gsd=0.2)
    module = RasterDataModule({"aerial": aerial}, window=64, overlap=0)
    with pytest.raises(InputError, match=r"answers per pixel.*--writer GeoTiffWriter"):
        trainer(TableWriter(tmp_path / "a")).predict(TinyTask(), module)
    task = PatchTask()
    with pytest.raises(InputError, match=r"answers once per sample.*--writer TableWriter"):
        trainer(GeoTiffWriter(tmp_path / "b")).predict(task, RasterDataModule({"s2": zone}))
    assert not task.seen
    assert names(tmp_path) == ["aerial.tif", "zone.tif"]


def test_what_cannot_be_written_is_refused_before_predicting(zone, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="lists of numbers, which a CSV file has no place for"):
        TableWriter(tmp_path, format="csv", embeddings=True)
    task = PatchTask(patch_schema(classes=("Water", "water", "x")))
    with pytest.raises(InputError, match=r"\['Water', 'water'\] apart"):
        predict({"s2": zone}, tmp_path / "a", task=task, writer={"grid": "geopackage"})
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="output folder"):
        predict({"s2": zone}, blocked, task=task)
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    with pytest.raises(InputError, match=r"pip install 'fusionlab\[geopackage\]'"):
        predict({"s2": zone}, tmp_path / "a", task=task, writer={"grid": ["geopackage"]})
    assert not task.seen
    assert not (tmp_path / "a").exists()
    predict({"s2": zone}, tmp_path / "b", task=task)  # nothing else needs it
    assert names(tmp_path / "b") == ["predictions.parquet", "zone_patches.tif"]


@pytest.mark.parametrize(
    ("option", "message"),
    [("contributions", "cannot say what each modality"), ("embeddings", "has no embeddings")],
)
def test_what_the_model_does_not_give_is_refused(zone, tmp_path, option, message):
    class Mute(PatchTask):
        def predict_step(self, batch, batch_idx):
            answer = super().predict_step(batch, batch_idx)
            return {k: answer[k] for k in ("probabilities", "labels")}

    with pytest.raises(InputError, match=message):
        predict({"s2": zone}, tmp_path / "out", task=Mute(), writer={option: True})
    assert names(tmp_path / "out") == []


def test_rasters_of_one_name_are_refused(tmp_path):
    paths = [write_optical(tmp_path / n / "zone.tif", 24, 24) for n in "ab"]

    class Twins(RasterDataModule):
        def dataset(self, split):
            one = super().dataset(split)
            other = RasterDataModule({"s2": paths[1]})
            other.trainer = self.trainer
            return [*one, *other.dataset(split)]

        def predict_dataloader(self):
            return self._loader(self._datasets["predict"])

    with pytest.raises(InputError, match="would have the same name"):
        trainer(TableWriter(tmp_path / "out")).predict(PatchTask(), Twins({"s2": paths[0]}))
    assert names(tmp_path / "out") == []

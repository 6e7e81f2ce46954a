import csv
import json
from functools import partial

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.shutil
import torch
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
from raster_scenes import write
from table_predictions import HEIGHT, MULTICLASS, WIDTH, grid_of, names, patch_means, predict, table

from fusionlab.experts.base import Expert
from fusionlab.models import FeatureFusion
from fusionlab.tasks import ClassificationTask

pyogrio = pytest.importorskip("pyogrio")


def test_a_row_per_patch_says_where_it_is_and_what_it_shows(zone, tmp_path):
    predict({"s2": zone}, tmp_path / "out", writer={"grid": "none"})
    assert names(tmp_path / "out") == ["predictions.parquet"]
    found = table(tmp_path / "out")
    assert list(found) == [
        "sample", "source", "row", "column", "height", "width", "labels",
        "available_s1", "available_s2", *(f"probability_{name}" for name in CLASSES),
    ]  # fmt: skip
    means = patch_means(optical(HEIGHT, WIDTH))
    assert len(found["sample"]) == means[0].size == 24
    for i, row in enumerate(found["row"]):
        column = found["column"][i]
        assert found["sample"][i] == f"zone_{row}_{column}"
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

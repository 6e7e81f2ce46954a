"""Tables of values: a model that answers with the means of a patch's bands."""

import csv
import json
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from patch_scenes import PATCH, PatchTask, optical, patch_schema, radar, write_optical
from raster_scenes import trainer, write
from table_predictions import HEIGHT, WIDTH, grid_of, names, patch_means, predict, table

from fusionlab.callbacks import GeoTiffWriter
from fusionlab.data.raster import RasterDataModule
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert
from fusionlab.tasks import RegressionTask
from fusionlab.types import Schema

# `height` is a column of its own, the rows of a patch.
VARIABLES = ("height", "Biomasse, oberirdisch", "index")
UNITS = ("m", "t/ha", "")


def value_schema(variables=VARIABLES, units=UNITS, target="scalar_regression"):
    modalities = patch_schema().modalities
    return Schema(modalities, target=target, variables=variables, units=units)


class ValueTask(PatchTask):
    """Answers with the means of the bands over 1000, less a half."""

    def __init__(self, schema=None, **options):
        super().__init__(schema or value_schema(), **options)

    def predict_step(self, batch, batch_idx):
        answer = super().predict_step(batch, batch_idx)
        del answer["labels"]
        return {**answer, "values": answer.pop("probabilities") - 0.5}


def means():
    return patch_means(optical(HEIGHT, WIDTH)) - 0.5


def test_a_column_per_variable_and_its_unit(zone, tmp_path):
    predict({"s2": zone}, tmp_path, task=ValueTask(), writer={"grid": "none"})
    found = table(tmp_path)
    assert list(found) == [
        "sample", "source", "row", "column", "height", "width",
        "available_s1", "available_s2", *(f"value_{name}" for name in VARIABLES),
    ]  # fmt: skip
    assert set(found["height"]) == {PATCH, HEIGHT % PATCH}
    values = np.array([found[f"value_{name}"] for name in VARIABLES])
    np.testing.assert_allclose(values, means().reshape(3, -1), rtol=1e-4, atol=1e-6)
    assert (values < 0).any()
    schema = pq.read_schema(tmp_path / "predictions.parquet")
    assert schema.field("value_height").metadata == {b"unit": b"m"}
    assert schema.field("value_index").metadata is None
    said = json.loads(schema.metadata[b"fusionlab"])
    assert said["target"] == "scalar_regression"
    assert said["variables"] == list(VARIABLES)
    assert said["units"] == list(UNITS)
    assert not {"classes", "threshold"} & set(said)


def test_a_grid_of_patches_has_a_band_per_variable(zone, tmp_path):
    predict({"s2": zone}, tmp_path, task=ValueTask())
    assert names(tmp_path) == ["predictions.parquet", "zone.tif", "zone_patches.tif"]
    with rasterio.open(tmp_path / "zone_patches.tif") as file:
        assert file.descriptions == VARIABLES
        assert [unit or "" for unit in file.units] == list(UNITS)
        assert file.dtypes == ("float32",) * 3
        assert np.isnan(file.nodata)
        assert file.res == (120, 120)
        assert not {"CLASS_NAMES", "THRESHOLD"} & set(file.tags())
        np.testing.assert_allclose(file.read(), means(), rtol=1e-4, atol=1e-6)


def test_polygons_and_csv_hold_the_same(zone, tmp_path):
    pyogrio = pytest.importorskip("pyogrio")
    writer = {"grid": "geopackage", "format": "csv"}
    predict({"s2": zone}, tmp_path, task=ValueTask(), writer=writer)
    meta, _, _, fields = pyogrio.raw.read(tmp_path / "zone_patches.gpkg")
    polygons = dict(zip(meta["fields"], fields, strict=True))
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(polygons)
    for i, name in enumerate(VARIABLES):
        expected = means()[i].ravel()
        np.testing.assert_allclose(polygons[f"value_{name}"], expected, rtol=1e-4, atol=1e-6)
        written = [float(row[f"value_{name}"]) for row in rows]
        np.testing.assert_allclose(written, expected, rtol=1e-4, atol=1e-6)


def test_where_nothing_was_seen_there_is_no_value(tmp_path):
    image = optical(24, 48)
    image[:, 12:, :24] = 0
    s2 = write_optical(tmp_path / "zone.tif", 24, 48, image=image)
    predict({"s2": s2}, tmp_path, task=ValueTask())
    seen = [True] * 4 + [False] * 2 + [True] * 2
    assert [value is not None for value in table(tmp_path)["value_height"]] == seen
    values = grid_of(tmp_path / "zone_patches.tif")
    assert np.array_equal(~np.isnan(values[0]).ravel(), seen)


def test_shares_and_embeddings_are_written_on_request(zone, tmp_path):
    asked = {"contributions": True, "embeddings": True}
    predict({"s2": zone}, tmp_path, task=ValueTask(), writer=asked)
    found = table(tmp_path)
    assert list(found)[-4:] == ["share_s1", "share_s2", "embedding_s2", "embedding_fused"]
    assert found["share_s2"] == [1.0] * 24


class BandMeans(Expert):
    """Answers with the means of the bands."""

    def logits(self, values):
        return self.inputs(values).mean(dim=(2, 3))


def test_what_a_task_answers_is_written(tmp_path):
    variables, units = ("a", "b"), ("dB", "")
    task = RegressionTask(value_schema(variables, units), partial(BandMeans, modality="s1"))
    image = radar(24, 36)
    s1 = write(tmp_path / "s1.tif", image, gsd=10)
    predict({"s1": s1}, tmp_path / "out", task=task)
    expected = patch_means(image * 1000)
    np.testing.assert_allclose(grid_of(tmp_path / "out" / "s1_patches.tif"), expected, rtol=1e-4)
    found = table(tmp_path / "out")
    np.testing.assert_allclose(found["value_b"], expected[1].ravel(), rtol=1e-4)


def test_writers_that_do_not_suit_the_values_are_refused_by_name(zone, tmp_path):
    task = ValueTask()
    with pytest.raises(InputError, match=r"once per sample \(scalar_reg.*--writer TableWriter"):
        trainer(GeoTiffWriter(tmp_path / "a")).predict(task, RasterDataModule({"s2": zone}))
    maps = ValueTask(value_schema(target="regression"))
    with pytest.raises(InputError, match=r"answers per pixel.*--writer GeoTiffWriter"):
        predict({"s2": zone}, tmp_path / "b", task=maps, data={"window": 24})
    assert not task.seen + maps.seen
    assert names(tmp_path) == ["zone.tif"]


def test_variables_that_a_geopackage_does_not_tell_apart_are_refused(zone, tmp_path):
    pytest.importorskip("pyogrio")
    task = ValueTask(value_schema(("NDVI", "ndvi", "x"), ()))
    with pytest.raises(InputError, match=r"variables \['NDVI', 'ndvi'\] apart"):
        predict({"s2": zone}, tmp_path / "a", task=task, writer={"grid": "geopackage"})

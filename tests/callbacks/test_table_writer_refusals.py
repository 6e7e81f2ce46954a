import sys

import pytest
from patch_scenes import PatchTask, patch_schema, write_optical
from raster_scenes import TinyTask, smooth_image, trainer, write
from table_predictions import names, predict

from fusionlab.callbacks import GeoTiffWriter, TableWriter
from fusionlab.data.raster import RasterDataModule
from fusionlab.errors import InputError

pytest.importorskip("pyogrio")


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

import resource

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from lightning.pytorch import Callback
from patch_scenes import PATCH, PatchTask, patch_schema, write_optical
from raster_scenes import trainer
from table_predictions import MULTICLASS, names, predict, table
from torch.utils.data import DataLoader

from fusionlab.callbacks import TableWriter
from fusionlab.callbacks.patch_grid import PatchGrid
from fusionlab.callbacks.prediction_table import TableFile
from fusionlab.data.base import collate
from fusionlab.data.raster import RasterDataModule
from fusionlab.errors import InputError

pytest.importorskip("pyogrio")


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
        file.read(["sample"])["sample"].to_pylist()
    )


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
    parts = [table(tmp_path, f"predictions_rank{rank}.parquet")["sample"] for rank in (0, 1)]
    predict({"s2": zone}, tmp_path / "one")
    whole = table(tmp_path / "one")["sample"]
    assert parts == [whole[::2], whole[1::2]]


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
            zone, tmp_path, window=PATCH, stride=PATCH, names=("a", "b"),
            colors=("#000000", "#ffffff"), tags={},
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

"""A folder of rasters from the command line: one value per sample, from training to prediction."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import yaml
from bigearthnet_runs import without_pictures
from folder_files import NAMES, write_folders

from fusionlab.cli import FusionlabCLI, run
from fusionlab.errors import InputError

pytestmark = pytest.mark.slow

CPU = [
    "--trainer.accelerator", "cpu", "--trainer.devices", "1",
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
]  # fmt: skip
IMAGES = {"path": "S2", "bands": ["B02", "B03", "B04"], "mean": [4500] * 3, "std": [2600] * 3}
TARGET = {"path": "heights", "variables": ["canopy_height"], "units": ["m"], "per_sample": True}


def config(file: Path, root: Path, **data) -> list[str]:
    """Flags of a configuration: mean canopy height of windows of 12 pixels, by a tiny network."""
    options = {
        "root": str(root), "modalities": {"s2": IMAGES}, "target": TARGET,
        "splits": {"val": "b", "test": "north/c"}, "crop": 12, "batch_size": 4,
    }  # fmt: skip
    expert = {"class_path": "EncoderDecoder", "init_args": {"backbone": "timm/test_resnet"}}
    sections = {
        "model": {"class_path": "RegressionTask", "init_args": {"model": expert}},
        "data": {"class_path": "FolderDataModule", "init_args": {**options, **data}},
    }
    file.write_text(yaml.safe_dump(sections))
    return ["--config", str(file), *CPU]


def do(command: str, *args: str) -> FusionlabCLI:
    with without_pictures():
        return run([command, *args])


def heights(root: Path, place: str, row: int, column: int, size: int = 12) -> float:
    """The mean of what is known in a window."""
    with rasterio.open(root / f"heights/{place}.tif") as file:
        values = file.read(1, masked=True)[row : row + size, column : column + size]
    return float(values.astype(np.float64).mean())


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_folders(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory) -> Path:
    """A run with all it draws."""
    folder = tmp_path_factory.mktemp("trained")
    flags = config(folder / "heights.yaml", root)
    run(["fit", *flags, "--trainer.max_epochs", "2", "--output", str(folder / "run")])
    return folder


def predicted(output: Path) -> tuple[list[dict], dict]:
    """Rows of the table and what it says of itself."""
    read = pq.read_table(output / "predictions.parquet")
    return read.to_pylist(), json.loads(read.schema.metadata[b"fusionlab"])


def test_training_and_validation_draw_values_of_samples(trained, root, tmp_path):
    flags = [*config(tmp_path / "c.yaml", root), "--ckpt_path", str(trained / "run/best.ckpt")]
    cli = run(["validate", *flags, "--output", str(tmp_path / "val")])
    assert np.isfinite(float(cli.trainer.callback_metrics["val/rmse"]))
    for folder, files in (
        (trained / "run", ("curves.png", "val_examples.png")),
        (tmp_path / "val", ("val_examples.png", "val_regression.png")),
    ):
        assert {path.name for path in folder.glob("*.png")} >= set(files)


def test_scores_are_those_of_the_table(trained, root, tmp_path):
    flags = [*config(tmp_path / "c.yaml", root), "--ckpt_path", str(trained / "run/best.ckpt")]
    cli = do("test", *flags, "--output", str(tmp_path / "test"))
    rmse = float(cli.trainer.callback_metrics["test/rmse"])
    do("predict", *flags, "--output", str(tmp_path / "table"))
    rows, said = predicted(tmp_path / "table")
    assert (said["target"], said["units"]) == ("scalar_regression", ["m"])
    assert [row["sample"] for row in rows] == [
        f"north/c_{row}_{column}" for row in (0, 12) for column in (0, 12, 18)
    ]
    assert {row["source"] for row in rows} == {str(root / "S2/north/c.tif")}
    assert [(row["row"], row["column"], row["height"], row["width"]) for row in rows] == [
        (row, column, 12, 12) for row in (0, 12) for column in (0, 12, 18)
    ]
    errors = [
        row["value_canopy_height"] - heights(root, "north/c", row["row"], row["column"])
        for row in rows
    ]
    assert rmse == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-4)
    assert [path.name for path in (tmp_path / "table").glob("*.tif")] == []


def test_whole_files_are_rows_and_need_no_target(trained, root, tmp_path):
    flags = config(tmp_path / "c.yaml", root, crop=None, predict_split="all", target=None,
                   batch_size=1)  # fmt: skip
    do("predict", *flags, "--ckpt_path", str(trained / "run/best.ckpt"),
       "--output", str(tmp_path / "all"))  # fmt: skip
    rows, _ = predicted(tmp_path / "all")
    assert [row["sample"] for row in rows] == sorted(NAMES)
    assert all(np.isfinite(row["value_canopy_height"]) for row in rows)


def test_windows_of_folders_to_predict_only(trained, root, tmp_path):
    # The last windows are moved inwards, so they make no grid; the checkpoint says they need none.
    flags = config(tmp_path / "c.yaml", root, overlap=5, predict_split="all", target=None)
    do("predict", *flags, "--ckpt_path", str(trained / "run/best.ckpt"),
       "--output", str(tmp_path / "all"))  # fmt: skip
    rows, _ = predicted(tmp_path / "all")
    assert len(rows) == 4 * 3 * 4
    assert len({row["sample"] for row in rows}) == len(rows)


def test_classes_have_no_mean(root, tmp_path):
    target = {"path": "labels", "classes": ["a", "b", "c"], "per_sample": True}
    flags = config(tmp_path / "c.yaml", root, target=target)
    with pytest.raises(InputError, match="per_sample learns the mean of values"):
        do("fit", *flags, "--output", str(tmp_path / "run"))

"""Loggers named in YAML: always beside the CSV, in the run's folder, with pictures, and closed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli_runs import config, pixel_expert
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyLogger

from fusionlab.callbacks.trackers import closing_trackers, log_image, make_logger, takes_images
from fusionlab.cli import run
from fusionlab.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs" / "logger"


class Notes(DummyLogger):
    """Takes any text, as a tracker of a user's own."""

    def __init__(self, where: str = "", **options) -> None:
        super().__init__()
        self.where = where


class Absent(DummyLogger):
    def __init__(self) -> None:
        raise ModuleNotFoundError("No module named 'absent'")


def fit(root, folder, *flags: str):
    file = config(folder / "run.yaml", root, pixel_expert(), modalities=["aerial"])
    return run(["fit", "--config", file, "--output", str(folder / "run"), *flags])


def overlay(folder: Path, loggers) -> str:
    path = folder / "loggers.yaml"
    path.write_text(yaml.safe_dump({"trainer": {"logger": loggers}}))
    return str(path)


@pytest.mark.parametrize("as_list", [True, False])
def test_the_table_is_written_whatever_else_a_run_is_tracked_by(as_list, flair2_root, tmp_path):
    notes = {"class_path": "test_trackers.Notes", "init_args": {"where": "at {output}/notes"}}
    cli = fit(
        flair2_root, tmp_path,
        "--config", overlay(tmp_path, [notes] if as_list else notes),
    )  # fmt: skip
    csv, tracker = cli.trainer.loggers
    assert isinstance(csv, CSVLogger)
    assert tracker.where == f"at {tmp_path / 'run'}/notes"
    header = (tmp_path / "run" / "logs" / "version_0" / "metrics.csv").read_text().split("\n")[0]
    assert "val/loss" in header
    assert (tmp_path / "run" / "curves.png").is_file()
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["logger"]
    saved = saved[0] if as_list else saved
    assert saved["init_args"]["where"] == "at {output}/notes"  # as it was written


def test_a_table_that_is_named_is_not_written_twice(flair2_root, tmp_path):
    cli = fit(flair2_root, tmp_path, "--config", str(CONFIGS / "csv.yaml"))
    (csv,) = cli.trainer.loggers
    assert isinstance(csv, CSVLogger)
    assert [p.name for p in (tmp_path / "run" / "logs").iterdir()] == ["version_0"]


def test_no_logger_means_none(flair2_root, tmp_path):
    cli = fit(flair2_root, tmp_path, "--trainer.logger", "false")
    assert cli.trainer.loggers == []
    assert not (tmp_path / "run" / "logs").exists()


def test_a_package_that_is_missing_is_named(flair2_root, tmp_path):
    absent = overlay(tmp_path, {"class_path": "test_trackers.Absent"})
    with pytest.raises(InputError, match="Absent needs a package that is not installed"):
        fit(flair2_root, tmp_path, "--config", absent)
    assert not (tmp_path / "run").exists()
    wandb = type("WandbLogger", (Absent,), {})
    with pytest.raises(InputError, match=r'pip install "fusionlab\[wandb\]"'):
        make_logger(wandb, (), {}, output="run")


def test_only_some_loggers_show_pictures(tmp_path):
    assert not takes_images(CSVLogger(tmp_path))
    log_image([CSVLogger(tmp_path), Notes()], "val/examples", tmp_path / "none.png", 0)


def test_a_run_that_the_user_has_opened_stays_open(monkeypatch):
    class Run:
        ended = False

        def finish(self):
            Run.ended = True

    wandb = type(sys)("wandb")
    wandb.run = Run()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with closing_trackers():
        pass
    assert not Run.ended
    wandb.run = None

    def failing():
        with closing_trackers():
            wandb.run = Run()
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        failing()
    assert Run.ended


@pytest.mark.slow
def test_weights_and_biases_offline(flair2_root, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        fit(flair2_root, tmp_path / name, "--config", str(CONFIGS / "wandb.yaml"))
        assert wandb.run is None  # the next run begins its own
        (offline,) = (tmp_path / name / "run" / "wandb").glob("offline-run-*")
        (recorded,) = offline.glob("run-*.wandb")
        written = recorded.read_bytes()
        for expected in (b"val/loss", b"val/miou", b"train/loss", str(tmp_path / name).encode()):
            assert expected in written
        pictures = list((offline / "files" / "media" / "images" / "val").glob("examples*.png"))
        assert pictures
        assert (tmp_path / name / "run" / "logs" / "version_0" / "metrics.csv").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "second"]


@pytest.mark.slow
def test_mlflow_in_a_local_store(flair2_root, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy", reason="mlflow-skinny has no local store")
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    fit(flair2_root, tmp_path, "--config", str(CONFIGS / "mlflow.yaml"))
    client = MlflowClient("sqlite:///mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("fusionlab").experiment_id])
    assert found.info.run_name == str(tmp_path / "run")
    assert found.info.status == "FINISHED"
    assert 0 <= found.data.metrics["val/miou"] <= 1
    assert np.isfinite(found.data.metrics["train/loss_epoch"])
    images = [f.path for f in client.list_artifacts(found.info.run_id, "images")]
    assert any("examples" in path for path in images)
    assert (tmp_path / "run" / "logs" / "version_0" / "metrics.csv").is_file()

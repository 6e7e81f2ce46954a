"""Every configuration in configs/ is read, and every one that a run consists of is run."""

import shlex
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from bigearthnet_runs import without_pictures
from lightning.pytorch import Callback
from torch import Tensor

from fusionlab.cli import run

CONFIGS = Path(__file__).parents[1] / "configs"
OVERLAYS = sorted((CONFIGS / "fusion").glob("*.yaml"))
MACHINES = sorted((CONFIGS / "trainer").glob("*.yaml")) + sorted(
    (CONFIGS / "logger").glob("*.yaml")
)
ALL = sorted(CONFIGS.rglob("*.yaml"))

# Small versions of what the configurations ask for, on one CPU.
QUICK = [
    "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu", "--trainer.devices", "1",
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
    "--data.num_workers", "0", "--data.batch_size", "2",
]  # fmt: skip
TESTED = {
    "bigearthnet", "debug", "demo", "feature_fusion", "flair2", "fusion", "logger", "predict",
    "trainer",
}  # fmt: skip


def test_no_folder_is_forgotten():
    assert {path.relative_to(CONFIGS).parts[0] for path in ALL} == TESTED


def test_every_config_says_what_it_is_for():
    for path in ALL:
        assert path.read_text().startswith("# "), path


@pytest.fixture(scope="module")
def experts(flair2_root, tmp_path_factory) -> dict[str, list[str]]:
    """Flags that put trained experts of each data set into its fusion."""
    folder = tmp_path_factory.mktemp("experts")
    flags = {}
    for data in ("flair2", "demo/flair2"):
        flags[data] = []
        for expert, file in experts_of(data).items():
            output = folder / data / expert
            small = ["--model.model.temporal_depth", "1"] if expert == "sentinel2" else []
            run([
                "fit", "--config", str(file), "--data.root", str(flair2_root), *QUICK, *small,
                "--trainer.fast_dev_run", "false", "--trainer.max_epochs", "1",
                "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1",
                "--output", str(output),
            ])  # fmt: skip
            flags[data] += [
                f"--model.model.experts.{expert}.checkpoint", str(output / "best.ckpt"),
            ]  # fmt: skip
    return flags


def experts_of(data: str) -> dict[str, Path]:
    files = {"aerial": "aerial*.yaml", "sentinel2": "sentinel2*.yaml"}
    return {name: next((CONFIGS / data).glob(pattern)) for name, pattern in files.items()}


@pytest.mark.parametrize("data", ["flair2", "demo/flair2"])
def test_fusions_run(data, experts, flair2_root, tmp_path):
    for overlay in OVERLAYS:
        with without_pictures():
            cli = run([
                "test", "--config", str(CONFIGS / data / "fusion.yaml"), "--config", str(overlay),
                "--data.root", str(flair2_root), *experts[data], *QUICK, "--output", str(tmp_path),
            ])  # fmt: skip
        wanted = yaml.safe_load(overlay.read_text())
        wanted = wanted["model"]["init_args"]["model"]["init_args"]["fusion"]["class_path"]
        assert type(cli.model.model.fusion).__name__ == wanted


def test_fixed_weights_of_other_experts_are_given_as_the_overlay_says(capsys, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    overlay = Path("configs/fusion/fixed_weighted.yaml").read_text()
    (line,) = (line for line in overlay.splitlines() if line.startswith("#   --config"))
    flags = shlex.split(line.removeprefix("#"))
    with pytest.raises(SystemExit):
        run(["fit", "--config", "configs/bigearthnet/late_fusion.yaml", *flags, "--print_config"])
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["model"]["init_args"]
    assert set(model["fusion"]["init_args"]["weights"]) == set(model["experts"]) == {"s1", "s2"}


@pytest.mark.parametrize(
    "overlay", sorted((CONFIGS / "debug").glob("*.yaml")), ids=lambda p: p.stem
)
def test_debug_overlays_run(overlay, flair2_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run([
        "fit", "--config", str(CONFIGS / "demo" / "flair2" / "aerial.yaml"),
        "--config", str(overlay), "--data.root", str(flair2_root),
        "--model.model", "small_models.PixelExpert", *QUICK[2:], "--trainer.max_epochs", "1",
    ])  # fmt: skip


class Seen(Callback):
    """Notes what every epoch is trained with."""

    epochs: ClassVar[list[list[Tensor]]] = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append([])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.epochs[-1].append(batch["inputs"]["aerial"].clone())


def test_overfitting_sees_the_same_batches_in_every_epoch(flair2_root, tmp_path):
    Seen.epochs.clear()
    run([
        "fit", "--config", str(CONFIGS / "demo" / "flair2" / "aerial.yaml"),
        "--config", str(CONFIGS / "debug" / "overfit.yaml"), "--data.root", str(flair2_root),
        "--model.model", "small_models.PixelExpert", *QUICK[2:], "--data.batch_size", "1",
        "--trainer.max_epochs", "3", "--output", str(tmp_path),
        "--trainer.callbacks", "test_configs.Seen",
    ])  # fmt: skip
    first, *others = Seen.epochs
    assert len(first) == 2
    assert len(others) == 2
    assert not torch.equal(*first)
    for epoch in others:
        assert all(torch.equal(a, b) for a, b in zip(first, epoch, strict=True))


@pytest.mark.parametrize("overlay", MACHINES, ids=lambda path: path.stem)
def test_overlays_for_machines_are_read(overlay, capsys):
    # Their hardware is not here; that every key is known and of the right type can be checked.
    with pytest.raises(SystemExit) as ended:
        run(["fit", "--config", str(CONFIGS / "flair2" / "fusion.yaml"), "--config", str(overlay),
             "--print_config"])  # fmt: skip
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)["trainer"]
    for key, value in yaml.safe_load(overlay.read_text())["trainer"].items():
        if not isinstance(value, dict | list):
            assert printed[key] == value


def test_the_tensorboard_overlay_writes_events(flair2_root, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    run([
        "fit", "--config", str(CONFIGS / "demo" / "flair2" / "aerial.yaml"),
        "--config", str(CONFIGS / "logger" / "tensorboard.yaml"),
        "--data.root", str(flair2_root), "--model.model", "small_models.PixelExpert", *QUICK[2:],
        "--trainer.max_epochs", "1", "--output", "run",
    ])  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert list((tmp_path / "run" / "tensorboard").rglob("events.*"))
    assert list((tmp_path / "run" / "logs").rglob("metrics.csv"))
    assert (tmp_path / "run" / "curves.png").is_file()
    # The saved configuration can be used for another run.
    loggers = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["logger"]
    assert {logger["init_args"]["save_dir"] for logger in loggers} == {"{output}"}


def test_overlays_for_new_tiles_are_read(capsys):
    # They are run with the demonstration, and those in predict/ in test_predict_cli.py too.
    files = (CONFIGS / "predict" / "raster.yaml", CONFIGS / "demo" / "flair2" / "predict.yaml")
    with pytest.raises(SystemExit) as ended:
        run([
            "predict", *(arg for file in files for arg in ("--config", str(file))),
            "--model", "SegmentationTask", "--model.model", "small_models.PixelExpert",
            "--data.rasters.aerial", "zone.tif", "--print_config",
        ])  # fmt: skip
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["init_args"]["window"] == 128
    assert printed["writer"]["class_path"].endswith("GeoTiffWriter")
    options = printed["writer"]["init_args"]
    assert (options["quicklook"], options["contributions"]) == (True, True)


def test_the_slurm_overlay_names_the_signal_that_requeueing_needs():
    assert "#SBATCH --signal=SIGUSR1@90" in (CONFIGS / "trainer" / "slurm.yaml").read_text()

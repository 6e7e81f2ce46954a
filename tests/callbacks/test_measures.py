"""What a fit measures of itself, and that it is the same with and without."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from bigearthnet_runs import without_pictures
from cli_runs import config, fused, load, pixel_expert
from lightning.pytorch import Callback
from torch import nn

from fusionlab.callbacks import Measures
from fusionlab.callbacks.flops import evaluating, flops_per_sample
from fusionlab.callbacks.measures import peak_memory
from fusionlab.cli import FusionlabCLI, run


def fit(file: str, output: Path, *flags: str) -> FusionlabCLI:
    with without_pictures():
        return run(["fit", "--config", file, "--output", str(output), *flags])


def measures(folder: Path) -> dict:
    return json.loads((folder / "measures.json").read_text())


def logged(folder: Path) -> list[dict]:
    with next(folder.glob("logs/version_0/metrics.csv")).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def file(flair2_root, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("measured") / "aerial.yaml"
    return config(path, flair2_root, pixel_expert(), modalities=["aerial"])


@pytest.fixture(scope="module")
def fitted(file, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("measured") / "run"
    fit(file, folder, "--trainer.max_epochs", "3")
    return folder


def test_what_a_fit_measures(fitted):
    found = measures(fitted)
    # Weights and biases of two 1x1 convolutions and a BatchNorm: 5 bands, 8 channels, 13 classes.
    assert found["total_parameters"] == found["trained_parameters"] == 5 * 8 + 8 + 16 + 8 * 13 + 13
    assert found["flops_per_sample"] == 2 * 32 * 32 * (5 * 8 + 8 * 13)
    assert found["epochs"] == len(found["seconds_per_epoch"]) == 3
    assert all(0 < seconds < 60 for seconds in found["seconds_per_epoch"])
    # Two domains of two patches each.
    assert found["samples_per_second"] == pytest.approx(
        3 * 4 / sum(found["seconds_per_epoch"]), rel=0.01
    )
    assert 50 < found["peak_memory_mb"] <= peak_memory() + 1
    assert found["peak_gpu_memory_mb"] is None
    assert found["monitor"] == ["val/miou", "max"]
    assert found["shares"] is None
    assert found["device"].startswith("CPU")
    assert {"python", "torch", "lightning"} <= set(found["versions"])


def test_losses_are_those_that_were_logged(fitted):
    losses = [float(row["val/loss"]) for row in logged(fitted) if row.get("val/loss")]
    assert len(losses) == 3
    assert measures(fitted)["best_val_loss"] == pytest.approx(min(losses))
    assert measures(fitted)["mean_val_loss"] == pytest.approx(sum(losses) / 3)


def test_training_is_the_same_without(file, fitted, tmp_path, monkeypatch):
    for hook in ("on_train_batch_start", "on_train_batch_end", "on_train_epoch_end",
                 "on_validation_end", "on_fit_end", "on_train_epoch_start"):  # fmt: skip
        monkeypatch.setattr(Measures, hook, getattr(Callback, hook))
    fit(file, tmp_path, "--trainer.max_epochs", "3")
    assert not (tmp_path / "measures.json").exists()
    assert logged(tmp_path) == logged(fitted)
    one, two = load(tmp_path / "last.ckpt"), load(fitted / "last.ckpt")
    for name, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][name]), name
    assert str(one["optimizer_states"]) == str(two["optimizer_states"])


def test_a_resumed_fit_knows_all_epochs(file, fitted, tmp_path):
    flags = ["--trainer.callbacks", "small_models.StopAfter", "--trainer.callbacks.epochs", "2"]
    fit(file, tmp_path, "--trainer.max_epochs", "3", *flags)
    before = measures(tmp_path)
    fit(file, tmp_path, "--trainer.max_epochs", "3", "--ckpt_path", "last")
    after = measures(tmp_path)
    assert (before["epochs"], after["epochs"]) == (2, 3)
    assert after["seconds_per_epoch"][:2] == before["seconds_per_epoch"]
    for name in ("best_val_loss", "mean_val_loss", "flops_per_sample", "total_parameters"):
        assert after[name] == measures(fitted)[name], name


def test_shares_of_modalities_are_those_of_the_best_epoch(runs):
    found = measures(runs / "fused")
    shares = found["shares"]
    assert set(shares) == {"aerial", "sentinel2"}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
    rows = [row for row in logged(runs / "fused") if row.get("val/share/aerial")]
    assert shares["aerial"] == pytest.approx(float(rows[-1]["val/share/aerial"]), abs=1e-5)
    assert found["trained_parameters"] < found["total_parameters"]


def test_a_model_with_nothing_to_train_is_measured_too(runs, flair2_root, tmp_path):
    name = tmp_path / "average.yaml"
    file = config(name, flair2_root, fused(runs, "Average"), modalities=["aerial", "sentinel2"])
    fit(file, tmp_path / "run")
    found = measures(tmp_path / "run")
    assert (found["epochs"], found["seconds_per_epoch"], found["trained_parameters"]) == (0, [], 0)
    assert found["samples_per_second"] is None
    assert found["total_parameters"] == measures(runs / "fused")["total_parameters"] - 26
    # Averaging is no product of matrices, so the experts' operations are all there are.
    assert found["flops_per_sample"] == measures(runs / "fused")["flops_per_sample"] > 0
    assert found["best_val_loss"] > 0
    assert found["shares"] == pytest.approx({"aerial": 0.5, "sentinel2": 0.5})


def test_other_commands_measure_nothing_and_warn_of_nothing(file, fitted, tmp_path, recwarn):
    with without_pictures():
        run(["validate", "--config", file, "--ckpt_path", str(fitted / "best.ckpt"),
             "--output", str(tmp_path)])  # fmt: skip
    assert not (tmp_path / "measures.json").exists()
    assert not [w for w in recwarn if "callbacks used to create" in str(w.message)]


# ---- counting ----------------------------------------------------------------------------------


def batch_of(cli: FusionlabCLI) -> dict:
    cli.datamodule.setup("fit")
    return next(iter(cli.datamodule.train_dataloader()))


def test_counting_leaves_no_trace(runs, flair2_root, tmp_path):
    path = tmp_path / "fused.yaml"
    file = config(path, flair2_root, fused(runs), modalities=["aerial", "sentinel2"])
    store = tmp_path / "cache"
    cli = fit(file, tmp_path / "run", "--trainer.fast_dev_run", "true",
              "--model.model.cache", str(store))  # fmt: skip
    task, batch = cli.model, batch_of(cli)
    task.train()
    stored = set(store.rglob("*.npy"))
    modes = [module.training for module in task.modules()]
    assert len(set(modes)) == 2
    before = {name: value.clone() for name, value in task.state_dict().items()}
    numpy_state = np.random.get_state  # what augmentation libraries draw from
    random_states = torch.get_rng_state(), random.getstate(), str(numpy_state())
    counted = flops_per_sample(task, batch)
    # Frozen experts are asked although the cache knows the answers.
    assert counted == measures(runs / "fused")["flops_per_sample"]
    assert set(store.rglob("*.npy")) == stored
    assert task.model.cache is not None
    assert [module.training for module in task.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_states[0])
    assert random.getstate() == random_states[1]
    assert str(numpy_state()) == random_states[2]
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(parameter.grad is None for parameter in task.parameters())


class Answer(nn.Module):
    """As much of a task as counting needs."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, batch: dict) -> torch.Tensor:
        return self.layers(batch["inputs"]["a"])


def test_attention_is_counted():
    # In evaluation mode PyTorch would take a fast path that no counter looks into.
    length, width = 6, 8
    layer = nn.TransformerEncoderLayer(width, 2, dim_feedforward=16, batch_first=True)
    batch = {"inputs": {"a": torch.zeros(4, length, width)}}
    projections = 2 * length * width * (4 * width + 2 * 16)
    attention = 2 * 2 * length * length * width
    assert flops_per_sample(Answer(layer), batch) == projections + attention
    assert torch.backends.mha.get_fastpath_enabled()


def test_what_cannot_be_counted_is_unknown():
    batch = {"inputs": {"a": torch.zeros(2, 3)}}
    assert flops_per_sample(Answer(nn.ReLU()), batch) is None
    assert flops_per_sample(Answer(nn.Linear(4, 1)), batch) is None  # cannot run
    task = Answer(nn.Dropout(), nn.BatchNorm1d(3)).train()
    task.layers[1].eval()
    with evaluating(task):
        assert not any(module.training for module in task.modules())
    assert [module.training for module in task.modules()] == [True, True, True, False]

"""The checkpoints of a run: which epochs are kept, going on, and what is not overwritten."""

import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from cli_runs import config, fails, fused, load, scores

from fusionlab.cli import FusionlabCLI, run
from fusionlab.errors import InputError

pytestmark = pytest.mark.slow


def test_resuming_gives_the_weights_of_never_stopping(runs, flair2_root, tmp_path):
    file = str(runs / "aerial.yaml")
    common = ["--model.lr_scheduler", "WarmupCosine", "--trainer.max_epochs", "4"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(["fit", "--config", file, "--output", str(whole), *common])
    # Stopped as by a scheduler's time limit: the run is planned for 4 epochs, and ends after 2.
    run([
        "fit", "--config", file, "--output", str(parts), *common,
        "--trainer.callbacks", "small_models.StopAfter", "--trainer.callbacks.epochs", "2",
    ])  # fmt: skip
    run(["fit", "--config", file, "--output", str(parts), *common, "--ckpt_path", "last"])
    one, two = load(whole / "last.ckpt"), load(parts / "last.ckpt")
    assert one["epoch"] == two["epoch"] == 3
    assert one["global_step"] == two["global_step"] == 8
    for key, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][key]), key


def one_epoch_more(runs: Path, folder: Path, checkpoint: Path, *flags: str) -> list[str]:
    """Goes on from the epoch 0 of an expert, by the epoch as a score of which less is better."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run([
            "fit", "--config", str(runs / "aerial.yaml"), "--output", str(folder), *flags,
            "--ckpt_path", str(checkpoint), "--trainer.max_epochs", "2",
            "--checkpoint.monitor", "epoch", "--checkpoint.mode", "min",
        ])  # fmt: skip
    said = [str(w.message) for w in caught]
    assert not [text for text in said if "dirpath has changed" in text]
    return [text for text in said if "best so far" in text]


@pytest.fixture
def begun(runs, tmp_path) -> Path:
    """A run of one epoch, whose best epoch no later one can beat."""
    run([
        "fit", "--config", str(runs / "aerial.yaml"), "--output", str(tmp_path / "run"),
        "--checkpoint.monitor", "epoch", "--checkpoint.mode", "min",
    ])  # fmt: skip
    return tmp_path / "run"


def test_going_on_keeps_the_best_wherever_the_folder_is_now(runs, begun):
    moved = begun.with_name("moved")
    shutil.copytree(begun, moved)
    for folder in (begun, moved):
        assert one_epoch_more(runs, folder, folder / "last.ckpt") == []
        assert load(folder / "best.ckpt")["epoch"] == 0
        last = load(folder / "last.ckpt")
        assert last["epoch"] == 1
        (state,) = (s for key, s in last["callbacks"].items() if key.startswith("BestCheckpoint"))
        assert state["best_model_path"] == str(folder / "best.ckpt")
        assert state["best_model_score"] == 0


def test_going_on_in_another_folder_says_where_the_best_so_far_is(runs, begun):
    before = (begun / "best.ckpt").read_bytes()
    new = begun.with_name("new")
    (said,) = one_epoch_more(runs, new, begun / "last.ckpt")
    assert f"{new / 'best.ckpt'} will be the best epoch from here on" in said
    assert f"(epoch = 0) stays {begun / 'best.ckpt'}" in said
    assert (begun / "best.ckpt").read_bytes() == before
    assert load(new / "best.ckpt")["epoch"] == 1
    # Beside the best of another run it is the same: that one is not this run's.
    (said,) = one_epoch_more(runs, new, begun / "last.ckpt", "--overwrite", "true")
    assert "stays" in said


def test_a_test_in_another_folder_says_nothing_of_it(runs, begun):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run([
            "test", "--config", str(runs / "aerial.yaml"), "--output", str(begun / "test"),
            "--ckpt_path", str(begun / "best.ckpt"),
        ])  # fmt: skip
    assert not [w for w in caught if "folder" in str(w.message) or "dirpath" in str(w.message)]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_last_is_the_newest_epoch_and_knows_the_best(runs, tmp_path, mode):
    # With the epoch itself as the score, the best is the first or the newest one.
    run([
        "fit", "--config", str(runs / "aerial.yaml"), "--output", str(tmp_path),
        "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "1",
        "--checkpoint.monitor", "epoch", "--checkpoint.mode", mode,
    ])  # fmt: skip
    best = 2 if mode == "max" else 0
    assert load(tmp_path / "best.ckpt")["epoch"] == best
    last = load(tmp_path / "last.ckpt")
    assert last["epoch"] == 2
    (state,) = (s for key, s in last["callbacks"].items() if key.startswith("BestCheckpoint"))
    assert state["best_model_score"] == best
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"best.ckpt", "last.ckpt"}


def test_last_is_saved_in_epochs_without_validation(runs, tmp_path):
    run([
        "fit", "--config", str(runs / "aerial.yaml"), "--output", str(tmp_path),
        "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2",
    ])  # fmt: skip
    assert load(tmp_path / "best.ckpt")["epoch"] == 1
    assert load(tmp_path / "last.ckpt")["epoch"] == 2


def test_without_checkpoints(runs, tmp_path):
    run([
        "fit", "--config", str(runs / "aerial.yaml"), "--output", str(tmp_path),
        "--trainer.enable_checkpointing", "false",
    ])  # fmt: skip
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.fixture
def slurm(monkeypatch) -> pytest.MonkeyPatch:
    """The environment of a job of one process."""
    for name, value in {
        "NTASKS": 1, "JOB_ID": 1, "JOB_NAME": "train", "PROCID": 0, "LOCALID": 0, "NODEID": 0,
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    return monkeypatch


def test_a_requeued_job_goes_on(runs, tmp_path, slurm):
    file = ["fit", "--config", str(runs / "aerial.yaml"), "--output", str(tmp_path)]
    run(file)
    fails([*file, "--trainer.max_epochs", "2"], "already holds")
    shutil.copy(tmp_path / "last.ckpt", tmp_path / "hpc_ckpt_1.ckpt")
    cli = run([*file, "--trainer.max_epochs", "2"])
    state = load(tmp_path / "last.ckpt")
    assert state["epoch"] == 1
    assert state["global_step"] == 2 * load(tmp_path / "hpc_ckpt_1.ckpt")["global_step"]
    assert cli.trainer.current_epoch == 2


def test_a_job_requeued_before_its_first_checkpoint_starts_anew(runs, tmp_path, slurm):
    file = ["fit", "--config", str(runs / "aerial.yaml"), "--output", str(tmp_path)]
    run(file)
    slurm.setenv("SLURM_RESTART_COUNT", "1")
    run(file)


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_refuses_an_earlier_run(runs, monkeypatch, rank):
    # Under SLURM no LOCAL_RANK is set; Lightning knows the rank from the environment.
    monkeypatch.setattr("lightning_utilities.core.rank_zero.rank_zero_only.rank", rank)
    monkeypatch.setattr(FusionlabCLI, "instantiate_classes", lambda self: sys.exit(0))
    with pytest.raises(InputError if rank == 0 else SystemExit):
        run(["fit", "--config", str(runs / "aerial.yaml"), "--output", str(runs / "aerial")])


def test_a_model_without_anything_to_train_is_saved_as_it_is(runs, flair2_root, tmp_path):
    file = config(
        tmp_path / "average.yaml", flair2_root, fused(runs, "Average"),
        modalities=["aerial", "sentinel2"],
    )  # fmt: skip
    run(["fit", "--config", file, "--output", str(tmp_path / "dev"),
         "--trainer.fast_dev_run", "true"])  # fmt: skip
    assert not list(tmp_path.rglob("*.ckpt"))
    run(["fit", "--config", file, "--output", str(tmp_path / "average")])
    assert (tmp_path / "average" / "fusion_weights.png").is_file()
    run(["test", "--config", file, "--output", str(tmp_path / "direct")])
    run([
        "test", "--config", file, "--output", str(tmp_path / "restored"),
        "--ckpt_path", str(tmp_path / "average" / "best.ckpt"),
    ])  # fmt: skip
    assert scores(tmp_path / "direct") == scores(tmp_path / "restored")


def test_an_earlier_run_is_not_overwritten_by_mistake(runs, flair2_root):
    before = (runs / "aerial" / "best.ckpt").read_bytes()
    with pytest.raises(InputError, match=r"already holds best\.ckpt.*--overwrite true"):
        run(["fit", "--config", str(runs / "aerial.yaml"), "--output", str(runs / "aerial")])
    assert (runs / "aerial" / "best.ckpt").read_bytes() == before


def test_experts_keep_their_order(runs, flair2_root, tmp_path):
    """Weights of a fusion have the order of its experts, which need not be the alphabet's."""
    model = fused(runs)
    experts = model["init_args"]["experts"]
    model["init_args"]["experts"] = {name: experts[name] for name in ("sentinel2", "aerial")}
    file = tmp_path / "reversed.yaml"
    config(file, flair2_root, model, modalities=["aerial", "sentinel2"])
    content = yaml.safe_load(file.read_text())
    content["model"]["init_args"]["model"] = model  # as config() sorts it
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    fitted = run(["fit", "--config", str(file), "--output", str(tmp_path / "run")])
    best = str(tmp_path / "run" / "best.ckpt")
    for given in (file, tmp_path / "run" / "config.yaml"):
        restored = run([
            "validate", "--config", str(given), "--ckpt_path", best,
            "--output", str(tmp_path / "again"),
        ])  # fmt: skip
        assert list(restored.model.model.experts) == ["sentinel2", "aerial"]
    data = [
        "--data",
        "Flair2DataModule",
        "--data.root",
        str(flair2_root),
        "--data.sen_crop_size",
        "12",
    ]
    alone = run([
        "validate", "--ckpt_path", best, *data, "--trainer.accelerator", "cpu",
        "--output", str(tmp_path / "alone"),
    ])  # fmt: skip
    assert list(alone.model.model.experts) == ["sentinel2", "aerial"]
    weights = [cli.model.model.fusion.class_weights() for cli in (fitted, alone)]
    for name in experts:
        torch.testing.assert_close(weights[0][name], weights[1][name])

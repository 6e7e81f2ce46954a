"""The command line from end to end, on a tiny data set: what a user types is what is tested."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml

from fusionlab.cli import FusionlabCLI, run
from fusionlab.errors import InputError

QUICK = {
    "accelerator": "cpu",
    "devices": 1,
    "max_epochs": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


def config(path: Path, root: Path, model: dict, *, modalities: list[str], **task) -> str:
    """Writes a configuration as a user would."""
    content = {
        "model": {"class_path": "SegmentationTask", "init_args": {"model": model, **task}},
        "data": {
            "class_path": "Flair2DataModule",
            "init_args": {
                "root": str(root),
                "modalities": modalities,
                "sen_crop_size": 12,
                "batch_size": 2,
            },
        },
        "trainer": QUICK,
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def pixel_expert(**options) -> dict:
    return {"class_path": "small_models.PixelExpert", "init_args": options}


def frozen(checkpoint: Path) -> dict:
    return {"class_path": "FrozenExpert", "init_args": {"checkpoint": str(checkpoint)}}


def fused(folder: Path, fusion: str = "ClassWeighted") -> dict:
    return {
        "class_path": "LateFusion",
        "init_args": {
            "experts": {n: frozen(folder / n / "best.ckpt") for n in ("aerial", "sentinel2")},
            "fusion": {"class_path": fusion},
        },
    }


@pytest.fixture(scope="module")
def runs(flair2_root, tmp_path_factory) -> Path:
    """Two trained experts and a fusion of them, as a user makes them."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("aerial", "sentinel2"):
        file = config(folder / f"{name}.yaml", flair2_root, pixel_expert(), modalities=[name])
        run(["fit", "--config", file, "--output", str(folder / name)])
    file = config(
        folder / "fusion.yaml", flair2_root, fused(folder), modalities=["aerial", "sentinel2"]
    )
    run(["fit", "--config", file, "--output", str(folder / "fused")])
    return folder


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_fit_leaves_what_a_user_looks_for(runs):
    names = {path.name for path in (runs / "fused").iterdir()}
    assert names >= {
        "best.ckpt", "last.ckpt", "config.yaml", "curves.png", "fusion_weights.png",
        "val_examples.png", "logs",
    }  # fmt: skip


def test_experts_are_bit_identical_after_the_fusion_was_trained(runs):
    state = load(runs / "fused" / "last.ckpt")["state_dict"]
    for name in ("aerial", "sentinel2"):
        expert = load(runs / name / "best.ckpt")["state_dict"]
        for key, value in expert.items():
            inside = state[key.replace("model.", f"model.experts.{name}.expert.", 1)]
            assert torch.equal(inside, value), key
        assert any("running_mean" in key for key in expert)
    assert (state["model.fusion.weight"] != 0).any()


def test_checkpoints_hold_plain_values_only_and_describe_their_model(runs):
    hyper = load(runs / "fused" / "best.ckpt")["hyper_parameters"]
    text = json.dumps(hyper)  # nothing but primitives
    assert str(runs) not in json.dumps(hyper["model"])
    assert hyper["model"]["class_path"].endswith("LateFusion")
    expert = hyper["model"]["init_args"]["experts"]["aerial"]["init_args"]
    assert expert["expert"]["class_path"] == "small_models.PixelExpert"
    assert len(hyper["trained_on"]["classes"]) == 13
    assert "optimizer" in text


def scores(folder: Path, stage: str = "test") -> dict:
    return json.loads((folder / f"{stage}_metrics.json").read_text())


def test_test_reports_every_class_and_both_conventions(runs, tmp_path):
    run([
        "test", "--config", str(runs / "fusion.yaml"),
        "--ckpt_path", str(runs / "fused" / "best.ckpt"), "--output", str(tmp_path),
    ])  # fmt: skip
    found = scores(tmp_path)
    assert {"test/miou", "test/miou_flair2", "test/overall_accuracy", "test/f1"} <= found.keys()
    assert sum(name.startswith("test/iou/") for name in found) == 13
    assert "test/share/aerial" in found
    assert found["trained_parameters"] == 26
    assert (tmp_path / "test_confusion.png").is_file()
    assert (tmp_path / "test_fusion_weights.png").is_file()


def predict(ckpt: Path, data: list[str], output: Path) -> list[Path]:
    run([
        "predict", *data, "--ckpt_path", str(ckpt), "--output", str(output),
        "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
    ])  # fmt: skip
    return sorted(output.glob("*_classes.tif"))


def test_a_fused_checkpoint_stands_alone(runs, flair2_root, tmp_path):
    # Only the file is moved to another place; the experts' runs are not there any more.
    home = tmp_path / "elsewhere"
    home.mkdir()
    shutil.copy(runs / "fused" / "best.ckpt", home / "model.ckpt")
    hidden = runs.with_name("hidden")
    runs.rename(hidden)
    try:
        data = [
            "--data", "Flair2DataModule", "--data.root", str(flair2_root),
            "--data.sen_crop_size", "12", "--data.batch_size", "2",
        ]  # fmt: skip
        maps = predict(home / "model.ckpt", data, tmp_path / "maps")
        assert len(maps) == 4
        with rasterio.open(maps[0]) as written:
            assert written.crs.to_epsg() == 2154
            assert written.read(1).max() < 13
        run([
            "test", *data, "--ckpt_path", str(home / "model.ckpt"), "--output", str(tmp_path),
            "--trainer.accelerator", "cpu",
        ])  # fmt: skip
        assert 0 <= scores(tmp_path)["test/miou"] <= 1
    finally:
        hidden.rename(runs)


def test_what_the_user_writes_wins_over_the_checkpoint(runs, tmp_path):
    cli = run([
        "test", "--config", str(runs / "fusion.yaml"),
        "--ckpt_path", str(runs / "fused" / "best.ckpt"), "--output", str(tmp_path),
        "--model.loss", "CrossEntropy", "--model.loss.label_smoothing", "0.3",
        "--model.model.alignment", "Footprint", "--model.auxiliary_weight", "0.7",
    ])  # fmt: skip
    assert cli.model.loss.label_smoothing == 0.3
    assert type(cli.model.model.alignment).__name__ == "Footprint"
    assert cli.model.auxiliary_weight == 0.7


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


def no_model(runs: Path, flair2_root: Path) -> list[str]:
    return ["--data", "Flair2DataModule", "--data.root", str(flair2_root), "--data.modalities",
            "[aerial]", "--data.sen_crop_size", "12", "--data.batch_size", "2",
            "--trainer.accelerator", "cpu"]  # fmt: skip


@pytest.mark.parametrize("place", ["flag", "file"])
def test_best_is_found_in_the_output_without_a_model_section(runs, flair2_root, tmp_path, place):
    shutil.copytree(runs / "aerial", tmp_path / "run")
    output = ["--output", str(tmp_path / "run")]
    if place == "file":
        (tmp_path / "o.yaml").write_text(f"output: {tmp_path / 'run'}\n")
        output = ["-c", str(tmp_path / "o.yaml")]
    cli = run(["test", *no_model(runs, flair2_root), *output, "--ckpt_path", "best"])
    assert type(cli.model.model).__name__ == "PixelExpert"
    assert scores(tmp_path / "run")


def test_configurations_are_read_in_the_order_given(runs, flair2_root, tmp_path):
    for name in ("aerial", "nowhere"):
        (tmp_path / f"{name}.yaml").write_text(f"ckpt_path: {runs / name / 'best.ckpt'}\n")
    first, second = str(tmp_path / "nowhere.yaml"), str(tmp_path / "aerial.yaml")
    rest = [*no_model(runs, flair2_root), "--output", str(tmp_path / "out")]
    for flags in (["-c", first, "--config", second], ["--config", first, "-c", second]):
        cli = run(["test", *flags, *rest])
        assert type(cli.model.model).__name__ == "PixelExpert"
    fails(["test", "--config", second, "-c", first, *rest], r"ckpt_path: .*nowhere.*not exist\.")


def test_scores_of_initial_values_are_called_so(runs, flair2_root, tmp_path):
    file = str(runs / "aerial.yaml")
    with pytest.warns(UserWarning, match="trainable parameters .* have their initial values"):
        run(["test", "--config", file, "--output", str(tmp_path)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(["test", "--config", file, "--output", str(tmp_path),
             "--ckpt_path", str(runs / "aerial" / "best.ckpt")])  # fmt: skip
    assert not [w for w in caught if "initial values" in str(w.message)]


def test_null_deep_in_a_model(runs, capsys):
    # jsonargparse made the text "None" of it, or refused it.
    with pytest.raises(SystemExit):
        run(["fit", "--config", str(runs / "fusion.yaml"), "--model.model.reference", "null",
             "--model.model.alignment.size=null", "--print_config"])  # fmt: skip
    printed = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["model"]["init_args"]
    assert printed["reference"] is None
    assert printed["alignment"]["init_args"]["size"] is None


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


def test_overlays_and_print_config(runs, capsys):
    overlay = runs / "gated.yaml"
    overlay.write_text("model: {init_args: {model: {init_args: {fusion: {class_path: Gated}}}}}\n")
    with pytest.raises(SystemExit) as ended:
        run(["fit", "--config", str(runs / "fusion.yaml"), "--config", str(overlay),
             "--print_config"])  # fmt: skip
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    fusion = printed["model"]["init_args"]["model"]["init_args"]["fusion"]
    assert fusion["class_path"] == "fusionlab.fusion.Gated"


def test_an_earlier_run_is_not_overwritten_by_mistake(runs, flair2_root):
    before = (runs / "aerial" / "best.ckpt").read_bytes()
    with pytest.raises(InputError, match=r"already holds best\.ckpt.*--overwrite true"):
        run(["fit", "--config", str(runs / "aerial.yaml"), "--output", str(runs / "aerial")])
    assert (runs / "aerial" / "best.ckpt").read_bytes() == before


# On a CPU Lightning makes bf16-mixed of 16-mixed and says so; float16 itself is in test_gpu.py.
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_runs(runs, tmp_path, precision):
    for name in ("aerial", "fusion"):
        output = tmp_path / name
        run(["fit", "--config", str(runs / f"{name}.yaml"), "--output", str(output),
             "--trainer.precision", precision])  # fmt: skip
        state = load(output / "last.ckpt")["state_dict"]
        assert all(torch.isfinite(v).all() for v in state.values() if v.is_floating_point())


# ---- mistakes --------------------------------------------------------------------------------


def command(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "fusionlab", *args],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
    )  # fmt: skip


def test_the_command_prints_one_message_and_status_2(tmp_path):
    done = command(
        "fit", "--config", str(Path("../configs/demo/flair2/aerial.yaml")),
        "--data.root", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out"),
        "--trainer.accelerator", "cpu",
    )  # fmt: skip
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("fusionlab: error:")
    assert "nowhere" in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_class_in_the_current_folder_is_found(runs, tmp_path):
    (tmp_path / "my_experts.py").write_text("from small_models import PixelExpert as _Base\n\n\n"
        "class Mine(_Base):\n    pass\n")  # fmt: skip
    # What the installed script does: unlike `python -m`, it does not look into the folder.
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from fusionlab.cli import main; main()",
         "fit", "--config", str(runs / "aerial.yaml"), "--model.model", "my_experts.Mine",
         "--trainer.fast_dev_run", "true"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for noise in ("litlogger", "GPU available:", "TPU available:"):
        assert noise not in done.stdout + done.stderr


def fails(args: list[str], match: str) -> None:
    with pytest.raises(InputError, match=match):
        run(args)


def test_a_checkpoint_of_another_architecture(runs, flair2_root, tmp_path):
    file = config(
        tmp_path / "other.yaml", flair2_root,
        {"class_path": "FrozenExpert", "init_args": {
            "checkpoint": str(runs / "aerial" / "best.ckpt"), "expert": pixel_expert(width=3),
        }}, modalities=["aerial"],
    )  # fmt: skip
    fails(["test", "--config", file, "--output", str(tmp_path)], "another architecture")


def test_a_restored_checkpoint_of_another_architecture(runs, tmp_path):
    fails(
        ["test", "--config", str(runs / "aerial.yaml"), "--output", str(tmp_path),
         "--ckpt_path", str(runs / "aerial" / "best.ckpt"), "--model.model.width", "3"],
        "another architecture",
    )  # fmt: skip


class Evil:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_a_checkpoint_with_pickled_code(runs, tmp_path, capsys):
    content = load(runs / "aerial" / "best.ckpt")
    torch.save({**content, "extra": Evil()}, tmp_path / "evil.ckpt")
    fails(
        ["test", "--config", str(runs / "aerial.yaml"), "--output", str(tmp_path / "out"),
         "--ckpt_path", str(tmp_path / "evil.ckpt")],
        "could run code",
    )  # fmt: skip
    assert "never" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_not_there(runs, tmp_path):
    fails(
        ["test", "--config", str(runs / "aerial.yaml"), "--ckpt_path", str(tmp_path / "x.ckpt")],
        "does not exist",
    )


@pytest.mark.parametrize(
    ("old", "new", "flags", "says"),
    [
        ("class_path: ClassWeighted", "class_path: ClasWeighted", [],
         "model.model.fusion: no class 'ClasWeighted'. Did you mean ClassWeighted"),
        ("checkpoint:", "chekpoint:", [],
         "model.model.experts: no option 'chekpoint'. Did you mean checkpoint?"),
        ("batch_size:", "batchsize:", [], "data: no option 'batchsize'. Did you mean batch_size?"),
        ("max_epochs:", "max_epoch:", [], "trainer: no option 'max_epoch'. Did you mean max_epoch"),
        ("model:\n  class", "modle:\n  class", [], "no option 'modle'. Did you mean model?"),
        ("class_path: FrozenExpert", "class_path: small_models.PixlExpert", [],
         "no class 'PixlExpert' in small_models. Did you mean PixelExpert"),
        ("class_path: FrozenExpert", "class_path: smal_models.PixelExpert", [],
         "no module 'smal_models'"),
        ("", "", ["--data.bathc_size", "3"], "data: no option 'bathc_size'. Did you mean batch_s"),
        ("", "", ["--confg", "x.yaml"], "no option --confg. Did you mean --config"),
        ("", "", ["--trainer.max_epoch", "3"], "--trainer.max_epoch. Did you mean --trainer.max_"),
        ("", "", ["--model.model.fusion", "ClasWeighted"], "Did you mean ClassWeighted"),
        ("", "", ["--model.model.fusion", "fusionlab.losses.Dice"], "of another kind. Known: Att"),
        ("", "", ["--model.loss", "WeightedSum"], "model.loss: missing: terms."),
        ("", "", ["--trainer.max_epochs", "ten"], "trainer.max_epochs: expected int or null, got"),
        ("", "", ["--trainer.precision", "17"], "trainer.precision: Expected"),
        ("", "", ["--config", "nowhere.yaml"], "--config: nowhere.yaml does not exist."),
        ("trainer:", "trainer: [", [], "is not YAML"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_misspelling_is_answered_in_three_lines(runs, tmp_path, old, new, flags, says):
    text = (runs / "fusion.yaml").read_text()
    assert old in text
    file = tmp_path / "misspelt.yaml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as raised:
        run(["fit", "--config", str(file), "--output", str(tmp_path / "out"), *flags])
    message = str(raised.value)
    assert says in message
    assert len(message.splitlines()) <= 3
    assert len(message) < 600


def test_a_misspelt_flag_alone():
    fails(["fit", "--confg", "x.yaml"], "--confg. Did you mean --config")
    done = command("fit", "--confg", "x.yaml")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_command_without_a_model(tmp_path):
    fails(["predict", "--data.rasters.aerial", "x.tif"], r"predict` needs a model.*--ckpt_path")


def test_bands_that_the_data_do_not_have(runs, flair2_root, tmp_path):
    file = config(
        tmp_path / "bands.yaml", flair2_root, pixel_expert(bands=["red", "swir"]),
        modalities=["aerial"],
    )  # fmt: skip
    fails(["fit", "--config", file, "--output", str(tmp_path / "out")], "swir.*'nir', 'height'")
    assert not (tmp_path / "out").exists()


def test_class_counts_that_differ(runs, tmp_path):
    fails(
        ["test", "--config", str(runs / "fusion.yaml"), "--data.classes", "19",
         "--output", str(tmp_path / "out")],
        "trained on 13 classes, the data have 19",
    )  # fmt: skip


def test_an_unknown_class_in_the_fusion_weights(runs, tmp_path):
    fails(
        ["fit", "--config", str(runs / "fusion.yaml"), "--output", str(tmp_path / "out"),
         "--model.model.fusion.init_class_weights", '{"vinyard": [0.2, 0.8]}'],
        "Unknown class 'vinyard'.*vineyard",
    )  # fmt: skip


def test_an_empty_split(runs, tmp_path):
    fails(
        ["fit", "--config", str(runs / "aerial.yaml"), "--output", str(tmp_path / "out"),
         "--data.val_domains", "[]"],
        "'val' is empty",
    )  # fmt: skip


def test_probabilities_and_contributions_on_request(runs, flair2_root, tmp_path):
    run([
        "predict", "--data", "Flair2DataModule", "--data.root", str(flair2_root),
        "--data.sen_crop_size", "12", "--ckpt_path", str(runs / "fused" / "best.ckpt"),
        "--output", str(tmp_path), "--trainer.accelerator", "cpu",
        "--writer.probabilities", "uint8", "--writer.contributions", "true",
    ])  # fmt: skip
    (first, *_) = sorted(tmp_path.glob("*_contributions.tif"))
    with rasterio.open(first) as shares:
        assert shares.descriptions == ("aerial", "sentinel2")
    (first, *_) = sorted(tmp_path.glob("*_probabilities.tif"))
    with rasterio.open(first) as file:
        assert file.count == 13
        np.testing.assert_allclose(file.read().astype(float).sum(0), 255, atol=7)

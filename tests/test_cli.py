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
from cli_runs import fails, load, scores

from fusionlab.cli import run


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


# On a CPU Lightning makes bf16-mixed of 16-mixed and says so; float16 itself is in test_gpu.py.
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_runs(runs, tmp_path, precision):
    for name in ("aerial", "fusion"):
        output = tmp_path / name
        run(["fit", "--config", str(runs / f"{name}.yaml"), "--output", str(output),
             "--trainer.precision", precision])  # fmt: skip
        state = load(output / "last.ckpt")["state_dict"]
        assert all(torch.isfinite(v).all() for v in state.values() if v.is_floating_point())


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

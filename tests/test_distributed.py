"""Two processes give what one gives: scores to the last digit, and no process waits for ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bigearthnet_runs import config as patches_config
from bigearthnet_runs import fused, network, table
from cli_runs import QUICK


def command(*args: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fusionlab", *args],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent, timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def config(path: Path, root: Path, kind: str, experts: dict, **fusion) -> str:
    content = {
        "model": {
            "class_path": "SegmentationTask",
            "init_args": {
                "model": {"class_path": kind, "init_args": {"experts": experts, **fusion}}
            },
        },
        "data": {
            "class_path": "Flair2DataModule",
            "init_args": {
                "root": str(root),
                "sen_crop_size": 12,
                "batch_size": 1,
                "max_samples": FEW,
            },
        },
        "trainer": QUICK,
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def scores(folder: Path) -> dict:
    return json.loads((folder / "test_metrics.json").read_text())


TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


def check_one_like_two(file: str, folder: Path) -> None:
    """Trains with two processes, and tests with one and with two."""
    command("fit", "--config", file, "--output", str(folder / "run"), *TWO)
    checkpoint = ("--ckpt_path", str(folder / "run" / "best.ckpt"))
    command("test", "--config", file, "--output", str(folder / "one"), *checkpoint)
    command("test", "--config", file, "--output", str(folder / "two"), *checkpoint, *TWO)
    one, two = scores(folder / "one"), scores(folder / "two")
    assert one.keys() == two.keys()
    loss = one.pop("test/loss"), two.pop("test/loss")  # a sum of floats in another order
    assert loss[0] == pytest.approx(loss[1], rel=1e-6)
    assert json.dumps(one) == json.dumps(two)


# One sample to validate for two processes, three to test: each process must do a step more than it
# has samples for, and count none of them twice.
FEW = {"test": 3, "val": 1, "train": 3}


@pytest.mark.slow
def test_two_processes_train_validate_and_test_like_one(flair2_root, tmp_path):
    expert = {"class_path": "small_models.PixelExpert"}
    experts = {"aerial": expert, "sentinel2": expert}
    fusion = {"class_path": "Gated"}
    file = config(tmp_path / "config.yaml", flair2_root, "LateFusion", experts, fusion=fusion)
    check_one_like_two(file, tmp_path)


@pytest.mark.slow
def test_two_processes_train_parts_of_which_only_some_are_looked_at(flair2_root, tmp_path):
    """What lies behind the features in the backbones gets no gradient to wait for."""
    experts = {}
    for name, stage in (("aerial", {"stage": "backbone", "stage_index": 0}),
                        ("sentinel2", {"dates": "attention",
                                       "decoder": {"name": "FCN", "index": 1}})):  # fmt: skip
        backbone = "timm/test_vit" if stage.get("dates") else "timm/test_convnext"
        experts[name] = {"class_path": "EncoderDecoder",
                         "init_args": {"backbone": backbone, **stage}}  # fmt: skip
    file = config(tmp_path / "config.yaml", flair2_root, "FeatureFusion", experts)
    command("fit", "--config", file, "--output", str(tmp_path / "run"), *TWO)
    assert (tmp_path / "run" / "best.ckpt").is_file()


@pytest.mark.slow
def test_two_processes_classify_like_one(bigearthnet_root, tmp_path):
    experts = {"s1": network(), "s2": network("test_vit", frozen=True)}
    model = fused("FeatureFusion", experts, "Weighted")
    data = {"max_samples": FEW, "batch_size": 1, "modality_dropout": {"s1": 0.3}}
    file = patches_config(tmp_path / "config.yaml", bigearthnet_root, model, data=data)
    check_one_like_two(file, tmp_path)
    # Every patch is predicted once, whichever process does it.
    predict = ("predict", "--config", file, "--ckpt_path", str(tmp_path / "run" / "best.ckpt"))
    command(*predict, "--output", str(tmp_path / "p1"))
    command(*predict, "--output", str(tmp_path / "p2"), *TWO)
    alone = table(tmp_path / "p1")
    parts = [table(tmp_path / "p2", f"predictions_rank{rank}") for rank in range(2)]
    found = {
        n: p for t in parts for n, p in zip(t["sample"], t["probability_Pastures"], strict=True)
    }
    assert sum(len(part["sample"]) for part in parts) == 3
    assert found == dict(zip(alone["sample"], alone["probability_Pastures"], strict=True))

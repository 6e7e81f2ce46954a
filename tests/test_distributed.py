"""Two processes give what one gives: scores to the last digit, and no process waits for ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_cli import QUICK


def command(*args: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fusionlab", *args],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent, timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def config(path: Path, root: Path) -> str:
    expert = {"class_path": "small_models.PixelExpert"}
    content = {
        "model": {
            "class_path": "SegmentationTask",
            "init_args": {
                "model": {
                    "class_path": "LateFusion",
                    "init_args": {
                        "experts": {"aerial": expert, "sentinel2": expert},
                        "fusion": {"class_path": "Gated"},
                    },
                }
            },
        },
        "data": {
            "class_path": "Flair2DataModule",
            "init_args": {
                "root": str(root),
                "sen_crop_size": 12,
                "batch_size": 1,
                "max_patches": {"test": 3, "val": 1, "train": 3},
            },
        },
        "trainer": QUICK,
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def scores(folder: Path) -> dict:
    return json.loads((folder / "test_metrics.json").read_text())


TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


@pytest.mark.slow
def test_two_processes_train_validate_and_test_like_one(flair2_root, tmp_path):
    # One sample to validate for two processes, three to test: each process must do a step more
    # than it has samples for, and count none of them twice.
    file = config(tmp_path / "config.yaml", flair2_root)
    command("fit", "--config", file, "--output", str(tmp_path / "run"), *TWO)
    checkpoint = ("--ckpt_path", str(tmp_path / "run" / "best.ckpt"))
    command("test", "--config", file, "--output", str(tmp_path / "one"), *checkpoint)
    command("test", "--config", file, "--output", str(tmp_path / "two"), *checkpoint, *TWO)
    one, two = scores(tmp_path / "one"), scores(tmp_path / "two")
    assert one.keys() == two.keys()
    loss = one.pop("test/loss"), two.pop("test/loss")  # a sum of floats in another order
    assert loss[0] == pytest.approx(loss[1], rel=1e-6)
    assert json.dumps(one) == json.dumps(two)

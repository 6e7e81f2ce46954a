"""Experiments on the tiny FLAIR #2, configured and run as a user does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from fusionlab.cli import run
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


def train_all(root: Path, folder: Path) -> Path:
    """Two trained experts and a fusion of them, as a user makes them."""
    for name in ("aerial", "sentinel2"):
        file = config(folder / f"{name}.yaml", root, pixel_expert(), modalities=[name])
        run(["fit", "--config", file, "--output", str(folder / name)])
    file = config(folder / "fusion.yaml", root, fused(folder), modalities=["aerial", "sentinel2"])
    run(["fit", "--config", file, "--output", str(folder / "fused")])
    return folder


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def scores(folder: Path, stage: str = "test") -> dict:
    return json.loads((folder / f"{stage}_metrics.json").read_text())


def command(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "fusionlab", *args],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
    )  # fmt: skip


def fails(args: list[str], match: str) -> None:
    with pytest.raises(InputError, match=match):
        run(args)

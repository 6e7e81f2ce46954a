"""Augmentations and mixing chosen in YAML, trained with from the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bigearthnet_runs import config as patches_config
from bigearthnet_runs import fused, network, without_pictures
from cli_runs import QUICK, load, pixel_expert
from folder_files import CLASSES, write_folders

from fusionlab.cli import FusionlabCLI, run
from fusionlab.data import Chain, CutMix, MixUp, SpatialCrop
from fusionlab.errors import InputError

pytestmark = pytest.mark.slow

CHAIN = {
    "class_path": "Chain",
    "init_args": {
        "transforms": [
            {"class_path": "RandomD4"},
            {"class_path": "SpatialCrop", "init_args": {"scale": [0.6, 0.9]}},
            {"class_path": "SpectralShift", "init_args": {"std": 0.2}},
            {
                "class_path": "SynonymReplacement",
                "init_args": {"probability": 0.5, "synonyms": {"forest": ["wood", "woodland"]}},
            },
        ]
    },
}


def mixed_by(name: str, **options) -> dict:
    return {"class_path": name, "init_args": options}


def folders(file: Path, root: Path, *, loss: str = "CrossEntropy", **data) -> list[str]:
    """Land cover of 10 m from Sentinel-2 of 10 m and an aerial image of 5 m."""
    images = {
        "s2": {"path": "S2", "bands": ["B02", "B03", "B04"], "mean": [4500.0] * 3,
               "std": [2600.0] * 3},
        "ortho": {"path": "ortho", "bands": ["red", "nir"], "mean": [120.0] * 2, "std": [70.0] * 2},
    }  # fmt: skip
    options = {
        "root": str(root), "modalities": images, "batch_size": 3, "crop": 12,
        "target": {"path": "labels", "classes": CLASSES, "values": [80, 10, 20]},
        "splits": {"val": "b", "test": "north/c"},
    }  # fmt: skip
    experts = {name: pixel_expert() for name in images}
    model = {"class_path": "LateFusion", "init_args": {"experts": experts}}
    content = {
        "model": {
            "class_path": "SegmentationTask",
            "init_args": {"model": model, "loss": {"class_path": loss}},
        },
        "data": {"class_path": "FolderDataModule", "init_args": {**options, **data}},
        "trainer": QUICK,
    }
    file.write_text(yaml.safe_dump(content))
    return ["--config", str(file)]


def fit(flags: list[str], output: Path) -> FusionlabCLI:
    with without_pictures():
        return run(["fit", *flags, "--output", str(output)])


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_folders(tmp_path_factory.mktemp("folders"))


def test_masks_of_mixed_scenes(root, tmp_path):
    flags = folders(tmp_path / "c.yaml", root, augment=CHAIN, mix=mixed_by("MixUp", alpha=1.0))
    cli = fit(flags, tmp_path / "mixup")
    data = cli.datamodule
    assert isinstance(data.mix, MixUp)
    assert data.mix.alpha == 1.0
    assert isinstance(data.augment, Chain)
    (bound,) = data.transforms("train")
    crop = bound.transforms[1]
    assert isinstance(crop, SpatialCrop)
    assert crop._schema is data.schema
    # What was saved makes the same run.
    saved = yaml.safe_load((tmp_path / "mixup" / "config.yaml").read_text())
    assert saved["data"]["init_args"]["mix"]["class_path"].endswith("MixUp")
    fit(["--config", str(tmp_path / "mixup" / "config.yaml")], tmp_path / "again")
    first, second = (load(tmp_path / name / "best.ckpt") for name in ("mixup", "again"))
    for name, weights in first["state_dict"].items():
        assert weights.equal(second["state_dict"][name]), name


def test_masks_with_windows_of_others(root, tmp_path):
    """Masks stay hard, so a loss that needs one class may be used."""
    flags = folders(tmp_path / "c.yaml", root, loss="Lovasz", mix={"class_path": "CutMix"})
    assert isinstance(fit(flags, tmp_path / "run").datamodule.mix, CutMix)


def test_a_loss_that_needs_one_class_is_refused_before_training(root, tmp_path):
    flags = folders(tmp_path / "c.yaml", root, loss="Lovasz", mix={"class_path": "MixUp"})
    with pytest.raises(InputError, match="CrossEntropy, Focal, Dice"):
        fit(flags, tmp_path / "run")


@pytest.mark.parametrize("mix", ["MixUp", pytest.param("CutMix", marks=pytest.mark.slow)])
def test_patches_of_several_classes(bigearthnet_root, tmp_path, mix):
    model = fused("FeatureFusion", {"s1": network(), "s2": network()}, "Weighted")
    data = {"augment": CHAIN, "mix": {"class_path": mix}, "modality_dropout": {"s1": 0.3}}
    flags = ["--config", patches_config(tmp_path / "c.yaml", bigearthnet_root, model, data=data)]
    cli = fit(flags, tmp_path / "run")
    scores = cli.trainer.callback_metrics
    for name in ("precision", "recall", "f1"):
        assert 0 <= scores[f"val/{name}_weighted"] <= 1


@pytest.mark.slow
def test_two_processes_mix(bigearthnet_root, tmp_path):
    """Each by numbers of its own; none waits for the other."""
    model = fused("FeatureFusion", {"s1": network(), "s2": network()}, "Weighted")
    data = {"mix": mixed_by("MixUp", alpha=1.0), "batch_size": 3}
    file = patches_config(tmp_path / "c.yaml", bigearthnet_root, model, data=data)
    runs = []
    for name in ("first", "second"):
        done = subprocess.run(
            [sys.executable, "-m", "fusionlab", "fit", "--config", file,
             "--output", str(tmp_path / name),
             "--trainer.devices", "2", "--trainer.strategy", "ddp"],
            capture_output=True, text=True, check=False, cwd=Path(__file__).parent, timeout=240,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        runs.append(load(tmp_path / name / "best.ckpt")["state_dict"])
    assert all(weights.allclose(runs[1][name]) for name, weights in runs[0].items())

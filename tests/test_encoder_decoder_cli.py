"""Composed experts from the command line: tasks, series, fusions, and a backbone of one's own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import timm
import torch
import yaml
from bigearthnet_runs import (
    S1,
    best,
    labels_of,
    network,
    patches_of,
    predict,
    table,
    without_pictures,
)
from bigearthnet_runs import config as patch_config
from bigearthnet_runs import fused as fused_patches
from cli_runs import QUICK, config, fails, frozen, load, scores
from raster_scenes import write
from safetensors.torch import load_file, save_file

from fusionlab.cli import FusionlabCLI, run
from fusionlab.errors import InputError

pytestmark = pytest.mark.slow

CPU = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
RASTER = str(Path(__file__).parents[1] / "configs" / "predict" / "raster.yaml")
EXPERTS = ("aerial", "sentinel2")


def composed(backbone="timm/test_resnet", **options) -> dict:
    """An expert of tiny parts."""
    decoder = {"name": "UperNet", "channels": 16}
    arguments = {"backbone": backbone, "decoder": decoder, **options}
    return {"class_path": "EncoderDecoder", "init_args": arguments}


UTAE = {
    "class_path": "UTAE",
    "init_args": {
        "encoder_widths": [8, 16],
        "decoder_widths": [8, 16],
        "head_widths": [8],
        "heads": 4,
        "dim": 16,
        "reference_date": "2020-01-01",
    },
}
PARTS = composed(
    "timm/test_vit",
    necks=["LearnedInterpolateToPyramidal"],
    decoder={"name": "UNet", "channels": [32, 16, 16]},
    aux_decoders={"deep": {"weight": 0.3}, "flat": {"decoder": "Linear", "head": {"dropout": 0.1}}},
)


def do(command: str, *args: str) -> FusionlabCLI:
    with without_pictures():
        return run([command, *args])


def tiles(root: Path) -> list[str]:
    """Flags of the tiny FLAIR #2, in the batches of the training."""
    crops = ["--data.sen_crop_size", "12", "--data.batch_size", "2"]
    return ["--data", "Flair2DataModule", "--data.root", str(root), *crops]


@pytest.fixture(scope="module")
def trained(flair2_root, tmp_path_factory) -> Path:
    """``<name>.yaml`` and ``<name>/`` of a composed aerial expert and a U-TAE."""
    folder = tmp_path_factory.mktemp("trained")
    for name, model in zip(EXPERTS, (PARTS, UTAE), strict=True):
        file = config(folder / f"{name}.yaml", flair2_root, model, modalities=[name])
        do("fit", "--config", file, "--output", str(folder / name))
    return folder


# ---- pixels ----------------------------------------------------------------------------------


def test_auxiliary_decoders_are_trained_and_logged(flair2_root, tmp_path):
    file = config(tmp_path / "a.yaml", flair2_root, PARTS, modalities=["aerial"])
    cli = do("fit", "--config", file, "--output", str(tmp_path / "run"))
    seen = {k: float(v) for k, v in cli.trainer.callback_metrics.items() if "train/loss" in k}
    assert seen.keys() >= {"train/loss", "train/loss_deep", "train/loss_flat"}
    assert all(np.isfinite(value) for value in seen.values())
    state = cli.trainer.optimizers[0].state
    parameters = dict(cli.model.model.network.named_parameters())
    for part in ("backbone", "necks", "decoder", "head", "auxiliary.deep", "auxiliary.flat"):
        names = [name for name in parameters if name.startswith(f"{part}.")]
        assert names
        assert all(state[parameters[name]]["exp_avg"].abs().max() > 0 for name in names), part


def test_a_checkpoint_alone_tests_and_predicts(trained, flair2_root, tmp_path):
    checkpoint = str(trained / "aerial" / "best.ckpt")
    file = ["--config", str(trained / "aerial.yaml")]
    do("test", *file, "--ckpt_path", checkpoint, "--output", str(tmp_path / "with"))
    alone = ["--ckpt_path", checkpoint, *tiles(flair2_root), *CPU]
    do("test", *alone, "--output", str(tmp_path / "alone"))
    found = scores(tmp_path / "with")
    assert 0 <= found["test/miou"] <= 1
    assert scores(tmp_path / "alone") == found
    run(["predict", *alone, "--output", str(tmp_path / "maps")])
    images = sorted((flair2_root / "flair_2_aerial_test").rglob("IMG_*.tif"))
    assert images
    for path in images:
        with (
            rasterio.open(tmp_path / "maps" / f"{path.stem}_classes.tif") as written,
            rasterio.open(path) as image,
        ):
            assert (written.crs, written.transform, written.shape) == (
                image.crs, image.transform, image.shape,
            )  # fmt: skip
            assert written.read(1).max() < 13


def test_canopy_height_of_a_raster(flair2_root, tmp_path):
    model = composed(decoder="UNet", head={"learned_upscale_layers": 1, "final_act": "softplus"})
    file = canopy(tmp_path / "canopy.yaml", flair2_root, model)
    cli = do("fit", "--config", file, "--output", str(tmp_path / "run"))
    assert cli.datamodule.schema.units == ("m",)
    checkpoint = str(tmp_path / "run" / "best.ckpt")
    do("test", "--config", file, "--ckpt_path", checkpoint, "--output", str(tmp_path / "test"))
    assert scores(tmp_path / "test")["test/rmse"] > 0
    random = np.random.default_rng(0)
    image = random.integers(1, 255, (4, 70, 100), dtype=np.uint8)
    image[:, :20, :30] = 0
    zone = write(tmp_path / "zone.tif", image, gsd=3.2, nodata=0)
    run([
        "predict", "--config", RASTER, "--ckpt_path", checkpoint, "--data.rasters.aerial", zone,
        "--data.window", "32", "--data.overlap", "16", *CPU, "--output", str(tmp_path / "maps"),
    ])  # fmt: skip
    with (
        rasterio.open(tmp_path / "maps" / "zone_values.tif") as written,
        rasterio.open(zone) as source,
    ):
        assert (written.crs, written.transform, written.shape) == (
            source.crs, source.transform, source.shape,
        )  # fmt: skip
        assert written.dtypes == ("float32",)
        assert written.descriptions == ("canopy_height",)
        heights = written.read(1)
    hole = image[0] == 0
    assert np.isnan(heights[hole]).all()
    assert (heights[~hole] > 0).all()  # what the softplus of the head promises
    assert heights[~hole].std() > 0


def canopy(path: Path, root: Path, model: dict) -> str:
    content = {
        "model": {"class_path": "RegressionTask", "init_args": {"model": model}},
        "data": {
            "class_path": "Flair2DataModule",
            "init_args": {
                "root": str(root),
                "modalities": ["aerial"],
                "target": "canopy_height",
                "batch_size": 2,
            },
        },
        "trainer": QUICK,
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("modality", EXPERTS)
def test_frozen_backbones_need_not_be_saved_again(modality, flair2_root, tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "resnet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    backbone = {"name": "timm/test_resnet", "pretrained": str(file)}
    model = composed(backbone, frozen=True)
    yaml_file = config(
        tmp_path / "a.yaml", flair2_root, model, modalities=[modality], strip_frozen=True
    )
    do("fit", "--config", yaml_file, "--output", str(tmp_path / "run"))
    checkpoint = tmp_path / "run" / "best.ckpt"
    state = load(checkpoint)["state_dict"]
    assert state
    assert not [name for name in state if name.startswith("model.network.backbone.")]
    alone = ["--ckpt_path", str(checkpoint), *tiles(flair2_root), *CPU]
    cli = do("test", *alone, "--output", str(tmp_path / "test"))
    original = load_file(file)
    found = cli.model.model.encoder.state_dict()
    same = [n for n in original if any(k.endswith(n) and v.shape == original[n].shape
            and torch.equal(v, original[n]) for k, v in found.items())]  # fmt: skip
    assert len(same) >= len(original) - 3  # but the bands of the first layer, the classifier
    # Other weights under that name are refused.
    save_file(timm.create_model("test_resnet").state_dict(), file)
    with pytest.raises(InputError, match="those found for it now are others"):
        do("test", *alone, "--output", str(tmp_path / "again"))


# ---- series ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dates", ["mean", "attention"])
def test_an_image_network_on_every_date(flair2_root, tmp_path, dates):
    backbone = {"name": "timm/test_convnext", "out_indices": [0, 1]}
    model = composed(backbone, dates=dates, decoder={"name": "UNet", "channels": [16]})
    file = config(tmp_path / "s2.yaml", flair2_root, model, modalities=["sentinel2"])
    cli = do("fit", "--config", file, "--output", str(tmp_path / "run"))
    assert np.isfinite(float(cli.trainer.callback_metrics["val/loss"]))
    checkpoint = ["--ckpt_path", str(tmp_path / "run" / "best.ckpt"), *tiles(flair2_root), *CPU]
    do("test", *checkpoint, "--output", str(tmp_path / "test"))
    assert scores(tmp_path / "test")["test/miou"] >= 0


# ---- fusions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["LateFusion", "FeatureFusion"])
def test_frozen_experts_are_fused_and_no_longer_needed(kind, trained, flair2_root, tmp_path):
    copies = tmp_path / "experts"
    for name in EXPERTS:
        (copies / name).mkdir(parents=True)
        content = (trained / name / "best.ckpt").read_bytes()
        (copies / name / "best.ckpt").write_bytes(content)
    fusion = {"LateFusion": "ClassWeighted", "FeatureFusion": "Projection"}[kind]
    # Not in the order of their names, which decides nothing, nor in that of the data.
    order = tuple(reversed(EXPERTS))
    experts = {name: frozen(copies / name / "best.ckpt") for name in order}
    model = {
        "class_path": kind,
        "init_args": {"experts": experts, "fusion": {"class_path": fusion}},
    }
    file = config(tmp_path / "fused.yaml", flair2_root, model, modalities=list(EXPERTS))
    content = yaml.safe_load(Path(file).read_text())
    content["model"]["init_args"]["model"] = model  # in the order above
    Path(file).write_text(yaml.safe_dump(content, sort_keys=False))
    output = tmp_path / "run"
    do("fit", "--config", file, "--output", str(output))
    state = load(output / "best.ckpt")["state_dict"]
    for name in EXPERTS:
        prefix = f"model.experts.{name}.expert."
        before = load(trained / name / "best.ckpt")["state_dict"]
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        assert inside
        assert all(torch.equal(value, before[f"model.{key}"]) for key, value in inside.items())
    checkpoint = ["--ckpt_path", str(output / "best.ckpt")]
    do("test", "--config", file, *checkpoint, "--output", str(tmp_path / "before"))
    for name in EXPERTS:
        (copies / name / "best.ckpt").unlink()
    alone = [*checkpoint, *tiles(flair2_root), *CPU]
    cli = do("test", *alone, "--output", str(tmp_path / "after"))
    assert tuple(cli.model.model.experts) == order
    assert scores(tmp_path / "after") == scores(tmp_path / "before")
    flags = ["--writer.contributions", "true"]
    run(["predict", *alone, "--output", str(tmp_path / "maps"), *flags])
    (first, *_) = sorted((tmp_path / "maps").glob("*_contributions.tif"))
    with rasterio.open(first) as shares:
        assert shares.descriptions == order


# ---- whole samples ---------------------------------------------------------------------------


def test_patches_are_classified_by_a_composed_expert(bigearthnet_root, tmp_path):
    model = composed(decoder=None, head={"dim_list": [8], "linear_after_pool": True})
    data = {"modalities": {"s1": S1}}
    file = patch_config(tmp_path / "s1.yaml", bigearthnet_root, model, data=data)
    do("fit", "--config", file, "--output", str(tmp_path / "run"))
    checkpoint = tmp_path / "run" / "best.ckpt"
    do("test", *best(tmp_path, "run", bigearthnet_root), "--output", str(tmp_path / "test"))
    assert 0 <= scores(tmp_path / "test")["test/ap_macro"] <= 1
    predict(checkpoint, tmp_path / "table", *patches_of(bigearthnet_root))
    assert table(tmp_path / "table")["sample"] == list(labels_of(bigearthnet_root, "test"))


def test_features_of_a_composed_and_another_expert_are_fused(bigearthnet_root, tmp_path):
    experts = {"s2": composed(decoder=None, stage="backbone", stage_index=1), "s1": network()}
    file = patch_config(
        tmp_path / "both.yaml", bigearthnet_root, fused_patches("FeatureFusion", experts, "Gated")
    )
    cli = do("fit", "--config", file, "--output", str(tmp_path / "run"))
    channels = cli.model.model.experts["s2"].network.encoded[1].channels
    assert cli.model.model.experts["s2"].embedding_dim == channels
    predict(tmp_path / "run" / "best.ckpt", tmp_path / "table", *patches_of(bigearthnet_root))
    assert table(tmp_path / "table")["sample"] == list(labels_of(bigearthnet_root, "test"))


# ---- a backbone of one's own -----------------------------------------------------------------

OWN = '''
"""Two scales of a network that knows nothing of this package."""

from torch import nn


class TwoScales(nn.Module):
    def __init__(self, bands, *, width=8):
        super().__init__()
        self.out_channels = [width, 2 * width]
        self.fine = nn.Conv2d(bands, width, 4, stride=4)
        self.coarse = nn.Conv2d(width, 2 * width, 2, stride=2)

    def forward(self, images):
        fine = self.fine(images).relu()
        return [fine, self.coarse(fine).relu()]
'''


def test_a_backbone_in_a_file_of_the_users(flair2_root, tmp_path):
    (tmp_path / "my_nets.py").write_text(OWN)
    model = composed({"name": "my_nets.TwoScales", "width": 6})
    config(tmp_path / "mine.yaml", flair2_root, model, modalities=["aerial"])
    started(tmp_path, "fit", "--config", "mine.yaml", "--output", "run")
    weights = load(tmp_path / "run" / "best.ckpt")["state_dict"]
    assert weights["model.network.backbone.fine.weight"].shape == (6, 5, 4, 4)
    alone = ["predict", "--ckpt_path", "run/best.ckpt", *tiles(flair2_root), *CPU]
    started(tmp_path, *alone, "--output", "maps")
    assert list((tmp_path / "maps").glob("*_classes.tif"))
    # Where the file is not, the message says what is missing.
    alone[2] = str(tmp_path / "run" / "best.ckpt")
    fails([*alone, "--output", str(tmp_path / "out")], r"There is no backbone 'my_nets\.TwoScales'")
    assert not (tmp_path / "out").exists()


BROKEN = """
from torch import nn

class Mine(nn.Module):
    def __init__(self, bands):
        super().__init__()
        self.widths = {}["stages"]
"""


def test_a_mistake_inside_a_part_of_the_users_is_shown_where_it_is(flair2_root, tmp_path):
    (tmp_path / "broken_nets.py").write_text(BROKEN)
    model = composed("broken_nets.Mine")
    config(tmp_path / "mine.yaml", flair2_root, model, modalities=["aerial"])
    done = subprocess.run(
        [sys.executable, "-m", "fusionlab", "fit", "--config", "mine.yaml"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 1
    assert 'broken_nets.py", line 7, in __init__' in done.stderr
    assert done.stderr.rstrip().endswith("KeyError: 'stages'")
    assert "Namespace(" not in done.stderr


def started(folder: Path, *args: str) -> None:
    """The command in a process of its own, begun in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "fusionlab", *args],
        capture_output=True, text=True, check=False, cwd=folder, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

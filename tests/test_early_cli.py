"""Early fusion from end to end: fit, test and predict as a user types them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from bigearthnet_runs import CPU, patches_of, predict, probabilities, table, without_pictures
from bigearthnet_runs import config as patches_config
from cli_runs import config, fails, load, scores
from raster_scenes import smooth_image, write

from fusionlab.cli import run
from fusionlab.data import Flair2DataModule
from fusionlab.models import EarlyFusion

pytestmark = pytest.mark.slow

MODALITIES = ["aerial", "sentinel2"]
CNN = {"name": "PlainCNN", "widths": [8, 8]}
PIXEL = 3.2


def early(expert: str = "EncoderDecoder", *, arguments: dict, **options) -> dict:
    part = {"class_path": expert, "init_args": arguments}
    return {"class_path": "EarlyFusion", "init_args": {"expert": part, **options}}


@pytest.fixture(scope="module")
def maps_run(flair2_root, tmp_path_factory) -> Path:
    """A network over the aerial image and the mean of the series."""
    folder = tmp_path_factory.mktemp("early")
    network = early(
        arguments={"backbone": CNN, "decoder": {"name": "UNet", "channels": [8]}},
        mask_channels=True,
    )
    file = config(folder / "early.yaml", flair2_root, network, modalities=MODALITIES)
    with without_pictures():
        run(["fit", "--config", file, "--output", str(folder / "run")])
    return folder / "run"


def test_segmentation_of_an_image_and_a_series(maps_run, flair2_root, tmp_path):
    restored = ["--ckpt_path", str(maps_run / "best.ckpt"), *CPU]
    data = ["--data", "Flair2DataModule", "--data.root", str(flair2_root)]
    data += ["--data.sen_crop_size", "12", "--data.batch_size", "2"]
    found = {}
    for missing in ("", "aerial", "sentinel2"):
        flag = ["--data.missing", f"[{missing}]"] if missing else []
        with without_pictures():
            cli = run(["test", *restored, *data, *flag, "--output", str(tmp_path / f"_{missing}")])
        found[missing] = scores(tmp_path / f"_{missing}")["test/loss"]
    assert len(set(found.values())) == 3
    assert np.isfinite(list(found.values())).all()
    model = cli.model.model
    assert isinstance(model, EarlyFusion)
    bands = Flair2DataModule(str(flair2_root)).schema.modalities
    expected = [f"{name}.{band}" for name in MODALITIES for band in bands[name].bands]
    assert model.expert.inputs.bands == (
        *expected, "aerial.available", "sentinel2.available"
    )  # fmt: skip
    # The checkpoint knows the statistics, and which bands are which.
    weights = load(maps_run / "best.ckpt")["state_dict"]
    assert weights["model.expert.inputs.mean"].flatten()[:5].tolist() == pytest.approx(
        list(bands["aerial"].mean)
    )


def test_maps_of_new_rasters(maps_run, tmp_path):
    image = write(tmp_path / "zone.tif", smooth_image(50, 70).clip(1), gsd=PIXEL, nodata=0)
    random = np.random.default_rng(0)
    for day in ("20210115", "20210603"):
        series = random.integers(1, 9000, (10, 60, 60), dtype=np.uint16)
        write(tmp_path / "s2" / f"S2A_{day}.tif", series, gsd=10, nodata=0, x=-150, y=-150)
    checkpoint = shutil.copy(maps_run / "best.ckpt", tmp_path / "alone.ckpt")
    rasters = ["--data.rasters.aerial", image, "--data.rasters.sentinel2", str(tmp_path / "s2")]
    found = {}
    for name, used in {"both": rasters, "aerial": rasters[:2]}.items():
        run([
            "predict", "--ckpt_path", str(checkpoint), *CPU, "--data", "RasterDataModule",
            "--data.window", "32", "--data.overlap", "16", *used, "--output", str(tmp_path / name),
            "--writer.probabilities", "float16", "--writer.contributions", "true",
        ])  # fmt: skip
        files = {}
        for kind in ("probabilities", "contributions"):
            with rasterio.open(tmp_path / name / f"zone_{kind}.tif") as file:
                assert file.shape == (50, 70)
                files[kind] = file.read()
                assert kind == "probabilities" or file.descriptions == tuple(MODALITIES)
        found[name] = files
    assert not np.allclose(found["both"]["probabilities"], found["aerial"]["probabilities"])
    assert (found["aerial"]["contributions"][1] == 0).all()
    assert (found["both"]["contributions"][1] > 0).any()


@pytest.fixture(scope="module")
def patches_run(bigearthnet_root, tmp_path_factory) -> Path:
    """A network over the bands of two sensors, for whole patches."""
    folder = tmp_path_factory.mktemp("early")
    network = early("TimmExpert", arguments={"backbone": "test_resnet"}, modalities=["s2", "s1"])
    data = {"modality_dropout": {"s1": 0.3, "s2": 0.3}}
    file = patches_config(folder / "early.yaml", bigearthnet_root, network, data=data)
    with without_pictures():
        run(["fit", "--config", file, "--output", str(folder / "run")])
    return folder / "run"


def test_classification_of_patches(patches_run, bigearthnet_root, tmp_path):
    checkpoint = patches_run / "best.ckpt"
    with without_pictures():
        run([
            "test", "--ckpt_path", str(checkpoint), *CPU, *patches_of(bigearthnet_root),
            "--output", str(tmp_path),
        ])  # fmt: skip
    assert np.isfinite(scores(tmp_path)["test/loss"])
    predict(
        checkpoint, tmp_path, *patches_of(bigearthnet_root), "--writer.contributions", "true",
        "--writer.embeddings", "true",
    )  # fmt: skip
    columns = table(tmp_path)
    answers = np.stack(list(probabilities(columns).values()))
    assert ((answers > 0) & (answers < 1)).all()
    assert len(np.unique(answers.round(6), axis=1).T) == answers.shape[1]
    np.testing.assert_allclose(np.add(columns["share_s1"], columns["share_s2"]), 1, atol=1e-5)
    assert [name for name in columns if name.startswith("embedding")] == ["embedding_fused"]
    assert all(columns["available_s1"])


def test_settings_of_the_expert_can_be_changed_and_the_saved_ones_used_again(
    patches_run, bigearthnet_root, tmp_path
):
    saved = yaml.safe_load((patches_run / "config.yaml").read_text())
    arguments = saved["model"]["init_args"]["model"]["init_args"]
    assert arguments["modalities"] == ["s2", "s1"]
    with without_pictures():
        cli = run([
            "fit", "--config", str(patches_run / "config.yaml"), "--output", str(tmp_path),
            "--trainer.fast_dev_run", "true", "--model.model.expert.drop_rate", "0.1",
            "--model.model.mask_channels", "true",
        ])  # fmt: skip
    model = cli.model.model
    assert (model.modalities, model.mask_channels) == (("s2", "s1"), True)
    assert model.expert.describe()["init_args"]["drop_rate"] == 0.1
    weight = next(model.expert.body.parameters())
    assert weight.shape[1] == 10 + 2 + 2
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])


def test_a_misfit_is_told_before_anything_is_written(flair2_root, tmp_path):
    network = early("UTAE", arguments={})
    file = config(tmp_path / "a.yaml", flair2_root, network, modalities=MODALITIES)
    fails(["fit", "--config", file, "--output", str(tmp_path / "run")], "UTAE takes time series")
    assert not (tmp_path / "run").exists()

"""The main jobs on real images: experts, their fusion, test, and predictions."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from bigearthnet_runs import labels_of, patches_of, predict, probabilities, table, without_pictures
from test_bigearthnet_configs import flags

from fusionlab.cli import run
from fusionlab.data.bigearthnet.constants import CLASSES
from fusionlab.data.flair2.constants import COLORS_13

pytestmark = [pytest.mark.shared, pytest.mark.slow]
CONFIGS = Path(__file__).parents[1] / "configs"
FEW = [
    "--data.num_workers", "0", "--data.batch_size", "2", "--data.val_domains", "[D055]",
    "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_epochs", "1",
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(shared, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    root = ["--data.root", str(shared / "data" / "flair2")]
    small = {
        "aerial_unetformer": ["--model.model.decode_channels", "32"],
        "sentinel2_tsvit": ["--model.model.dim", "32", "--model.model.temporal_depth", "1"],
    }
    for config, options in small.items():
        run([
            "fit", "--config", str(CONFIGS / "flair2" / f"{config}.yaml"), *root, *FEW, *options,
            "--output", str(folder / config.split("_")[0]),
        ])  # fmt: skip
    run(["fit", *fusion(folder), *root, *FEW, "--output", str(folder / "fused")])
    return folder


def fusion(folder: Path) -> list[str]:
    experts = [
        arg
        for name in ("aerial", "sentinel2")
        for arg in (f"--model.model.experts.{name}.checkpoint", str(folder / name / "best.ckpt"))
    ]
    return ["--config", str(CONFIGS / "flair2" / "fusion.yaml"), *experts]


def test_the_fused_model_is_tested_on_the_official_split(runs, shared, tmp_path):
    run([
        "test", *fusion(runs), "--data.root", str(shared / "data" / "flair2"), *FEW,
        "--ckpt_path", str(runs / "fused" / "best.ckpt"), "--output", str(tmp_path),
    ])  # fmt: skip
    scores = json.loads((tmp_path / "test_metrics.json").read_text())
    assert 0 <= scores["test/miou_flair2"] <= 1
    assert scores["test/loss"] > 0


def check(path: Path, image: Path) -> None:
    """A map that GDAL opens, on the grid of the real image, with its classes in colour."""
    with rasterio.open(path) as written, rasterio.open(image) as source:
        assert written.crs == source.crs
        assert written.crs.to_epsg() == 2154
        assert written.transform == source.transform
        assert written.shape == (512, 512)
        assert written.read(1).max() <= 12
        colors = written.colormap(1)
        for i, color in enumerate(COLORS_13):
            assert "#{:02x}{:02x}{:02x}".format(*colors[i][:3]) == color
        assert "building" in json.dumps(written.tags() | written.tags(1))


def test_real_patches_are_mapped_from_the_data_set(runs, shared, tmp_path):
    root = shared / "data" / "flair2"
    run([
        "predict", "--data", "Flair2DataModule", "--data.root", str(root),
        "--data.monthly_means", "true", "--ckpt_path", str(runs / "fused" / "best.ckpt"),
        "--output", str(tmp_path), "--trainer.accelerator", "cpu",
    ])  # fmt: skip
    (path,) = tmp_path.glob("*_classes.tif")
    check(path, next(root.rglob("IMG_084558.tif")))


def test_real_images_are_mapped_as_new_tiles_without_sentinel2(runs, shared, tmp_path):
    images = sorted((shared / "data" / "flair2").rglob("IMG_*.tif"))
    assert len(images) == 5
    for image in images:
        run([
            "predict", "--config", str(CONFIGS / "predict" / "raster.yaml"),
            "--ckpt_path", str(runs / "fused" / "best.ckpt"),
            "--data.rasters.aerial", str(image), "--data.window", "384", "--data.overlap", "128",
            "--output", str(tmp_path), "--trainer.accelerator", "cpu",
            "--trainer.enable_progress_bar", "false", "--writer.probabilities", "uint8",
        ])  # fmt: skip
        check(tmp_path / f"{image.stem}_classes.tif", image)
    # A few steps of training give few classes, but every image its own probabilities.
    maps = []
    for path in sorted(tmp_path.glob("*_probabilities.tif")):
        with rasterio.open(path) as file:
            maps.append(file.read().tobytes())
    assert len(set(maps)) == 5


# ---- BigEarthNet -----------------------------------------------------------------------------

SNOWY = "S2B_MSIL2A_20180204T094159_N9999_R036_T35VPK_57_38"
S2_BANDS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]


@pytest.fixture(scope="module")
def six_pairs(shared) -> Path:
    return shared / "data" / "bigearthnet_v2"


@pytest.fixture(scope="module")
def three_experts(six_pairs, tmp_path_factory) -> Path:
    """The recipe of three experts, with small networks, trained on real pairs."""
    folder = tmp_path_factory.mktemp("three")
    recipe = CONFIGS / "bigearthnet" / "fusion_three_experts.yaml"
    with without_pictures():
        run([
            "fit", "--config", str(recipe), "--data.root", str(six_pairs),
            *flags(recipe, folder, small=True), "--data.batch_size", "3", "--data.num_workers", "0",
            "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu", "--trainer.devices", "1",
            "--trainer.enable_progress_bar", "false", "--output", str(folder),
        ])  # fmt: skip
    return folder / "best.ckpt"


def modalities(root: Path) -> list[str]:
    chosen = f"{{s1: [VV, VH], s2: [{', '.join(S2_BANDS)}]}}"
    return [*patches_of(root), "--data.modalities", chosen]


@pytest.mark.parametrize("snow", [False, True])
def test_real_pairs_are_tested_and_predicted(three_experts, six_pairs, tmp_path, snow):
    with_snow = ["--data.include_snow_cloud", str(snow).lower()]
    run([
        "test", "--ckpt_path", str(three_experts), *modalities(six_pairs), *with_snow,
        "--output", str(tmp_path), "--trainer.accelerator", "cpu",
    ])  # fmt: skip
    scores = json.loads((tmp_path / "test_metrics.json").read_text())
    assert 0 < scores["test/ap_macro"] <= 1
    assert scores["test/classes_evaluated"] == (7 if snow else 4)
    assert (tmp_path / "test_examples.png").is_file()
    predict(three_experts, tmp_path, *modalities(six_pairs), *with_snow)
    columns = table(tmp_path)
    assert columns["sample"] == [*labels_of(six_pairs, "test"), *([SNOWY] if snow else [])]
    assert list(probabilities(columns)) == list(CLASSES)
    assert all(columns["available_s1"])
    assert all(columns["available_s2"])


def test_a_real_pair_is_the_same_as_rasters(three_experts, six_pairs, tmp_path):
    predict(three_experts, tmp_path / "patch", *modalities(six_pairs))
    (name,) = labels_of(six_pairs, "test")
    radar = next((six_pairs / "BigEarthNet-S1").glob("*/*_29SND_56_35"))
    predict(
        three_experts, tmp_path / "raster", "--data", "RasterDataModule",
        "--data.rasters.s2", str(next((six_pairs / "BigEarthNet-S2").glob(f"*/{name}"))),
        "--data.rasters.s1", str(radar),
    )  # fmt: skip
    (grid,) = (tmp_path / "raster").glob("*_patches.tif")
    with rasterio.open(grid) as file:
        assert file.shape == (1, 1)
        assert file.descriptions == CLASSES
        mapped = file.read()[:, 0, 0]
    patch, raster = (probabilities(table(tmp_path / part)) for part in ("patch", "raster"))
    np.testing.assert_allclose(mapped, [raster[k][0] for k in CLASSES], rtol=1e-6)
    np.testing.assert_allclose(mapped, [patch[k][0] for k in CLASSES], atol=1e-6)

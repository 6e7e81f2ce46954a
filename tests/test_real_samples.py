"""The main job on real FLAIR #2 images: two experts, their fusion, test, and maps."""

import json
from pathlib import Path

import pytest
import rasterio

from fusionlab.cli import run
from fusionlab.data.flair2.constants import COLORS_13

pytestmark = pytest.mark.shared
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

"""The configurations of TerraMesh and of canopy height are run, on generated and on real data."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from bigearthnet_runs import without_pictures
from folder_files import write
from rasterio.windows import Window

from fusionlab.cli import run
from fusionlab.errors import InputError

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[1] / "configs"
SIDE = 64
MODALITIES = ("s2", "s1", "dem")
REAL = ("282D_485L_3_3", "38D_378R_2_3", "637U_59R_1_3")
PLACES = ("1D_1L_1_1", "2D_2L_1_1", "3D_3L_1_1", "4D_4L_1_1")
QUICK = [
    "--trainer.accelerator", "cpu", "--trainer.devices", "1",
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
    "--data.num_workers", "0", "--data.pin_memory", "false", "--data.batch_size", "2",
]  # fmt: skip
SHORT = [
    "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1",
    "--trainer.limit_val_batches", "1", "--trainer.logger", "false",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Places in the layout and the types of the published examples."""
    folder = tmp_path_factory.mktemp("terramesh")
    random = np.random.default_rng(0)
    for place, name in enumerate(PLACES):
        for kind, values in (
            ("S2L2A", random.integers(1, 6000, (12, SIDE, SIDE)).astype(np.int16)),
            ("S1RTC", random.normal(-14, 4, (2, SIDE, SIDE))),
            ("DEM", random.integers(0, 900, (1, SIDE, SIDE)).astype(np.int16)),
            ("LULC", random.integers(0, 10, (1, SIDE, SIDE)).astype(np.uint8)),
        ):
            write(folder / kind / f"{name}.tif", values, place=place)
    return folder


def flags(root: Path, name: str, output: Path) -> list[str]:
    return [
        "--config", str(CONFIGS / "terramesh" / "data.yaml"),
        "--config", str(CONFIGS / "terramesh" / f"{name}.yaml"), "--data.root", str(root),
        "--data.statistics", str(output.parent / "statistics"), "--data.crop", "32", *QUICK,
        "--output", str(output),
    ]  # fmt: skip


def test_an_expert(root, tmp_path):
    with without_pictures():
        cli = run(["fit", *flags(root, "s2", tmp_path / "s2"), "--trainer.fast_dev_run", "true"])
    assert list(cli.datamodule.schema.modalities) == ["s2"]
    assert cli.model.model.network.features[0].stride == 2
    assert np.isfinite(float(cli.trainer.callback_metrics["train/loss"]))


def test_a_value_per_sample(root, tmp_path):
    small = [*flags(root, "elevation_from_s2", tmp_path / "e"), "--trainer.fast_dev_run", "true"]
    with without_pictures():
        cli = run(["fit", *small])
    schema = cli.datamodule.schema
    assert (schema.target, schema.variables, schema.units) == (
        "scalar_regression", ("elevation",), ("km",),
    )  # fmt: skip
    assert (list(schema.modalities), schema.classes) == (["s2"], ())
    assert np.isfinite(float(cli.trainer.callback_metrics["train/loss"]))
    for sample in cli.datamodule.dataset("val"):
        place, row, column = sample["sample_id"].rsplit("_", 2)
        window = Window(int(column), int(row), 32, 32)
        with rasterio.open(root / "DEM" / f"{place}.tif") as file:
            elevation = file.read(window=window).mean() / 1000
        assert sample["target"].tolist() == [pytest.approx(elevation)]


def test_contrastive_pairs_of_radar_and_optical_images(root, tmp_path):
    small = [*flags(root, "contrastive", tmp_path / "run"), "--trainer.fast_dev_run", "true"]
    for name in ("s1", "s2"):
        small += [f"--model.model.experts.{name}.backbone", "timm/test_resnet"]
    with without_pictures():
        cli = run(["fit", *small])
    assert cli.model.pairs == [("s2", "s1")]
    assert cli.model.schema.classes == ()
    assert np.isfinite(float(cli.trainer.callback_metrics["train/loss"]))


@pytest.mark.slow
def test_experts_fusion_and_maps(root, tmp_path):
    experts = []
    fusion = flags(root, "fusion", tmp_path / "fusion")
    best = str(tmp_path / "fusion" / "best.ckpt")
    with without_pictures():
        for name in MODALITIES:
            run(["fit", *flags(root, name, tmp_path / name), *SHORT])
            checkpoint = str(tmp_path / name / "best.ckpt")
            experts += [f"--model.model.experts.{name}.checkpoint", checkpoint]
        run(["fit", *fusion, *experts, *SHORT])
        cli = run(["test", *fusion, *experts, "--ckpt_path", best])
    assert "test/miou" in cli.trainer.callback_metrics
    assert len(cli.datamodule.schema.classes) == 8
    predict(root, tmp_path / "fusion")
    check_maps(tmp_path / "fusion_maps", root, PLACES)


def predict(root: Path, output: Path, *more: str) -> None:
    """Maps all places with the best epoch of a run, which is all that is said of the model."""
    run([
        "predict", "--config", str(CONFIGS / "terramesh" / "data.yaml"), "--data.root", str(root),
        "--data.statistics", str(output.parent / "statistics"), *QUICK, "--data.crop", "32",
        "--data.overlap", "16", "--data.predict_split", "all",
        "--ckpt_path", str(output / "best.ckpt"),
        "--output", str(output.with_name(f"{output.name}_maps")), *more,
    ])  # fmt: skip


def check_maps(maps: Path, root: Path, places: tuple[str, ...]) -> None:
    """Every place is mapped where it lies, in classes that there are."""
    assert sorted(path.name for path in maps.glob("*_classes.tif")) == [
        f"{name}_classes.tif" for name in sorted(places)
    ]
    for name in places:
        with (
            rasterio.open(maps / f"{name}_classes.tif") as written,
            rasterio.open(root / "LULC" / f"{name}.tif") as labels,
        ):
            assert (written.crs, written.transform) == (labels.crs, labels.transform)
            assert written.shape == labels.shape
            assert written.read(1).max() < 8


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_places(shared, tmp_path):
    """An expert per modality and their late fusion, of small backbones, trained for a moment."""
    root = shared / "data" / "terramesh"
    experts = []
    for name in MODALITIES:
        small = [*flags(root, name, tmp_path / name), "--data.crop", "64"]
        small += ["--model.model.backbone", "timm/test_resnet"]
        with without_pictures():
            cli = run(["fit", *small, *SHORT])
        bands = {"s2": 12, "s1": 2, "dem": 1}[name]
        assert len(cli.model.model.inputs) == bands
        predict(root, tmp_path / name)
        check_maps(tmp_path / f"{name}_maps", root, REAL)
        experts += [f"--model.model.experts.{name}.checkpoint", str(tmp_path / name / "best.ckpt")]
    fusion = [*flags(root, "fusion", tmp_path / "fusion"), "--data.crop", "64", *experts]
    with without_pictures():
        run(["fit", *fusion, *SHORT])
    for name in MODALITIES:
        (tmp_path / name / "best.ckpt").unlink()
    predict(root, tmp_path / "fusion", "--writer.contributions", "true")
    maps = tmp_path / "fusion_maps"
    check_maps(maps, root, REAL)
    for name in REAL:
        with rasterio.open(maps / f"{name}_contributions.tif") as shares:
            assert shares.descriptions == MODALITIES
            total = shares.read().astype(int).sum(axis=0)
        np.testing.assert_allclose(total, 100, atol=2)


@pytest.mark.slow
@pytest.mark.shared
def test_pairs_of_the_real_places(shared, tmp_path):
    """Radar and optical windows of the places learn to find each other."""
    root = shared / "data" / "terramesh"
    recipe = [*flags(root, "contrastive", tmp_path / "run"), "--data.batch_size", "8"]
    recipe += ["--data.splits", "{val: '*485L*', test: '*378R*'}"]
    for name in ("s1", "s2"):
        recipe += [f"--model.model.experts.{name}.backbone", "timm/test_resnet"]
    best = str(tmp_path / "run" / "best.ckpt")
    with without_pictures():
        run(["fit", *recipe, "--trainer.max_epochs", "2"])
        cli = run(["test", *recipe, "--ckpt_path", best, "--output", str(tmp_path / "test")])
        run(["predict", *recipe, "--ckpt_path", best, "--data.predict_split", "all",
             "--output", str(tmp_path / "table")])  # fmt: skip
    scores = cli.trainer.callback_metrics
    assert scores["test/candidates/s2_to_s1"] == 7 * 7
    assert 0 < float(scores["test/recall_at_10"]) <= 1
    table = pq.read_table(tmp_path / "table" / "predictions.parquet").to_pydict()
    assert len(table["sample"]) == 3 * 7 * 7
    vectors = np.array(table["embedding_s1"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.shared
def test_a_value_per_window_of_the_real_places(shared, tmp_path):
    recipe = flags(shared / "data" / "terramesh", "elevation_from_s2", tmp_path / "run")
    recipe += ["--data.crop", "64", "--model.model.backbone", "timm/test_resnet"]
    best = ["--ckpt_path", str(tmp_path / "run" / "best.ckpt")]
    with without_pictures():
        run(["fit", *recipe, *SHORT])
        cli = run(["test", *recipe, *best, "--output", str(tmp_path / "test")])
        run(["predict", *recipe, *best, "--output", str(tmp_path / "table"),
             "--data.predict_split", "all"])  # fmt: skip
    assert 0 < float(cli.trainer.callback_metrics["test/rmse"]) < 5  # km
    table = pq.read_table(tmp_path / "table" / "predictions.parquet").to_pydict()
    assert {Path(source).stem for source in table["source"]} == set(REAL)
    assert len(table["sample"]) == len(set(table["sample"])) == 3 * 4 * 4
    assert np.isfinite(table["value_elevation"]).all()


def test_canopy_height(flair2_root):
    config = str(CONFIGS / "flair2" / "canopy_height_regression.yaml")
    cli = run([
        "fit", "--config", config, "--data.root", str(flair2_root), *QUICK,
        "--trainer.fast_dev_run", "true",
    ])  # fmt: skip
    assert cli.datamodule.schema.variables == ("canopy_height",)
    assert len(cli.model.model.inputs) == 4  # the height itself is no input
    assert np.isfinite(float(cli.trainer.callback_metrics["train/loss"]))


def test_one_entry_of_a_folder_is_changed_by_a_flag_or_a_file(root, tmp_path):
    output = tmp_path / "out"
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("data: {init_args: {modalities: {s2: {path: S2L1C}}}}")
    with pytest.raises(InputError, match=r"modalities\.s2: there is no folder .*S2L1C"):
        run(["fit", *flags(root, "s2", output), "--config", str(overlay)])
    with pytest.raises(InputError, match=r"modalities\.s1: there is no folder .*S1GRD"):
        run(["fit", *flags(root, "s1", output), "--data.modalities.s1.path", "S1GRD"])
    assert not output.exists()


def test_a_misspelt_option_of_a_folder(root, tmp_path):
    with pytest.raises(InputError, match="pth"):
        run(["fit", *flags(root, "s2", tmp_path / "out"), "--data.modalities.s2.pth", "S2L2A"])

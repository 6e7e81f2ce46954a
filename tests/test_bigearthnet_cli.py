"""Patch classification from end to end: fit, test and predict as a user types them."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from bigearthnet_runs import (
    FUSIONS,
    best,
    config,
    labels_of,
    patches_of,
    predict,
    probabilities,
    scores,
    table,
    without_pictures,
)
from cli_runs import load, pixel_expert

from fusionlab.cli import run
from fusionlab.data.bigearthnet.constants import CLASSES, CLASSES_PAPER
from fusionlab.data.synthetic.bigearthnet import (
    BigEarthNetConfig,
    NewPlace,
    write_bigearthnet,
    write_rasters,
)

pytestmark = pytest.mark.slow

READS = {"s1": {"s1"}, "s2": {"s2"}} | {name: {"s1", "s2"} for name in FUSIONS}


def average_precision(score: np.ndarray, truth: np.ndarray) -> float:
    """Mean, over the positives, of the precision down to their rank."""
    found = truth[np.argsort(-score)]
    precision = found.cumsum() / np.arange(1, len(found) + 1)
    return float(precision[found].mean())


# ---- scores ----------------------------------------------------------------------------------


def quickly(*chosen: str, of: Iterable[str]) -> list:
    """The names chosen; the others, which go much the same way, are left to the slow tests."""
    return [n if n in chosen else pytest.param(n, marks=pytest.mark.slow) for n in of]


@pytest.mark.parametrize("name", quickly("s1", "s2", "joint", of=READS))
def test_the_scores_are_those_of_the_predictions(
    bigearthnet_runs, bigearthnet_root, tmp_path, name
):
    found = scores(best(bigearthnet_runs, name, bigearthnet_root), tmp_path)
    predict(bigearthnet_runs / name / "best.ckpt", tmp_path, *patches_of(bigearthnet_root))
    columns = table(tmp_path)
    answers = probabilities(columns)
    labels = labels_of(bigearthnet_root, "test")

    assert columns["sample"] == list(labels)
    assert list(answers) == list(CLASSES)
    given = [{name for name in CLASSES if answers[name][row] >= 0.5} for row in range(len(labels))]
    assert [set(names) for names in columns["labels"]] == given
    available = {key.removeprefix("available_") for key in columns if key.startswith("available_")}
    assert available == READS[name]

    truth = {k: np.array([k in of for of in labels.values()]) for k in CLASSES}
    for k in CLASSES:
        assert found[f"test/support/{k}"] == truth[k].sum()
        wanted = average_precision(answers[k], truth[k]) if truth[k].any() else None
        assert found[f"test/ap/{k}"] == (wanted and pytest.approx(wanted, abs=1e-5))
    occurring = [found[f"test/ap/{k}"] for k in CLASSES if truth[k].any()]
    assert 2 <= len(occurring) < 19
    assert found["test/classes_evaluated"] == len(occurring)
    assert found["test/ap_macro"] == pytest.approx(np.mean(occurring), abs=1e-5)
    score = np.concatenate([answers[k] for k in CLASSES])
    every = np.concatenate([truth[k] for k in CLASSES])
    assert found["test/ap_micro"] == pytest.approx(average_precision(score, every), abs=1e-5)
    hits = sum(len(a & b) for a, b in zip(given, labels.values(), strict=True))
    total = sum(map(len, given)) + every.sum()
    assert found["test/f1_micro"] == pytest.approx(2 * hits / total, abs=1e-5)
    expected = -np.where(every, np.log(score), np.log(1 - score)).mean()
    assert found["test/loss"] == pytest.approx(expected, rel=1e-3)


def test_a_run_leaves_what_a_user_looks_for(bigearthnet_runs, tmp_path):
    names = {path.name for path in (bigearthnet_runs / "decisions").iterdir()}
    assert names >= {
        "best.ckpt", "last.ckpt", "config.yaml", "curves.png", "fusion_weights.png",
        "val_examples.png",
    }  # fmt: skip
    run([
        "test", "--config", str(bigearthnet_runs / "decisions.yaml"), "--output", str(tmp_path),
        "--ckpt_path", str(bigearthnet_runs / "decisions" / "best.ckpt"),
    ])  # fmt: skip
    found = json.loads((tmp_path / "test_metrics.json").read_text())
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        "test_average_precision.png", "test_precision_recall.png", "test_fusion_weights.png",
        "test_examples.png", "test_config.yaml",
    }  # fmt: skip
    # One weight per class and sensor; the experts are frozen.
    assert found["trained_parameters"] == 2 * len(CLASSES)
    assert found["test/share/s1"] + found["test/share/s2"] == pytest.approx(1, abs=1e-5)


def test_the_order_of_the_classes_in_the_data_does_not_matter(
    bigearthnet_runs, bigearthnet_root, tmp_path
):
    flags = best(bigearthnet_runs, "joint", bigearthnet_root)
    alphabetical = scores(flags, tmp_path / "a")
    paper = scores([*flags, "--data.class_order", "paper"], tmp_path / "b")
    assert CLASSES != CLASSES_PAPER
    assert paper == alphabetical
    # Nor in the data that one of the experts was trained on, and the other was not.
    file = ["--config", str(bigearthnet_runs / "decisions.yaml"), "--data.class_order", "paper"]
    with without_pictures():
        cli = run(["validate", *file, "--output", str(tmp_path / "c")])
    assert cli.model.schema.classes == CLASSES_PAPER
    swapped = [CLASSES_PAPER.index(name) for name in CLASSES]
    batch = next(iter(cli.datamodule.val_dataloader()))
    expert = cli.model.model.experts["s1"]
    with torch.no_grad():
        ours, theirs = (e.logits(batch["inputs"]["s1"]) for e in (expert, expert.expert))
    assert torch.equal(ours[:, swapped], theirs)
    assert not torch.equal(ours, theirs)


# ---- predictions -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def new_patches(tmp_path_factory) -> Path:
    """Patches without metadata; one has no Sentinel-1, another no Sentinel-2."""
    sizes = {"train": 0, "validation": 0, "test": 3, "snow_cloud": 0}
    config = BigEarthNetConfig(seed=7, tiles=1, **sizes)
    root = write_bigearthnet(tmp_path_factory.mktemp("new") / "patches", config).root
    for path in root.glob("*.parquet"):
        path.unlink()
    shutil.rmtree(root / "Reference_Maps")
    shutil.rmtree(sorted((root / "BigEarthNet-S1").glob("*/*"))[0])
    shutil.rmtree(sorted((root / "BigEarthNet-S2").glob("*/*"))[-1])
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> NewPlace:
    """Rasters of 2 by 3 patches, those at the right and the bottom cut off."""
    return write_rasters(
        tmp_path_factory.mktemp("place") / "p", BigEarthNetConfig(), size=(150, 260)
    )


@pytest.fixture
def moved(bigearthnet_runs, tmp_path) -> Path:
    """Checkpoints of the fusions alone, in another folder; the experts' runs are not there."""
    for name in FUSIONS:
        shutil.copy(bigearthnet_runs / name / "best.ckpt", tmp_path / f"{name}.ckpt")
    hidden = bigearthnet_runs.with_name("hidden")
    bigearthnet_runs.rename(hidden)
    yield tmp_path
    hidden.rename(bigearthnet_runs)


def check_grid(path: Path, raster: Path, columns: dict) -> None:
    """A map that any GIS opens: a pixel per patch, a band per class, the numbers of the table."""
    answers = probabilities(columns)
    with rasterio.open(path) as grid, rasterio.open(raster) as source:
        assert grid.crs == source.crs
        assert grid.res == (1200, 1200)
        assert (grid.bounds.left, grid.bounds.top) == (source.bounds.left, source.bounds.top)
        assert grid.shape == (2, 3)
        assert grid.descriptions == CLASSES
        values = grid.read()
    rows, cols = np.array(columns["row"]) // 120, np.array(columns["column"]) // 120
    assert set(zip(rows.tolist(), cols.tolist(), strict=True)) == set(np.ndindex(2, 3))
    for band, name in enumerate(CLASSES):
        np.testing.assert_allclose(values[band, rows, cols], answers[name], rtol=1e-6)


@pytest.mark.parametrize("name", quickly("features", of=FUSIONS))
def test_a_fused_checkpoint_alone_predicts_new_places(moved, new_patches, place, tmp_path, name):
    checkpoint, output = moved / f"{name}.ckpt", tmp_path / "out"
    predict(checkpoint, output, *patches_of(new_patches), "--data.predict_split", "folder")
    columns = table(output)
    assert {path.name for path in output.iterdir()} == {
        "predict_config.yaml",
        "predictions.parquet",
    }
    assert len(columns["sample"]) == 3
    optical = {path.name for path in (new_patches / "BigEarthNet-S2").glob("*/*")}
    radar = {path.name for path in (new_patches / "BigEarthNet-S1").glob("*/*")}
    assert {n for n in columns["sample"] if n.startswith("S2")} == optical
    assert {n for n in columns["sample"] if n.startswith("S1")} < radar
    assert sorted(zip(columns["available_s1"], columns["available_s2"], strict=True)) == [
        (False, True), (True, False), (True, True),
    ]  # fmt: skip
    answers = np.stack(list(probabilities(columns).values()))
    assert answers.shape == (19, 3)
    assert ((answers > 0) & (answers < 1)).all()
    assert len(np.unique(answers.round(6), axis=1).T) == 3

    rasters = ["--config", str(Path(__file__).parents[1] / "configs" / "predict" / "patches.yaml"),
               "--data.rasters.s1", str(place.s1), "--data.rasters.s2", str(place.s2)]  # fmt: skip
    predict(checkpoint, output, *rasters)
    columns = table(output)
    (grid,) = output.glob("*_patches.tif")
    check_grid(grid, place.s2, columns)
    assert all(columns["available_s1"])
    # Without Sentinel-1 it goes on, and says something else.
    predict(checkpoint, tmp_path / "s2", *rasters[:2], *rasters[4:])
    alone = table(tmp_path / "s2")
    assert not any(alone["available_s1"])
    assert all(alone["available_s2"])
    assert probabilities(alone)["Pastures"] != pytest.approx(probabilities(columns)["Pastures"])


@pytest.mark.slow
def test_a_raster_made_of_patches_gets_their_answers(bigearthnet_runs, place, tmp_path):
    # What the patch in the first corner of the rasters says must not depend on the way there.
    folder = tmp_path / "patches"
    name = {
        "S2": "S2A_MSIL2A_20180506T100031_N9999_R122_T33UWP_03_53",
        "S1": "S1A_IW_GRDH_1SDV_20180507T050948_33UWP_3_53",
    }
    for sensor, path in (("S1", place.s1), ("S2", place.s2)):
        scene = name[sensor].rsplit("_", 3 if sensor == "S1" else 2)[0]
        target = folder / f"BigEarthNet-{sensor}" / scene / name[sensor]
        target.mkdir(parents=True)
        with rasterio.open(path) as file:
            for band, values in zip(file.descriptions, file.read(), strict=True):
                step = {"B01": 6, "B09": 6}.get(band, 2 if band in TWENTY_METRES else 1)
                corner = values[:120:step, :120:step]
                profile = {
                    "driver": "GTiff", "count": 1, "height": len(corner), "width": len(corner),
                    "dtype": corner.dtype, "crs": file.crs,
                    "transform": file.transform * file.transform.scale(step),
                }  # fmt: skip
                with rasterio.open(target / f"{name[sensor]}_{band}.tif", "w", **profile) as out:
                    out.write(corner, 1)
    checkpoint = bigearthnet_runs / "features" / "best.ckpt"
    predict(checkpoint, tmp_path / "a", *patches_of(folder), "--data.predict_split", "folder")
    predict(
        checkpoint, tmp_path / "b", "--data", "RasterDataModule", "--data.batch_size", "1",
        "--data.rasters.s1", str(place.s1), "--data.rasters.s2", str(place.s2),
    )  # fmt: skip
    ours, theirs = (probabilities(table(tmp_path / run)) for run in "ab")
    for k in CLASSES:
        assert ours[k][0] == pytest.approx(theirs[k][0], abs=1e-6)


TWENTY_METRES = ("B05", "B06", "B07", "B8A", "B11", "B12")


def test_shares_and_embeddings_on_request(bigearthnet_runs, bigearthnet_root, tmp_path):
    predict(
        bigearthnet_runs / "features" / "best.ckpt", tmp_path, *patches_of(bigearthnet_root),
        "--writer.contributions", "true", "--writer.embeddings", "true",
    )  # fmt: skip
    columns = table(tmp_path)
    total = np.add(columns["share_s1"], columns["share_s2"])
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert {k for k in columns if k.startswith("embedding")} == {
        "embedding_s1", "embedding_s2", "embedding_fused",
    }  # fmt: skip
    told = json.loads(pq.read_schema(tmp_path / "predictions.parquet").metadata[b"fusionlab"])
    assert told["classes"] == list(CLASSES)


def test_the_task_decides_what_predict_writes(bigearthnet_runs, bigearthnet_root, tmp_path):
    checkpoint = bigearthnet_runs / "s1" / "best.ckpt"
    predict(
        checkpoint, tmp_path, *patches_of(bigearthnet_root), "--writer.format", "csv",
        "--data.predict_split", "val",
    )  # fmt: skip
    rows = pyarrow.csv.read_csv(tmp_path / "predictions.csv")
    assert rows["sample"].to_pylist() == list(labels_of(bigearthnet_root, "validation"))
    assert not list(tmp_path.glob("*.parquet"))
    # Of the same patches a model of their reference maps makes maps.
    file = config(
        tmp_path / "maps.yaml", bigearthnet_root, pixel_expert(),
        data={"modalities": {"s2": ["B03", "B04"]}, "target": "reference_map"},
    )  # fmt: skip
    flags = ["--config", file, "--model.class_path", "SegmentationTask"]
    run(["fit", *flags, "--output", str(tmp_path / "run")])
    predict(
        tmp_path / "run" / "best.ckpt", tmp_path / "maps", *patches_of(bigearthnet_root),
        "--data.modalities", "{s2: [B03, B04]}", "--data.target", "reference_map",
    )  # fmt: skip
    maps = sorted((tmp_path / "maps").glob("*_classes.tif"))
    assert len(maps) == 6
    with rasterio.open(maps[0]) as written:
        assert written.shape == (120, 120)
        assert written.read(1).max() < 19
    assert not list((tmp_path / "maps").glob("predictions.*"))


# ---- a missing sensor ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("joint", "s1"),
        *(
            pytest.param(name, gone, marks=pytest.mark.slow)
            for name, gone in [("joint", "s2"), ("features", "s1"), ("decisions", "s2")]
        ),
    ],
)
def test_what_if_a_sensor_were_missing(bigearthnet_runs, bigearthnet_root, tmp_path, name, gone):
    flags = best(bigearthnet_runs, name, bigearthnet_root)
    whole = scores(flags, tmp_path / "whole")
    asked = scores([*flags, "--data.missing", f"[{gone}]"], tmp_path / "asked")
    assert asked["test/loss"] != whole["test/loss"]
    # The same patches on a disk without that sensor.
    root = tmp_path / "without"
    root.mkdir()
    for path in bigearthnet_root.iterdir():
        if path.name != f"BigEarthNet-{gone.upper()}":
            (root / path.name).symlink_to(path)
    here = ["--data.root", str(root), "--data.allow_missing", "true"]
    assert scores([*flags, *here], tmp_path / "really") == asked


# ---- the best epoch --------------------------------------------------------------------------


def logged(folder: Path, name: str) -> dict[int, float]:
    """A score of validation by epoch, over all fits of a folder."""
    found: dict[int, float] = {}
    for path in sorted((folder / "logs").glob("version_*/metrics.csv")):
        rows = pyarrow.csv.read_csv(path).to_pylist()
        found |= {row["epoch"]: row[name] for row in rows if row[name] not in (None, "")}
    return found


@pytest.mark.parametrize(
    "monitor", [None, "val/ap_micro", pytest.param("val/loss", marks=pytest.mark.slow)]
)
def test_the_best_epoch_is_that_of_the_best_macro_precision(bigearthnet_runs, tmp_path, monitor):
    other = ["--checkpoint.monitor", monitor] if monitor else []
    run([
        "fit", "--config", str(bigearthnet_runs / "s1.yaml"), "--output", str(tmp_path),
        "--trainer.max_epochs", "4", *other,
    ])  # fmt: skip
    values = logged(tmp_path, monitor or "val/ap_macro")
    assert sorted(values) == [0, 1, 2, 3]
    choose = min if monitor == "val/loss" else max
    assert load(tmp_path / "best.ckpt")["epoch"] == choose(values, key=values.__getitem__)
    assert load(tmp_path / "last.ckpt")["epoch"] == 3


def test_a_resumed_run_keeps_the_best(bigearthnet_runs, tmp_path):
    # Of a single patch every ranking is perfect, so no epoch is better than the first.
    flags = [
        "fit", "--config", str(bigearthnet_runs / "s1.yaml"), "--output", str(tmp_path),
        "--data.max_samples", "{val: 1, train: 4}",
    ]  # fmt: skip
    run([*flags, "--trainer.max_epochs", "2"])
    before = load(tmp_path / "best.ckpt")
    assert before["epoch"] == 0
    run([*flags, "--trainer.max_epochs", "4", "--ckpt_path", "last"])
    assert load(tmp_path / "last.ckpt")["epoch"] == 3
    assert set(logged(tmp_path, "val/ap_macro").values()) == {1.0}
    after = load(tmp_path / "best.ckpt")
    assert after["epoch"] == 0
    assert all(torch.equal(v, after["state_dict"][k]) for k, v in before["state_dict"].items())

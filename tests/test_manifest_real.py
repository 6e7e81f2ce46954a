"""Real samples as manifests: TreeSatAI's image and series with gaps, and pairs of TerraMesh."""

from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import yaml
from bigearthnet_runs import without_pictures
from manifest_files import manifest_data, write_csv

from fusionlab.cli import run

pytestmark = pytest.mark.shared
SAMPLE = "Abies_alba_1_1005_WEFL_NLF"
S2 = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
L2A = ["B01", *S2[:8], "B09", *S2[8:]]
CPU = [
    "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_epochs", "1",
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
]  # fmt: skip
CNN = {"name": "PlainCNN", "widths": [8, 16]}


def radar(orbit: str) -> dict:
    arrays = {"values": f"sen-1-{orbit}-data", "dates": f"sen-1-{orbit}-products"}
    return {"column": "series", "bands": ["VV", "VH"], "gsd": 10.0, "temporal": arrays}


TREES = {
    "images": {
        "aerial": {"column": "aerial", "bands": ["nir", "green", "blue", "red"]},
        "s2": {
            "column": "series", "bands": S2, "gsd": 10.0, "scale": 0.0001,
            "temporal": {
                "values": "sen-2-data", "dates": "sen-2-products", "hidden": "sen-2-masks",
                "threshold": 50, "max_dates": 24,
            },
        },
        "s1_asc": radar("asc"),
        "s1_des": radar("des"),
    },
    "target": {"column": "species", "classes": ["Abies", "Picea"]},
    "texts": None, "tables": None, "series": None, "batch_size": 2,
}  # fmt: skip


def write_config(file: Path, data: dict, task: str, model: dict) -> list[str]:
    sections = {
        "model": {"class_path": task, "init_args": {"model": model}},
        "data": {"class_path": "ManifestDataModule", "init_args": data},
    }
    file.write_text(yaml.safe_dump(sections))
    return ["--config", str(file), *CPU]


@pytest.fixture
def trees(shared, tmp_path) -> Path:
    """The one tile in every split; the third row lacks its series, the fifth its image."""
    folder = shared / "data/treesatai_ts"
    splits = ["train", "train", "train", "val", "test"]
    cells = [
        {
            "id": f"tile{i}", "split": split, "species": "Abies",
            "aerial": "" if i == 4 else f"{folder}/{SAMPLE}.tif",
            "series": "" if i == 2 else f"{folder}/{SAMPLE}.h5",
        }
        for i, split in enumerate(splits)
    ]  # fmt: skip
    return write_csv(tmp_path / "manifest.csv", cells)


def test_a_tile_of_treesatai_is_a_sample(trees, shared):
    data = manifest_data(trees, **TREES, augment=False)
    dataset = data.dataset("train")
    sample, without = dataset[0], dataset[2]
    inputs = sample["inputs"]
    with rasterio.open(shared / f"data/treesatai_ts/{SAMPLE}.tif") as file:
        assert np.array_equal(inputs["aerial"], file.read())
    assert data.schema.modalities["aerial"].gsd == pytest.approx(0.2)
    with h5py.File(shared / f"data/treesatai_ts/{SAMPLE}.h5") as file:
        values, masks = file["sen-2-data"][()], file["sen-2-masks"][()]
        radar_values = file["sen-1-asc-data"][()]
    clear = (masks >= 50).any(axis=1).mean(axis=(1, 2)) < 0.5
    assert 24 < clear.sum() < len(values)
    s2 = inputs["s2"]
    assert s2.values.shape == (24, 10, 6, 6)
    assert np.array_equal(s2.values[0], values[clear][0])
    assert (s2.dates.diff() > 0).all()
    assert s2.dates[0] == np.datetime64("2020-01-02").astype(int)
    assert np.array_equal(inputs["s1_asc"].values, radar_values)
    assert inputs["s1_asc"].dates[0] == np.datetime64("2020-01-03").astype(int)
    there = {name: flag.item() for name, flag in without["available"].items()}
    assert there == {"aerial": True, "s2": False, "s1_asc": False, "s1_des": False}
    assert not without["inputs"]["s2"].valid.any()
    modality = data.schema.modalities["s2"]
    delivered = s2.values.double().transpose(0, 1).flatten(1) * 1e-4
    assert modality.mean == pytest.approx(delivered.mean(dim=1).tolist(), rel=1e-5)


@pytest.mark.slow
def test_treesatai_is_trained_on_and_predicted(trees, tmp_path):
    image = {"class_path": "EncoderDecoder", "init_args": {"backbone": CNN, "stage": "backbone"}}
    model = {
        "class_path": "FeatureFusion",
        "init_args": {
            "experts": {name: image for name in TREES["images"]},
            "fusion": {"class_path": "Weighted"},
        },
    }
    data = {"manifest": str(trees), "name": "id", "splits": {"column": "split"}, **TREES}
    data = {name: value for name, value in data.items() if value is not None}
    flags = write_config(tmp_path / "c.yaml", data, "ClassificationTask", model)
    with without_pictures():
        run(["fit", *flags, "--output", str(tmp_path / "run")])
        checkpoint = ["--ckpt_path", str(tmp_path / "run/best.ckpt")]
        run([
            "predict", *flags, *checkpoint, "--data.predict_split", "all",
            "--output", str(tmp_path / "table"),
        ])  # fmt: skip
    rows = pq.read_table(tmp_path / "table/predictions.parquet").to_pylist()
    assert [row["sample"] for row in rows] == [f"tile{i}" for i in range(5)]
    assert [row["available_s2"] for row in rows] == [True, True, False, True, True]
    assert [row["available_aerial"] for row in rows] == [True] * 4 + [False]
    chances = [row["probability_Abies"] for row in rows]
    assert np.isfinite(chances).all()
    assert chances[0] == pytest.approx(chances[1])
    assert chances[0] != chances[2] != chances[4]


@pytest.fixture
def pairs(shared, tmp_path) -> tuple[Path, dict]:
    """Three places of TerraMesh, one for each split, and twice for training."""
    root = shared / "data/terramesh"
    names = sorted(path.stem for path in (root / "S2L2A").glob("*.tif"))
    cells = [
        {"place": name, "s1": f"S1RTC/{name}.tif", "s2": f"S2L2A/{name}.tif", "split": split}
        for name, split in [
            *((name, "train") for name in names), *((name, "val") for name in names),
            *((name, "test") for name in names),
        ]
    ]  # fmt: skip
    options = {
        "root": str(root),
        "place": "place",
        "images": {
            "s1": {"column": "s1", "bands": ["VV", "VH"], "size": 64},
            "s2": {"column": "s2", "bands": L2A, "size": 64, "fitting": "crop", "scale": 1e-4},
        },
        "splits": {"column": "split"},
        "batch_size": 3,
    }
    return write_csv(tmp_path / "pairs.csv", cells), options


def test_places_of_terramesh_are_pairs(pairs, shared):
    manifest, options = pairs
    none = {"texts": None, "tables": None, "series": None, "target": None}
    data = manifest_data(manifest, **{**options, **none}, augment=False)
    first = data.dataset("train")[0]
    name = sorted(path.stem for path in (shared / "data/terramesh/S2L2A").glob("*.tif"))[0]
    with rasterio.open(shared / f"data/terramesh/S2L2A/{name}.tif") as file:
        assert np.array_equal(first["inputs"]["s2"], file.read()[:, 80:144, 80:144])
    assert first["inputs"]["s1"].shape == (2, 64, 64)
    assert first["inputs"]["s1"].dtype == data.dataset("val")[0]["inputs"]["s1"].dtype
    assert first["place"] == data.dataset("val")[0]["place"]
    assert data.schema.modalities["s1"].gsd == pytest.approx(35)
    assert -30 < data.schema.modalities["s1"].mean[0] < 0


@pytest.mark.slow
def test_pairs_are_contrasted_and_embedded(pairs, tmp_path):
    manifest, options = pairs
    expert = {"class_path": "EncoderDecoder", "init_args": {"backbone": CNN, "stage": "backbone"}}
    model = {
        "class_path": "ContrastiveModel",
        "init_args": {"experts": {"s1": expert, "s2": expert}, "width": 8},
    }
    data = {"manifest": str(manifest), **options}
    flags = write_config(tmp_path / "c.yaml", data, "ContrastiveTask", model)
    with without_pictures():
        run(["fit", *flags, "--output", str(tmp_path / "run")])
        run([
            "predict", *flags, "--ckpt_path", str(tmp_path / "run/best.ckpt"),
            "--output", str(tmp_path / "table"),
        ])  # fmt: skip
    table = pq.read_table(tmp_path / "table/predictions.parquet").to_pydict()
    for name in ("s1", "s2"):
        embedded = np.array(table[f"embedding_{name}"])
        assert embedded.shape == (3, 8)
        assert np.allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)

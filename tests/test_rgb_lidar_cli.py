"""RGB and LiDAR pairs from the command line: fit, test, predict, with what they write."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from bigearthnet_runs import CPU, fused, network, table
from cli_runs import QUICK, fails
from matplotlib.image import imread

from fusionlab.callbacks.examples import picture
from fusionlab.cli import run
from fusionlab.data import RgbLidarDataModule
from fusionlab.data.synthetic.rgb_lidar import RgbLidarConfig, write_rgb_lidar
from fusionlab.types import Modality

pytestmark = pytest.mark.slow

CONFIG = RgbLidarConfig(cubes=20, spheres=20, image_size=48, scan_size=32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_rgb_lidar(tmp_path_factory.mktemp("rgb_lidar") / "data", CONFIG).root


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """A folder with a run of a fusion of both."""
    folder = tmp_path_factory.mktemp("run")
    experts = {name: network(modality=name) for name in ("rgb", "lidar")}
    content = {
        "model": {
            "class_path": "ClassificationTask",
            "init_args": {"model": fused("FeatureFusion", experts, "Concat")},
        },
        "data": {
            "class_path": "RgbLidarDataModule",
            "init_args": {
                "root": str(root), "size": 32, "batch_size": 8, "val_size": 4, "test_size": 0.2,
                "augment": True, "modality_dropout": {"rgb": 0.2},
            },
        },
        "trainer": QUICK,
    }  # fmt: skip
    (folder / "fusion.yaml").write_text(yaml.safe_dump(content))
    run(["fit", "--config", str(folder / "fusion.yaml"), "--output", str(folder / "run")])
    return folder


def best(trained, *args):
    checkpoint = trained / "run" / "best.ckpt"
    return ["--ckpt_path", str(checkpoint), "--data", "RgbLidarDataModule", *args, *CPU]


def test_fit_and_test(trained, root, tmp_path):
    assert (trained / "run" / "best.ckpt").is_file()
    pixels = imread(trained / "run" / "val_examples.png")
    assert pixels[..., :3].std() > 0.05
    cli = run([
        "test", *best(trained, "--data.root", str(root), "--data.size", "32"),
        "--data.test_size", "0.2", "--output", str(tmp_path),
    ])  # fmt: skip
    scores = json.loads((tmp_path / "test_metrics.json").read_text())
    assert scores["test/support/cubes"] == scores["test/support/spheres"] == 4
    assert (tmp_path / "test_examples.png").is_file()
    # The model is told the statistics of its training by the checkpoint, and works with those.
    trained_on = cli.model.model.experts["rgb"].inputs.mean.flatten().tolist()
    again = RgbLidarDataModule(root, size=32, val_size=4, test_size=0.2).schema
    assert trained_on == pytest.approx(again.modalities["rgb"].mean, rel=1e-6)


def test_predictions_of_a_split(trained, root, tmp_path):
    run([
        "predict", *best(trained, "--data.root", str(root), "--data.size", "32"),
        "--data.test_size", "0.2", "--output", str(tmp_path),
    ])  # fmt: skip
    rows = table(tmp_path)
    data = RgbLidarDataModule(root, size=32, test_size=0.2)
    dataset = data.dataset("test")
    assert rows["sample"] == [dataset[i]["sample_id"] for i in range(len(dataset))]
    found = np.array([rows["probability_cubes"], rows["probability_spheres"]])
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-5)
    assert rows["label"] == [("cubes", "spheres")[i] for i in found.argmax(axis=0)]
    metadata = json.loads(
        pq.read_schema(tmp_path / "predictions.parquet").metadata[b"fusionlab"].decode()
    )
    assert metadata["modalities"] == {"rgb": ["R", "G", "B", "A"], "lidar": ["X", "Y", "Z", "A"]}


def test_predictions_of_new_pairs(trained, root, tmp_path):
    new = shutil.copytree(root / "spheres", tmp_path / "new")
    (new / "lidar" / "0001.npy").unlink()
    flags = ["--data.size", "32", "--data.predict_split", "folder"]
    run([
        "predict", *best(trained, "--data.root", str(new), *flags),
        "--output", str(tmp_path / "out"),
    ])  # fmt: skip
    rows = table(tmp_path / "out")
    assert rows["sample"] == [f"{i:04d}" for i in range(20)]
    assert rows["available_lidar"] == [i != 1 for i in range(20)]
    assert set(rows["label"]) <= {"cubes", "spheres"}
    # The same pairs by their split: the folder of a class does not matter.
    run([
        "predict", *best(trained, "--data.root", str(root), "--data.size", "32"),
        "--data.predict_split", "train", "--output", str(tmp_path / "split"),
    ])  # fmt: skip
    split = table(tmp_path / "split")
    known = dict(zip(split["sample"], split["probability_cubes"], strict=True))
    for name, value in zip(rows["sample"], rows["probability_cubes"], strict=True):
        if name != "0001" and f"spheres/{name}" in known:
            assert value == pytest.approx(known[f"spheres/{name}"], rel=1e-4)


def test_bad_data_are_refused_before_anything_is_written(trained, root, tmp_path):
    bad = shutil.copytree(root, tmp_path / "bad")
    (bad / "cubes" / "lidar" / "0001.npy").unlink()
    output = tmp_path / "out"
    args = ["fit", "--config", str(trained / "fusion.yaml"), "--output", str(output)]
    fails([*args, "--data.root", str(bad)], r"cubes/rgb/0001\.png: no LiDAR file of that name")
    assert not output.exists()
    fails(["fit", "--config", str(trained / "fusion.yaml"), "--data.root", str(tmp_path / "none"),
           "--output", str(output)], "is no folder")  # fmt: skip


def test_pictures():
    rgb = Modality(("R", "G", "B", "A"), 1.0)
    red = torch.zeros(4, 8, 8)
    red[0, :4] = 255
    assert picture(red, rgb)[0, 0].tolist() == [255, 0, 0]
    lidar = Modality(("X", "Y", "Z", "A"), 1.0)
    scan = torch.zeros(4, 8, 8)
    scan[1] = torch.linspace(2, 9, 8)[:, None].expand(8, 8)
    scan[3, :6] = 1
    shown = picture(scan, lidar)
    assert (np.diff(shown[:6, 0, 0].astype(int)) < 0).all()
    assert not shown[6:].any()
    assert not picture(torch.zeros(4, 8, 8), lidar).any()

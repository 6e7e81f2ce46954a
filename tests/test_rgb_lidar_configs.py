"""The members of the study of cubes and spheres: exact sizes, what they compute, and short runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from bigearthnet_runs import CPU, predict, probabilities, table, without_pictures
from test_configs import CONFIGS, QUICK

from fusionlab.cli import run
from fusionlab.component import build
from fusionlab.data.synthetic.rgb_lidar import RgbLidarConfig, write_rgb_lidar
from fusionlab.errors import InputError
from fusionlab.models import EarlyFusion
from fusionlab.tasks.base import ModelFactory
from fusionlab.types import Modality, Schema

pytestmark = pytest.mark.slow

FOLDER = CONFIGS / "rgb_lidar"
FUSIONS = {
    "early": 8_387_990,
    "intermediate_concat": 16_672_374,
    "intermediate_add": 8_480_374,
    "intermediate_hadamard": 8_480_374,
    "intermediate_matmul": 8_480_374,
    "late": 16_672_374,
}
"""Parameters, as published for the reference."""
ALONE = {"rgb": 8_386_838, "lidar": 8_386_838}
MODALITIES = {"rgb": Modality(tuple("RGBA"), 1.0), "lidar": Modality(tuple("XYZA"), 1.0)}
SCHEMA = Schema(MODALITIES, ("cubes", "spheres"), target="multiclass")


def member(name: str):
    """The model of a configuration, as it is written there."""
    torch.manual_seed(0)
    file = FOLDER / f"{name}.yaml"
    described = yaml.safe_load(file.read_text())["model"]["init_args"]["model"]
    schema = SCHEMA.only(name) if name in ALONE else SCHEMA
    return build(described, ModelFactory, schema, where=str(file))


def batch(size=2, **available):
    there = {name: torch.ones(size, dtype=torch.bool) for name in MODALITIES}
    there |= {name: torch.tensor(value) for name, value in available.items()}
    inputs = {name: torch.randn(size, 4, 64, 64) for name in MODALITIES}
    return {"inputs": inputs, "available": there}


def test_every_member_is_here():
    files = {path.stem for path in FOLDER.glob("*.yaml")} - {"base", "study"}
    assert files == set(FUSIONS | ALONE)


@pytest.mark.parametrize(("name", "parameters"), (FUSIONS | ALONE).items())
def test_members_have_exactly_the_published_sizes_and_all_of_them_learns(name, parameters):
    model = member(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    output = model(batch())
    assert output.logits.shape == (2, 2)
    assert not output.auxiliary
    (output.logits * torch.randn(2, 2)).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def encoded(model, data):
    return [model.expert(n).encoder(data["inputs"][n])[-1] for n in MODALITIES]


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("intermediate_concat", lambda rgb, lidar: torch.cat([rgb, lidar], dim=1)),
        ("intermediate_add", torch.add),
        ("intermediate_hadamard", torch.mul),
        ("intermediate_matmul", torch.matmul),
    ],
)
def test_maps_are_fused_by_the_published_formula(name, formula):
    model, data = member(name).eval(), batch()
    with torch.no_grad():
        rgb, lidar = encoded(model, data)
        assert rgb.shape == (2, 128, 8, 8)
        expected = model.head(formula(rgb, lidar))
        torch.testing.assert_close(model(data).logits, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_late_fusion_classifies_flattened_embeddings_side_by_side():
    model, data = member("late").eval(), batch()
    flat = torch.cat([maps.flatten(1) for maps in encoded(model, data)], dim=1)
    assert flat.shape == (2, 16_384)
    torch.testing.assert_close(model(data).logits, model.head(flat))


@torch.no_grad()
def test_early_fusion_is_one_network_over_eight_bands():
    model, data = member("early").eval(), batch()
    assert isinstance(model, EarlyFusion)
    stacked = torch.cat([data["inputs"][name] for name in MODALITIES], dim=1)
    torch.testing.assert_close(model(data).logits, model.expert.network(stacked))


@torch.no_grad()
@pytest.mark.parametrize("name", FUSIONS)
def test_members_answer_without_a_sensor(name):
    model, data = member(name).eval(), batch(3, lidar=[True, False, True])
    before = model(data).logits
    data["inputs"]["lidar"][1] = 1e3
    assert torch.equal(model(data).logits, before)
    assert before.isfinite().all()


# ---- runs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    config = RgbLidarConfig(cubes=10, spheres=10, image_size=32, scan_size=32)
    return write_rgb_lidar(tmp_path_factory.mktemp("pairs") / "data", config).root


def flags(name: str, root: Path) -> list[str]:
    files = (FOLDER / "base.yaml", FOLDER / f"{name}.yaml")
    return [*(arg for file in files for arg in ("--config", str(file))), "--data.root", str(root)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FUSIONS, *ALONE])
def test_members_run(name, root, tmp_path):
    with without_pictures():
        cli = run(["fit", *flags(name, root), *QUICK, "--output", str(tmp_path)])
    assert cli.trainer.callback_metrics["train/loss"].isfinite()
    wanted = {name} if name in ALONE else set(MODALITIES)
    assert set(cli.datamodule.schema.modalities) == set(cli.model.model.modalities) == wanted
    assert sum(p.numel() for p in cli.model.model.parameters()) == (FUSIONS | ALONE)[name]


def test_members_differ_in_their_model_and_folder_only():
    for name in FUSIONS:
        own = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
        assert set(own) == {"output", "model"}
        assert set(own["model"]["init_args"]) == {"model"}
        assert own["output"] == f"runs/rgb_lidar/{name}"


def test_the_protocol_is_that_of_the_reference(capsys):
    with pytest.raises(SystemExit):
        run(["fit", *flags("early", Path("data/rgb_lidar")), "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    task = printed["model"]["init_args"]
    assert task["optimizer"]["class_path"] == "torch.optim.Adam"
    assert task["optimizer"]["init_args"]["lr"] == 1e-4
    assert task["loss"]["class_path"].endswith("CrossEntropy")
    assert printed["data"]["init_args"]["batch_size"] == 32
    assert printed["trainer"]["max_epochs"] == 15
    assert isinstance(printed["seed_everything"], int)
    assert (printed["checkpoint"]["monitor"], printed["checkpoint"]["mode"]) == ("val/loss", "min")


@pytest.mark.parametrize(
    ("name", "head"),
    [("early", "expert.head.dim_list"), ("intermediate_matmul", "head.dim_list")],
)
def test_a_trained_member_is_tested_and_predicts_from_its_checkpoint(name, head, root, tmp_path):
    with without_pictures():
        run([
            "fit", *flags(name, root), *QUICK[2:], "--trainer.max_epochs", "1",
            f"--model.model.{head}", "[4]", "--output", str(tmp_path),
        ])  # fmt: skip
        checkpoint = tmp_path / "best.ckpt"
        data = ["--data", "RgbLidarDataModule", "--data.root", str(root)]
        run(["test", "--ckpt_path", str(checkpoint), *data, *CPU, "--output", str(tmp_path)])
    found = json.loads((tmp_path / "test_metrics.json").read_text())
    assert np.isfinite(found["test/loss"])
    predict(checkpoint, tmp_path, *data, "--writer.contributions", "true")
    columns = table(tmp_path)
    answers = np.stack(list(probabilities(columns).values()))
    np.testing.assert_allclose(answers.sum(axis=0), 1, atol=1e-5)
    shares = np.add(columns["share_rgb"], columns["share_lidar"])
    np.testing.assert_allclose(shares, 1, atol=1e-5)


def test_images_of_another_size_are_refused_before_training(root, tmp_path):
    with pytest.raises(InputError, match=r"FlattenHead .*got \(2, 128, 4, 4\).*`size: \[4, 4\]`"):
        run(["fit", *flags("early", root), *QUICK, "--data.size", "32", "--output", str(tmp_path)])

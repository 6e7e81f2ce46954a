"""Input that cannot be used: one short message, status 2, before anything is trained or written."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from bigearthnet_runs import best, patches_of
from cli_runs import load
from huggingface_hub import constants

from fusionlab.cli import main

pytestmark = pytest.mark.slow

Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path) -> Refused:
    """Runs a command that must be refused; gives its message."""

    def run(*args: str, started: bool = False) -> str:
        output = tmp_path / "out"
        monkeypatch.setattr(sys, "argv", ["fusionlab", *args, "--output", str(output)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        before, message = capsys.readouterr().err.split("fusionlab: error: ")
        assert "Traceback" not in before + message
        assert len(message.splitlines()) <= 3
        assert len(message) < 720  # room for the names of 19 classes
        assert output.exists() == started
        assert not list(output.rglob("*.ckpt"))
        return message

    return run


@pytest.fixture
def s1(bigearthnet_runs) -> list[str]:
    return ["--config", str(bigearthnet_runs / "s1.yaml")]


@pytest.fixture
def s2(bigearthnet_runs) -> list[str]:
    return ["--config", str(bigearthnet_runs / "s2.yaml")]


# ---- data ------------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def test_metadata_without_a_column(refused, s1, bigearthnet_copy):
    rewrite(bigearthnet_copy / "metadata.parquet", lambda table: table.drop(["labels"]))
    message = refused("fit", *s1, "--data.root", str(bigearthnet_copy))
    assert "metadata.parquet has no column ['labels']: it has ['patch_id', 'split'," in message


def test_metadata_with_an_unknown_class(refused, s1, bigearthnet_copy):
    def change(table: pa.Table) -> pa.Table:
        labels = [[*names, "Pasture"] for names in table["labels"].to_pylist()]
        return table.set_column(table.schema.get_field_index("labels"), "labels", pa.array(labels))

    rewrite(bigearthnet_copy / "metadata.parquet", change)
    message = refused("fit", *s1, "--data.root", str(bigearthnet_copy))
    assert "there is no class 'Pasture'. Did you mean Pastures?" in message


def train_file(root: Path, band: str) -> Path:
    """The file of a band of a patch that is trained on."""
    rows = pq.read_table(root / "metadata.parquet").to_pylist()
    name = next(row["s1_name"] for row in rows if row["split"] == "train")
    return next((root / "BigEarthNet-S1").rglob(f"{name}_{band}.tif"))


def test_a_band_file_that_is_missing(refused, s1, bigearthnet_copy):
    gone = train_file(bigearthnet_copy, "VH")
    gone.unlink()
    message = refused("fit", *s1, "--data.root", str(bigearthnet_copy))
    assert str(gone) in message
    assert "does not exist; that folder holds ['" in message


def test_a_patch_of_another_size(refused, s1, bigearthnet_copy):
    path = train_file(bigearthnet_copy, "VV")
    with rasterio.open(path) as file:
        profile, values = file.profile, file.read(1)
    with rasterio.open(path, "w", **profile | {"width": 60, "height": 60}) as file:
        file.write(values[:60, :60], 1)
    message = refused("fit", *s1, "--data.root", str(bigearthnet_copy))
    assert f"{path}: expected VV as float32 of 120 × 120 pixels, found float32 of 60" in message


def test_a_folder_that_is_not_there(refused, s1, s2, tmp_path):
    message = refused("fit", *s1, "--data.root", str(tmp_path / "nowhere"))
    assert "BigEarthNet-S1 does not exist; name it with `root` or `s1_root`" in message
    message = refused("fit", *s2, "--data.lmdb", str(tmp_path))
    assert "is not an LMDB folder" in message


# ---- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sensor", "flags", "says"),
    [
        ("s1", ["--model.loss", "BinaryCrossEntropy", "--model.loss.weights",
                '{"Urban fabrik": 2}'],
         "Unknown class 'Urban fabrik' in the loss's weights. Did you mean Urban fabric"),
        ("s1", ["--model.threshold", '{"Pasture": 0.3}'],
         "Unknown class 'Pasture' in threshold. Did you mean Pastures"),
        ("s2", ["--data.modalities", '{"s2": ["B03", "B8"]}'],
         "modalities.s2: there is no band or band set 'B8'. Did you mean B8A or B08?"),
        ("s2", ["--model.model.bands", '["B03", "B10"]'], "['B10'] are missing"),
        ("s1", ["--model.model.modality", "S1"],
         "of the modality 'S1' (TimmExpert) finds only ['s1'] in the data"),
        ("s1", ["--model.model.backbone", "resnet52"],
         "timm has no model 'resnet52'; similar names: ['resnet152'"),
        ("s1", ["--data.missing", "[S1]"],
         "data.missing: ['S1'] must be some, but not all, of the modalities ['s1']"),
        ("s1", ["--data.missing", "[s1]"], "some, but not all"),
        ("s1", ["--data.modality_dropout", '{"S1": 0.2}'],
         "modality_dropout: there is no modality 'S1'. Did you mean s1?"),
        ("s1", ["--data.class_order", "papier"], "data.class_order: "),
        ("s1", ["--data.countries", "[Austira]"], "there is no country 'Austira'. Did you mean A"),
        ("s1", ["--model.model.pretrained", "nowhere.safetensors"],
         "nowhere.safetensors does not exist"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)  # fmt: skip
def test_a_name_that_does_not_exist(refused, request, sensor, flags, says):
    assert says in refused("fit", *request.getfixturevalue(sensor), *flags)


@pytest.mark.parametrize(
    ("flags", "who"),
    [
        (["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/ap_marco",
          "--trainer.callbacks.mode", "max"], "EarlyStopping"),
        (["--checkpoint.monitor", "val/ap_marco", "--checkpoint.mode", "max"], "BestCheckpoint"),
        (["--model.lr_scheduler", "lightning.pytorch.cli.ReduceLROnPlateau",
          "--model.lr_scheduler.monitor", "val/ap_marco"], "ReduceLROnPlateau"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_score_that_is_not_logged(refused, s1, flags, who):
    message = refused("fit", *s1, *flags, started=True)  # its configuration is there already
    assert f"{who} watches 'val/ap_marco', which is not logged. Did you mean val/ap_m" in message
    assert "val/loss" in message


# ---- models ----------------------------------------------------------------------------------


def test_the_hub_out_of_reach(refused, s1, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    start = time.monotonic()
    message = refused(
        "fit", *s1, "--model.model.backbone", "test_resnet.r160_in1k",
        "--model.model.pretrained", "true",
    )  # fmt: skip
    assert time.monotonic() - start < 20
    assert "The weights of 'test_resnet.r160_in1k' are not in the local cache" in message
    for way in ("`pretrained: false`", "`pretrained: /path/weights.safetensors`", "`hf download "):
        assert way in message


def test_a_task_of_another_kind(refused, bigearthnet_root, bigearthnet_runs):
    message = refused(
        "fit", "--model", "SegmentationTask", "--model.model", "TimmExpert",
        "--model.model.backbone", "test_resnet", *patches_of(bigearthnet_root),
        "--data.modalities", "{s1: [VV, VH]}", "--trainer.accelerator", "cpu",
    )  # fmt: skip
    assert "the data's target is 'multilabel': use ClassificationTask" in message


def test_a_writer_of_another_kind(refused, bigearthnet_root, bigearthnet_runs):
    flags = best(bigearthnet_runs, "s1", bigearthnet_root)
    message = refused("predict", *flags, "--writer", "GeoTiffWriter")
    assert "answers once per sample (multilabel)" in message
    assert "`--writer TableWriter`" in message


def renamed(checkpoint: Path, path: Path) -> str:
    """A checkpoint whose fourth class has another name."""
    content = load(checkpoint)
    content["hyper_parameters"]["trained_on"]["classes"][3] = "Beech forest"
    torch.save(content, path)
    return str(path)


def test_a_checkpoint_of_other_classes(refused, bigearthnet_root, bigearthnet_runs, tmp_path):
    other = renamed(bigearthnet_runs / "s1" / "best.ckpt", tmp_path / "other.ckpt")
    wanted = "knows ['Beech forest'], only the data know ['Broad-leaved forest']"
    flags = best(bigearthnet_runs, "s1", bigearthnet_root)
    assert wanted in refused("test", *flags, "--ckpt_path", other)
    flags = ["--config", str(bigearthnet_runs / "decisions.yaml")]
    message = refused("fit", *flags, "--model.model.experts.s1.checkpoint", other)
    assert wanted in message
    assert other in message


def test_operators_of_the_other_level(refused, bigearthnet_runs):
    for fusion, level in (("Attention", "decisions"), ("Average", "features")):
        flags = ["--config", str(bigearthnet_runs / f"{level}.yaml")]
        message = refused("fit", *flags, "--model.model.fusion", fusion)
        assert f"model.model.fusion: no class '{fusion}'" in message


def test_embeddings_of_a_model_without_any(refused, bigearthnet_root, bigearthnet_runs):
    flags = best(bigearthnet_runs, "decisions", bigearthnet_root)
    message = refused("predict", *flags, "--writer.embeddings", "true")
    assert "LateFusion fuses decisions and gives no embedding" in message

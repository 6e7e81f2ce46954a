"""Experiments on a tiny BigEarthNet, configured and run as a user does."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from cli_runs import QUICK

from fusionlab.callbacks import Examples
from fusionlab.cli import FusionlabCLI, run
from fusionlab.tasks import ClassificationTask, SegmentationTask

S1 = ["VV", "VH"]
S2 = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
RGB = ["B04", "B03", "B02"]
OTHERS = [band for band in S2 if band not in RGB]
CPU = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
EXPERTS = ("s1", "s2")
FUSIONS = ("features", "decisions", "joint")


def network(backbone: str = "test_resnet", **options) -> dict:
    """One of timm's smallest networks."""
    return {"class_path": "TimmExpert", "init_args": {"backbone": backbone, **options}}


def frozen(checkpoint: Path) -> dict:
    return {"class_path": "FrozenExpert", "init_args": {"checkpoint": str(checkpoint)}}


def fused(kind: str, experts: dict, fusion: str, **options) -> dict:
    arguments = {"experts": experts, "fusion": {"class_path": fusion}, **options}
    return {"class_path": kind, "init_args": arguments}


def config(path: Path, root: Path, model: dict, *, data: dict | None = None, **task) -> str:
    """Writes a configuration; returns its path."""
    content = {
        "model": {"class_path": "ClassificationTask", "init_args": {"model": model, **task}},
        "data": {
            "class_path": "BigEarthNetDataModule",
            "init_args": {"root": str(root), "batch_size": 4, **(data or {})},
        },
        "trainer": QUICK,
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def train_all(root: Path, folder: Path) -> Path:
    """Two experts and three fusions, each ``<folder>/<name>.yaml`` and ``<folder>/<name>/``."""
    experts = {name: frozen(folder / name / "best.ckpt") for name in EXPERTS}
    joint = {
        "s2_rgb": network(modality="s2", bands=RGB),
        "s2_other": network(modality="s2", bands=OTHERS),
        "s1": network(frozen=True),
    }
    head = {"class_path": "MLPHead", "init_args": {"hidden": 16}}
    jobs: dict[str, tuple[dict, dict]] = {
        "s1": (network(), {"modalities": {"s1": S1}}),
        # GeoTIFFs and the LMDB hold the same.
        "s2": (network(), {"modalities": {"s2": S2}, "lmdb": str(root / "lmdb")}),
        "features": (fused("FeatureFusion", experts, "Weighted"), {}),
        "decisions": (fused("LateFusion", experts, "ClassWeighted"), {}),
        "joint": (
            fused("FeatureFusion", joint, "Attention", head=head),
            {"modality_dropout": {"s1": 0.2, "s2": 0.2}},
        ),
    }
    for name, (model, data) in jobs.items():
        file = config(folder / f"{name}.yaml", root, model, data=data)
        with without_pictures(name != "decisions"):
            run(["fit", "--config", file, "--output", str(folder / name)])
    return folder


@contextmanager
def without_pictures(wanted: bool = True) -> Iterator[None]:
    """Draws nothing, which takes longer than all else where data and models are tiny."""
    with pytest.MonkeyPatch.context() as patch:
        if wanted:
            for task in (ClassificationTask, SegmentationTask):
                patch.setattr(task, "charts", lambda self, stage: {})
            for hook in ("on_fit_end", "on_validation_epoch_end", "on_test_epoch_end"):
                patch.setattr(Examples, hook, lambda *args: None)
        yield


def best(runs: Path, name: str, root: Path) -> list[str]:
    """Flags of a run's best epoch, its data, and nothing else: the checkpoint knows the rest."""
    checkpoint = runs / name / "best.ckpt"
    return ["--ckpt_path", str(checkpoint), *patches_of(root), *CPU]


def scores(args: list[str], output: Path) -> dict[str, float | None]:
    """Runs a test and reads what it reports."""
    with without_pictures():
        run(["test", *args, "--output", str(output)])
    return json.loads((output / "test_metrics.json").read_text())


def predict(checkpoint: Path, output: Path, *data: str) -> FusionlabCLI:
    """Predicts with all that is known of the model in its checkpoint."""
    return run([
        "predict", "--ckpt_path", str(checkpoint), "--output", str(output), *CPU, *data,
    ])  # fmt: skip


def patches_of(root: Path) -> list[str]:
    """Flags of patches in BigEarthNet's layout."""
    return ["--data", "BigEarthNetDataModule", "--data.root", str(root)]


def table(folder: Path, name: str = "predictions") -> dict[str, list[Any]]:
    """Columns of a table of predictions."""
    return pq.read_table(folder / f"{name}.parquet").to_pydict()


def probabilities(columns: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    """Per class ``(N,)``, in the order of the table."""
    prefix = "probability_"
    return {
        name.removeprefix(prefix): np.array(values, float)
        for name, values in columns.items()
        if name.startswith(prefix)
    }


def labels_of(root: Path, split: str) -> dict[str, set[str]]:
    """What the metadata say: class names by patch, patches sorted by name."""
    rows = pq.read_table(root / "metadata.parquet").to_pylist()
    found = {row["patch_id"]: set(row["labels"]) for row in rows if row["split"] == split}
    return dict(sorted(found.items()))

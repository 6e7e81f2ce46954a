"""Finished runs with numbers made up for tests, and folders of them as a run leaves them."""

import json
import math
from pathlib import Path

import numpy as np
import yaml

from fusionlab.study.finished import FinishedRun
from fusionlab.study.scores import split_per_class

STRATEGIES = (
    "rgb", "lidar", "early", "intermediate, concat", "intermediate, low-rank bilinear",
    "intermediate, add", "a_member_with_quite_a_long_name_over_many_words", "late",
)  # fmt: skip
LAND_COVER = (
    "Urban fabric", "Industrial or commercial units", "Arable land", "Permanent crops", "Pastures",
    "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Agro-forestry areas", "Broad-leaved forest", "Coniferous forest", "Mixed forest",
    "Natural grassland and sparsely vegetated areas",
    "Moors, heathland and sclerophyllous vegetation", "Transitional woodland, shrub",
    "Beaches, dunes, sands", "Inland wetlands", "Coastal wetlands", "Inland waters",
    "Marine waters",
)  # fmt: skip


def config(seed: int | None = 0, **data) -> dict:
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-4}}
    return {
        "seed_everything": False if seed is None else seed,
        "trainer": {"max_epochs": 5, "precision": None, "logger": None},
        "model": {
            "class_path": "fusionlab.tasks.SegmentationTask",
            "init_args": {"model": {"class_path": "fusionlab.models.LateFusion"},
                          "optimizer": optimizer},
        },
        "data": {"class_path": "fusionlab.data.Flair2DataModule",
                 "init_args": {"root": "data/flair2", "batch_size": 8, **data}},
        "output": f"runs/{seed}",
    }  # fmt: skip


def finished(member: str, seed: int | None, scores: dict, *, stage: str = "test", **fields):
    """A run with the given scores, whose names come without the stage."""
    overall, per_class = split_per_class({f"{stage}/{n}": v for n, v in scores.items()})
    values = {
        "folder": Path("runs") / f"seed_{seed}" / member,
        "config": config(seed),
        "measures": {},
        "curves": {},
        **fields,
    }
    return FinishedRun(
        member=member, seed=seed, scores=overall, per_class=per_class, stage=stage, **values
    )


def study(members=STRATEGIES, seeds=(0, 1, 2), classes=LAND_COVER, epochs=5) -> list[FinishedRun]:
    """Runs with everything that a run can have, the later members the better."""
    rng = np.random.default_rng(0)
    runs = []
    for i, member in enumerate(members):
        for seed in seeds:
            level = 0.5 + 0.4 * i / len(members)
            iou = np.clip(level + 0.2 * rng.standard_normal(len(classes)), 0.01, 0.99)
            scores = {
                "miou": float(iou.mean()),
                "overall_accuracy": level + 0.02 * float(rng.standard_normal()),
                "f1": level,
                "loss": 1 - level,
                **{f"iou/{name}": float(v) for name, v in zip(classes, iou, strict=True)},
            }
            if i > 1:
                share = float(rng.uniform(0.2, 0.8))
                scores |= {"share/rgb": share, "share/lidar": 1 - share}
            curves = {
                name: [
                    (e, f * math.exp(-e * level) * float(rng.uniform(0.9, 1.1)))
                    for e in range(1, epochs + 1)
                ]
                for name, f in (("train/loss_epoch", 1.0), ("val/loss", 1.1))
            }
            curves["val/miou"] = [(e, level * e / epochs) for e in range(1, epochs + 1)]
            losses = [value for _, value in curves["val/loss"]]
            measures = {
                "total_parameters": 8_387_990 * (1 + i % 2), "trained_parameters": 8_387_990,
                "flops_per_sample": 12_345_678 * (1 + i), "epochs": epochs,
                "seconds_per_epoch": [float(rng.uniform(9, 11)) for _ in range(epochs)],
                "samples_per_second": 200.0 + i, "peak_memory_mb": 900.0 + 10 * i,
                "peak_gpu_memory_mb": 512.5, "best_val_loss": min(losses),
                "mean_val_loss": sum(losses) / len(losses), "device": "cpu",
                "monitor": ["val/miou", "max"], "versions": {"fusionlab": "0.1.0", "torch": "2.6"},
            }  # fmt: skip
            runs.append(finished(member, seed, scores, curves=curves, measures=measures))
    return runs


def write_run(folder: Path, *, seed: int = 0, scores: dict | None = None, rows: str = "") -> Path:
    """A folder as fit and test leave it; without a test if there are no scores."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(seed)))
    if scores is not None:
        named = {f"test/{name}": value for name, value in scores.items()}
        (folder / "test_metrics.json").write_text(json.dumps(named | {"trained_parameters": 7}))
    if rows:
        write_log(folder, rows)
    return folder


def write_log(folder: Path, rows: str, version: int = 0) -> None:
    log = folder / "logs" / f"version_{version}"
    log.mkdir(parents=True)
    (log / "metrics.csv").write_text(rows)

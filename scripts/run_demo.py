"""The demonstration: trains two experts and every fusion on a synthetic landscape, maps a new tile.

Prints each command before it runs; every one can be typed by hand. Ends with a table of the scores on
domains never seen in training, and the path of a picture.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rich.console import Console
from rich.table import Table

from fusionlab.cli import run as fusionlab
from fusionlab.data.synthetic import LandscapeConfig, write_flair2, write_tile
from fusionlab.plots import comparison_figure

FUSIONS = {
    "average": False,
    "fixed_weighted": False,
    "class_weighted": True,
    "gated": True,
    "gated_cloud": True,
    "concat": True,
    "attentional": True,
}
"""Overlays in configs/fusion, and whether there is anything to train."""

console = Console()


@dataclass
class Result:
    """A row of the table: scores in percent, seconds of training."""

    name: str
    miou: float
    overall_accuracy: float
    trained_parameters: int
    seconds: float


def run(*args: str) -> float:
    """Runs a fusionlab command and returns how many seconds it took."""
    console.print(f"\n[bold]$ fusionlab {' '.join(args)}[/bold]", highlight=False)
    start = time.perf_counter()
    fusionlab(list(args))
    return time.perf_counter() - start


def configs(*names: str) -> list[str]:
    """Arguments for configuration files by name, e.g. ``demo/aerial``."""
    return [arg for name in names for arg in ("--config", f"configs/{name}.yaml")]


def result(name: str, folder: Path, seconds: float) -> Result:
    """Reads what `fusionlab test` left in a run's folder."""
    scores = json.loads((folder / "test_metrics.json").read_text())
    return Result(
        name,
        100 * scores["test/miou"],
        100 * scores["test/overall_accuracy"],
        scores["trained_parameters"],
        seconds,
    )


def train(folder: Path, data: Path, seed: int, *, short: bool) -> dict[str, Result]:
    """Trains and tests the experts and all fusions of one seed.

    Args:
        folder: receives one folder per run.
        data: FLAIR #2 tree.
        seed: of weights and sample order.
        short: a few steps only, to see that everything runs.
    """
    common = [
        "--data.root", str(data), "--seed_everything", str(seed), "--overwrite", "true",
        "--trainer.accelerator", "cpu", "--trainer.enable_model_summary", "false",
    ]  # fmt: skip
    limits = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"] if short else []
    results = {}
    for expert in ("aerial", "sentinel2"):
        output = folder / expert
        base = [*configs(f"demo/{expert}"), *common, "--output", str(output)]
        seconds = run("fit", *base, *limits)
        run("test", *base, "--ckpt_path", str(output / "best.ckpt"))
        results[expert] = result(f"{expert} alone", output, seconds)
    experts = [
        arg
        for expert in ("aerial", "sentinel2")
        for arg in (
            f"--model.model.experts.{expert}.checkpoint",
            str(folder / expert / "best.ckpt"),
        )
    ]
    for fusion, trainable in FUSIONS.items():
        output = folder / fusion
        base = [*configs("demo/fusion", f"fusion/{fusion}"), *experts, *common]
        base += ["--output", str(output)]
        seconds = run("fit", *base, *limits) if trainable else 0.0
        checkpoint = ["--ckpt_path", str(output / "best.ckpt")] if trainable else []
        run("test", *base, *checkpoint)
        results[fusion] = result(f"fusion: {fusion}", output, seconds)
    return results


def map_tile(folder: Path, runs: Path, tile: Path, models: list[str]) -> dict[str, Path]:
    """Maps the new tile with several models; returns the class maps by model."""
    maps = {}
    for model in models:
        rasters = {"aerial": tile / "aerial.tif", "sentinel2": tile / "sentinel2"}
        if model in rasters:  # an expert alone needs only its own sensor
            rasters = {model: rasters[model]}
        output = folder / model
        given = [a for name, path in rasters.items() for a in (f"--data.rasters.{name}", str(path))]
        run(
            "predict", *configs("predict/raster", "demo/predict"),
            "--ckpt_path", str(runs / model / "best.ckpt"), *given, "--output", str(output),
        )  # fmt: skip
        maps[model] = next(output.glob("*_classes.tif"))
    return maps


def table(rows: list[tuple[str, ...]], title: str) -> Table:
    """The table of scores."""
    printed = Table(title=title)
    for i, column in enumerate(("model", "mIoU %", "overall accuracy %", "parameters trained", "time s")):
        printed.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        printed.add_row(*row)
    return printed


def main() -> None:
    """Runs the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="receives everything")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one training each")
    parser.add_argument("--short", action="store_true", help="a few steps of everything")
    options = parser.parse_args()

    console.rule("Data")
    data = options.folder / ("data_short" if options.short else "data")

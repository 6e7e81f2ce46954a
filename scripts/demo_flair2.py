"""The demonstration: trains two experts and every fusion on a synthetic landscape, maps a tile.

Prints each command before it runs; every one can be typed by hand. Ends with a table of the scores
on domains never seen in training, and the path of a picture.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from demonstration import configs, console, run, scores, spread, tables
from numpy.typing import NDArray
from publish import publish
from rich.table import Table

from fusionlab.data.flair2.constants import CLASSES_13, COLORS_13
from fusionlab.data.synthetic.landscape import LandscapeConfig, write_flair2, write_tile
from fusionlab.plots import examples_figure

EXPERTS = ("aerial", "sentinel2")
FUSIONS = ("average", "fixed_weighted", "class_weighted", "gated", "concat", "attentional")
LEARNED = FUSIONS[2:]
LABELS = {"aerial": "aerial alone", "sentinel2": "Sentinel-2 alone"}


@dataclass
class Result:
    """A row of the table.

    Attributes:
        model: an expert or a fusion.
        seed: of its training.
        miou: official FLAIR #2 mIoU over 12 classes on unseen domains, percent.
        overall_accuracy: percent.
        trained_parameters: how many parameters its training changed.
        seconds: duration of its training, start and validation included.
    """

    model: str
    seed: int
    miou: float
    overall_accuracy: float
    trained_parameters: int
    seconds: float


def train_and_test(model: str, seed: int, args: list[object], output: Path) -> Result:
    """Trains a model, tests it on unseen domains, and reads what the test left."""
    seconds = run("fit", *args, "--output", output)
    # The test asks the experts themselves, not the store that training used.
    fresh = [] if model in EXPERTS else ["--model.model.cache", ""]
    run("test", *args, *fresh, "--output", output, "--ckpt_path", output / "best.ckpt")
    found = scores(output)
    return Result(
        model,
        seed,
        miou=100 * found["test/miou_flair2"],
        overall_accuracy=100 * found["test/overall_accuracy"],
        trained_parameters=found["trained_parameters"],
        seconds=seconds,
    )


def train_all(folder: Path, data: Path, seed: int, *, short: bool) -> list[Result]:
    """Trains and tests the experts and all fusions of one seed.

    Args:
        folder: receives one folder per model.
        data: FLAIR #2 tree.
        seed: of weights and sample order.
        short: a few steps only, to see that everything runs.
    """
    common: list[object] = [
        "--data.root", data, "--seed_everything", seed, "--overwrite", "true",
        "--trainer.accelerator", "cpu", "--trainer.enable_model_summary", "false",
    ]  # fmt: skip
    if short:
        common += ["--trainer.max_epochs", 1, "--trainer.limit_train_batches", 3]
    results = []
    for expert in EXPERTS:
        args = [*configs(f"demo/flair2/{expert}"), *common]
        results.append(train_and_test(expert, seed, args, folder / expert))
    common += ["--model.model.cache", folder / "cache"]
    for expert in EXPERTS:
        checkpoint = folder / expert / "best.ckpt"
        common += [f"--model.model.experts.{expert}.checkpoint", checkpoint]
    for fusion in FUSIONS:
        args = [*configs("demo/flair2/fusion", f"fusion/{fusion}"), *common]
        results.append(train_and_test(fusion, seed, args, folder / fusion))
    return results


def map_tile(folder: Path, runs: Path, tile: Path, models: Iterable[str]) -> dict[str, Path]:
    """Maps the new tile with several models; returns the class maps by model."""
    maps = {}
    for model in models:
        rasters = [] if model == "sentinel2" else ["--data.rasters.aerial", tile / "aerial.tif"]
        if model == "sentinel2":  # it answers at 10 m; its map is wanted on the aerial pixels
            rasters = ["--data.grid", tile / "aerial.tif"]
        if model != "aerial":
            rasters += ["--data.rasters.sentinel2", tile / "sentinel2"]
        run(
            "predict", *configs("predict/raster", "demo/flair2/predict"), *rasters,
            "--ckpt_path", runs / model / "best.ckpt", "--output", folder / model,
            "--trainer.accelerator", "cpu",
        )  # fmt: skip
        maps[model] = next((folder / model).glob("*_classes.tif"))
    return maps


def read(path: Path, bands: int | list[int] = 1) -> NDArray[Any]:
    """Bands of a raster."""
    with rasterio.open(path) as file:
        return np.asarray(file.read(bands))


def picture(tile: Path, maps: dict[str, Path], shares: Path, results: list[Result]) -> Path:
    """Draws image, truth, every prediction, and what the aerial expert contributes."""
    # Labels 1 to 12 are the classes 0 to 11; all rarer ones are "other".
    truth = np.minimum(read(tile / "truth.tif"), 13).astype(np.int64) - 1
    image = np.moveaxis(read(tile / "aerial.tif", [1, 2, 3]), 0, -1)
    panels: list[tuple[str, NDArray[Any]]] = [("aerial image", image), ("truth", truth)]
    miou = {result.model: result.miou for result in results}
    for model, path in maps.items():
        title = f"{LABELS.get(model, model)}, test mIoU {miou[model]:.1f}"
        panels.append((title, read(path).astype(np.int64)))
    panels.append(("aerial share in the best fusion", read(shares).astype(np.float64) / 100))
    rows = [panels[i : i + 4] for i in range(0, len(panels), 4)]
    path = tile.parent / "comparison.png"
    examples_figure(rows, CLASSES_13, COLORS_13).savefig(path)
    return path


def summary(results: list[Result]) -> tuple[Table, list[str]]:
    """The table for the terminal, and the same as Markdown lines."""
    seeds = sorted({result.seed for result in results})
    title = "Unseen test domains, " + (
        f"seed {seeds[0]}" if len(seeds) == 1 else f"mean ± standard deviation of seeds {seeds}"
    )
    columns = ("model", "mIoU %", "overall accuracy %", "parameters trained", "training, s")
    rows = []
    for model in (*EXPERTS, *FUSIONS):
        mine = [result for result in results if result.model == model]
        rows.append(
            (
                LABELS.get(model, f"fusion: {model}"),
                spread([result.miou for result in mine]),
                spread([result.overall_accuracy for result in mine]),
                f"{mine[0].trained_parameters:,}",
                f"{statistics.mean(result.seconds for result in mine):.0f}",
            )
        )
    return tables(title, columns, rows)


def gains(results: list[Result]) -> dict[int, tuple[str, float]]:
    """Per seed the best learned fusion and by how many points it beats the better expert."""
    found = {}
    for seed in sorted({result.seed for result in results}):
        mine = {result.model: result for result in results if result.seed == seed}
        expert = max(mine[name].miou for name in EXPERTS)
        best = max((mine[name] for name in LEARNED), key=lambda result: result.miou)
        found[seed] = (best.model, best.miou - expert)
    return found


def main() -> None:
    """Runs the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("demo/flair2"), help="receives everything"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one training each")
    parser.add_argument("--short", action="store_true", help="a few steps of everything")
    parser.add_argument(
        "--publish", action="store_true", help="put table and picture into README.md and docs/"
    )
    options = parser.parse_args()
    folder: Path = options.folder / "short" if options.short else options.folder
    start = time.perf_counter()

    console.rule("Data: a synthetic landscape in the layout of FLAIR #2")
    config = LandscapeConfig(patch_size=128, pixel_size=0.8)
    landscape = write_flair2(folder / "data", config, workers=2)
    tile = write_tile(folder / "tile", config, size=409.6)
    console.print(f"{landscape.root}: {landscape.patches} patches; new tile in {tile.root}")

    console.rule("Experts and fusions")
    results: list[Result] = []
    for seed in options.seeds:
        runs = folder / "runs" / f"seed{seed}"
        results += train_all(runs, landscape.root, seed, short=options.short)
    (folder / "results.json").write_text(json.dumps([asdict(r) for r in results], indent=2))

    console.rule("A new tile")
    seed = options.seeds[0]
    first = [result for result in results if result.seed == seed]
    runs = folder / "runs" / f"seed{seed}"
    maps = map_tile(folder / "maps", runs, tile.root, (*EXPERTS, *FUSIONS))
    best, _ = gains(first)[seed]
    shares = next((folder / "maps" / best).glob("*_contributions.tif"))
    path = picture(tile.root, maps, shares, first)

    console.rule("Result")
    table, lines = summary(results)
    (folder / "results.md").write_text("\n".join(lines) + "\n")
    console.print(table)
    for seed, (model, gain) in gains(results).items():
        line = f"seed {seed}: {model} beats the better expert by {gain:+.1f} mIoU points"
        console.print(line)
        lines.append(f"\n{line}" if seed == options.seeds[0] else f"<br>{line}")
    if options.publish:
        publish("\n".join(lines), Path("README.md"), "results", pictures={"comparison.png": path})
    console.print(f"{time.perf_counter() - start:.0f} s in all. Picture: {path.resolve()}")


if __name__ == "__main__":
    main()

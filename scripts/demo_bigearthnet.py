"""The demonstration on patches: a Sentinel-1 and a Sentinel-2 expert, and fusions of both.

Writes synthetic patches in the layout of BigEarthNet v2 whose labels need both sensors, trains the
experts and fuses their decisions and their embeddings, tests every model with both sensors and
without either, and classifies the patches of a new place. Prints each command before it runs; every
one can be typed by hand. Ends with a table of the scores on the test split and a picture, and fails
if the fusion of each level that the validation split prefers gains too little there, or loses too
much with a sensor missing (`GAIN`, `LOSS`; not with --short, which trains nothing in earnest).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from demonstration import configs, console, run, scores, spread, tables
from numpy.typing import NDArray
from publish import publish
from rich.table import Table

from fusionlab.data.bigearthnet.constants import CORINE
from fusionlab.data.synthetic.bigearthnet import (
    BigEarthNetConfig,
    NewPlace,
    write_bigearthnet,
    write_rasters,
)
from fusionlab.plots import examples_figure

EXPERTS = ("s1", "s2")
DECISIONS = ("average", "class_weighted", "gated", "concat")
EMBEDDINGS = ("concat", "weighted", "projection", "attention", "gated")
LEVELS = {
    "decisions": ("late_fusion", "fusion", DECISIONS),
    "embeddings": ("feature_fusion", "feature_fusion", EMBEDDINGS),
}
GAIN = 5.0
"""Points of macro AP by which a fusion must at least beat the better expert."""
LOSS = 3.0
"""Points of macro AP by which it may at most fall below the expert that remains."""
PATCH = 120
LABELS = {"s1": "Sentinel-1 alone", "s2": "Sentinel-2 alone"}


@dataclass
class Result:
    """A row of the table.

    Attributes:
        model: an expert, or level and operator of a fusion, e.g. ``decisions gated``.
        seed: of its training.
        ap_macro: macro average precision on the test split, percent.
        ap_micro: micro average precision, percent.
        f1_macro: macro F1 at a threshold of 0.5, percent.
        val_ap_macro: macro average precision on the validation split, percent; what chooses among
            the fusions of a level.
        without: macro average precision with a sensor missing everywhere, by that sensor, percent.
        trained_parameters: how many parameters its training changed.
        seconds: duration of its training, start and validation included.
    """

    model: str
    seed: int
    ap_macro: float
    ap_micro: float
    f1_macro: float
    val_ap_macro: float
    without: dict[str, float]
    trained_parameters: int
    seconds: float


def train_and_test(model: str, seed: int, args: list[object], output: Path) -> Result:
    """Trains a model, validates and tests it, and tests it again with each sensor missing."""
    seconds = run("fit", *args, "--output", output)
    # The test asks the experts themselves, not the store that training used.
    fused = model not in EXPERTS
    fresh: list[object] = ["--model.model.cache", ""] if fused else []
    best: list[object] = [*args, *fresh, "--ckpt_path", output / "best.ckpt"]
    run("validate", *best, "--output", output)
    run("test", *best, "--output", output)
    found = scores(output)
    without = {}
    for sensor in EXPERTS if fused else ():
        folder = output / f"without_{sensor}"
        run("test", *best, "--data.missing", f"[{sensor}]", "--output", folder)
        without[sensor] = 100 * scores(folder)["test/ap_macro"]
    return Result(
        model,
        seed,
        ap_macro=100 * found["test/ap_macro"],
        ap_micro=100 * found["test/ap_micro"],
        f1_macro=100 * found["test/f1_macro"],
        val_ap_macro=100 * scores(output, "val")["val/ap_macro"],
        without=without,
        trained_parameters=found["trained_parameters"],
        seconds=seconds,
    )


def train_all(folder: Path, data: Path, seed: int, *, short: bool) -> list[Result]:
    """Trains and tests the experts and all fusions of one seed.

    Args:
        folder: receives one folder per model.
        data: patches in BigEarthNet's layout, with their LMDB.
        seed: of weights and sample order.
        short: a few steps only, to see that everything runs.
    """
    common: list[object] = [
        "--data.root", data, "--data.lmdb", data / "lmdb", "--seed_everything", seed,
        "--overwrite", "true", "--trainer.accelerator", "cpu",
        "--trainer.enable_model_summary", "false",
    ]  # fmt: skip
    if short:
        common += ["--trainer.max_epochs", 1, "--trainer.limit_train_batches", 3]
    results = []
    for expert in EXPERTS:
        args = [*configs(f"demo/bigearthnet/{expert}"), *common]
        results.append(train_and_test(expert, seed, args, folder / expert))
    common += ["--model.model.cache", folder / "cache"]
    for expert in EXPERTS:
        checkpoint = folder / expert / "best.ckpt"
        common += [f"--model.model.experts.{expert}.checkpoint", checkpoint]
    for level, (base, overlays, operators) in LEVELS.items():
        for operator in operators[-2:] if short else operators:
            args = [*configs(f"demo/bigearthnet/{base}", f"{overlays}/{operator}"), *common]
            output = folder / f"{level}_{operator}"
            results.append(train_and_test(f"{level} {operator}", seed, args, output))
    return results


def classify(folder: Path, runs: Path, place: NewPlace, models: list[str]) -> dict[str, Path]:
    """Classifies the patches of the new place with several models; their grids by model."""
    grids = {}
    for model in models:
        rasters: list[object] = []
        for sensor, path in (("s1", place.s1), ("s2", place.s2)):
            if model not in EXPERTS or model == sensor:
                rasters += [f"--data.rasters.{sensor}", path]
        name = model.replace(" ", "_")
        run(
            "predict", *configs("predict/patches"), *rasters,
            "--ckpt_path", runs / name / "best.ckpt", "--output", folder / name,
            "--trainer.accelerator", "cpu",
        )  # fmt: skip
        grids[model] = next((folder / name).glob("*_patches.tif"))
    return grids


def read(path: Path, bands: int | list[int] = 1) -> NDArray[Any]:
    """Bands of a raster."""
    with rasterio.open(path) as file:
        return np.asarray(file.read(bands))


def band_numbers(path: Path) -> dict[str, int]:
    """Bands of a raster by description."""
    with rasterio.open(path) as file:
        return {name: i for i, name in enumerate(file.descriptions, 1) if name}


def picture(place: NewPlace, grids: dict[str, Path], path: Path) -> Path:
    """Draws both images, and for some classes where they truly are and where models see them."""
    numbers = band_numbers(place.s2)
    optical = read(place.s2, [numbers[band] for band in ("B04", "B03", "B02")])
    radar = read(place.s1, [1, 2])
    images = [
        ("Sentinel-2", stretched(optical)),
        ("Sentinel-1: VV, VH, VV - VH", stretched(np.stack([*radar, radar[0] - radar[1]]))),
    ]
    codes = read(place.truth)
    # The last patches stick out of the raster; so must its truth, to lie under them.
    codes = np.pad(codes, [(0, -side % PATCH) for side in codes.shape])
    shares = {
        name: np.isin(codes, [code for code, own in CORINE.items() if own == name])
        for name in dict.fromkeys(CORINE.values())
    }
    common = sorted(shares, key=lambda name: -shares[name].mean())[:4]
    rows = [[*images]]
    for name in common:
        row: list[tuple[str, NDArray[Any]]] = [(f"{name}\ntruth", shares[name].astype(float))]
        for model, grid in grids.items():
            band = read(grid, band_numbers(grid)[name]).astype(float)
            row.append((LABELS.get(model, f"fused {model}"), band))
        rows.append(row)
    rows[0] += [("", np.zeros((1, 1, 3), np.uint8) + 255)] * (len(rows[1]) - len(rows[0]))
    examples_figure(rows, [], []).savefig(path)
    return path


def stretched(bands: NDArray[Any]) -> NDArray[np.uint8]:
    """Bands ``(3, H, W)`` as an image, each stretched to 2 to 98 percent."""
    low, high = np.percentile(bands, (2, 98), axis=(1, 2), keepdims=True)
    image: NDArray[np.uint8] = (255 * ((bands - low) / (high - low)).clip(0, 1)).astype(np.uint8)
    return np.moveaxis(image, 0, -1)


def summary(results: list[Result]) -> tuple[Table, list[str]]:
    """The table for the terminal, and the same as Markdown lines."""
    seeds = sorted({result.seed for result in results})
    title = "Test split, percent; " + (
        f"seed {seeds[0]}" if len(seeds) == 1 else f"mean ± standard deviation of seeds {seeds}"
    )
    columns = (
        "model", "AP macro", "AP micro", "F1 macro", "AP without S1", "AP without S2",
        "parameters", "seconds",
    )  # fmt: skip
    rows = []
    for model in dict.fromkeys(result.model for result in results):
        mine = [result for result in results if result.model == model]
        without = [
            spread([result.without[sensor] for result in mine]) if mine[0].without else ""
            for sensor in EXPERTS
        ]
        rows.append(
            (
                LABELS.get(model, model.replace(" ", ": ", 1)),
                spread([result.ap_macro for result in mine]),
                spread([result.ap_micro for result in mine]),
                spread([result.f1_macro for result in mine]),
                *without,
                f"{mine[0].trained_parameters:,}",
                f"{statistics.mean(result.seconds for result in mine):.0f}",
            )
        )
    return tables(title, columns, rows)


@dataclass(frozen=True)
class Gain:
    """What the chosen fusion of a level gains and loses on the test split.

    Attributes:
        seed: of the training.
        model: the fusion that is best on the validation split.
        over_expert: points of macro AP over the better expert.
        without: points over the expert that remains, by the sensor that is missing.
    """

    seed: int
    model: str
    over_expert: float
    without: dict[str, float]

    def __str__(self) -> str:
        return (
            f"seed {self.seed}, {self.model.replace(' ', ': ')}: {self.over_expert:+.1f} points of "
            f"macro AP over the better expert; without Sentinel-1 {self.without['s1']:+.1f} to the "
            f"Sentinel-2 expert, without Sentinel-2 {self.without['s2']:+.1f} to the Sentinel-1 "
            "expert"
        )

    @property
    def failures(self) -> list[str]:
        """What is not as it must be; empty if all is."""
        who = f"seed {self.seed}, {self.model}"
        found = []
        if not self.over_expert >= GAIN:
            found.append(
                f"{who}: {self.over_expert:+.2f} points of macro AP over the better expert, and it "
                f"must be {GAIN:+g} or more"
            )
        for gone, left in self.without.items():
            if not left >= -LOSS:
                found.append(
                    f"{who}: {left:+.2f} points of macro AP without {gone} to the expert that "
                    f"remains, and it must be {-LOSS:+g} or more"
                )
        return found


def chosen(results: list[Result], level: str) -> Result:
    """The fusion of a level that is best on the validation split, of the results of one seed."""
    fused = [result for result in results if result.model.startswith(f"{level} ")]
    return max(fused, key=lambda result: result.val_ap_macro)


def gains(results: list[Result]) -> list[Gain]:
    """Per seed and level, what the chosen fusion gains, and loses where a sensor is missing."""
    found = []
    for seed in sorted({result.seed for result in results}):
        mine = [result for result in results if result.seed == seed]
        alone = {result.model: result.ap_macro for result in mine if result.model in EXPERTS}
        for level in LEVELS:
            best = chosen(mine, level)
            without = {
                gone: best.without[gone] - alone[left]
                for gone, left in (("s1", "s2"), ("s2", "s1"))
            }
            gain = best.ap_macro - max(alone.values())
            found.append(Gain(seed, best.model, gain, without))
    return found


def main() -> None:
    """Runs the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("demo/bigearthnet"), help="receives everything"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one training each")
    parser.add_argument("--short", action="store_true", help="a few steps of everything")
    parser.add_argument(
        "--publish", action="store_true", help="put table and picture into README.md and docs/"
    )
    options = parser.parse_args()
    folder: Path = options.folder / "short" if options.short else options.folder
    start = time.perf_counter()

    console.rule("Data: synthetic patches in the layout of BigEarthNet v2")
    sizes = {"train": 64, "validation": 48, "test": 48} if options.short else {}
    config = BigEarthNetConfig(**sizes)
    written = write_bigearthnet(folder / "data", config, geotiff=False, lmdb=True, workers=2)
    place = write_rasters(folder / "place", config)
    console.print(f"{written.root}: {written.patches} patches; a new place in {place.root}")

    console.rule("Experts and fusions")
    results: list[Result] = []
    for seed in options.seeds:
        runs = folder / "runs" / f"seed{seed}"
        results += train_all(runs, written.root, seed, short=options.short)
    (folder / "results.json").write_text(json.dumps([asdict(r) for r in results], indent=2))

    console.rule("A new place")
    seed = options.seeds[0]
    first = [result for result in results if result.seed == seed]
    best = [chosen(first, level).model for level in LEVELS]
    grids = classify(folder / "maps", folder / "runs" / f"seed{seed}", place, [*EXPERTS, *best])
    path = picture(place, grids, folder / "comparison.png")

    console.rule("Result")
    table, lines = summary(results)
    (folder / "results.md").write_text("\n".join(lines) + "\n")
    console.print(table)
    console.print("Of each level, the fusion that is best on the validation split:")
    found = gains(results)
    for i, line in enumerate(map(str, found)):
        console.print(line)
        lines.append(f"<br>{line}" if i else f"\n{line}")
    failures = [] if options.short else [failure for gain in found for failure in gain.failures]
    if options.publish and not failures:
        publish(
            "\n".join(lines), Path("README.md"), "bigearthnet", pictures={"bigearthnet.png": path}
        )
    console.print(f"{time.perf_counter() - start:.0f} s in all. Picture: {path.resolve()}")
    if failures:
        sys.exit("\n".join(["The demonstration does not show what it must:", *failures]))


if __name__ == "__main__":
    main()

"""The demonstration on images with captions, tables and weekly series: what each modality adds.

Writes a synthetic set, trains the modality ladder (each modality alone, each pair, all of them in
late fusion) beside early fusion and cross-attention, then image and caption contrastively on more
and more samples, and classifies the test images by descriptions alone. Ends with the tables, and
fails unless, on the test split,

- with every seed, all modalities beat the image alone by `GAIN` points of accuracy;
- cross-attention is not worse than late fusion, in the mean over the seeds;
- with every seed, descriptions find `TIMES_CHANCE` times as many images' classes as chance, after
  training on all samples, and the mean over seeds rises with every step of training size.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from demonstration import configs, console, run, scores, spread, tables
from publish import publish

from fusionlab.cli_compare import compare
from fusionlab.data.synthetic.geo_multimodal import (
    CLASSES,
    GeoMultimodalConfig,
    contact_sheet,
    write_geo_multimodal,
)
from fusionlab.study.finished import read_run
from fusionlab.study.gains import gains_table
from fusionlab.study.table import compare as compare_runs

CONFIGS = Path("configs", "geo_multimodal").resolve()
GAIN = 5.0
TIMES_CHANCE = 3.0
CHANCE = 100 / len(CLASSES)
SIZES = (100, 400, 10_000)
"""Training samples of the contrastive models; the last is more than there are, which means all."""
EPOCHS = 15
"""Of contrastive training on all samples; on fewer, as many more as give the same steps."""
BATCH = 32
COLUMNS = {
    "overall_accuracy": "accuracy", "precision_weighted": "precision, weighted",
    "recall_weighted": "recall, weighted", "f1_weighted": "F1, weighted",
}  # fmt: skip
SHORT: dict[str, Any] = {
    "max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1,
}  # fmt: skip
SHORT_MEMBERS = ("image", "caption+weather", "all", "early", "cross_attention")


@dataclass
class ZeroShot:
    """What a contrastive model came to.

    Attributes:
        size: samples that it was trained on.
        seed: of its training.
        accuracy: of descriptions on the test split, percent.
        recall: share of the test captions whose image is the most similar one of all, percent.
        recall_back: share of the test images whose caption is, percent.
    """

    size: int
    seed: int
    accuracy: float
    recall: float
    recall_back: float


def study(folder: Path, manifest: Path, *, seeds: list[int], short: bool) -> Path:
    """Writes the study of `configs/geo_multimodal`, for these data and seeds."""
    content = yaml.safe_load((CONFIGS / "study.yaml").read_text())
    content["ladder"]["fusion"] = str(CONFIGS / content["ladder"]["fusion"])
    content["members"] = {name: str(CONFIGS / file) for name, file in content["members"].items()}
    overlay = {**content["overlay"], "data": {"init_args": {"manifest": str(manifest)}}}
    if short:
        overlay["trainer"] = {**overlay["trainer"], **SHORT}
    content |= {"output": str(folder / "study"), "seeds": seeds, "overlay": overlay}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def contrast(folder: Path, manifest: Path, total: int, *, seed: int, short: bool) -> list[ZeroShot]:
    """Trains image and caption on more and more samples; classifies by descriptions after each."""
    found = []
    data = ["--data.manifest", manifest]
    for size in SIZES[:1] if short else SIZES:
        output = folder / "contrastive" / f"{size}_seed_{seed}"
        kept = min(size, total)
        # Every size the same number of steps and of validations.
        each = round((total // BATCH) / (kept // BATCH))
        flags: list[object] = ["--trainer.max_epochs", EPOCHS * each,
                               "--trainer.check_val_every_n_epoch", each]  # fmt: skip
        if short:
            flags = [arg for key, value in SHORT.items() for arg in (f"--trainer.{key}", value)]
        common = [*data, "--trainer.enable_model_summary", "false"]
        contrastive = [*configs("geo_multimodal/contrastive"), *common]
        # Tables and series have no part in it.
        pair = ["--data.use", "[image, caption]", "--data.batch_size", BATCH]
        run("fit", *contrastive, *pair, "--data.max_samples", f"{{train: {kept}}}", *flags,
            "--seed_everything", seed, "--overwrite", "true", "--output", output)  # fmt: skip
        best = output / "best.ckpt"
        run("test", *contrastive, *pair, "--ckpt_path", best, "--output", output)
        zero_shot = output / "zero_shot"
        run("test", *configs("geo_multimodal/zero_shot"), *common, "--data.use", "[image]",
            "--model.model.checkpoint", best, "--output", zero_shot)  # fmt: skip
        retrieved = scores(output)
        found.append(
            ZeroShot(
                size=kept,
                seed=seed,
                accuracy=100 * scores(zero_shot)["test/overall_accuracy"],
                recall=100 * retrieved["test/recall_at_1/caption_to_image"],
                recall_back=100 * retrieved["test/recall_at_1/image_to_caption"],
            )
        )
    return found


def accuracies(folder: Path, seeds: list[int]) -> dict[str, list[float]]:
    """Test accuracy of each member with each seed, percent."""
    members = sorted({path.parent.name for path in folder.glob("seed_*/*/test_metrics.json")})
    return {
        member: [
            100 * scores(folder / f"seed_{seed}" / member)["test/overall_accuracy"]
            for seed in seeds
        ]
        for member in members
    }


def failures(found: dict[str, list[float]], by_prompt: list[ZeroShot]) -> list[str]:
    """What does not hold of what must."""
    said = []
    for name in ("all", "early", "cross_attention"):
        for i, (fused, image) in enumerate(zip(found[name], found["image"], strict=True)):
            if not fused - image >= GAIN:
                said.append(f"{name}, run {i}: {fused - image:+.1f} points over the image alone")
    lead = statistics.mean(
        a - b for a, b in zip(found["cross_attention"], found["all"], strict=True)
    )
    if not lead >= 0:
        said.append(f"cross_attention: {lead:+.1f} points to late fusion")
    largest = max(row.size for row in by_prompt)
    said += [
        f"zero-shot, seed {row.seed}: {row.accuracy:.1f} %, chance is {CHANCE:.1f} %"
        for row in by_prompt
        if row.size == largest and not row.accuracy >= TIMES_CHANCE * CHANCE
    ]
    sizes = sorted({row.size for row in by_prompt})
    means = [
        statistics.mean(row.accuracy for row in by_prompt if row.size == size) for size in sizes
    ]
    for (fewer, before), (size, after) in pairwise(zip(sizes, means, strict=True)):
        if not after > before:
            said.append(f"zero-shot: {after:.1f} % of {size} samples, {before:.1f} % of {fewer}")
    return said


def report(folder: Path, by_prompt: list[ZeroShot]) -> list[str]:
    """Prints what came out; returns the same as Markdown lines."""
    record = yaml.safe_load((folder / "study" / "study.json").read_text())
    runs = [
        read_run(path.parent, path.parent.name)
        for member in record["members"]
        for path in sorted((folder / "study").glob(f"seed_*/{member}/test_metrics.json"))
    ]
    rows = []
    for member in dict.fromkeys(found.member for found in runs):
        values = [found.scores for found in runs if found.member == member]
        cells = [spread([100 * float(v[f"test/{key}"] or 0) for v in values]) for key in COLUMNS]
        rows.append([member, *cells])
    lines: list[str] = []
    comparison = compare_runs(runs, "overall_accuracy", record["rungs"])
    zero_shot = []
    for size in sorted({row.size for row in by_prompt}):
        here = [row for row in by_prompt if row.size == size]
        cells = [
            spread([getattr(row, key) for row in here])
            for key in ("accuracy", "recall", "recall_back")
        ]
        zero_shot.append([f"{size:,}", *cells])
    for title, columns, cells in (
        ("Land use, %", ["model", *COLUMNS.values()], rows),
        ("What each modality adds", *_split(gains_table(comparison))),
        (
            f"By descriptions, % (chance {CHANCE:.1f})",
            ["training samples", "zero-shot accuracy", "recall@1, image of a caption",
             "recall@1, caption of an image"],
            zero_shot,
        ),
    ):  # fmt: skip
        if cells:
            table, markdown = tables(title, columns, cells)
            console.print(table)
            lines += [*markdown, ""]
    return lines


def _split(lines: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    return (lines[0], lines[1:]) if lines else ([""], [])


def main() -> None:
    """Parses the command line and runs everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("demo", "geo_multimodal"), help="of all files"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs of the study at a time")
    parser.add_argument("--short", action="store_true", help="a few steps of everything, for CI")
    parser.add_argument("--publish", action="store_true", help="write the tables into the README")
    options = parser.parse_args()
    start = time.perf_counter()
    folder: Path = options.folder / "short" if options.short else options.folder
    folder.mkdir(parents=True, exist_ok=True)
    seeds = options.seeds[:1] if options.short else options.seeds

    console.rule("Sites")
    config = GeoMultimodalConfig(samples=240) if options.short else GeoMultimodalConfig()
    made = write_geo_multimodal(folder / "data", config, workers=options.jobs)
    contact_sheet(config).savefig(folder / "sites.png")
    console.print(f"{made.manifest}: {made.samples}")

    console.rule("The modality ladder")
    file = study(folder, made.manifest.resolve(), seeds=seeds, short=options.short)
    chosen = ["--members", *SHORT_MEMBERS] if options.short else []
    status = compare(["compare", "--config", str(file), "--jobs", str(options.jobs), *chosen])
    if status:
        sys.exit("Not every member of the study was trained.")

    console.rule("Images and captions")
    by_prompt = [
        row
        for seed in seeds
        for row in contrast(folder, made.manifest, made.samples["train"], seed=seed,
                            short=options.short)
    ]  # fmt: skip
    (folder / "zero_shot.yaml").write_text(yaml.safe_dump([asdict(row) for row in by_prompt]))

    lines = report(folder, by_prompt)
    console.print(f"{time.perf_counter() - start:.0f} s in all.")
    found = [] if options.short else failures(accuracies(folder / "study", seeds), by_prompt)
    if found:
        sys.exit("\n".join(["The demonstration does not show what it must:", *found]))
    if options.publish:
        run_folder = folder / "study" / f"seed_{seeds[0]}" / "cross_attention"
        pictures = {
            "geo_multimodal_sites.png": folder / "sites.png",
            "geo_multimodal_ladder.png": folder / "study" / "ladder.png",
            "geo_multimodal_attention.png": run_folder / "test_attention.png",
        }
        text = "\n".join(lines).strip()
        publish(text, Path("README.md"), "geo_multimodal", pictures=pictures)


if __name__ == "__main__":
    main()

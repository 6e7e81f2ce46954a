"""The fusion study: renders cubes and spheres, trains six fusions and each sensor alone, compares.

Ends with an error if a strategy classifies fewer test pairs right than it should.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from demonstration import console
from publish import publish

from fusionlab.cli_compare import compare
from fusionlab.data.synthetic.rgb_lidar import RgbLidarConfig, contact_sheet, write_rgb_lidar

CONFIGS = Path("configs", "rgb_lidar").resolve()
SINGLE = ("rgb", "lidar")
LEAST = 0.97
"""Test accuracy of every fusion, with every seed."""
SHORT: dict[str, Any] = {
    "trainer": {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1,
                "limit_test_batches": 1},
}  # fmt: skip


def study(folder: Path, data: Path, *, seeds: list[int], short: bool) -> Path:
    """Writes the study of `configs/rgb_lidar`, for these data and seeds."""
    content = yaml.safe_load((CONFIGS / "study.yaml").read_text())
    content["members"] = {
        name: [str(CONFIGS / file) for file in files] for name, files in content["members"].items()
    }
    overlay = {**content["overlay"], "data": {"init_args": {"root": str(data)}}}
    if short:
        overlay["trainer"] = {**overlay["trainer"], **SHORT["trainer"]}
    content |= {"output": str(folder / "study"), "seeds": seeds, "overlay": overlay}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def too_low(folder: Path) -> list[str]:
    """Fusions that do not reach `LEAST`, with what they reach."""
    found = []
    for path in sorted(folder.glob("seed_*/*/test_metrics.json")):
        accuracy = json.loads(path.read_text())["test/overall_accuracy"]
        if path.parent.name not in SINGLE and not accuracy > LEAST:
            found.append(f"{path.parent.name}, {path.parent.parent.name}: {100 * accuracy:.1f} %")
    return found


def in_short(comparison: str) -> str:
    """Of a comparison in Markdown the first table and what is said of it, without its title."""
    blocks = comparison.strip().split("\n\n")
    scores = blocks.index("All scores:")
    return "\n\n".join(blocks[1:scores] + blocks[scores + 2 :])


def main() -> None:
    """Parses the command line and runs the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("demo", "rgb_lidar"), help="of all files"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--short", action="store_true", help="a few steps of everything, for CI")
    parser.add_argument("--publish", action="store_true", help="write the table into the README")
    options = parser.parse_args()
    start = time.perf_counter()
    folder: Path = options.folder / "short" if options.short else options.folder
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    console.rule("Cubes and spheres")
    config = RgbLidarConfig(cubes=40, spheres=40) if options.short else RgbLidarConfig()
    write_rgb_lidar(data, config)
    contact_sheet(config, rows=3).savefig(folder / "pairs.png", dpi=80)
    console.rule("Study")
    file = study(folder, data, seeds=options.seeds, short=options.short)
    jobs = ["--jobs", str(options.jobs)]
    status = compare(["compare", "--config", str(file), *jobs])
    console.print(f"{time.perf_counter() - start:.0f} s in all.")
    failures = [] if options.short else too_low(folder / "study")
    if status or failures:
        sys.exit("\n".join(["The study does not show what it must:", *failures]))
    if options.publish:
        written = folder / "study"
        publish(in_short((written / "comparison.md").read_text()), Path("README.md"), "study",
                pictures={"rgb_lidar_pairs.png": folder / "pairs.png",
                          "rgb_lidar_curves.png": written / "curves.png"})  # fmt: skip


if __name__ == "__main__":
    main()

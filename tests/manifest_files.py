"""Writes tiny manifests with files of every kind, for tests to read and to damage.

The class of a row shows in each modality: in the brightness of image and radar, in a word of the
caption, in the elevation of the site and in the course of the weather.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from fusionlab.data import (
    ImageColumn,
    ManifestDataModule,
    ManifestSplits,
    SeriesColumns,
    TableColumns,
    TargetColumn,
    TemporalFile,
    TextColumn,
)

SIZE = 16  # rows of an image of 10 m; radar has half of them, of 20 m
WEEKS = 10
CLASSES = ["crops", "forest", "water"]
SEASONS = ["autumn", "spring", "winter"]
WORDS = {"crops": "green fields of maize", "forest": "dense trees", "water": "a calm lake"}
BANDS = ["red", "green", "blue", "nir"]
LEFT, TOP = 500_000.0, 5_300_000.0

OPTIONS: dict[str, Any] = {
    "images": {"image": {"column": "image", "bands": BANDS}},
    "texts": {"caption": {"column": "caption", "vocabulary": 300}},
    "tables": {
        "site": {
            "columns": ["latitude", "longitude", "elevation", "season"],
            "categories": ["season"],
        }
    },
    "series": {"weather": {"column": "weather"}},
    "target": {"column": "land_use"},
    "splits": {"column": "split"},
}
"""What a user writes in YAML of the manifest, its path aside."""
RADAR = {"column": "radar", "bands": ["VV", "VH"]}
STACK = {
    "column": "stack",
    "bands": ["B04", "B08"],
    "gsd": 10.0,
    "temporal": {"hidden": "clouds", "threshold": 50},
}
WIDE = {"wide": {"ndvi": "ndvi_*"}, "start": "2023-01-02"}
MASK = {"column": "mask", "kind": "mask", "classes": CLASSES}
LABELS = {"column": "labels", "kind": "classes"}
HEIGHT = {"column": "height", "kind": "values", "units": ["m"]}


def write_manifest(root: Path, *, rows: int = 24, seed: int = 0) -> Path:
    """Writes ``manifest.csv`` and its files; three quarters of the rows are for training.

    Every column that the options above name is there. Two rows show one place. Nothing is missing,
    but for single values of weather and NDVI.

    Returns:
        The manifest.
    """
    random = np.random.default_rng(seed)
    table = []
    for row in range(rows):
        label = int(row % len(CLASSES))
        name = f"p{row:03d}"
        at = LEFT + row * 1000
        image = random.integers(0, 300, (4, SIZE, SIZE)) + 1000 * (1 + label)
        write_raster(root / f"images/{name}.tif", image.astype(np.uint16), left=at)
        radar = random.normal(-20 + 5 * label, 1, (2, SIZE // 2, SIZE // 2))
        write_raster(root / f"radar/{name}.tif", radar.astype(np.float32), gsd=20, left=at)
        mask = np.full((1, SIZE, SIZE), label, np.uint8)
        mask[0, :2] = (label + 1) % len(CLASSES)
        write_raster(root / f"masks/{name}.tif", mask, left=at)
        write_weather(root / f"weather/{name}.csv", label, random)
        write_stack(root / f"stacks/{name}.npz", label, random)
        ndvi = np.round(0.2 * label + random.uniform(0, 0.1, WEEKS), 3)
        cells: dict[str, Any] = {
            "id": name,
            "image": f"images/{name}.tif",
            "radar": f"radar/{name}.tif",
            "mask": f"masks/{name}.tif",
            "weather": f"weather/{name}.csv",
            "stack": f"stacks/{name}.npz",
            "caption": f"{WORDS[CLASSES[label]].capitalize()}, seen from above, number {row}",
            "latitude": round(47 + 0.01 * row, 4),
            "longitude": round(9 + 0.01 * (row // 4), 4),
            "elevation": round(300 + 200 * label + random.normal(0, 10), 1),
            "season": SEASONS[row // 2 % len(SEASONS)],
            "land_use": CLASSES[label],
            "labels": "; ".join(CLASSES[: label + 1]),
            "height": round(10.0 * label + random.uniform(), 2),
            "place": f"place {row // 2}",
            "split": "train" if row < rows * 3 // 4 else ("val", "test")[row % 2],
        }
        cells |= {f"is_{c}": int(i <= label) for i, c in enumerate(CLASSES)}
        cells |= {f"ndvi_{week + 1:02d}": value for week, value in enumerate(ndvi)}
        cells["ndvi_03"] = "" if row % 5 == 0 else cells["ndvi_03"]
        table.append(cells)
    return write_csv(root / "manifest.csv", table)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table of cells by column."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The cells of a manifest as texts, to be changed and written again by `write_csv`."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def change(path: Path, row: int, **cells: object) -> None:
    """Changes cells of a manifest; rows count from 0."""
    rows = read_rows(path)
    rows[row] |= cells
    write_csv(path, rows)


def write_raster(
    path: Path, values: np.ndarray, *, gsd: float = 10, left: float = LEFT, **options: Any
) -> Path:
    """Writes (bands, rows, columns)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = values.shape
    profile = {"crs": "EPSG:32632", "transform": from_origin(left, TOP, gsd, gsd), **options}
    with rasterio.open(
        path, "w", "GTiff", width, height, bands, dtype=values.dtype, **profile
    ) as file:
        file.write(values)
    return path


def write_weather(path: Path, label: int, random: np.random.Generator) -> Path:
    """A week per line: NDVI with a gap, and temperature."""
    path.parent.mkdir(parents=True, exist_ok=True)
    days = np.datetime64("2023-01-02") + 7 * np.arange(WEEKS)
    lines = ["date,ndvi,temperature"]
    for week, day in enumerate(days):
        ndvi = "" if week == 3 else f"{0.2 + 0.2 * label + random.uniform(0, 0.05):.3f}"
        lines.append(f"{day},{ndvi},{random.normal(5 + 5 * label, 1):.2f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_stack(path: Path, label: int, random: np.random.Generator, *, size: int = SIZE) -> Path:
    """Five dates of two bands; the second is under clouds, the last shows nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = (random.integers(0, 200, (5, 2, size, size)) + 1000 * (1 + label)).astype(np.uint16)
    values[4] = 0
    clouds = np.zeros((5, size, size), np.uint8)
    clouds[1] = 100
    dates = np.datetime64("2023-03-01") + 10 * np.arange(5)
    np.savez(path, values=values, dates=dates, clouds=clouds)
    return path


def options(manifest: Path, **changes: Any) -> dict[str, Any]:
    """Options of the data module as in YAML; statistics are kept beside the manifest.

    Args:
        manifest: the table.
        changes: other options; None takes one away.
    """
    given = {
        "manifest": str(manifest),
        "statistics": str(manifest.parent / "statistics"),
        "batch_size": 4,
        **OPTIONS,
        **changes,
    }
    return {name: value for name, value in given.items() if value is not None}


def manifest_data(manifest: Path, **changes: Any) -> ManifestDataModule:
    """The data module that these options describe."""
    given = options(manifest, **changes)
    for section, kind in _SECTIONS.items():
        if section in given:
            given[section] = {name: _made(kind, entry) for name, entry in given[section].items()}
    for section, kind in (("target", TargetColumn), ("splits", ManifestSplits)):
        if section in given:
            given[section] = kind(**given[section])
    return ManifestDataModule(**given)


_SECTIONS = {
    "images": ImageColumn,
    "texts": TextColumn,
    "tables": TableColumns,
    "series": SeriesColumns,
}


def _made(kind: Any, entry: dict[str, Any]) -> Any:
    temporal = {"temporal": TemporalFile(**entry["temporal"])} if "temporal" in entry else {}
    return kind(**{**entry, **temporal})

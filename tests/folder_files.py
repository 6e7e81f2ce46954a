"""Writes tiny data sets of one folder per modality, for tests to read and to damage."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from fusionlab.data import FolderDataModule, ImageFolder, TargetFolder

SIZE = 24  # rows of the target of 10 m; there are six columns more
NAMES = ("a", "b", "north/c", "north/d")
LEFT, TOP = 500000.0, 5300000.0
CLASSES = ["water", "trees", "crops"]


def write(path: Path, values: np.ndarray, *, gsd: float = 10, place: int = 0, **options) -> Path:
    """Writes (bands, rows, columns); places lie 100 km apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = values.shape
    transform = from_origin(LEFT + place * 100_000, TOP, gsd, gsd)
    names = options.pop("descriptions", None)
    profile = {"crs": "EPSG:32632", "transform": transform, **options}
    with rasterio.open(
        path, "w", "GTiff", width, height, bands, dtype=values.dtype, **profile
    ) as file:
        file.write(values)
        if names:
            file.descriptions = names
    return path


def write_folders(root: Path, *, seed: int = 0) -> Path:
    """Four places: `s2` of 10 m, `dem` of 20 m, `ortho` of 5 m, classes and heights of 10 m."""
    random = np.random.default_rng(seed)
    for place, name in enumerate(NAMES):
        shape = SIZE, SIZE + 6
        s2 = random.integers(1, 9000, (3, *shape), dtype=np.uint16)
        write(root / "S2" / f"{name}.tif", s2, place=place)
        dem = random.normal(300, 20, (1, SIZE // 2, SIZE // 2 + 3))
        write(root / "DEM" / f"{name}.tif", dem, gsd=20, place=place)
        ortho = random.integers(0, 255, (2, SIZE * 2, SIZE * 2 + 12), dtype=np.uint8)
        write(root / "ortho" / f"{name}.tif", ortho, gsd=5, place=place)
        labels = random.choice(np.array([10, 20, 80], np.uint8), (1, *shape))
        write(root / "labels" / f"{name}.tif", labels, place=place)
        heights = random.uniform(0, 30, (1, *shape)).astype(np.float32)
        heights[0, :2] = -9999
        write(root / "heights" / f"{name}.tif", heights, place=place, nodata=-9999)
    return root


def images(**changes) -> dict[str, ImageFolder]:
    """The modalities of `write_folders`; statistics are given, so that none are computed."""
    folders = {
        "s2": {
            "path": "S2",
            "bands": ["B02", "B03", "B04"],
            "mean": [4500.0] * 3,
            "std": [1.0] * 3,
        },
        "dem": {"path": "DEM", "bands": ["elevation"], "mean": [300.0], "std": [20.0]},
        "ortho": {"path": "ortho", "bands": ["red", "nir"], "mean": [9.0] * 2, "std": [9.0] * 2},
    }
    for name, options in changes.items():
        folders[name] |= options
    return {name: ImageFolder(**options) for name, options in folders.items()}


def classes(**options) -> TargetFolder:
    return TargetFolder("labels", **{"classes": CLASSES, "values": [80, 10, 20], **options})


def heights(**options) -> TargetFolder:
    return TargetFolder("heights", variables=["canopy_height"], units=["m"], **options)


def folders(root: Path, *, modalities=None, **options) -> FolderDataModule:
    """A data module that leaves samples as they are on disk: one place per split, and two."""
    defaults = {
        "target": classes(),
        "augment": False,
        "batch_size": 1,
        "splits": {"val": "b", "test": ["north/c"]},
    }
    return FolderDataModule(root, modalities or images(), **{**defaults, **options})

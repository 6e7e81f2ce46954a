"""Small sets of RGB and LiDAR pairs with known content."""

from pathlib import Path

import numpy as np
from PIL import Image

from fusionlab.data import RgbLidarDataModule

AZIMUTH = np.linspace(-0.4, 0.5, 6).astype(np.float32)
ZENITH = np.linspace(-0.3, 0.2, 5).astype(np.float32)
CLASSES = {"cubes": 12, "spheres": 20}


def image(key: int, shape: tuple[int, int] = (8, 8)) -> np.ndarray:
    """RGBA ``(rows, columns, 4)``, different for every key."""
    return np.random.default_rng(key).integers(0, 256, (*shape, 4)).astype(np.uint8)


def depth(key: int) -> np.ndarray:
    """Depths ``(6, 5)``, some of them beyond the range."""
    values = np.random.default_rng(1000 + key).uniform(1, 9, (len(AZIMUTH), len(ZENITH)))
    values[0, key % 5] = 60
    return values.astype(np.float32)


def write_png(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


def write_class(folder: Path, count: int, first: int = 0) -> None:
    """A folder of a class; pair ``i`` has the content of key ``first + i``."""
    for sensor in ("rgb", "lidar"):
        (folder / sensor).mkdir(parents=True)
    np.save(folder / "azimuth.npy", AZIMUTH)
    np.save(folder / "zenith.npy", ZENITH)
    for i in range(count):
        write_png(folder / "rgb" / f"{i:04d}.png", image(first + i))
        np.save(folder / "lidar" / f"{i:04d}.npy", depth(first + i))


def write_pairs(root: Path, classes: dict[str, int] | None = None) -> Path:
    """A data set; keys are counted on from class to class."""
    first = 0
    for name, count in (classes or CLASSES).items():
        write_class(root / name, count, first)
        first += count
    return root


def key_of(sample_id: str) -> int:
    """Of the content of a pair of `write_pairs`."""
    name, stem = sample_id.split("/")
    return int(stem) + (0 if name == "cubes" else CLASSES["cubes"])


def pairs_of(root: Path, **options) -> RgbLidarDataModule:
    return RgbLidarDataModule(str(root), **{"size": 8, "batch_size": 4, **options})


def samples(data: RgbLidarDataModule, split: str) -> list[dict]:
    dataset = data.dataset(split)
    return [dataset[i] for i in range(len(dataset))]


def names(data: RgbLidarDataModule, split: str) -> list[str]:
    return [sample["sample_id"] for sample in samples(data, split)]

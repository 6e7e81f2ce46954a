"""Writes a tiny FLAIR #2 in the published layout, for tests to read and to damage."""

import json
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin

from fusionlab.data import Flair2DataModule
from fusionlab.types import TimeSeries

PATCH = 32  # pixels of 3.2 m: 102.4 m, as the real patches
PIXEL = 3.2
AREA = (60, 50)  # rows and columns, different on purpose
DATES = ("20200610", "20200305", "20200620", "20200901")  # not in the order of time
DAYS = [18326, 18423, 18433, 18506]  # the same, in order
ORDER = [1, 0, 2, 3]
CENTROIDS = [(30, 24), (8, 40)]  # the second crop of 40 x 40 crosses the upper and right borders
TRAIN = ("D006_2020", "D070_2020")
VAL = ("D004_2021",)
TEST = ("D015_2020", "D022_2021")


def write_flair2(root: Path, *, seed: int = 0) -> Path:
    """Two patches per domain in one zone; the numbers of patches count on over the domains."""
    random = np.random.default_rng(seed)
    centroids = {}
    number = 0
    for side, domains in (("train", VAL + TRAIN), ("test", TEST)):
        flair = "flair" if side == "train" else "flair_2"
        for domain in domains:
            for centre in CENTROIDS:
                number += 1
                area = root / f"{flair}_aerial_{side}" / domain / "Z1_NN"
                image = random.integers(0, 255, (5, PATCH, PATCH), dtype=np.uint8)
                write_tif(area / "img" / f"IMG_{number:06d}.tif", image)
                area = root / f"{flair}_labels_{side}" / domain / "Z1_NN"
                mask = random.integers(1, 20, (1, PATCH, PATCH), dtype=np.uint8)
                write_tif(area / "msk" / f"MSK_{number:06d}.tif", mask)
                centroids[f"IMG_{number:06d}.tif"] = centre
            write_super_area(
                root / f"{flair}_sen_{side}" / domain / "Z1_NN" / "sen",
                random.integers(0, 12000, (len(DATES), 10, *AREA), dtype=np.uint16),
                np.zeros((len(DATES), 2, *AREA), dtype=np.uint8),
            )
    (root / "flair-2_centroids_sp_to_patch.json").write_text(json.dumps(centroids))
    return root


def write_tif(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        crs="EPSG:2154",
        transform=from_origin(870000, 6890000, PIXEL, PIXEL),
    ) as file:
        file.write(pixels)


def write_super_area(folder: Path, data=None, masks=None, dates=None) -> None:
    """Writes what is given, under the published names."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"SEN2_sp_{folder.parent.parent.name}-{folder.parent.name}"
    if data is not None:
        np.save(folder / f"{stem}_data.npy", data)
        dates = DATES if dates is None else dates
    if masks is not None:
        np.save(folder / f"{stem}_masks.npy", masks)
    if dates is not None:
        lines = [f"S2A_MSIL2A_{d}T105021_N0300_R051_T31UDP_{d}T135921" for d in dates]
        (folder / f"{stem}_products.txt").write_text("\n".join(lines) + "\n")


def sen_folder(root: Path, domain: str = "D006_2020") -> Path:
    side = "flair_2_sen_test" if domain in TEST else "flair_sen_train"
    return root / side / domain / "Z1_NN" / "sen"


def load(root: Path, domain: str = "D006_2020", what: str = "data") -> np.ndarray:
    (path,) = sen_folder(root, domain).glob(f"*{what}.npy")
    return np.load(path)


def flair2(root: Path | None, **options) -> Flair2DataModule:
    """A data module that leaves samples as they are on disk."""
    return Flair2DataModule(root, **{"augment": False, "batch_size": 2, **options})


def assert_same(a: object, b: object) -> None:
    """Nested dicts of tensors with equal values."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, TimeSeries):
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b

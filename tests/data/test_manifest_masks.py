"""Masks as targets: windows of what lies on the same ground, with words and numbers beside them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from manifest_files import (
    BANDS,
    CLASSES,
    MASK,
    RADAR,
    SIZE,
    STACK,
    change,
    manifest_data,
    write_manifest,
    write_raster,
)

from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX

IMAGES = {"image": {"column": "image", "bands": BANDS}, "radar": RADAR, "s": STACK}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("small"), rows=12)


@pytest.fixture
def own(small, tmp_path) -> Path:
    """A manifest that a test may change."""
    shutil.copytree(small.parent, tmp_path / "own")
    return tmp_path / "own" / small.name


def masked(manifest: Path, **changes):
    return manifest_data(
        manifest, **{"target": MASK, "augment": False, "images": IMAGES, **changes}
    )


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def test_whole_files(small):
    data = masked(small)
    assert (data.schema.target, data.schema.gsd) == ("segmentation", 10.0)
    assert data.schema.classes == tuple(CLASSES)
    sample = data.dataset("train")[1]
    assert np.array_equal(sample["target"], read(small.parent / "masks/p001.tif")[0])
    assert np.array_equal(sample["inputs"]["radar"], read(small.parent / "radar/p001.tif"))
    assert sample["inputs"]["s"].values.shape == (3, 2, SIZE, SIZE)
    assert sample["inputs"]["caption"].startswith("Dense trees")
    assert sample["sample_id"] == "p001"


def test_windows_are_of_the_same_ground_in_every_modality(small):
    data = masked(small, crop=8)
    dataset = data.dataset("test")
    whole = {s["sample_id"]: s for s in (masked(small).dataset("test")[i] for i in range(2))}
    assert len(dataset) == 4 * len(masked(small).dataset("test"))
    for i in range(8):
        sample = dataset[i]
        name, row, column = sample["sample_id"].split("_")
        full, r, c = whole[name], int(row), int(column)
        window = (..., slice(r, r + 8), slice(c, c + 8))
        assert torch.equal(sample["target"], full["target"][window])
        for part, divisor in (("image", 1), ("radar", 2)):
            cut = (
                ...,
                slice(r // divisor, (r + 8) // divisor),
                slice(c // divisor, (c + 8) // divisor),
            )
            assert torch.equal(sample["inputs"][part], full["inputs"][part][cut])
        assert torch.equal(sample["inputs"]["s"].values, full["inputs"]["s"].values[window])
        assert sample["inputs"]["caption"] == full["inputs"]["caption"]
        assert torch.equal(sample["inputs"]["site"], full["inputs"]["site"])


def test_training_windows_lie_anywhere_and_turn_together(small):
    data = masked(small, crop=8, augment=True)
    dataset = data.dataset("train")
    torch.manual_seed(0)
    seen = {dataset[0]["sample_id"] for _ in range(20)}
    assert len(seen) > 3
    assert all(int(n) % 2 == 0 for name in seen for n in name.split("_")[1:])
    sample = dataset[0]
    assert sample["target"].shape == (8, 8)
    assert sample["inputs"]["radar"].shape == (2, 4, 4)


def test_values_per_pixel(own):
    for row in range(12):
        heights = np.full((1, SIZE, SIZE), row, np.float32)
        heights[0, 0] = -1
        write_raster(own.parent / f"masks/p{row:03d}.tif", heights, left=500_000 + row * 1000)
    target = {"column": "mask", "kind": "mask", "variables": ["height"], "units": ["m"]}
    data = masked(own, target={**target, "nodata": -1.0, "scale": 0.5})
    assert data.schema.target == "regression"
    found = data.dataset("train")[4]["target"]
    assert found[0, 0].isnan().all()
    assert (found[0, 1:] == 2).all()


def test_values_stand_for_classes(own):
    for row in range(12):
        mask = np.array([10, 20, 80, 0] * 64, np.uint8).reshape(1, SIZE, SIZE)
        write_raster(own.parent / f"masks/p{row:03d}.tif", mask, left=500_000 + row * 1000)
    values = {10: "crops", 20: "forest", 80: "forest"}
    target = {"column": "mask", "kind": "mask", "values": values, "ignore": [0]}
    data = masked(own, target=target)
    assert data.schema.classes == ("crops", "forest")
    assert data.dataset("train")[0]["target"].unique().tolist() == [0, 1, IGNORE_INDEX]


def test_predictions_have_a_place(small):
    data = masked(small, target=None, crop=8, overlap=4, predict_split="all")
    data.trainer = Trainer()
    dataset = data.dataset("predict")
    sample = dataset[1]
    assert "target" not in sample
    placement = sample["placement"]
    assert placement["source"] == str(small.parent / "images/p000.tif")
    assert placement["window"].tolist() == [0, 4, 8, 8]
    assert placement["stride"].tolist() == [4, 4]
    assert sample["inputs"]["caption"]


class Task:
    def __init__(self, schema):
        self.schema = schema


class Trainer:
    """Stands for a trainer whose model answers per pixel."""

    def __init__(self):
        from fusionlab.types import Modality, Schema

        self.lightning_module = Task(Schema({"image": Modality(("red",))}, CLASSES))


def test_what_does_not_lie_on_the_same_ground_is_listed(own):
    root = own.parent
    write_raster(root / "masks/p000.tif", np.zeros((1, SIZE, SIZE), np.uint8), left=900_000)
    write_raster(root / "radar/p001.tif", np.zeros((2, 8, 7), np.float32), gsd=20, left=501_000)
    change(own, 2, mask="")
    change(own, 3, image="", radar="")
    write_raster(root / "masks/p004.tif", np.zeros((2, SIZE, SIZE), np.uint8), left=504_000)
    with pytest.raises(InputError) as caught:
        masked(own)
    assert "row 3, mask: no mask." in str(caught.value)
    change(own, 2, mask="masks/p002.tif")
    with pytest.raises(InputError) as caught:
        masked(own).setup("fit")
    said = str(caught.value)
    for line in (
        "row 1, mask: ", "files of one name must lie on the same ground",
        "row 2, radar: ", "has 8 × 7 pixels of 20 m, expected 8 × 8",
        "row 4, no image of ['image', 'radar'], on which an answer lies.",
        "row 5, mask: ", "has 2 band(s), expected the 1 bands ['class']",
    ):  # fmt: skip
        assert line in said


def test_sizes_that_make_no_batch_are_listed(own):
    root = own.parent
    for folder, bands, gsd in (("images", 4, 10), ("radar", 2, 20), ("masks", 1, 10)):
        values = np.zeros((bands, 400 // gsd, 400 // gsd), np.uint8)
        write_raster(root / f"{folder}/p001.tif", values, gsd=gsd, left=501_000)
    images = {name: IMAGES[name] for name in ("image", "radar")}
    with pytest.raises(InputError, match=r"row 2, 40 × 40 pixels .* set crop, or batch_size: 1"):
        masked(own, images=images).setup("fit")
    masked(own, images=images, crop=16).setup("fit")
    masked(own, images=images, batch_size=1).setup("fit")
    with pytest.raises(
        InputError, match=r"rows 1, 3, 4 .*, 16 × 16 pixels of the mask's grid, fewer than"
    ):
        masked(own, images=images, crop=20).setup("fit")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "needs an image that it lies on"),
        ({"images": {"image": {**IMAGES["image"], "size": 8}}}, "not resized where the target is"),
        ({"crop": 7}, "must be multiples of 2"),
        ({"images": {"image": {**IMAGES["image"], "gsd": 7.0}}}, "one must be a multiple"),
    ],
)
def test_options_that_do_not_fit_masks(small, changes, message):
    with pytest.raises(InputError, match=message):
        masked(small, **changes).setup("fit")

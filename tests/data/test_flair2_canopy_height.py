import json
import shutil

import numpy as np
import pytest
import rasterio
import torch
from flair2_files import PATCH, flair2, write_tif
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from fusionlab.data import Flair2DataModule
from fusionlab.data.flair2.constants import CLASSES_19, TREE_CLASSES
from fusionlab.data.transforms import D4
from fusionlab.errors import InputError
from fusionlab.types import Schema

ZONE = "D006_2020/Z1_NN"
TREES = [CLASSES_19.index(name) + 1 for name in TREE_CLASSES]


def canopy(root, **options):
    return flair2(root, **{"target": "canopy_height", "modalities": ["aerial"], **options})


def on_disk(root):
    with rasterio.open(root / f"flair_aerial_train/{ZONE}/img/IMG_000003.tif") as file:
        image = file.read()
    with rasterio.open(root / f"flair_labels_train/{ZONE}/msk/MSK_000003.tif") as file:
        return image, file.read(1)


def test_schema_names_a_variable_and_no_class(flair2_root):
    schema = canopy(flair2_root).schema
    assert schema.target == "regression"
    assert (schema.variables, schema.units) == (("canopy_height",), ("m",))
    assert schema.classes == ()
    assert schema.scores == {}
    assert schema.modalities["aerial"].bands == ("red", "green", "blue", "nir")
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_height_in_metres_where_the_mask_says_trees(flair2_copy):
    image, mask = on_disk(flair2_copy)
    image[4, :2] = 255
    write_tif(flair2_copy / f"flair_aerial_train/{ZONE}/img/IMG_000003.tif", image)
    sample = canopy(flair2_copy).dataset("train")[0]
    np.testing.assert_array_equal(sample["inputs"]["aerial"], image[:4])
    known = np.isin(mask, TREES) & (image[4] != 255)
    assert TREES == [6, 7, 16, 17]
    assert 0 < known.sum() < known.size
    assert sample["target"].shape == (1, PATCH, PATCH)
    assert sample["target"].dtype == torch.float32
    np.testing.assert_array_equal(sample["target"][0].isfinite(), known)
    expected = image[4][known] * 0.2
    np.testing.assert_allclose(sample["target"][0][known].numpy(), expected, rtol=1e-6)


def test_classes_of_the_users_choice(flair2_root):
    image, mask = on_disk(flair2_root)
    target = canopy(flair2_root, height_classes=["building"]).dataset("train")[0]["target"][0]
    np.testing.assert_array_equal(target.isfinite(), (mask == 1) & (image[4] != 255))


def test_everywhere_needs_no_masks(flair2_copy):
    image, _ = on_disk(flair2_copy)
    shutil.rmtree(flair2_copy / "flair_labels_train")
    target = canopy(flair2_copy, height_classes=None).dataset("train")[0]["target"][0]
    np.testing.assert_array_equal(target.isfinite(), image[4] != 255)
    with pytest.raises(InputError, match="labels_train"):
        canopy(flair2_copy).dataset("train")


def test_height_as_an_input_would_give_the_answer_away(flair2_root):
    for bands in (["height"], ["red", "height"]):
        with pytest.raises(InputError, match=r"bands\.aerial includes the height.*'nir'"):
            canopy(flair2_root, bands={"aerial": bands})
    sample = canopy(flair2_root, bands={"aerial": ["nir", "red"]}).dataset("train")[0]
    np.testing.assert_array_equal(sample["inputs"]["aerial"], on_disk(flair2_root)[0][[3, 0]])


def test_from_the_series_alone(flair2_root):
    target = canopy(flair2_root).dataset("val")[0]["target"]
    sample = canopy(flair2_root, modalities=["sentinel2"]).dataset("val")[0]
    assert list(sample["inputs"]) == ["sentinel2"]
    assert torch.equal(sample["target"].nan_to_num(-1), target.nan_to_num(-1))


def test_predictions_need_no_target(flair2_copy):
    shutil.rmtree(flair2_copy / "flair_2_labels_test")
    sample = canopy(flair2_copy).dataset("predict")[0]
    assert "target" not in sample
    assert sample["inputs"]["aerial"].shape == (4, PATCH, PATCH)
    assert sample["placement"]["source"].endswith(".tif")


def test_heights_move_with_the_image(flair2_root):
    sample = canopy(flair2_root, height_classes=None).dataset("train")[0]
    # A band that is the height itself stays equal to it under every symmetry of the square.
    image = sample["target"].nan_to_num(-1)
    for turns in range(4):
        for flip in (False, True):
            moved = D4(turns, flip)({**sample, "inputs": {"height": image}})
            assert torch.equal(moved["target"].nan_to_num(-1), moved["inputs"]["height"])
    torch.manual_seed(0)
    dataset = canopy(flair2_root, height_classes=None, augment=True).dataset("train")
    drawn = [dataset[0]["target"].nan_to_num(-1) for _ in range(9)]
    assert any(not torch.equal(target, image) for target in drawn)
    assert all(torch.equal(t.flatten().sort()[0], image.flatten().sort()[0]) for t in drawn)


def test_refusals(flair2_root):
    for options, message in (
        ({"target": "biomass"}, "no target 'biomass'"),
        ({"height_classes": ["tree"]}, r"height_classes: there is no class 'tree'"),
        ({"height_classes": []}, "no class at all"),
    ):
        with pytest.raises(InputError, match=message):
            canopy(flair2_root, **options)


def test_mask_of_another_size(flair2_copy):
    mask = np.full((1, PATCH, PATCH - 1), 6, dtype=np.uint8)
    write_tif(flair2_copy / f"flair_labels_train/{ZONE}/msk/MSK_000003.tif", mask)
    with pytest.raises(
        InputError, match=r"MSK_000003\.tif has \(32, 31\) pixels, its image \(32, 32\)"
    ):
        canopy(flair2_copy).dataset("train")[0]


def test_from_yaml(flair2_root):
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    options = {"root": str(flair2_root), "target": "canopy_height", "height_classes": None}
    config = {"data": {"class_path": "Flair2DataModule", "init_args": options}}
    data = parser.instantiate(parser.parse_object(config)).data
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["target"].shape[1:] == (1, PATCH, PATCH)


@pytest.mark.shared
def test_real_samples(shared):
    data = Flair2DataModule(shared / "data" / "flair2", augment=False, target="canopy_height",
                            modalities=["aerial"])  # fmt: skip
    samples = {s["sample_id"]: s["target"] for s in data.dataset("train")}
    known = {name: int(target.isfinite().sum()) for name, target in samples.items()}
    # The first patch is a lake with bare soil and brushwood; the others have deciduous trees.
    assert known["IMG_034217"] == 0
    assert min(known["IMG_036294"], known["IMG_050549"]) > 5_000
    for name in ("IMG_036294", "IMG_050549"):
        height = samples[name][samples[name].isfinite()]
        assert 0 <= height.min() < 2
        assert 1 < height.median() < 30
        assert height.max() < 51

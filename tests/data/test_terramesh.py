"""The three real places of TerraMesh, read as configs/terramesh says."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from fusionlab.types import IGNORE_INDEX

CONFIG = Path(__file__).parents[2] / "configs" / "terramesh" / "data.yaml"
PLACES = ("282D_485L_3_3", "38D_378R_2_3", "637U_59R_1_3")

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def root(shared) -> Path:
    return shared / "data" / "terramesh"


@pytest.fixture(scope="module")
def terramesh(root, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def make(**options):
        parser = ArgumentParser()
        parser.add_subclass_arguments(LightningDataModule, "data")
        config = yaml.safe_load(CONFIG.read_text())
        config["data"]["init_args"] |= {
            "root": str(root), "statistics": str(cache), "num_workers": 0, "batch_size": 2,
            "pin_memory": False, "augment": False, **options,
        }  # fmt: skip
        return parser.instantiate(parser.parse_object(config)).data

    return make


def test_every_place_is_in_one_split(terramesh):
    data = terramesh()
    tiles = [data.dataset(part).tiles for part in ("train", "val", "test")]
    assert sorted(tile.name for part in tiles for tile in part) == list(PLACES)
    assert [len(part) for part in tiles] == [1, 1, 1]


def test_all_files_of_a_place_show_the_same_ground(terramesh):
    data = terramesh(crop=None, predict_split="all")
    samples = {sample["sample_id"]: sample for sample in data.dataset("predict")}
    assert sorted(samples) == list(PLACES)
    for sample in samples.values():
        shapes = {name: tuple(v.shape) for name, v in sample["inputs"].items()}
        assert shapes == {"s2": (12, 224, 224), "s1": (2, 224, 224), "dem": (1, 224, 224)}
        assert str(sample["inputs"]["s2"].dtype) == "torch.int16"
        assert str(sample["inputs"]["s1"].dtype) == "torch.float32"
        assert all(sample["available"].values())
        with rasterio.open(sample["placement"]["source"]) as file:
            assert file.crs.is_projected
            assert file.res == (10, 10)


def test_backscatter_is_in_decibels_and_elevation_in_metres(terramesh):
    for sample in terramesh(crop=None, predict_split="all").dataset("predict"):
        vv, vh = sample["inputs"]["s1"]
        assert -35 < min(vv.min(), vh.min()) < max(vv.max(), vh.max()) < 5
        assert 3 < (vv - vh).mean() < 12  # crossed polarisation is the weaker one
        assert 0 <= sample["inputs"]["dem"].min() <= sample["inputs"]["dem"].max() < 1300
        assert sample["inputs"]["s2"].min() >= 0


def test_classes_by_place(terramesh):
    data = terramesh(crop=None)
    found = {}
    for part in ("train", "val", "test"):
        (sample,) = data.dataset(part)
        present = [int(v) for v in sample["target"].unique() if v != IGNORE_INDEX]
        found[sample["sample_id"]] = {data.schema.classes[index] for index in present}
    assert found == {
        "282D_485L_3_3": {"water", "trees", "bare_ground", "rangeland"},
        "38D_378R_2_3": {"crops", "rangeland"},
        "637U_59R_1_3": {"trees", "crops", "built_area", "rangeland"},
    }


def test_the_inferred_meaning_of_the_values_fits_the_images(terramesh):
    # Vegetation is green by its NDVI, water lies at sea level and is dark to the radar.
    bands = yaml.safe_load(CONFIG.read_text())["data"]["init_args"]["modalities"]["s2"]["bands"]
    data = terramesh(crop=None)
    for part in ("train", "val", "test"):
        (sample,) = data.dataset(part)
        s2 = sample["inputs"]["s2"].double()
        red, nir = s2[bands.index("B04")], s2[bands.index("B08")]
        ndvi = (nir - red) / (nir + red)
        where = {name: sample["target"] == i for i, name in enumerate(data.schema.classes)}
        if where["trees"].any():
            assert ndvi[where["trees"]].mean() > 0.6
        if where["water"].any():
            assert ndvi[where["water"]].mean() < 0.2
            assert sample["inputs"]["dem"][0][where["water"]].double().mean() < 1
            vv = sample["inputs"]["s1"][0]
            assert vv[where["water"]].mean() < vv[where["trees"]].mean() - 5


def test_statistics_are_those_of_the_training_place(terramesh, root):
    data = terramesh()
    (tile,) = data.dataset("train").tiles
    for name, folder in (("s2", "S2L2A"), ("s1", "S1RTC"), ("dem", "DEM")):
        with rasterio.open(root / folder / f"{tile.name}.tif") as file:
            values = file.read().astype(np.float64)
        np.testing.assert_allclose(data.schema.modalities[name].mean, values.mean(axis=(1, 2)))
        np.testing.assert_allclose(data.schema.modalities[name].std, values.std(axis=(1, 2)))


def test_windows_are_read_by_the_batch(terramesh):
    data = terramesh(use=["s1", "dem"], batch_size=4)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["inputs"]["s1"].shape == (4, 2, 128, 128)
    assert list(batch["inputs"]) == ["s1", "dem"]
    assert batch["target"].shape == (4, 128, 128)

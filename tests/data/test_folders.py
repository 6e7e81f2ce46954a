import json
import pickle

import numpy as np
import pytest
import rasterio
import torch
from folder_files import CLASSES, NAMES, SIZE, classes, folders, heights, images, write
from folder_files import write_folders as write_all
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from fusionlab.data import FolderDataModule, ImageFolder, RandomD4, TargetFolder
from fusionlab.data.transforms import D4
from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX, Schema


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("folders"))


def read(path):
    with rasterio.open(path) as file:
        return file.read()


class TestSchema:
    def test_classes(self, root):
        schema = folders(root, target=classes(colors=["#0000ff", "#00ff00", "#ffff00"])).schema
        assert schema.target == "segmentation"
        assert schema.classes == tuple(CLASSES)
        assert schema.colors[0] == "#0000ff"
        assert schema.gsd == 10
        assert {name: m.gsd for name, m in schema.modalities.items()} == {
            "s2": 10, "dem": 20, "ortho": 5,
        }  # fmt: skip
        assert schema.modalities["s2"].mean == (4500,) * 3

    def test_variables(self, root):
        schema = folders(root, target=heights()).schema
        assert schema.target == "regression"
        assert (schema.variables, schema.units) == (("canopy_height",), ("m",))
        assert schema.classes == ()
        assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema

    def test_only_what_is_used(self, root):
        schema = folders(root, use=["dem"]).schema
        assert list(schema.modalities) == ["dem"]
        data = folders(root, use=["s2"], bands={"s2": ["B04", "B02"]})
        assert data.schema.modalities["s2"].bands == ("B04", "B02")
        sample = data.dataset("val")[0]
        np.testing.assert_array_equal(sample["inputs"]["s2"], read(root / "S2/b.tif")[[2, 0]])

    def test_scale_makes_physical_units(self, root):
        schema = folders(root, modalities=images(s2={"scale": 1e-4})).schema
        assert schema.modalities["s2"].scale == (1e-4,) * 3

    def test_from_yaml(self, root):
        parser = ArgumentParser()
        parser.add_subclass_arguments(LightningDataModule, "data")
        options = {
            "root": str(root),
            "modalities": {
                "s2": {"path": "S2", "bands": ["B02", "B03", "B04"], "mean": [0, 0, 0],
                       "std": [1, 1, 1]},
            },
            "target": {"path": "labels", "values": {10: "trees", 20: "trees", 80: "water"}},
            "splits": {"val": 0.25, "test": ["north/*"]},
            "crop": 12,
        }  # fmt: skip
        config = {"data": {"class_path": "FolderDataModule", "init_args": options}}
        data = parser.instantiate(parser.parse_object(config)).data
        data.setup("fit")
        assert data.schema.classes == ("trees", "water")
        batch = next(iter(data.train_dataloader()))
        assert batch["inputs"]["s2"].shape == (6, 3, 12, 12)
        assert set(batch["target"].unique().tolist()) == {0, 1}


class TestSample:
    def test_pixels_are_those_on_disk(self, root):
        sample = folders(root).dataset("val")[0]
        assert sample["sample_id"] == "b"
        for name, folder in (("s2", "S2"), ("ortho", "ortho")):
            np.testing.assert_array_equal(sample["inputs"][name], read(root / folder / "b.tif"))
        assert sample["inputs"]["s2"].dtype == torch.uint16
        assert sample["inputs"]["ortho"].dtype == torch.uint8
        assert sample["inputs"]["dem"].dtype == torch.float32  # of float64
        labels = read(root / "labels/b.tif")[0]
        expected = np.select([labels == 80, labels == 10, labels == 20], [0, 1, 2])
        np.testing.assert_array_equal(sample["target"], expected)
        assert sample["target"].dtype == torch.int64
        assert all(sample["available"].values())

    def test_classes_by_position_and_several_values_of_one(self, root):
        first, second = (
            folders(root, target=t).dataset("val")[0]["target"]
            for t in (
                TargetFolder("labels", values={10: "trees", 20: "trees", 80: "water"}),
                TargetFolder("labels", classes=["trees"], values=[20], ignore=[10, 80]),
            )
        )
        labels = read(root / "labels/b.tif")[0]
        np.testing.assert_array_equal(first, labels == 80)
        np.testing.assert_array_equal(second, np.where(labels == 20, 0, IGNORE_INDEX))

    def test_values_keep_their_unit_and_unknown_ones_are_nan(self, root):
        target = folders(root, target=heights(scale=0.5)).dataset("val")[0]["target"]
        assert target.shape == (1, SIZE, SIZE + 6)
        assert target.dtype == torch.float32
        assert target[:, :2].isnan().all()
        expected = read(root / "heights/b.tif")[:, 2:] * np.float32(0.5)
        np.testing.assert_array_equal(target[:, 2:], expected)

    def test_nodata_of_a_target_counts_nowhere(self, root):
        target = folders(root, target=classes(nodata=20)).dataset("val")[0]["target"]
        labels = read(root / "labels/b.tif")[0]
        np.testing.assert_array_equal(target == IGNORE_INDEX, labels == 20)

    def test_pixels_without_observation(self, tmp_path):
        write_all(tmp_path)
        s2, dem = np.full((3, SIZE, SIZE + 6), 7, np.uint16), np.full((1, 12, 15), 5, np.float32)
        s2[0, 0, 0] = 0
        dem[0, 0, :2] = -32768, np.nan
        write(tmp_path / "S2/b.tif", s2, place=1, nodata=0)
        write(tmp_path / "DEM/b.tif", dem, gsd=20, place=1)
        inputs = folders(
            tmp_path, modalities=images(dem={"nodata": -32768}), target=classes()
        ).dataset("val")[0]["inputs"]
        assert inputs["s2"][:, 0, 0].tolist() == [4500, 7, 7]  # the mean, an integer
        assert inputs["dem"][0, 0].isnan().tolist() == [True, True] + [False] * 13

    def test_nothing_observed_is_missing(self, tmp_path):
        write_all(tmp_path)
        s2 = np.zeros((3, SIZE, SIZE + 6), np.uint16)
        s2[:, 20] = 5
        write(tmp_path / "S2/b.tif", s2, place=1, nodata=0)
        dataset = folders(tmp_path, crop=12).dataset("val")
        available = [bool(sample["available"]["s2"]) for sample in dataset]
        assert available == [False, False, False, True, True, True]
        assert not dataset[0]["inputs"]["s2"].any()

    def test_bands_by_description(self, tmp_path):
        write_all(tmp_path)
        values = read(tmp_path / "S2/b.tif")
        write(tmp_path / "S2/b.tif", values, place=1, descriptions=("B04", "b03", "B02"))
        sample = folders(tmp_path).dataset("val")[0]
        np.testing.assert_array_equal(sample["inputs"]["s2"], values[::-1])

    def test_bands_and_pixel_sizes_that_files_say_themselves(self, tmp_path):
        for place, name in enumerate("abc"):
            image = np.ones((2, 8, 8), np.uint8)
            write(tmp_path / f"x/{name}_x.tif", image, gsd=2, place=place,
                  descriptions=("red", "nir"))  # fmt: skip
            write(tmp_path / f"x/{name}_mask.tif", image[:1], gsd=2, place=place)
        data = FolderDataModule(
            tmp_path,
            {"x": ImageFolder("x", files="{name}_x.tif", mean=[1, 1], std=[1, 1])},
            target=TargetFolder("x", files="{name}_mask.tif", classes=["no", "yes"]),
        )
        assert data.schema.modalities["x"].bands == ("red", "nir")
        assert data.schema.gsd == data.schema.modalities["x"].gsd == 2
        assert (data.dataset("test")[0]["target"] == 1).all()

    def test_missing_modalities(self, tmp_path):
        write_all(tmp_path)
        (tmp_path / "DEM/b.tif").unlink()
        sample = folders(tmp_path, allow_missing=True).dataset("val")[0]
        assert {n: bool(v) for n, v in sample["available"].items()} == {
            "s2": True, "dem": False, "ortho": True,
        }  # fmt: skip
        assert sample["inputs"]["dem"].shape == (1, SIZE // 2, SIZE // 2 + 3)
        assert not sample["inputs"]["dem"].any()


class TestWindows:
    def test_all_that_belongs_to_a_window_shows_the_same_ground(self, tmp_path):
        write_all(tmp_path)
        rows, columns = np.mgrid[: SIZE // 2, : SIZE // 2 + 3]
        coarse = (rows * 15 + columns).astype(np.uint8)
        fine = coarse.repeat(4, 0).repeat(4, 1)
        write(tmp_path / "DEM/a.tif", coarse[None], gsd=20)
        write(tmp_path / "ortho/a.tif", np.stack([fine, fine]), gsd=5)
        write(tmp_path / "labels/a.tif", coarse.repeat(2, 0).repeat(2, 1)[None])
        target = TargetFolder("labels", classes=[str(i) for i in range(180)])
        data = folders(tmp_path, target=target, crop=8, splits={"train": "a"})
        torch.manual_seed(0)
        corners = set()
        for _ in range(20):
            sample = data.dataset("train")[0]
            inputs = sample["inputs"]
            assert sample["target"].shape == (8, 8)
            assert torch.equal(sample["target"][::2, ::2], inputs["dem"][0].long())
            assert torch.equal(sample["target"], inputs["ortho"][0, ::2, ::2].long())
            corners.add(int(sample["target"][0, 0]))
        assert len(corners) > 10

    @pytest.mark.parametrize("target", [classes(), heights()], ids=["classes", "heights"])
    def test_every_pixel_counts_once_in_an_evaluation(self, root, target):
        whole = folders(root, target=target).dataset("val")[0]["target"]
        dataset = folders(root, target=target, crop=10, use=["s2"]).dataset("val")
        assert len(dataset) == dataset.lengths[0] == 9
        known, total = 0, 0.0
        for sample in dataset:
            valid = sample["target"].isfinite() & (sample["target"] != IGNORE_INDEX)
            known += int(valid.sum())
            total += float(sample["target"][valid].double().sum())
        valid = whole.isfinite()
        assert known == int(valid.sum())
        assert total == pytest.approx(float(whole[valid].double().sum()))

    def test_an_epoch_sees_about_as_many_pixels_as_there_are(self, root):
        data = folders(root, crop=12)
        assert len(data.dataset("train")) == 2 * 2 * 3
        assert len(folders(root).dataset("train")) == 2

    def test_crops_are_drawn_by_the_seed(self, root):
        dataset = folders(root, crop=12).dataset("train")

        def drawn(seed):
            torch.manual_seed(seed)
            return [dataset[i]["sample_id"] for i in range(len(dataset))]

        assert drawn(1) == drawn(1) != drawn(2)

    def test_fraction_draws_whole_files(self, root):
        data = folders(root, crop=12, max_samples={"train": 1})
        assert len({s["sample_id"].split("_")[0] for s in data.dataset("train")}) == 1


class TestTransforms:
    def test_values_move_with_the_images(self, root):
        sample = folders(root, target=heights(), crop=12).dataset("val")[4]
        moved = D4(turns=1, flip=True)(sample)
        expected = torch.rot90(sample["target"].flip(-1), 1, (-2, -1))
        assert torch.equal(moved["target"].nan_to_num(-1), expected.nan_to_num(-1))
        back = D4(turns=1, flip=True).inverse(moved)
        assert torch.equal(back["target"].nan_to_num(-1), sample["target"].nan_to_num(-1))

    def test_training_is_augmented_and_drops_modalities(self, root):
        data = folders(root, augment=RandomD4(), crop=12, modality_dropout={"dem": 1.0})
        assert not data.dataset("train")[0]["available"]["dem"]
        assert data.dataset("val")[0]["available"]["dem"]

    def test_workers_read_the_same(self, root):
        batches = []
        for workers in (0, 2):
            data = folders(root, crop=12, num_workers=workers, batch_size=4)
            data.setup("test")
            batches.append(list(data.test_dataloader()))
        for one, other in zip(*batches, strict=True):
            assert one["sample_id"] == other["sample_id"]
            assert torch.equal(one["inputs"]["s2"].int(), other["inputs"]["s2"].int())
            assert torch.equal(one["target"], other["target"])
        assert pickle.loads(pickle.dumps(data.dataset("val")))[0]["sample_id"] == "b_0_0"


class TestPrediction:
    def test_windows_say_where_they_belong(self, root):
        data = folders(root, crop=12, overlap=4)
        data.setup("predict")
        (first, *_, last) = batches = list(data.predict_dataloader())
        assert "target" not in first
        assert len(batches) == 3 * 4
        assert first["placement"]["source"] == [str(root / "S2/north/c.tif")]
        assert last["placement"]["window"].tolist() == [[12, 18, 12, 12]]
        assert last["placement"]["stride"].tolist() == [[8, 8]]
        rows = [int(batch["placement"]["window"][0, 0]) for batch in batches]
        assert rows == sorted(rows)

    def test_all_places_without_a_target(self, tmp_path):
        write_all(tmp_path)
        for path in (tmp_path / "labels").rglob("*.tif"):
            path.unlink()
        (tmp_path / "labels/north").rmdir()
        (tmp_path / "labels").rmdir()
        data = folders(tmp_path, predict_split="all")
        assert [sample["sample_id"] for sample in data.dataset("predict")] == sorted(NAMES)
        data = folders(tmp_path, target=None, predict_split="all", splits={})
        assert data.schema.classes == ()
        assert len(data.dataset("predict")) == 4
        with pytest.raises(InputError, match=r"data\.target names no folder"):
            data.dataset("train")

    def test_the_grid_is_that_of_an_image(self, root):
        # No image has the target's pixels of 10 m: the map lies on the finer one of 5 m.
        data = folders(root, use=["dem", "ortho"], crop=12)
        placement = data.dataset("predict")[1]["placement"]
        assert placement["source"] == str(root / "ortho/north/c.tif")
        assert placement["window"].tolist() == [0, 24, 24, 24]
        assert placement["gsd"] == 5


class TestStatistics:
    def data(self, root, cache, **options):
        return folders(
            root, modalities=images(s2={"mean": None, "std": None}), statistics=cache, **options
        )

    def test_of_all_pixels_of_the_training_split(self, root, tmp_path):
        modality = self.data(root, tmp_path).schema.modalities["s2"]
        pixels = np.concatenate(
            [read(root / f"S2/{n}.tif").reshape(3, -1) for n in ("a", "north/d")], 1
        )
        np.testing.assert_allclose(modality.mean, pixels.mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(modality.std, pixels.std(axis=1), rtol=1e-12)

    def test_exact_for_large_numbers_and_strips(self, tmp_path, monkeypatch):
        monkeypatch.setattr("fusionlab.data.folders.statistics._STRIP", 64)
        write_all(tmp_path)
        values = np.random.default_rng(0).normal(1e6, 0.01, (3, SIZE, SIZE + 6))
        values[0, 0, 0] = np.nan
        values[1, 5] = -1
        write(tmp_path / "S2/a.tif", values, nodata=-1)
        modality = self.data(tmp_path, tmp_path / "c", splits={"train": "a"}).schema.modalities[
            "s2"
        ]
        values[values == -1] = np.nan
        np.testing.assert_allclose(modality.mean, np.nanmean(values, axis=(1, 2)), rtol=1e-12)
        np.testing.assert_allclose(modality.std, np.nanstd(values, axis=(1, 2)), rtol=1e-5)

    def test_in_physical_units(self, root, tmp_path):
        plain = self.data(root, tmp_path).schema.modalities["s2"]
        scaled = folders(
            root, modalities=images(s2={"mean": None, "std": None, "scale": [-2, 1, 1e-4]}),
            statistics=tmp_path,
        ).schema.modalities["s2"]  # fmt: skip
        np.testing.assert_allclose(scaled.mean, np.multiply(plain.mean, [-2, 1, 1e-4]))
        np.testing.assert_allclose(scaled.std, np.multiply(plain.std, [2, 1, 1e-4]))

    def test_computed_once_and_anew_when_something_changes(self, tmp_path):
        write_all(tmp_path)
        cache = tmp_path / "cache"
        first = self.data(tmp_path, cache).schema
        (kept,) = cache.iterdir()
        content = json.loads(kept.read_text())
        assert content["pixels"] == [2 * SIZE * (SIZE + 6)] * 3
        kept.write_text(json.dumps({**content, "mean": [1, 2, 3]}))
        assert self.data(tmp_path, cache).schema.modalities["s2"].mean == (
            1,
            2,
            3,
        )  # read, not made
        assert self.data(tmp_path, cache, crop=12).schema.modalities["s2"].mean == (1, 2, 3)
        kept.write_text("no json")
        assert self.data(tmp_path, cache).schema == first
        self.data(tmp_path, cache, splits={"train": "a"})
        write(tmp_path / "S2/a.tif", np.ones((3, SIZE, SIZE + 6), np.uint16))
        assert self.data(tmp_path, cache).schema != first
        assert len(list(cache.iterdir())) == 3

    def test_a_constant_band_and_one_without_pixels(self, tmp_path):
        write_all(tmp_path)
        values = np.full((3, SIZE, SIZE + 6), 5, np.uint16)
        write(tmp_path / "S2/a.tif", values, nodata=0)
        data = self.data(tmp_path, tmp_path / "c", splits={"train": "a"})
        assert data.schema.modalities["s2"].std == (1, 1, 1)
        values[2] = 0
        write(tmp_path / "S2/a.tif", values, nodata=0)
        with pytest.raises(InputError, match=r"modalities\.s2: the bands \['B04'\] have no obs"):
            self.data(tmp_path, tmp_path / "c", splits={"train": "a"})

    def test_a_cache_that_cannot_be_written_costs_time_only(self, root, tmp_path):
        (tmp_path / "file").write_text("")
        assert self.data(root, tmp_path / "file").schema.modalities["s2"].mean[0] > 0

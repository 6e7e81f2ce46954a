import json
import shutil

import pytest
import rasterio
import torch
from flair2_files import (
    PATCH,
    PIXEL,
    assert_same,
    flair2,
)
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from fusionlab.data import Flair2DataModule, RandomD4
from fusionlab.data.flair2.constants import CLASSES_13, VAL_DOMAINS
from fusionlab.data.flair2.super_area import open_array
from fusionlab.errors import InputError
from fusionlab.types import Schema


class TestSchema:
    def test_known_before_any_data_are_set_up(self, flair2_root):
        schema = Flair2DataModule(flair2_root).schema
        assert schema.classes == CLASSES_13
        assert schema.scores["flair2"] == CLASSES_13[:12]
        aerial, series = schema.modalities["aerial"], schema.modalities["sentinel2"]
        assert aerial.bands == ("red", "green", "blue", "nir", "height")
        assert aerial.gsd == PIXEL
        assert aerial.scale == (1, 1, 1, 1, 0.2)
        assert aerial.mean[4] == pytest.approx(10.652)  # metres
        assert series.gsd == 10
        assert series.temporal

    def test_without_data_the_published_pixel_size(self):
        assert Flair2DataModule().schema.modalities["aerial"].gsd == 0.2
        assert Flair2DataModule(aerial_gsd=0.8).schema.modalities["aerial"].gsd == 0.8

    def test_only_the_modalities_asked_for(self, flair2_root):
        schema = Flair2DataModule(flair2_root, modalities=["sentinel2"]).schema
        assert list(schema.modalities) == ["sentinel2"]

    def test_own_statistics(self):
        schema = Flair2DataModule(mean={"aerial": [1, 2, 3, 4, 5]}).schema
        assert schema.modalities["aerial"].mean == (1, 2, 3, 4, 5)
        with pytest.raises(InputError, match="2 values of std"):
            Flair2DataModule(std={"aerial": [1, 2]})

    def test_how_series_are_made_survives_a_checkpoint(self):
        data = Flair2DataModule(sen_crop_size=16, monthly_means=True, max_dates=9, cloud_area=None)
        schema = Schema.from_dict(json.loads(json.dumps(data.schema.to_dict())))
        assert schema == data.schema
        assert schema.modalities["sentinel2"].preparation == {
            "crop_size": 16,
            "monthly_means": True,
            "max_dates": 9,
            "cloud_probability": 60,
            "cloud_area": None,
        }
        assert schema.modalities["aerial"].preparation == {}
        assert schema != Flair2DataModule(sen_crop_size=16, monthly_means=True).schema

    def test_nineteen_classes(self, flair2_root):
        data = flair2(flair2_root, classes=19)
        assert data.schema.num_classes == 19
        values = torch.cat([sample["target"].flatten() for sample in data.dataset("train")])
        assert values.unique().tolist() == list(range(19))

    def test_unknown_names_are_refused(self):
        for options, message in (
            ({"modalities": ["aerial", "radar"]}, "radar"),
            ({"modalities": []}, "modalities"),
            ({"bands": {"aerial": ["red", "swir"]}}, "swir"),
            ({"modalities": ["aerial"], "bands": {"sentinel2": ["B02"]}}, "sentinel2"),
            ({"modality_dropout": {"radar": 0.1}}, "radar"),
            ({"modality_dropout": {"aerial": 2}}, "aerial"),
            ({"sen_crop_size": 11}, "even"),
            ({"max_dates": 0}, "max_dates"),
            ({"cloud_probability": 130}, "percent"),
        ):
            with pytest.raises(InputError, match=message):
                Flair2DataModule(**options)

    def test_from_yaml(self, flair2_root):
        parser = ArgumentParser()
        parser.add_subclass_arguments(LightningDataModule, "data")
        options = {
            "root": str(flair2_root),
            "batch_size": 3,
            "val_domains": ["D004"],
            "augment": {"class_path": "RandomD4", "init_args": {"quarter_turns": False}},
            "modality_dropout": {"aerial": 0.1},
            "max_samples": {"train": 3},
        }
        config = parser.parse_object(
            {"data": {"class_path": "Flair2DataModule", "init_args": options}}
        )
        data = parser.instantiate(config).data
        data.setup("fit")
        assert data.batch_size == 3
        assert len(data.train_dataloader().dataset) == 3


class TestSplits:
    def names(self, root, split, **options):
        data = flair2(root, modalities=["aerial"], **options)
        return [patch.domain for patch in data.dataset(split).patches][::2]

    def test_published_lists(self, flair2_root):
        assert set(VAL_DOMAINS["flair2"]) ^ set(VAL_DOMAINS["flair1"]) == {"D070", "D077"}
        assert self.names(flair2_root, "val") == ["D004_2021"]
        assert self.names(flair2_root, "train") == ["D006_2020", "D070_2020"]
        assert self.names(flair2_root, "val", val_domains="flair1") == ["D004_2021", "D070_2020"]
        assert self.names(flair2_root, "train", val_domains="flair1") == ["D006_2020"]
        assert self.names(flair2_root, "test") == ["D015_2020", "D022_2021"]

    def test_own_lists_with_or_without_year(self, flair2_root):
        options = {"val_domains": ["D006"], "train_domains": ["D004_2021"]}
        assert self.names(flair2_root, "val", **options) == ["D006_2020"]
        assert self.names(flair2_root, "train", **options) == ["D004_2021"]
        assert self.names(flair2_root, "test", test_domains=["D022"]) == ["D022_2021"]

    def test_unknown_domain(self, flair2_root):
        with pytest.raises(InputError, match=r"train_domains .*'D099'.*'D006_2020'"):
            self.names(flair2_root, "train", train_domains=["D006", "D099"])

    def test_no_domain_in_both(self, flair2_root):
        with pytest.raises(InputError, match="D004_2021"):
            self.names(flair2_root, "train", train_domains=["D004", "D006"])

    def test_empty_split(self, flair2_copy):
        shutil.rmtree(flair2_copy / "flair_aerial_train" / "D004_2021")
        with pytest.raises(InputError, match=r"'val' is empty.*val_domains"):
            self.names(flair2_copy, "val")
        with pytest.raises(InputError, match="'train' is empty"):
            self.names(flair2_copy, "train", train_domains=[])

    def test_subset_is_drawn_by_seed(self, flair2_root):
        def ids(**options):
            dataset = flair2(flair2_root, modalities=["aerial"], **options).dataset("train")
            return [patch.id for patch in dataset.patches]

        assert len(ids(max_samples=2)) == 2
        assert ids(max_samples=2) == ids(max_samples={"train": 2})
        assert len({tuple(ids(max_samples=2, subset_seed=seed)) for seed in range(9)}) > 1
        assert len(ids(max_samples={"val": 1})) == 4
        assert len(ids(max_samples=99)) == 4
        for wrong in (0, {"training": 2}):
            with pytest.raises(InputError, match="max_samples"):
                ids(max_samples=wrong)


class TestLayouts:
    def test_folders_one_by_one(self, flair2_copy, tmp_path):
        folders = {}
        for part in ("aerial_train", "sen_train", "labels_train"):
            folders[part] = str(tmp_path / part)
            shutil.move(flair2_copy / f"flair_{part}", folders[part])
        centroids = shutil.move(
            flair2_copy / "flair-2_centroids_sp_to_patch.json", tmp_path / "c.json"
        )
        dataset = flair2(None, centroids=centroids, **folders).dataset("train")
        assert dataset[0]["available"]["sentinel2"]

    @pytest.mark.parametrize("layout", ["toy", "renamed"])
    def test_other_names(self, flair2_copy, layout):
        for part in ("aerial", "sen", "labels"):
            for side, flair in (("train", "flair"), ("test", "flair_2")):
                new = f"flair_2_toy_{part}_{side}" if layout == "toy" else f"{side}/{part}"
                (flair2_copy / new).parent.mkdir(exist_ok=True)
                (flair2_copy / f"{flair}_{part}_{side}").rename(flair2_copy / new)
        (flair2_copy / "flair-2_centroids_sp_to_patch.json").rename(
            flair2_copy / "flair_2_centroids_sp_to_patch.json"
        )
        for split in ("train", "val", "test", "predict"):
            assert len(flair2(flair2_copy).dataset(split)[0]["inputs"]) == 2

    def test_aerial_alone_needs_no_series(self, flair2_copy):
        shutil.rmtree(flair2_copy / "flair_sen_train")
        (flair2_copy / "flair-2_centroids_sp_to_patch.json").unlink()
        sample = flair2(flair2_copy, modalities=["aerial"]).dataset("train")[0]
        assert list(sample["inputs"]) == ["aerial"]

    def test_series_alone_need_no_images(self, flair2_copy):
        shutil.rmtree(flair2_copy / "flair_aerial_train")
        sample = flair2(flair2_copy, modalities=["sentinel2"]).dataset("train")[0]
        assert list(sample["inputs"]) == ["sentinel2"]
        assert sample["target"].shape == (PATCH, PATCH)


class TestTraining:
    def test_augmentation_moves_training_samples_only(self, flair2_root):
        torch.manual_seed(0)
        plain, moved = flair2(flair2_root), flair2(flair2_root, augment=True)
        before = plain.dataset("train")[0]["target"]
        assert any(not torch.equal(moved.dataset("train")[0]["target"], before) for _ in range(9))
        assert_same(moved.dataset("val")[0], plain.dataset("val")[0])

    def test_own_transform(self, flair2_root):
        data = flair2(flair2_root, augment=lambda sample: {**sample, "sample_id": "mine"})
        assert data.dataset("train")[0]["sample_id"] == "mine"
        assert flair2(flair2_root, augment=RandomD4(flips=False)).dataset("train")[0]["inputs"]

    def test_modality_dropout(self, flair2_root):
        torch.manual_seed(0)
        data = flair2(flair2_root, modality_dropout={"aerial": 0.5, "sentinel2": 0.5})
        dataset = data.dataset("train")
        seen = {tuple(bool(v) for v in dataset[0]["available"].values()) for _ in range(60)}
        assert seen == {(True, True), (True, False), (False, True)}
        assert all(data.dataset("val")[0]["available"].values())

    def test_workers_read_the_same(self, flair2_root):
        batches = []
        for workers in (0, 2):
            data = flair2(flair2_root, num_workers=workers, cloud_cover=True, batch_size=3)
            data.setup("test")
            batches.append(list(data.test_dataloader()))
        assert [len(batch["sample_id"]) for batch in batches[0]] == [3, 1]
        for one, other in zip(*batches, strict=True):
            assert_same(dict(one), dict(other))

    def test_super_areas_are_opened_once(self, flair2_root):
        dataset = flair2(flair2_root).dataset("train")
        for _ in range(3):
            assert len([dataset[i] for i in range(4)]) == 4
        info = open_array.cache_info()
        assert info.misses == 4  # data and masks of two super-areas
        assert info.maxsize < 500


@pytest.mark.shared
class TestRealSamples:
    def test_all_splits(self, shared):
        data = Flair2DataModule(shared / "data" / "flair2", batch_size=4, cloud_cover=True)
        assert data.schema.modalities["aerial"].gsd == 0.2
        for stage in ("fit", "test", "predict"):
            data.setup(stage)
        expected = {
            "train": ["IMG_034217", "IMG_036294", "IMG_050549"],
            "val": ["IMG_000473"],
            "test": ["IMG_084558"],
            "predict": ["IMG_084558"],
        }
        for split, names in expected.items():
            batch = next(iter(getattr(data, f"{split}_dataloader")()))
            assert sorted(batch["sample_id"]) == names
            count = len(names)
            assert batch["inputs"]["aerial"].shape == (count, 5, 512, 512)
            series = batch["inputs"]["sentinel2"]
            assert series.values.shape[0] == count
            assert series.values.shape[2:] == (10, 40, 40)
            assert series.values.dtype == torch.uint16
            for dates, valid in zip(series.dates, series.valid, strict=True):
                assert (dates[valid].diff() > 0).all()
            if split != "predict":
                assert batch["target"].shape == (count, 512, 512)

    def test_classes_of_known_patches(self, shared):
        dataset = Flair2DataModule(shared / "data" / "flair2", augment=False).dataset("train")
        # On disk the masks hold 4, 5, 8; 2, 5, 7, 8, 10; and 1, 3, 6, 7, 8, 10.
        found = [sample["target"].unique().tolist() for sample in dataset]
        assert found == [[3, 4, 7], [1, 4, 6, 7, 9], [0, 2, 5, 6, 7, 9]]

    def test_place_comes_from_the_image_not_from_the_broken_mask(self, shared):
        root = shared / "data" / "flair2"
        data = Flair2DataModule(root, predict_split="val")
        source = data.dataset("predict")[0]["placement"]["source"]
        with rasterio.open(source) as image:
            assert image.crs.to_epsg() == 2154
        mask = root / "flair_labels_train/D004_2021/Z6_NU/msk/MSK_000473.tif"
        with rasterio.open(mask) as file:
            assert file.crs.to_epsg() is None

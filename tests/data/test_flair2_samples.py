import shutil

import numpy as np
import pytest
import rasterio
import torch
from flair2_files import (
    AREA,
    CENTROIDS,
    DATES,
    DAYS,
    ORDER,
    PATCH,
    flair2,
    load,
    sen_folder,
    write_super_area,
)


class TestSample:
    def test_contract(self, flair2_root):
        sample = flair2(flair2_root, cloud_cover=True).dataset("train")[0]
        assert sample["sample_id"] == "IMG_000003"
        image, series = sample["inputs"]["aerial"], sample["inputs"]["sentinel2"]
        assert image.shape == (5, PATCH, PATCH)
        assert image.dtype == torch.uint8
        assert series.values.shape == (len(DATES), 10, 40, 40)
        assert series.values.dtype == torch.uint16
        assert series.dates.tolist() == DAYS
        assert series.valid.all()
        assert sample["target"].shape == (PATCH, PATCH)
        assert sample["target"].dtype == torch.int64
        assert sample["cloud_cover"]["sentinel2"].shape == (1, 40, 40)
        assert all(sample["available"].values())
        assert "placement" not in sample

    def test_pixels_are_those_on_disk(self, flair2_root):
        sample = flair2(flair2_root).dataset("train")[0]
        zone = "D006_2020/Z1_NN"
        with rasterio.open(flair2_root / f"flair_aerial_train/{zone}/img/IMG_000003.tif") as file:
            np.testing.assert_array_equal(sample["inputs"]["aerial"], file.read())
        with rasterio.open(flair2_root / f"flair_labels_train/{zone}/msk/MSK_000003.tif") as file:
            mask = file.read(1).astype(int)
        mask[mask > 13] = 13
        np.testing.assert_array_equal(sample["target"], mask - 1)

    def test_crop_inside_is_plain_indexing(self, flair2_root):
        values = flair2(flair2_root).dataset("train")[0]["inputs"]["sentinel2"].values
        row, col = CENTROIDS[0]
        expected = load(flair2_root)[ORDER, :, row - 20 : row + 20, col - 20 : col + 20]
        np.testing.assert_array_equal(values, expected)

    def test_crop_past_the_border_repeats_the_nearest_pixel(self, flair2_root):
        values = flair2(flair2_root).dataset("train")[1]["inputs"]["sentinel2"].values
        rows = np.arange(8 - 20, 8 + 20).clip(0, AREA[0] - 1)
        cols = np.arange(40 - 20, 40 + 20).clip(0, AREA[1] - 1)
        np.testing.assert_array_equal(values, load(flair2_root)[ORDER][:, :, rows][..., cols])

    def test_centroids_are_row_then_column(self, flair2_copy):
        data = np.zeros((4, 10, *AREA), dtype=np.uint16)
        data[:, :, 30, 24] = 1
        write_super_area(sen_folder(flair2_copy), data)
        values = (
            flair2(flair2_copy, sen_crop_size=10).dataset("train")[0]["inputs"]["sentinel2"].values
        )
        assert values[0, 0].int().nonzero().tolist() == [[5, 5]]

    def test_bands_by_name(self, flair2_root):
        bands = {"aerial": ["nir", "red"], "sentinel2": ["B12", "B02"]}
        inputs = flair2(flair2_root, bands=bands).dataset("train")[0]["inputs"]
        whole = flair2(flair2_root).dataset("train")[0]["inputs"]
        assert torch.equal(inputs["aerial"], whole["aerial"][[3, 0]])
        values = whole["sentinel2"].values.numpy()[:, [9, 0]]
        np.testing.assert_array_equal(inputs["sentinel2"].values, values)

    @pytest.mark.parametrize("kind", [np.int16, np.int32, np.float32, np.float64, ">u2"])
    def test_any_number_type(self, flair2_copy, kind):
        write_super_area(sen_folder(flair2_copy), load(flair2_copy).astype(kind))
        values = flair2(flair2_copy).dataset("train")[0]["inputs"]["sentinel2"].values
        crop = load(flair2_copy)[ORDER][..., 10:50, 4:44]
        np.testing.assert_array_equal(values.numpy().astype(np.float64), crop)

    def test_prediction_knows_its_place_and_needs_no_mask(self, flair2_copy):
        shutil.rmtree(flair2_copy / "flair_2_labels_test")
        for modalities in (["aerial"], ["sentinel2"]):
            data = flair2(flair2_copy, modalities=modalities)
            data.setup("predict")
            batch = next(iter(data.predict_dataloader()))
            assert "target" not in batch
            assert batch["placement"]["window"].tolist() == [[0, 0, PATCH, PATCH]] * 2
            with rasterio.open(batch["placement"]["source"][1]) as file:
                assert file.crs.to_epsg() == 2154
            assert batch["placement"]["source"][1].endswith("img/IMG_000008.tif")

    def test_prediction_of_the_validation_patches(self, flair2_root):
        dataset = flair2(flair2_root, predict_split="val").dataset("predict")
        assert [sample["sample_id"] for sample in dataset] == ["IMG_000001", "IMG_000002"]


class TestDates:
    def test_cloudy_and_snowy_dates_go(self, flair2_copy):
        masks = np.zeros((4, 2, *AREA), dtype=np.uint8)
        masks[0, 1, 10:30, 4:44] = 60  # exactly half of the first crop is cloudy: too much
        masks[1, 0, 10:29, 4:44] = 100  # a little less is snowy
        masks[3, 1] = 59  # below the threshold
        write_super_area(sen_folder(flair2_copy), masks=masks)
        series = flair2(flair2_copy).dataset("train")[0]["inputs"]["sentinel2"]
        # On disk the dates are in the order June 10, March 5, June 20, September 1.
        assert series.dates.tolist() == [DAYS[i] for i in (0, 2, 3)]
        crop = load(flair2_copy)[[1, 2, 3], :, 10:50, 4:44]
        np.testing.assert_array_equal(series.values, crop)

    def test_the_filter_looks_at_the_crop_only(self, flair2_copy):
        masks = np.full((4, 2, *AREA), 100, dtype=np.uint8)
        masks[:, :, 10:50, 4:44] = 0
        write_super_area(sen_folder(flair2_copy), masks=masks)
        dataset = flair2(flair2_copy).dataset("train")
        first, second = dataset[0], dataset[1]
        assert len(first["inputs"]["sentinel2"].dates) == 4
        assert not second["available"]["sentinel2"]

    def test_without_filter_all_stay_and_no_masks_are_needed(self, flair2_copy):
        for masks in (flair2_copy / "flair_sen_train").rglob("*masks.npy"):
            masks.unlink()
        dataset = flair2(flair2_copy, cloud_area=None).dataset("train")
        assert len(dataset[0]["inputs"]["sentinel2"].dates) == 4

    def test_cloud_cover_counts_all_dates(self, flair2_copy):
        masks = np.zeros((4, 2, *AREA), dtype=np.uint8)
        masks[0] = 100
        masks[1, 0, 10, 4] = 80
        write_super_area(sen_folder(flair2_copy), masks=masks)
        sample = flair2(flair2_copy, cloud_cover=True).dataset("train")[0]
        assert len(sample["inputs"]["sentinel2"].dates) == 3
        cover = sample["cloud_cover"]["sentinel2"]
        assert cover.dtype == torch.float32
        assert cover[0, 0, 0] == 0.5
        assert (cover.flatten()[1:] == 0.25).all()

    def test_no_usable_date_makes_the_modality_missing(self, flair2_copy):
        write_super_area(sen_folder(flair2_copy), masks=np.full((4, 2, *AREA), 100, dtype=np.uint8))
        data = flair2(flair2_copy, batch_size=4)
        data.setup("fit")
        sample = data.dataset("train")[0]
        series = sample["inputs"]["sentinel2"]
        assert series.values.shape == (1, 10, 40, 40)
        assert series.values.dtype == torch.uint16
        assert not series.values.any()
        assert series.valid.tolist() == [False]
        assert not sample["available"]["sentinel2"]
        assert sample["available"]["aerial"]
        batch = next(iter(data.train_dataloader()))
        by_name = dict(zip(batch["sample_id"], batch["available"]["sentinel2"], strict=True))
        assert {name: bool(there) for name, there in by_name.items()} == {
            "IMG_000003": False, "IMG_000004": False, "IMG_000005": True, "IMG_000006": True,
        }  # fmt: skip

    def test_monthly_means(self, flair2_root):
        series = flair2(flair2_root, monthly_means=True).dataset("train")[0]["inputs"]["sentinel2"]
        days = np.array(["2020-03-15", "2020-06-15", "2020-09-15"], dtype="datetime64[D]")
        assert series.dates.tolist() == days.astype(int).tolist()
        assert series.values.dtype == torch.float32
        crop = load(flair2_root)[:, :, 10:50, 4:44].astype(np.float32)
        np.testing.assert_allclose(series.values[1], (crop[0] + crop[2]) / 2)
        np.testing.assert_allclose(series.values[2], crop[3])

    def test_limit_of_dates(self, flair2_root):
        series = flair2(flair2_root, max_dates=2).dataset("train")[0]["inputs"]["sentinel2"]
        assert series.dates.tolist() == [DAYS[0], DAYS[-1]]

    def test_series_of_different_lengths_are_padded_and_masked(self, flair2_copy):
        data = load(flair2_copy)
        write_super_area(
            sen_folder(flair2_copy), data[:2], np.zeros((2, 2, *AREA), dtype=np.uint8), DATES[:2]
        )
        loader = flair2(flair2_copy, batch_size=4)
        loader.setup("fit")
        batch = next(iter(loader.train_dataloader()))
        series = batch["inputs"]["sentinel2"]
        assert series.values.shape == (4, 4, 10, 40, 40)
        assert series.values.dtype == torch.uint16
        for i, name in enumerate(batch["sample_id"]):
            steps = 2 if name in ("IMG_000003", "IMG_000004") else 4
            assert series.valid[i].tolist() == [True] * steps + [False] * (4 - steps)
            assert not series.values[i, steps:].any()

    @pytest.mark.parametrize("nothing", [0, np.nan])
    def test_dates_without_a_value_in_the_crop_do_not_count(self, flair2_copy, nothing):
        data = load(flair2_copy).astype(np.float32)
        data[ORDER[0], :, 10:50, 4:44] = nothing  # the first patch, not all of the second
        data[ORDER[1], :, 10:50, 4:43] = nothing
        write_super_area(sen_folder(flair2_copy), data)
        first, second = list(flair2(flair2_copy).dataset("train"))[:2]
        assert first["inputs"]["sentinel2"].dates.tolist() == DAYS[1:]
        assert second["inputs"]["sentinel2"].dates.tolist() == DAYS
        # They are gone before dates are chosen, and before months are averaged.
        few = flair2(flair2_copy, max_dates=2).dataset("train")[0]["inputs"]["sentinel2"]
        assert few.dates.tolist() == [DAYS[1], DAYS[3]]
        means = flair2(flair2_copy, monthly_means=True).dataset("train")[0]["inputs"]["sentinel2"]
        assert len(means.dates) == 2
        write_super_area(sen_folder(flair2_copy), np.full_like(data, nothing))
        sample = flair2(flair2_copy).dataset("train")[0]
        assert not sample["available"]["sentinel2"]
        assert sample["available"]["aerial"]

import json
import shutil

import numpy as np
import pytest
import rasterio
from flair2_files import (
    AREA,
    CENTROIDS,
    DATES,
    PATCH,
    flair2,
    load,
    sen_folder,
    write_super_area,
    write_tif,
)

from fusionlab.cli import run
from fusionlab.errors import InputError


class TestBadData:
    def refuse(self, root, message, split="train", **options):
        with pytest.raises(InputError, match=message):
            flair2(root, **options).dataset(split)

    def test_nothing_given(self):
        self.refuse(None, "root")

    def test_missing_root(self, tmp_path):
        self.refuse(tmp_path / "nowhere", "nowhere, does not exist")

    def test_missing_part_says_what_was_tried(self, flair2_copy):
        shutil.rmtree(flair2_copy / "flair_aerial_train")
        self.refuse(
            flair2_copy, r"flair_aerial_train or .*flair_2_toy_aerial_train or .*train/aerial"
        )

    def test_missing_mask(self, flair2_copy):
        (flair2_copy / "flair_labels_train/D006_2020/Z1_NN/msk/MSK_000004.tif").unlink()
        self.refuse(flair2_copy, r"1 of 4 patches have no mask.*IMG_000004.*MSK_000004\.tif")

    @pytest.mark.parametrize("suffix", [".TIF", ".tiff"])
    def test_other_suffix(self, flair2_copy, suffix):
        image = flair2_copy / "flair_aerial_train/D006_2020/Z1_NN/img/IMG_000004.tif"
        image.rename(image.with_suffix(suffix))
        self.refuse(flair2_copy, rf"1 of the patches in .*img do not.* IMG_000004\{suffix}")

    def test_empty_array(self, flair2_copy):
        (path,) = sen_folder(flair2_copy).glob("*data.npy")
        path.write_bytes(b"")
        self.refuse(flair2_copy, r"Cannot read the array .*data\.npy")

    def test_archive_under_the_name_of_an_array(self, flair2_copy):
        (path,) = sen_folder(flair2_copy).glob("*data.npy")
        with path.open("wb") as file:
            np.savez(file, load(flair2_copy, what="masks"))
        self.refuse(flair2_copy, r"Cannot read the array .*data\.npy: it is an archive")

    def test_unknown_list_of_domains(self):
        with pytest.raises(InputError, match=r"'flair2', 'flair1'\], got 'flair3'"):
            flair2(None, val_domains="flair3")

    @pytest.mark.parametrize("value", [0, 25, 255])
    def test_foreign_label(self, flair2_copy, value):
        mask = np.ones((1, PATCH, PATCH), dtype=np.uint8)
        mask[0, 3, 3] = value
        write_tif(flair2_copy / "flair_labels_train/D006_2020/Z1_NN/msk/MSK_000003.tif", mask)
        with pytest.raises(InputError, match=rf"MSK_000003\.tif holds the values \[{value}\]"):
            flair2(flair2_copy).dataset("train")[0]

    def test_mask_of_another_size(self, flair2_copy):
        mask = np.ones((1, PATCH, PATCH - 1), dtype=np.uint8)
        write_tif(flair2_copy / "flair_labels_train/D006_2020/Z1_NN/msk/MSK_000003.tif", mask)
        with pytest.raises(InputError, match="MSK_000003"):
            flair2(flair2_copy).dataset("train")[0]

    @pytest.mark.parametrize("name", ["aerial_train/{}/img/IMG", "labels_train/{}/msk/MSK"])
    def test_corrupt_tif(self, flair2_copy, name):
        path = flair2_copy / f"flair_{name.format('D006_2020/Z1_NN')}_000004.tif"
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(InputError, match=path.name) as caught:
            flair2(flair2_copy).dataset("train")[1]
        assert isinstance(caught.value.__cause__, rasterio.errors.RasterioError)

    def test_image_without_height(self, flair2_copy):
        image = np.zeros((4, PATCH, PATCH), dtype=np.uint8)
        write_tif(flair2_copy / "flair_aerial_train/D006_2020/Z1_NN/img/IMG_000003.tif", image)
        with pytest.raises(InputError, match=r"IMG_000003\.tif: expected 5 band"):
            flair2(flair2_copy).dataset("train")[0]

    def test_pixel_size_other_than_declared(self, flair2_copy):
        self.refuse(flair2_copy, "aerial_gsd", aerial_gsd=0.2)

    def test_fewer_dates_than_products(self, flair2_copy):
        write_super_area(sen_folder(flair2_copy), dates=DATES[:3])
        self.refuse(flair2_copy, r"4 dates.*3 products")

    def test_masks_of_other_dates(self, flair2_copy):
        write_super_area(sen_folder(flair2_copy), masks=np.zeros((3, 2, *AREA), dtype=np.uint8))
        self.refuse(flair2_copy, r"\(4, 2, 60, 50\).*\(3, 2, 60, 50\)")

    def test_other_bands(self, flair2_copy):
        write_super_area(sen_folder(flair2_copy), load(flair2_copy)[:, :9])
        self.refuse(flair2_copy, r"data\.npy.*\(4, 9, 60, 50\)")

    def test_corrupt_array(self, flair2_copy):
        (path,) = sen_folder(flair2_copy).glob("*data.npy")
        path.write_bytes(path.read_bytes()[:5000])
        self.refuse(flair2_copy, r"Cannot read the array .*data\.npy")

    @pytest.mark.parametrize("what", ["data.npy", "masks.npy", "products.txt"])
    def test_missing_file_of_a_super_area(self, flair2_copy, what):
        (path,) = sen_folder(flair2_copy).glob(f"*{what}")
        path.unlink()
        self.refuse(flair2_copy, what)

    @pytest.mark.parametrize("centre", [[-1, 5], [5, 50], [60, 5]])
    def test_centroid_outside(self, flair2_copy, centre):
        self.change_centroids(flair2_copy, {"IMG_000003.tif": centre})
        self.refuse(flair2_copy, rf"IMG_000003, row {centre[0]} and column {centre[1]}")

    def test_broken_centroids(self, flair2_copy):
        self.change_centroids(flair2_copy, {"IMG_000003.tif": 5})
        self.refuse(flair2_copy, "centroids_sp_to_patch")
        (flair2_copy / "flair-2_centroids_sp_to_patch.json").unlink()
        self.refuse(flair2_copy, "centroids_sp_to_patch")

    def test_missing_centroid_or_super_area(self, flair2_copy):
        self.change_centroids(flair2_copy, {"IMG_000003.tif": None})
        self.refuse(flair2_copy, r"IMG_000003\.tif")
        shutil.rmtree(sen_folder(flair2_copy, "D070_2020"))
        samples = list(flair2(flair2_copy, allow_missing=True, cloud_cover=True).dataset("train"))
        available = [bool(sample["available"]["sentinel2"]) for sample in samples]
        assert available == [False, True, False, False]
        assert (samples[0]["cloud_cover"]["sentinel2"] == 1).all()
        self.change_centroids(flair2_copy, {"IMG_000003.tif": CENTROIDS[0]})
        self.refuse(flair2_copy, "allow_missing")

    def change_centroids(self, root, changes):
        path = root / "flair-2_centroids_sp_to_patch.json"
        centroids = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in centroids.items() if v is not None}))


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_model_whose_only_modality_is_missing_leaves_no_file(command, flair2_root, tmp_path):
    flags = [
        "--model", "SegmentationTask", "--model.model", "small_models.PixelExpert",
        "--model.model.modality", "aerial", "--data", "Flair2DataModule",
        "--data.root", str(flair2_root), "--trainer.accelerator", "cpu",
        "--trainer.enable_progress_bar", "false", "--output", str(tmp_path / "out"),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"takes away all that the model looks at, \['aerial'\]"):
        run([command, *flags, "--data.missing", "[aerial]"])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

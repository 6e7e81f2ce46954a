"""A value per sample: what is known of the target in a window, averaged."""

import json

import numpy as np
import pytest
import rasterio
import torch
from folder_files import SIZE, classes, folders, heights, images, write, write_folders

from fusionlab.data import RandomD4, TargetFolder
from fusionlab.data.folders import reading
from fusionlab.data.transforms import D4
from fusionlab.errors import InputError
from fusionlab.types import Schema

SHAPE = SIZE, SIZE + 6
NODATA = -9999


@pytest.fixture
def root(tmp_path):
    return write_folders(tmp_path / "data")


def means(**options) -> TargetFolder:
    return heights(per_sample=True, **options)


def rewrite(root, *rasters: np.ndarray) -> None:
    """The target of the place b, a band per raster."""
    write(root / "heights/b.tif", np.stack(rasters), place=1, nodata=NODATA)


def targets(root, **options) -> dict[str, list[float]]:
    """Of the place b, by the name of the sample."""
    dataset = folders(root, **{"target": means(), **options}).dataset("val")
    return {sample["sample_id"]: sample["target"].tolist() for sample in dataset}


class TestSchema:
    def test_the_target_is_a_value_per_sample(self, root):
        schema = folders(root, target=means()).schema
        assert schema.target == "scalar_regression"
        assert (schema.variables, schema.units) == (("canopy_height",), ("m",))
        assert (schema.classes, schema.pixelwise, schema.gsd) == ((), False, None)
        assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (classes(per_sample=True), r"per_sample learns the mean of values.*in place of \['wat"),
            (TargetFolder("labels", per_sample=True), "with per_sample: true per sample"),
            (means(ignore=[0]), "ignore is for classes"),
            (means(scale=0), "other than 0"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, root, target, message):
        with pytest.raises(InputError, match=message):
            folders(root, target=target)


class TestMean:
    def test_of_a_whole_file(self, root):
        with rasterio.open(root / "heights/b.tif") as file:
            values = file.read(1, masked=True)
        assert values.mask[:2].all()
        ((name, (mean,)),) = targets(root).items()
        assert name == "b"
        assert mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-6)

    def test_of_windows_by_hand(self, root):
        raster = np.full(SHAPE, 2, np.float32)
        raster[12:, :12] = 4
        raster[0, :12] = 14  # 12 of 144 pixels are 12 higher
        raster[:12, 24:] = 8  # half of the last window, which shares the other with the one before
        rewrite(root, raster)
        assert targets(root, crop=12) == {
            "b_0_0": [3], "b_0_12": [2], "b_0_18": [5],
            "b_12_0": [4], "b_12_12": [2], "b_12_18": [2],
        }  # fmt: skip

    def test_only_what_is_known_counts(self, root):
        raster = np.full(SHAPE, NODATA, np.float32)
        raster[0, :3] = 1, 5, np.nan  # beside nodata, NaN is unknown
        raster[0, 12] = -3
        raster[1, 12] = 77
        found = targets(root_with(root, raster), target=means(nodata=77), crop=12, use=["s2"])
        assert found["b_0_0"] == [3]
        assert found["b_0_12"] == [-3]

    def test_nothing_known_is_nan(self, root):
        raster = np.full(SHAPE, NODATA, np.float32)
        raster[:12] = 6
        found = targets(root_with(root, raster), crop=12)
        assert [np.isnan(mean) for (mean,) in found.values()] == [False] * 3 + [True] * 3

    def test_every_variable_by_itself(self, root):
        height, age = np.full(SHAPE, 3, np.int32), np.full(SHAPE, NODATA, np.int32)
        age[5, 5:7] = 20, 30
        two = TargetFolder("heights", variables=["height", "age"], scale=0.1, per_sample=True)
        rewrite(root, height, age)
        sample = folders(root, target=two).dataset("val")[0]
        assert sample["target"].dtype == torch.float32
        torch.testing.assert_close(sample["target"], torch.tensor([0.3, 2.5]))
        (_, (known, unknown)) = list(targets(root, target=two, crop=12).items())[-1]
        assert known == pytest.approx(0.3)
        assert np.isnan(unknown)

    def test_integers_are_summed_without_overflow(self, root):
        raster = np.full(SHAPE, 65_000, np.uint16)
        write(root / "heights/b.tif", raster[None], place=1)
        assert targets(root) == {"b": [65_000]}

    def test_no_more_than_the_window_is_read_and_once(self, root, monkeypatch):
        windows = []

        def read_values(handles, file, window, **options):
            windows.append((file.path, window.height, window.width))
            return read(handles, file, window, **options)

        read = reading.read_values
        monkeypatch.setattr(reading, "read_values", read_values)
        folders(root, target=means(), use=["s2"], crop=12).dataset("val")[1]
        assert windows == [
            (str(root / "S2/b.tif"), 12, 12), (str(root / "heights/b.tif"), 12, 12),
        ]  # fmt: skip


def root_with(root, *rasters: np.ndarray):
    rewrite(root, *rasters)
    return root


class TestSamples:
    def test_symmetries_leave_it_alone(self, root):
        sample = folders(root, target=means(), crop=12).dataset("val")[0]
        for turns in range(4):
            moved = D4(turns=turns, flip=True)(sample)
            assert torch.equal(moved["target"], sample["target"])
            assert not torch.equal(moved["inputs"]["dem"], sample["inputs"]["dem"])

    def test_training_is_augmented_and_the_value_is_that_of_the_crop(self, root):
        for name in ("a", "north/d"):
            with rasterio.open(root / f"S2/{name}.tif") as file:
                red, profile = file.read(1).astype(np.float32), file.profile
            write(root / f"heights/{name}.tif", red[None], transform=profile["transform"])
        data = folders(root, target=means(), augment=RandomD4(), crop=12, batch_size=4)
        data.setup("fit")
        seen = set()
        for batch in data.train_dataloader():
            assert batch["target"].shape == (4, 1)
            expected = batch["inputs"]["s2"][:, 0].double().mean(dim=(1, 2))
            torch.testing.assert_close(batch["target"][:, 0].double(), expected, rtol=1e-6, atol=0)
            seen.update(batch["sample_id"])
        assert len(seen) > 4

    def test_the_target_may_be_coarser_than_the_images(self, root):
        ramp = np.arange(12 * 15, dtype=np.float32).reshape(1, 12, 15)
        write(root / "DEM/b.tif", ramp, gsd=20, place=1)
        target = TargetFolder("DEM", variables=["elevation"], per_sample=True)
        data = folders(root, target=target, use=["s2"], crop=6, modalities=images())
        sample = data.dataset("val")[1]
        assert sample["inputs"]["s2"].shape == (3, 12, 12)
        assert sample["target"].tolist() == [ramp[0, :6, 6:12].mean()]


class TestPrediction:
    def test_windows_are_placed_but_make_no_map(self, root):
        placed = folders(root, target=means(), crop=16).dataset("predict")
        assert [s["placement"]["window"].tolist() for s in placed] == [
            [0, 0, 16, 16], [0, 14, 16, 16], [8, 0, 16, 16], [8, 14, 16, 16],
        ]  # fmt: skip
        assert all("stride" not in s["placement"] and "target" not in s for s in placed)
        assert (
            "stride" in folders(root, target=heights(), crop=16).dataset("predict")[0]["placement"]
        )

"""RGB and LiDAR pairs: points, resizing, splits, statistics, memory, missing files, prediction."""

import copy
import math
import pickle
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rgb_lidar_files import (
    AZIMUTH,
    CLASSES,
    ZENITH,
    depth,
    image,
    key_of,
    names,
    pairs_of,
    samples,
    write_class,
    write_pairs,
)
from torch.utils.data import DataLoader

from fusionlab.data import MirrorPairs
from fusionlab.data.rgb_lidar import loading, xyza
from fusionlab.data.rgb_lidar.mirror import mirrored
from fusionlab.data.rgb_lidar.scan import nearest
from fusionlab.data.rgb_lidar.splits import apportion
from fusionlab.data.samples import collate
from fusionlab.errors import InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def own(root, tmp_path):
    """A copy that a test may change, without statistics."""
    return shutil.copytree(root, tmp_path / "own", ignore=shutil.ignore_patterns("*.json"))


class TestPoints:
    def test_formula_by_hand(self):
        azimuth, zenith = np.float32([0.3, -0.2]), np.float32([0.1, 0.0, -0.4])
        depths = np.float32([[2, 3, 4], [5, 49.99, 50]])
        points = xyza(depths, azimuth, zenith)
        assert (points.shape, points.dtype) == ((4, 2, 3), np.float32)
        for row, az in enumerate(azimuth.tolist()):
            for column, ze in enumerate(zenith.tolist()):
                d = float(depths[row, column])
                expected = [
                    d * math.sin(-az) * math.cos(-ze),
                    d * math.cos(-az) * math.cos(-ze),
                    d * math.sin(-ze),
                    1.0 if d < 50 else 0.0,
                ]
                assert points[:, row, column].tolist() == pytest.approx(expected, rel=1e-5)

    def test_many_scans_are_as_each_alone(self):
        depths = np.stack([depth(i) for i in range(3)])
        points = xyza(depths, AZIMUTH, ZENITH)
        assert points.shape == (3, 4, 6, 5)
        for one, scan in zip(depths, points, strict=True):
            np.testing.assert_array_equal(scan, xyza(one, AZIMUTH, ZENITH))
        # A point lies as far away as the depth says.
        np.testing.assert_allclose(np.linalg.norm(points[:, :3], axis=1), depths, rtol=1e-5)

    def test_depths_that_are_not_finite_are_no_points(self):
        depths = np.float32([[np.inf, np.nan, 2.0]])
        points = xyza(depths, np.zeros(1, np.float32), np.zeros(3, np.float32))
        assert points[3].tolist() == [[0, 0, 1]]
        assert np.isnan(points[:3, 0, :2]).all()
        assert np.isfinite(points[:, 0, 2]).all()

    def test_the_nearest_rows_are_taken(self):
        assert nearest(4, 2).tolist() == [1, 3]
        assert nearest(2, 4).tolist() == [0, 0, 1, 1]
        assert nearest(5, 5).tolist() == [0, 1, 2, 3, 4]
        assert nearest(1, 3).tolist() == [0, 0, 0]


class TestSamples:
    def test_contract(self, root):
        data = pairs_of(root)
        schema = data.schema
        assert (schema.target, schema.classes) == ("multiclass", ("cubes", "spheres"))
        bands = {name: modality.bands for name, modality in schema.modalities.items()}
        assert bands == {"rgb": ("R", "G", "B", "A"), "lidar": ("X", "Y", "Z", "A")}
        batch = collate(samples(data, "train")[:3])
        rgb, lidar = batch["inputs"]["rgb"], batch["inputs"]["lidar"]
        assert (rgb.shape, rgb.dtype) == ((3, 4, 8, 8), torch.uint8)
        assert (lidar.shape, lidar.dtype) == ((3, 4, 8, 8), torch.float32)
        assert batch["target"].dtype == torch.int64
        assert all(there.all() for there in batch["available"].values())

    @pytest.mark.parametrize("cache", [True, False])
    def test_values_are_those_of_the_files(self, root, cache):
        rows, columns = nearest(6, 8), nearest(5, 8)
        for sample in samples(pairs_of(root, cache=cache), "val"):
            key = key_of(sample["sample_id"])
            pixels = sample["inputs"]["rgb"].numpy()
            np.testing.assert_array_equal(pixels, np.moveaxis(image(key), -1, 0))
            points = xyza(depth(key), AZIMUTH, ZENITH)[:, rows][:, :, columns]
            np.testing.assert_array_equal(sample["inputs"]["lidar"].numpy(), points)
            assert int(sample["target"]) == (key >= CLASSES["cubes"])

    @pytest.mark.parametrize("size", [4, 16, 5])
    def test_resizing(self, root, size):
        sample = samples(pairs_of(root, size=size), "test")[0]
        assert sample["inputs"]["rgb"].shape == sample["inputs"]["lidar"].shape == (4, size, size)
        # Images keep their mean, scans hold nothing that was not measured.
        key = key_of(sample["sample_id"])
        means = sample["inputs"]["rgb"].float().mean(dim=(1, 2)).numpy()
        np.testing.assert_allclose(means, image(key).mean(axis=(0, 1)), atol=8)
        points = {tuple(p) for p in xyza(depth(key), AZIMUTH, ZENITH).reshape(4, -1).T.tolist()}
        assert {tuple(p) for p in sample["inputs"]["lidar"].flatten(1).T.tolist()} <= points

    def test_smaller_images_weigh_every_pixel(self):
        pixels = np.zeros((1, 4, 8, 8), np.uint8)
        pixels[..., 3, 3] = 255  # bilinear sampling without antialiasing would not see it
        assert loading.resized(pixels, 2).max() > 0
        assert loading.resized(np.full((1, 4, 9, 7), 77, np.uint8), 5).unique().tolist() == [77]

    def test_memory_is_shared_and_gives_what_files_give(self, root):
        data = pairs_of(root)
        first, second = data.dataset("test"), data.dataset("test")
        assert first.cached["rgb"].data_ptr() == second.cached["rgb"].data_ptr()
        before = {name: values.clone() for name, values in first.cached.items()}
        batches = list(DataLoader(first, 2, collate_fn=collate, num_workers=2))
        assert [len(batch["target"]) for batch in batches] == [2, 1]
        for name, values in before.items():
            read = torch.cat([batch["inputs"][name] for batch in batches])
            assert torch.equal(read, values)
            assert torch.equal(first.cached[name], values)

    def test_files_are_read_once(self, root, monkeypatch):
        data = pairs_of(root)
        dataset = data.dataset("train")
        monkeypatch.setattr(loading, "read_image", None)
        monkeypatch.setattr(loading, "read_depth", None)
        assert len([dataset[i] for i in range(len(dataset))]) == len(data.dataset("train"))

    def test_it_can_be_copied_and_pickled(self, root):
        data = pairs_of(root, augment=True)
        data.setup("fit")
        for twin in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
            assert twin.schema == data.schema
            assert names(twin, "val") == names(data, "val")

    def test_one_modality_keeps_the_split(self, root):
        alone = pairs_of(root, modalities=["lidar"])
        assert list(alone.schema.modalities) == ["lidar"]
        for split in ("train", "val", "test"):
            assert names(alone, split) == names(pairs_of(root), split)
        assert list(samples(alone, "val")[0]["inputs"]) == ["lidar"]
        assert list(pairs_of(root, modalities=["lidar", "rgb"]).schema.modalities) == [
            "rgb", "lidar",
        ]  # fmt: skip


class TestSplits:
    @given(
        counts=st.lists(st.integers(1, 500), min_size=1, max_size=6),
        share=st.floats(0.01, 0.9),
    )
    def test_shares_are_kept_to_the_pair(self, counts, share):
        found = apportion(np.array(counts), share)
        exact = share * np.array(counts)
        total = round(share * sum(counts))
        if total:
            assert (np.abs(found - exact) <= 1 + 0.5 / len(counts)).all() or found.min() == 1
            assert found.sum() == total or (found == 1).any()
        else:
            assert not found.any()

    def test_sizes(self, tmp_path):
        root = write_pairs(tmp_path, {"a": 20, "b": 60})
        for options, sizes in (
            ({}, (64, 8, 8)),
            ({"val_size": 12, "test_size": 0.25}, (48, 12, 20)),
            ({"val_size": 0, "test_size": 0.1}, (72, 0, 8)),
        ):
            data = pairs_of(root, statistics=tmp_path / "store", **options)
            found = [data._parts[part] for part in ("train", "val", "test")]
            assert tuple(map(len, found)) == sizes
            assert sorted(np.concatenate(found)) == list(range(80))
            for rows in found:
                if len(rows):
                    assert np.bincount(data.pairs.folder[rows]).tolist() == [
                        len(rows) // 4, len(rows) * 3 // 4,
                    ]  # fmt: skip
        with pytest.raises(InputError, match="'val' is empty: val_size is 0"):
            data.dataset("val")

    def test_only_their_own_seed_changes_them(self, root, monkeypatch):
        first = pairs_of(root)
        monkeypatch.setenv("PL_GLOBAL_SEED", "7")
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002
        other = pairs_of(root, subset_seed=3)
        assert names(other, "test") == names(first, "test")
        assert names(pairs_of(root, split_seed=1), "test") != names(first, "test")

    def test_a_pair_more_changes_little(self, own):
        before = set(names(pairs_of(own), "test"))
        np.save(own / "spheres" / "lidar" / "9999.npy", depth(1))
        shutil.copy(own / "spheres" / "rgb" / "0000.png", own / "spheres" / "rgb" / "9999.png")
        assert len(before - set(names(pairs_of(own), "test"))) <= 1

    def test_part_of_the_pairs(self, root):
        whole, half = pairs_of(root), pairs_of(root, fraction=0.5)
        assert set(names(half, "train")) < set(names(whole, "train"))
        assert len(half.dataset("train")) == round(len(whole.dataset("train")) / 2)
        assert names(half, "val") == names(whole, "val")
        few = pairs_of(root, max_samples=2)
        assert [len(few.dataset(split)) for split in ("train", "val", "test")] == [2, 2, 2]

    def test_any_number_of_classes_in_the_order_of_names(self, tmp_path):
        root = write_pairs(tmp_path, {"cones": 5, "balls": 5, "arches": 5})
        assert pairs_of(root).schema.classes == ("arches", "balls", "cones")
        (root / "notes").mkdir()
        two = pairs_of(root, classes=["cones", "arches"])
        assert two.schema.classes == ("arches", "cones")
        assert {int(s["target"]) for s in samples(two, "train")} == {0, 1}


class TestMissing:
    @pytest.fixture
    def incomplete(self, own):
        (own / "cubes" / "lidar" / "0003.npy").unlink()
        (own / "spheres" / "rgb" / "0004.png").unlink()
        return own

    def test_it_is_marked(self, incomplete):
        data = pairs_of(incomplete, allow_missing=True)
        found = {
            s["sample_id"]: s for part in ("train", "val", "test") for s in samples(data, part)
        }
        assert len(found) == 32
        for name, sample in found.items():
            available = {sensor: bool(there) for sensor, there in sample["available"].items()}
            expected = {"rgb": name != "spheres/0004", "lidar": name != "cubes/0003"}
            assert available == expected
            for sensor, there in expected.items():
                assert bool(sample["inputs"][sensor].any()) == there

    @pytest.mark.parametrize("cache", [True, False])
    def test_it_does_not_matter_where_samples_come_from(self, incomplete, cache):
        found = samples(pairs_of(incomplete, allow_missing=True, cache=cache), "train")
        other = samples(pairs_of(incomplete, allow_missing=True, cache=not cache), "train")
        for one, two in zip(found, other, strict=True):
            assert all(torch.equal(one["inputs"][s], two["inputs"][s]) for s in one["inputs"])

    def test_it_changes_no_split_and_no_mean(self, incomplete, root):
        data, whole = pairs_of(incomplete, allow_missing=True), pairs_of(root)
        assert names(data, "test") == names(whole, "test")
        values = [s["inputs"]["lidar"] for s in samples(data, "train") if s["available"]["lidar"]]
        assert data.schema.modalities["lidar"].mean == pytest.approx(
            torch.stack(values).double().mean(dim=(0, 2, 3)).tolist(), rel=1e-5, abs=1e-7
        )

    def test_of_the_only_modality_the_pair_is_left_out(self, incomplete, caplog):
        data = pairs_of(incomplete, modalities=["lidar"], allow_missing=True)
        every = [name for part in ("train", "val", "test") for name in names(data, part)]
        assert len(every) == 31
        assert "cubes/0003" not in every
        assert "1 of" in caplog.text

    def test_what_is_not_wanted_may_be_missing(self, own):
        shutil.rmtree(own / "cubes" / "lidar")
        data = pairs_of(own, modalities=["rgb"])
        assert len(data.dataset("train")) == 26

    def test_withheld_modalities(self, root):
        data = pairs_of(root, missing=["rgb"])
        data.setup("test")
        batch = next(iter(data.test_dataloader()))
        assert not batch["available"]["rgb"].any()
        assert not batch["inputs"]["rgb"].any()
        assert batch["available"]["lidar"].all()


class TestMirror:
    def test_it_shows_the_mirrored_scene(self):
        zenith = np.linspace(-0.3, 0.3, 5).astype(np.float32)
        depths = depth(0)
        here, there = (
            torch.from_numpy(xyza(d, AZIMUTH, zenith)) for d in (depths, depths[:, ::-1])
        )
        pixels = torch.from_numpy(np.moveaxis(image(0), -1, 0).copy())
        sample = {"inputs": {"rgb": pixels, "lidar": here}, "target": torch.tensor(1)}
        before = here.clone()
        found = mirrored(sample)
        assert torch.equal(sample["inputs"]["lidar"], before)
        assert torch.equal(found["inputs"]["rgb"], pixels.flip(-1))
        assert torch.allclose(found["inputs"]["lidar"], there, atol=1e-6)
        assert torch.equal(
            sample["inputs"]["lidar"], torch.from_numpy(xyza(depths, AZIMUTH, zenith))
        )
        again = mirrored(found)["inputs"]
        assert all(torch.equal(again[name], sample["inputs"][name]) for name in again)

    def test_half_of_the_training_samples(self, root):
        plain, data = pairs_of(root), pairs_of(root, augment=True)
        torch.manual_seed(0)
        changed = [
            not torch.equal(a["inputs"]["rgb"], b["inputs"]["rgb"])
            for a, b in zip(samples(plain, "train"), samples(data, "train"), strict=True)
        ]
        assert 0 < sum(changed) < len(changed)
        assert not data.transforms("val")
        with pytest.raises(InputError, match="probability"):
            MirrorPairs(1.5)


class TestPredict:
    @pytest.mark.parametrize("part", ["test", "val", "train"])
    def test_a_split(self, root, part):
        data = pairs_of(root, predict_split=part)
        found = samples(data, "predict")
        assert [s["sample_id"] for s in found] == names(data, part)
        assert "target" not in found[0]

    def test_all_pairs_of_a_folder(self, tmp_path):
        write_class(tmp_path / "new", 3)
        (tmp_path / "new" / "rgb" / "0001.png").unlink()
        data = pairs_of(tmp_path / "new", predict_split="folder")
        assert data.schema.classes == ()
        found = samples(data, "predict")
        assert [s["sample_id"] for s in found] == ["0000", "0001", "0002"]
        assert [bool(s["available"]["rgb"]) for s in found] == [True, False, True]
        assert not list((tmp_path / "new").glob("*.json"))
        above = pairs_of(tmp_path, predict_split="folder")
        assert names(above, "predict") == ["new/0000", "new/0001", "new/0002"]
        with pytest.raises(InputError, match="Leave predict_split out"):
            above.dataset("train")

    def test_names_are_in_order(self, root):
        data = pairs_of(root, predict_split="folder")
        assert all(a < b for a, b in pairwise(names(data, "predict")))
        assert len(data.dataset("predict")) == 32

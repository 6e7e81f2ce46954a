"""Samples of BigEarthNet v2: bands by name, grids, splits, subsets, targets, missing sensors."""

import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
import torch
from bigearthnet_files import (
    AUSTRIA,
    CODES,
    FINLAND,
    IRELAND,
    ROWS,
    bigearthnet,
    pixels,
    remove_keys,
    s1_folder,
    samples,
    write_lmdb,
    write_v2,
)
from torch.utils.data import DataLoader

from fusionlab.data.base import collate
from fusionlab.data.bigearthnet import constants, index
from fusionlab.data.bigearthnet.constants import CLASSES, CLASSES_PAPER, CORINE


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny set that tests read only."""
    folder = tmp_path_factory.mktemp("bigearthnet")
    write_lmdb(folder / "lmdb")
    return write_v2(folder)


@pytest.fixture(params=["folders", "lmdb"])
def either(request, root):
    """Options that read the same set from the folders and from the LMDB."""
    return {} if request.param == "folders" else {"lmdb": root / "lmdb"}


class TestSamples:
    def test_bands_come_by_name_from_files_named_by_the_metadata(self, root, either):
        found = samples(bigearthnet(root, **either), "train")
        rows = {row.s2: row for row in ROWS}
        assert [sample["sample_id"] for sample in found] == [
            f"{AUSTRIA}_26_57", f"{AUSTRIA}_27_07", f"{IRELAND}_04_55"
        ]  # fmt: skip
        for sample in found:
            row = rows[sample["sample_id"]]
            s1, s2 = sample["inputs"]["s1"], sample["inputs"]["s2"]
            assert s1.dtype == torch.float32
            assert s2.dtype == torch.uint16
            for channel, band in zip(s1, ("VV", "VH"), strict=True):
                assert np.array_equal(channel.numpy(), pixels(row.s1, band))
            for channel, band in zip(s2, constants.MODALITIES["s2"], strict=True):
                values = pixels(row.s2, band)
                factor = 120 // len(values)
                expected = np.kron(values, np.ones((factor, factor), np.uint16))
                assert np.array_equal(channel.numpy(), expected)
            labels = {CLASSES[i] for i in np.flatnonzero(sample["target"].numpy())}
            assert sample["target"].dtype == torch.float32
            assert labels == set(row.labels)
            assert sample["available"] == {"s1": torch.tensor(True), "s2": torch.tensor(True)}
            assert "placement" not in sample

    def test_each_modality_lies_on_the_grid_of_its_finest_band(self, root, either):
        modalities = {
            "rgb": "RGB", "coarse": "60m", "mixed": ["VH", "B8A"], "middle": ["B01", "B05"],
        }  # fmt: skip
        data = bigearthnet(root, modalities=modalities, **either)
        inputs = samples(data, "val")[0]["inputs"]
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        assert shapes == {
            "rgb": (3, 120, 120), "coarse": (2, 20, 20), "mixed": (2, 120, 120),
            "middle": (2, 60, 60),
        }  # fmt: skip
        gsd = {name: modality.gsd for name, modality in data.schema.modalities.items()}
        assert gsd == {"rgb": 10, "coarse": 60, "mixed": 10, "middle": 20}
        preparation = {
            name: modality.preparation["image_size"]
            for name, modality in data.schema.modalities.items()
        }
        assert preparation == {"rgb": 120, "coarse": 20, "mixed": 120, "middle": 60}
        row = ROWS[3]
        assert inputs["rgb"].dtype == inputs["coarse"].dtype == torch.uint16
        assert inputs["mixed"].dtype == torch.float32
        assert np.array_equal(inputs["rgb"][0].numpy(), pixels(row.s2, "B04"))
        assert np.array_equal(inputs["mixed"][0].numpy(), pixels(row.s1, "VH"))
        assert inputs["mixed"][1, 119, 119] == pixels(row.s2, "B8A")[59, 59]

    def test_bilinear_images_are_float(self, root):
        data = bigearthnet(root, upsampling="bilinear", modalities={"s2": "10m_20m", "rgb": "RGB"})
        inputs = samples(data, "val")[0]["inputs"]
        assert inputs["s2"].dtype == torch.float32
        assert inputs["rgb"].dtype == torch.uint16  # nothing to interpolate
        b05 = constants.MODALITIES["s2"].index("B05")
        assert not np.array_equal(
            inputs["s2"][b05].numpy(), np.kron(pixels(ROWS[3].s2, "B05"), np.ones((2, 2)))
        )

    def test_reference_maps_are_classes_and_255_elsewhere(self, root, either):
        data = bigearthnet(root, target="reference_map", class_order="paper", **either)
        target = samples(data, "val")[0]["target"]
        codes = pixels(ROWS[3].s2, "reference_map")
        assert target.shape == (120, 120)
        assert target.dtype == torch.int64
        for code in CODES:
            expected = CLASSES_PAPER.index(CORINE[code]) if code in CORINE else 255
            assert (target.numpy()[codes == code] == expected).all()
        assert data.schema.target == "segmentation"
        assert data.schema.gsd == 10

    def test_tiff_is_accepted_too(self, root, tmp_path):
        write_v2(tmp_path, suffix=".tiff")
        options = {"target": "reference_map"}
        ours = samples(bigearthnet(tmp_path, **options), "test")
        theirs = samples(bigearthnet(root, **options), "test")
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a["inputs"]["s2"], b["inputs"]["s2"])
            assert torch.equal(a["target"], b["target"])
        placed = samples(bigearthnet(tmp_path, predict_split="test"), "predict")
        assert placed[0]["placement"]["source"].endswith("_B02.tiff")

    def test_only_what_is_asked_for_is_read(self, root, tmp_path):
        copy = shutil.copytree(root, tmp_path / "copy")
        shutil.rmtree(copy / "BigEarthNet-S1")
        shutil.rmtree(copy / "Reference_Maps")
        for path in copy.glob("BigEarthNet-S2/*/*/*_B01.tif"):
            path.unlink()
        assert len(samples(bigearthnet(copy, modalities={"s2": "10m"}), "train")) == 3

    def test_parts_may_lie_anywhere(self, root, tmp_path):
        shutil.copytree(root / "BigEarthNet-S2", tmp_path / "optical")
        shutil.copytree(root / "BigEarthNet-S1", tmp_path / "radar")
        shutil.copytree(root / "Reference_Maps", tmp_path / "maps")
        shutil.copy(root / "metadata.parquet", tmp_path / "table.parquet")
        data = bigearthnet(
            None,
            s1_root=tmp_path / "radar",
            s2_root=tmp_path / "optical",
            reference_maps=tmp_path / "maps",
            metadata=tmp_path / "table.parquet",
            target="reference_map",
        )
        assert len(samples(data, "train")) == 3

    def test_the_metadata_are_found_beside_the_lmdb(self, root):
        assert len(bigearthnet(None, lmdb=root / "lmdb").dataset("test")) == 2


class TestSchema:
    def test_it_says_all_a_model_needs(self, root):
        schema = bigearthnet(root).schema
        assert schema.classes == CLASSES
        assert schema.target == "multilabel"
        assert schema.gsd is None
        assert schema.colors == tuple(constants.COLORS[name] for name in CLASSES)
        s1, s2 = schema.modalities["s1"], schema.modalities["s2"]
        assert s1.bands == ("VV", "VH")
        assert s1.mean == pytest.approx((-12.643864, -19.352558))
        assert s2.bands == constants.MODALITIES["s2"]
        assert s2.std[s2.bands.index("B8A")] == pytest.approx(1356.544067)
        assert s2.preparation == {"image_size": 120, "upsampling": "nearest"}

    def test_statistics_follow_upsampling_and_version(self, root):
        def mean(**options):
            schema = bigearthnet(root, modalities={"a": ["B02", "B05"], "b": "20m"}, **options)
            return [m.mean[m.bands.index("B05")] for m in schema.schema.modalities.values()]

        assert mean() == pytest.approx([942.843323, 942.843323])
        # The bands of 20 m alone are not interpolated.
        assert mean(upsampling="bilinear") == pytest.approx([942.747681, 942.843323])
        assert mean(version="v1") == pytest.approx([950.683685, 950.683685])

    def test_statistics_may_be_given(self, root):
        s1 = bigearthnet(root, mean={"s1": [-10, -20]}, std={"s1": [1, 2]}).schema.modalities["s1"]
        assert (s1.mean, s1.std) == ((-10, -20), (1, 2))

    def test_orders_are_the_same_labels(self, root):
        targets = {}
        for order in ("alphabetical", "paper"):
            data = bigearthnet(root, class_order=order)
            rows = samples(data, "train")
            targets[order] = [
                {data.schema.classes[i] for i in np.flatnonzero(row["target"])} for row in rows
            ]
        assert targets["alphabetical"] == targets["paper"]
        assert bigearthnet(root, class_order="paper").schema.classes == CLASSES_PAPER


class TestSplits:
    def ids(self, root, split="train", **options):
        return [sample["sample_id"] for sample in samples(bigearthnet(root, **options), split)]

    def test_the_official_protocol_leaves_snow_and_clouds_out(self, root):
        assert len(self.ids(root, "test")) == 2
        both = self.ids(root, "test", include_snow_cloud=True)
        assert len(both) == 3
        assert f"{FINLAND}_70_24" in both

    def test_countries_and_seasons(self, root):
        assert self.ids(root, countries=["Ireland"]) == [f"{IRELAND}_04_55"]
        assert self.ids(root, seasons=["winter", "autumn"]) == [f"{IRELAND}_04_55"]
        assert len(self.ids(root, seasons=["summer"])) == 2
        assert self.ids(root, "test", countries=["Finland", "Austria"]) == [f"{FINLAND}_69_24"]

    def test_a_fraction_is_of_the_training_split_unless_it_says_more(self, root):
        assert len(self.ids(root, fraction=0.4)) == 1
        assert len(self.ids(root, "test", fraction=0.4)) == 2
        assert len(self.ids(root, "test", fraction={"test": 0.5})) == 1
        assert len(self.ids(root, max_samples=1)) == len(self.ids(root, "test", max_samples=1)) == 1
        assert len(self.ids(root, "test", max_samples={"train": 1})) == 2


class TestMissing:
    @pytest.fixture
    def damaged(self, root, either, tmp_path):
        """Without the Sentinel-1 of the first training patch, and nothing of the second."""
        copy = shutil.copytree(root, tmp_path / "copy")
        first, second = ROWS[1], ROWS[2]
        if either:
            remove_keys(copy / "lmdb", first.s1, second.s1, second.s2)
            return {"root": copy, "lmdb": copy / "lmdb"}
        for folder in (
            s1_folder(copy, first), s1_folder(copy, second),
            copy / "BigEarthNet-S2" / AUSTRIA / second.s2,
        ):  # fmt: skip
            shutil.rmtree(folder)
        return {"root": copy}

    def test_missing_is_said_per_sample_and_nothing_at_all_is_left_out(self, damaged, caplog):
        modalities = {"s1": "S1", "s2": "10m_20m", "both": ["VV", "B05"]}
        data = bigearthnet(**damaged, allow_missing=True, modalities=modalities)
        first, last = samples(data, "train")
        assert "1 of 3 patches of 'train' have none" in caplog.text
        assert first["sample_id"] == ROWS[1].s2
        available = {name: bool(value) for name, value in first["available"].items()}
        assert available == {"s1": False, "s2": True, "both": False}
        assert first["inputs"]["s1"].shape == (2, 120, 120)
        assert first["inputs"]["s1"].dtype == torch.float32
        assert not first["inputs"]["s1"].any()
        assert not first["inputs"]["both"].any()
        assert np.array_equal(first["inputs"]["s2"][0].numpy(), pixels(ROWS[1].s2, "B02"))
        assert all(last["available"].values())
        batch = collate([first, last])
        assert batch["available"]["s1"].tolist() == [False, True]

    def test_a_sensor_without_a_folder_is_missing_everywhere(self, root, tmp_path):
        copy = shutil.copytree(root, tmp_path / "copy")
        shutil.rmtree(copy / "BigEarthNet-S1")
        for sample in samples(bigearthnet(copy, allow_missing=True), "train"):
            assert not sample["available"]["s1"]
            assert sample["available"]["s2"]


class TestTraining:
    def test_augmentation_moves_images_and_map_together(self, root):
        modalities = {"s2": ["B02", "B05"], "coarse": "60m"}
        options = {"modalities": modalities, "target": "reference_map"}
        plain = samples(bigearthnet(root, **options), "train")
        torch.manual_seed(0)
        dataset = bigearthnet(root, augment=True, **options).dataset("train")
        moved = 0
        for _ in range(4):
            for before, i in zip(plain, range(3), strict=True):
                after = dataset[i]
                turned = [
                    (turns, flip)
                    for turns in range(4)
                    for flip in (False, True)
                    if all(
                        np.array_equal(a, np.rot90(b[..., ::-1] if flip else b, turns, (-2, -1)))
                        for a, b in (
                            (after["target"].numpy(), before["target"].numpy()),
                            (after["inputs"]["s2"].numpy(), before["inputs"]["s2"].numpy()),
                            (after["inputs"]["coarse"].numpy(), before["inputs"]["coarse"].numpy()),
                        )
                    )
                ]
                assert turned
                moved += turned[0] != (0, False)
        assert moved

    def test_modality_dropout_takes_modalities_from_training_samples(self, root):
        data = bigearthnet(root, modality_dropout={"s1": 1.0})
        assert not any(sample["available"]["s1"] for sample in samples(data, "train"))
        assert all(sample["available"]["s1"] for sample in samples(data, "test"))

    @pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
    def test_workers_read_what_the_main_process_reads(self, root, either, context):
        if context not in multiprocessing.get_all_start_methods():
            pytest.skip(f"this system cannot {context} processes")
        dataset = bigearthnet(root, **either).dataset("train")
        here = [dataset[i] for i in range(3)]  # the database is open in this process by now
        loader = DataLoader(
            dataset, num_workers=2, collate_fn=collate, multiprocessing_context=context
        )
        for _ in range(1 if context == "spawn" else 2):
            for sample, batch in zip(here, loader, strict=True):
                assert torch.equal(batch["inputs"]["s2"][0], sample["inputs"]["s2"])
                assert torch.equal(batch["inputs"]["s1"][0], sample["inputs"]["s1"])
        assert torch.equal(dataset[0]["inputs"]["s2"], here[0]["inputs"]["s2"])

    def test_two_splits_share_one_open_database(self, root):
        data = bigearthnet(root, lmdb=root / "lmdb")
        train, val = data.dataset("train"), data.dataset("val")
        copied = pickle.loads(pickle.dumps(train))
        assert torch.equal(copied[0]["inputs"]["s1"], train[0]["inputs"]["s1"])
        assert val[0]["sample_id"] == ROWS[3].s2

    def test_the_data_set_stays_small_when_it_is_handed_to_workers(self, root):
        names = [f"{AUSTRIA}_{i // 100:02d}_{i % 100:02d}" for i in range(10_000)]
        import pyarrow as pa

        column = pa.array(names)
        patches = index.Patches(column, column, np.zeros((len(names), 19), bool))
        assert len(pickle.dumps(patches)) < 150 * len(names)

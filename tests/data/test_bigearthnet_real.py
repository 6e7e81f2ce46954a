"""BigEarthNet as published: six real pairs, a real LMDB, and the whole official metadata."""

import json
import struct

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from bigearthnet_files import bigearthnet, samples

from fusionlab.data.bigearthnet import index
from fusionlab.data.bigearthnet.constants import CLASSES, CLASSES_PAPER, S1_BANDS, S2_BANDS

pytestmark = pytest.mark.shared

ROWS = {"train": 237_871, "val": 122_342, "test": 119_825}
POSITIVES = {
    "train": (33626, 6398, 88236, 15190, 42968, 51034, 60127, 15082, 64164, 76344, 78791, 6984,
              6329, 64198, 738, 11344, 670, 30466, 35914),
    "val": (17308, 2726, 49737, 8688, 25915, 26486, 32736, 8157, 35387, 39554, 42705, 2687, 3806,
            36429, 426, 5056, 610, 15900, 14064),
    "test": (12824, 2018, 50052, 5710, 26722, 22078, 29846, 9942, 36377, 39043, 44284, 2211, 3759,
             40523, 152, 4519, 117, 16846, 11854),
}  # fmt: skip
"""How many patches have each class, in the paper's order."""


@pytest.fixture(scope="module")
def root(shared):
    return shared / "data" / "bigearthnet_v2"


def published(root):
    tables = [pq.read_table(path).to_pylist() for path in sorted(root.glob("metadata*.parquet"))]
    return {row["patch_id"]: row for table in tables for row in table}


@pytest.mark.parametrize("order", ["alphabetical", "paper"])
def test_all_six_pairs_have_their_bands_labels_and_splits(root, order):
    rows = published(root)
    modalities = {"s1": list(S1_BANDS), "s2": list(S2_BANDS), "native": "20m", "coarse": "60m"}
    data = bigearthnet(
        root, include_snow_cloud=True, modalities=modalities, class_order=order
    )  # fmt: skip
    seen = set()
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        for sample in samples(data, split):
            row = rows[sample["sample_id"]]
            seen.add(sample["sample_id"])
            assert row["split"] == name
            labels = [data.schema.classes[i] for i in np.flatnonzero(sample["target"])]
            assert sorted(labels) == row["labels"]
            for band, channel in zip(S2_BANDS, sample["inputs"]["s2"].numpy(), strict=True):
                values = raw(root, "BigEarthNet-S2", row["patch_id"], band)
                assert values.dtype == np.uint16
                factor = 120 // len(values)
                expected = np.kron(values, np.ones((factor, factor), np.uint16))
                assert np.array_equal(channel, expected)
            native = dict(zip(("B05", "B06", "B07", "B8A", "B11", "B12"),
                              sample["inputs"]["native"].numpy(), strict=True))  # fmt: skip
            values = raw(root, "BigEarthNet-S2", row["patch_id"], "B8A")
            assert np.array_equal(native["B8A"], values)
            vv, vh = sample["inputs"]["s1"].numpy()
            assert vv.dtype == np.float32
            assert np.array_equal(vv, raw(root, "BigEarthNet-S1", row["s1_name"], "VV"))
            assert np.array_equal(vh, raw(root, "BigEarthNet-S1", row["s1_name"], "VH"))
            assert vv.mean() > vh.mean() + 3  # cross polarisation returns less
            assert (vv != vv.round()).mean() > 0.99  # decibel, not whole numbers
    assert seen == set(rows)
    assert len(seen) == 6


def raw(root, sensor, name, band):
    (path,) = (root / sensor).glob(f"*/{name}/{name}_{band}.tif")
    with rasterio.open(path) as source:
        return source.read(1)


def test_the_snowy_pair_is_left_out_by_default(root):
    data = bigearthnet(root)
    numbers = {split: len(data.dataset(split)) for split in ("train", "val", "test")}
    assert numbers == {"train": 3, "val": 1, "test": 1}


def test_new_patches_are_paired_as_the_metadata_say(root):
    rows = published(root)
    data = bigearthnet(root, predict_split="folder").dataset("predict")
    pairs = dict(zip(data.patches.s2.to_pylist(), data.patches.s1.to_pylist(), strict=True))
    assert pairs == {name: row["s1_name"] for name, row in rows.items()}


def test_the_lmdb_holds_what_its_blobs_hold(shared):
    import lmdb

    folder = shared / "data" / "bigearthnet_lmdb"
    with lmdb.open(str(folder), readonly=True, lock=False) as database, database.begin() as reader:
        blobs = {bytes(key).decode(): bytes(value) for key, value in reader.cursor()}
    data = bigearthnet(
        None, lmdb=folder, predict_split="folder", modalities={
            "s1": "S1", "fine": "10m", "middle": "20m", "coarse": "60m",
        },
    )  # fmt: skip
    found = {sample["sample_id"]: sample for sample in samples(data, "predict")}
    assert set(found) == set(blobs)
    compared = 0
    for name, blob in blobs.items():
        (length,) = struct.unpack_from("<Q", blob)
        header = json.loads(blob[8 : 8 + length])
        for modality, contract in data.schema.modalities.items():
            if not found[name]["available"][modality]:
                continue
            channels = found[name]["inputs"][modality].numpy()
            for band, channel in zip(contract.bands, channels, strict=True):
                start, end = header[band]["data_offsets"]
                assert channel.tobytes() == blob[8 + length + start : 8 + length + end]
                compared += 1
    assert compared == 14
    s2 = next(sample for name, sample in found.items() if name.startswith("S2"))
    assert s2["inputs"]["s1"].dtype == torch.float32
    assert not s2["available"]["s1"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_official_splits_and_classes(shared, split):
    table = shared / "data" / "bigearthnet_full_metadata" / "metadata.parquet"
    options = {"s1": True, "countries": None}
    counts = {}
    for order in (CLASSES, CLASSES_PAPER):
        patches = index.read_tables([table], split, labels=order, **options)
        assert len(patches) == ROWS[split]
        assert patches.labels.dtype == bool
        counts[order] = dict(zip(order, patches.labels.sum(axis=0).tolist(), strict=True))
    assert counts[CLASSES] == counts[CLASSES_PAPER]
    assert tuple(counts[CLASSES_PAPER].values()) == POSITIVES[split]


def test_countries_of_the_official_table(shared):
    table = shared / "data" / "bigearthnet_full_metadata" / "metadata.parquet"
    numbers = {
        country: len(index.read_tables([table], "test", labels=None, s1=False, countries=[country]))
        for country in ("Belgium", "Finland", "Luxembourg", "Kosovo")
    }
    assert numbers == {"Belgium": 142, "Finland": 40_802, "Luxembourg": 441, "Kosovo": 280}

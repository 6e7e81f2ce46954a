"""Prediction on patches of BigEarthNet: splits, new patches without metadata, and their maps."""

import shutil

import numpy as np
import pytest
import rasterio
import torch
from bigearthnet_files import (
    AUSTRIA,
    FINLAND,
    IRELAND,
    ROWS,
    bigearthnet,
    pixels,
    s2_folder,
    samples,
    write_lmdb,
    write_v2,
)
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningModule
from raster_scenes import trainer

from fusionlab.callbacks.geotiff_writer import GeoTiffWriter
from fusionlab.data.base import collate
from fusionlab.data.bigearthnet.pairing import pair


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bigearthnet")
    write_lmdb(folder / "lmdb")
    return write_v2(folder)


class TestPlacement:
    def test_samples_say_where_they_lie(self, root):
        found = samples(bigearthnet(root, predict_split="test", augment=True), "predict")
        batch = collate(found)
        placement = batch["placement"]
        row = ROWS[4]
        assert placement["source"][0] == str(s2_folder(root, row) / f"{row.s2}_B02.tif")
        assert placement["window"].tolist() == [[0, 0, 120, 120]] * 2
        assert placement["shape"].tolist() == [[120, 120]] * 2
        assert placement["gsd"].tolist() == [10, 10]
        assert np.array_equal(found[0]["inputs"]["s2"][0].numpy(), pixels(row.s2, "B02"))

    @pytest.mark.parametrize(
        ("bands", "file", "size"),
        [(["B05", "B04"], "B04", 120), (["B8A", "B11"], "B8A", 60), (["B09"], "B09", 20)],
    )
    def test_the_finest_delivered_band_is_the_grid(self, root, bands, file, size):
        data = bigearthnet(root, predict_split="val", modalities={"s2": bands})
        placement = samples(data, "predict")[0]["placement"]
        assert placement["source"].endswith(f"_{file}.tif")
        assert placement["shape"].tolist() == [size, size]
        assert float(placement["gsd"]) == 1200 / size

    def test_all_samples_have_one_grid_whichever_sensor_they_have(self, root, tmp_path):
        copy = shutil.copytree(root, tmp_path / "copy")
        shutil.rmtree(s2_folder(copy, ROWS[4]))
        modalities = {"s1": "S1", "s2": "20m"}
        data = bigearthnet(copy, predict_split="test", allow_missing=True, modalities=modalities)
        batch = collate(samples(data, "predict"))
        assert batch["available"]["s2"].tolist() == [False, True]
        assert batch["placement"]["shape"].tolist() == [[120, 120]] * 2
        radar, optical = batch["placement"]["source"]
        assert optical.endswith(f"{ROWS[5].s2}_B02.tif")
        assert radar.endswith(f"{ROWS[4].s1}_VV.tif")

    def test_a_database_has_no_places(self, root):
        data = bigearthnet(root, lmdb=root / "lmdb", predict_split="train")
        found = samples(data, "predict")
        assert len(found) == 3
        assert "placement" not in found[0]


class Brightest(LightningModule):
    """The classes by the first band of Sentinel-2: above 6000 the fourth, else the second."""

    def __init__(self, schema):
        super().__init__()
        self.schema = schema
        self.model = torch.nn.Identity()

    def predict_step(self, batch, batch_idx):
        bright = batch["inputs"]["s2"][:, 0].float() > 6000
        logits = torch.zeros(len(bright), self.schema.num_classes, 120, 120)
        logits[:, 3], logits[:, 1] = 9.0 * bright, 9.0 * ~bright
        return {"probabilities": logits.softmax(dim=1)}


@pytest.mark.parametrize("predict_split", ["test", "folder"])
def test_maps_of_patches_lie_where_the_patches_lie(root, tmp_path, predict_split):
    data = bigearthnet(root, target="reference_map", predict_split=predict_split)
    task = Brightest(data.schema)
    trainer(GeoTiffWriter(tmp_path / "maps")).predict(task, data, return_predictions=False)
    rows = [r for r in ROWS if predict_split == "folder" or (r.split == "test" and not r.snow)]
    written = sorted(path.name for path in (tmp_path / "maps").glob("*.tif"))
    assert written == sorted(f"{row.s2}_B02_classes.tif" for row in rows)
    for row in rows:
        with (
            rasterio.open(tmp_path / "maps" / f"{row.s2}_B02_classes.tif") as file,
            rasterio.open(s2_folder(root, row) / f"{row.s2}_B02.tif") as source,
        ):
            assert file.crs == source.crs
            assert file.transform == source.transform
            assert file.shape == (120, 120)
            expected = np.where(pixels(row.s2, "B02") > 6000, 3, 1)
            assert np.array_equal(file.read(1), expected)


class TestFolder:
    @pytest.fixture(params=["folders", "lmdb"])
    def options(self, request, root):
        found = {"root": root, "predict_split": "folder"}
        return found if request.param == "folders" else {**found, "lmdb": root / "lmdb"}

    def test_all_patches_are_found_and_paired_without_metadata(self, options, tmp_path):
        found = samples(bigearthnet(**options), "predict")
        assert [sample["sample_id"] for sample in found] == sorted(row.s2 for row in ROWS)
        by_name = {row.s2: row for row in ROWS}
        for sample in found:
            row = by_name[sample["sample_id"]]
            assert "target" not in sample
            assert all(sample["available"].values())
            assert np.array_equal(sample["inputs"]["s1"][0].numpy(), pixels(row.s1, "VV"))

    def test_without_the_other_sensor_it_is_missing(self, root, tmp_path):
        shutil.copytree(root / "BigEarthNet-S2", tmp_path / "BigEarthNet-S2")
        for options in ({"root": tmp_path}, {"s2_root": tmp_path / "BigEarthNet-S2"}):
            found = samples(bigearthnet(**{"root": None, **options}, predict_split="folder"),
                            "predict")  # fmt: skip
            assert len(found) == len(ROWS)
            assert not any(sample["available"]["s1"] for sample in found)

    def test_only_what_the_model_reads_is_looked_for(self, options):
        found = samples(bigearthnet(**options, modalities={"radar": ["VH"]}), "predict")
        assert [sample["sample_id"] for sample in found] == sorted(row.s1 for row in ROWS)


def s1(day: int, column: int, row: int, tile: str = "33UUP") -> str:
    return f"S1A_IW_GRDH_1SDV_201706{day:02d}T165809_{tile}_{column}_{row}"


def s2(day: int, column: int, row: int, tile: str = "33UUP") -> str:
    return f"S2A_MSIL2A_201706{day:02d}T101031_N9999_R022_T{tile}_{column:02d}_{row:02d}"


class TestPairing:
    def pairs(self, optical, radar):
        patches = pair(optical, radar)
        return list(zip(patches.s2.to_pylist(), patches.s1.to_pylist(), strict=True))

    def test_numbers_are_compared_as_numbers(self):
        assert self.pairs([s2(13, 4, 7)], [s1(12, 4, 7)]) == [(s2(13, 4, 7), s1(12, 4, 7))]

    def test_the_nearest_in_time_is_taken(self):
        radar = [s1(1, 4, 7), s1(12, 4, 7), s1(15, 4, 7), s1(13, 4, 8)]
        assert self.pairs([s2(13, 4, 7)], radar[:3]) == [(s2(13, 4, 7), s1(12, 4, 7))]
        # A Sentinel-1 patch may serve two dates; that of another place stands alone.
        found = self.pairs([s2(13, 4, 7), s2(14, 4, 7)], radar)
        assert found == [
            (None, s1(13, 4, 8)),
            (s2(13, 4, 7), s1(12, 4, 7)),
            (s2(14, 4, 7), s1(15, 4, 7)),
        ]

    def test_other_tiles_and_places_are_no_partners(self):
        found = self.pairs([s2(13, 4, 7)], [s1(13, 4, 7, "29SND"), s1(13, 7, 4)])
        assert (s2(13, 4, 7), None) in found
        assert len(found) == 3

    @given(
        optical=st.sets(st.tuples(st.integers(1, 28), st.integers(0, 3), st.integers(0, 1))),
        radar=st.sets(st.tuples(st.integers(1, 28), st.integers(0, 3), st.integers(0, 1))),
    )
    def test_every_pair_is_the_nearest_of_its_place(self, optical, radar):
        names = {s1(*entry): entry for entry in radar}
        found = self.pairs([s2(*entry) for entry in optical], list(names))
        paired = {left: right for left, right in found if left is not None}
        assert set(paired) == {s2(*entry) for entry in optical}
        for day, column, row in optical:
            # Sentinel-1 passes 6.8 hours later in the day.
            gaps = {
                name: abs(other + 6.8 / 24 - day)
                for name, (other, c, r) in names.items()
                if (c, r) == (column, row)
            }
            right = paired[s2(day, column, row)]
            assert (right is None) == (not gaps)
            if right is not None:
                assert gaps[right] == min(gaps.values())
        alone = {right for left, right in found if left is None}
        places = {(c, r) for _, c, r in optical}
        assert alone == {name for name, (_, c, r) in names.items() if (c, r) not in places}


def test_names_differ_where_tiles_do():
    assert len({AUSTRIA, FINLAND, IRELAND}) == 3

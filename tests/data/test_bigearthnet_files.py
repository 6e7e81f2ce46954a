"""How the files of BigEarthNet are read: plain GeoTIFFs as bytes, others by GDAL; v1; an LMDB."""

import json
import shutil
import warnings
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import torch
from bigearthnet_files import (
    ROWS,
    V1_ROWS,
    bigearthnet,
    pixels,
    samples,
    write_lmdb,
    write_tif,
    write_v1,
    write_v2,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.errors import RasterioError

from fusionlab.data.bigearthnet import geotiff
from fusionlab.data.bigearthnet.constants import CLASSES
from fusionlab.data.bigearthnet.database import RicoDatabase
from fusionlab.data.bigearthnet.geotiff import plain_layout, read_band, read_header
from fusionlab.data.bigearthnet.sources import GeoTiffFolders
from fusionlab.errors import InputError


class TestGeoTiff:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        height=st.integers(1, 130),
        width=st.integers(1, 130),
        dtype=st.sampled_from([np.uint16, np.float32]),
        rows=st.integers(1, 140),
        seed=st.integers(0, 99),
    )
    def test_plain_files_give_the_same_pixels_as_gdal(
        self, tmp_path, height, width, dtype, rows, seed
    ):
        values = np.random.default_rng(seed).normal(5000, 2000, (height, width)).astype(dtype)
        path = tmp_path / "a.tif"
        write_tif(path, values, blockysize=rows)
        assert plain_layout(path.read_bytes()) is not None
        with rasterio.open(path) as source:
            expected = source.read(1)
        found = read_band(path)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
        assert np.array_equal(found, values)
        assert read_header(path) == ((height, width), np.dtype(dtype))

    @pytest.mark.parametrize(
        "options",
        [
            {"compress": "deflate"},
            {"compress": "deflate", "predictor": 2},
            {"tiled": True, "blockxsize": 64, "blockysize": 64},
            {"ENDIANNESS": "BIG"},
            {"BIGTIFF": "YES"},
            {"SPARSE_OK": "TRUE"},
            {"dtype": "int16", "nodata": None},
            {"dtype": "uint8"},
            {"dtype": "uint16", "NBITS": 12},
        ],
    )
    def test_anything_else_goes_through_gdal(self, tmp_path, options):
        values = np.random.default_rng(0).integers(0, 4000, (120, 120), dtype=np.uint16)
        if options.get("SPARSE_OK"):
            values[:] = 0  # nothing is written for strips without data
        path = tmp_path / "a.tif"
        write_tif(path, values.astype(options.get("dtype", "uint16")), **options)
        assert plain_layout(path.read_bytes()) is None
        with rasterio.open(path) as source:
            expected = source.read(1)
        with mock.patch.object(geotiff.rasterio, "open", wraps=rasterio.open) as opened:
            found = read_band(path)
        assert opened.called
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
        assert read_header(path) == (expected.shape, expected.dtype)

    def test_plain_files_do_not_go_through_gdal(self, tmp_path):
        write_tif(tmp_path / "a.tif", np.ones((120, 120), np.float32))
        with mock.patch.object(geotiff.rasterio, "open", side_effect=AssertionError):
            read_band(tmp_path / "a.tif")
            read_header(tmp_path / "a.tif")

    def test_several_bands_are_refused(self, tmp_path):
        path = tmp_path / "a.tif"
        with rasterio.open(
            path, "w", driver="GTiff", count=2, height=9, width=9, dtype="uint16"
        ) as file:
            file.write(np.ones((2, 9, 9), np.uint16))
        for read in (read_band, read_header):
            with pytest.raises(InputError, match=r"a\.tif: expected one band, found 2"):
                read(path)

    @pytest.mark.parametrize("kept", [0.3, 0.9])
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, r"a\.tif is incomplete: its header announces {whole} bytes, and it has {cut}\. "),
            (
                {"compress": "deflate"},
                r"a\.tif cannot be read \(.*[^.]\)\. Expected a GeoTIFF of one band; it is .*",
            ),
        ],
        ids=["plain", "through_gdal"],
    )
    def test_files_that_are_cut_off(self, tmp_path, options, message, kept):
        path = tmp_path / "a.tif"
        values = np.random.default_rng(0).integers(0, 9000, (120, 120), dtype=np.uint16)
        write_tif(path, values, **options)
        whole = path.stat().st_size
        cut = round(kept * whole)
        path.write_bytes(path.read_bytes()[:cut])
        expected = message.format(whole=whole, cut=cut) + r".*[Cc]opy or download it again\.$"
        for read in (read_band, read_header):
            with pytest.raises(InputError, match=expected):
                read(path)

    @given(content=st.binary(max_size=300), plain=st.booleans())
    def test_no_content_makes_it_fail(self, content, plain):
        head = b"II*\0\x08\0\0\0" if plain else b""
        plain_layout(head + content)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(position=st.integers(0, 400), value=st.integers(0, 255))
    def test_with_a_changed_byte_it_reads_what_gdal_reads(self, tmp_path, position, value):
        path = tmp_path / "a.tif"
        path.unlink(missing_ok=True)
        write_tif(path, np.arange(400, dtype=np.uint16).reshape(20, 20))
        content = bytearray(path.read_bytes())
        content[min(position, len(content) - 801)] = value  # the header, not the pixels
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with rasterio.open(path) as source:
                    if source.count * source.width * source.height > 10_000:
                        return  # GDAL would go on and fill it with zeros
                    expected = source.read()
            except (RasterioError, ValueError):
                return  # whatever is read of a file that GDAL refuses
            try:
                found = read_band(path)
            except InputError:
                assert len(expected) != 1
                return
        assert np.array_equal(found, expected[0], equal_nan=found.dtype.kind == "f")


class TestDatabase:
    def test_it_holds_what_the_folders_hold(self, tmp_path):
        root = write_v2(tmp_path / "folders")
        database = RicoDatabase(write_lmdb(tmp_path / "database" / "lmdb"))
        folders = GeoTiffFolders(
            {
                "S1": root / "BigEarthNet-S1",
                "S2": root / "BigEarthNet-S2",
                "reference_map": root / "Reference_Maps",
            },
            "v2",
        )
        for sensor in ("S1", "S2"):
            assert database.names(sensor) == folders.names(sensor)
            assert len(database.names(sensor)) == len(ROWS)
        for row in ROWS:
            for sensor, name, bands in (
                ("S1", row.s1, ("VV", "VH")), ("S2", row.s2, ("B8A", "B01", "B02")),
            ):  # fmt: skip
                pairs = zip(
                    database.read(sensor, name, bands),
                    folders.read(sensor, name, bands),
                    bands,
                    strict=True,
                )
                for a, b, band in pairs:
                    assert a.dtype == b.dtype
                    assert np.array_equal(a, b)
                    assert np.array_equal(a, pixels(name, band))
            assert np.array_equal(database.reference_map(row.s2), folders.reference_map(row.s2))

    def test_presence_knows_null(self, tmp_path):
        database = RicoDatabase(write_lmdb(tmp_path / "lmdb"))
        folders = GeoTiffFolders({"S2": write_v2(tmp_path / "v2") / "BigEarthNet-S2"}, "v2")
        names = pa.array([ROWS[0].s2, None, ROWS[0].s2 + "9", ROWS[3].s2])
        expected = [True, False, False, True]
        assert database.present("S2", names).tolist() == expected
        assert folders.present("S2", names).tolist() == expected
        assert folders.present("S1", names).tolist() == [False] * 4


class TestV1:
    @pytest.fixture
    def root(self, tmp_path):
        return write_v1(tmp_path)

    @pytest.mark.parametrize("split", ["train", "val", "test"])
    def test_flat_folders_sloppy_names_and_43_classes(self, root, split):
        (sample,) = samples(bigearthnet(root, version="v1"), split)
        (row,) = (row for row in V1_ROWS if row[2] == split)
        assert sample["sample_id"] == row[0]
        assert np.array_equal(sample["inputs"]["s2"][0].numpy(), pixels(row[0], "B02"))
        assert np.array_equal(sample["inputs"]["s1"][1].numpy(), pixels(row[1], "VH"))
        labels = {CLASSES[i] for i in np.flatnonzero(sample["target"])}
        assert (
            labels
            == {
                "train": {"Arable land", "Transitional woodland, shrub"},
                "val": {"Inland wetlands"},
                "test": set(),
            }[split]
        )

    def test_lists_may_lie_in_a_folder_and_bear_column_names(self, root):
        (root / "splits").mkdir()
        text = (root / "train.csv").read_text()
        (root / "splits" / "train.csv").write_text("s2,s1\n" + text)
        (root / "train.csv").unlink()
        assert len(bigearthnet(root, version="v1").dataset("train")) == 1
        shutil.move(root / "splits", root / "mine")
        assert len(bigearthnet(root, version="v1", metadata=root / "mine").dataset("train")) == 1

    def test_sentinel_1_alone_has_labels_too(self, root):
        shutil.rmtree(root / "BigEarthNet-v1.0")
        data = bigearthnet(root, version="v1", modalities={"s1": "S1"})
        (sample,) = samples(data, "val")
        assert sample["target"].sum() == 1

    def test_either_sensor_may_be_missing(self, root):
        shutil.rmtree(root / "BigEarthNet-v1.0" / V1_ROWS[1][0])
        (sample,) = samples(bigearthnet(root, version="v1", allow_missing=True), "val")
        assert not sample["available"]["s2"]
        assert sample["target"][CLASSES.index("Inland wetlands")] == 1

    def test_seasons(self, root):
        assert len(bigearthnet(root, version="v1", seasons=["winter"]).dataset("val")) == 1
        with pytest.raises(InputError, match="months"):
            bigearthnet(root, version="v1", seasons=["winter"]).dataset("train")

    def test_new_patches_are_paired_by_the_files_beside_them(self, root):
        new = bigearthnet(root, version="v1", predict_split="folder")
        found = samples(new, "predict")
        assert [sample["sample_id"] for sample in found] == sorted(row[0] for row in V1_ROWS)
        assert all(all(sample["available"].values()) for sample in found)
        lonely = root / "BigEarthNet-S1-v1.0" / V1_ROWS[0][1]
        path = lonely / f"{V1_ROWS[0][1]}_labels_metadata.json"
        path.write_text(json.dumps({"corresponding_s2_patch": "elsewhere"}))
        found = samples(new, "predict")
        assert len(found) == 4
        alone = {sample["sample_id"]: sample["available"] for sample in found}
        assert alone[V1_ROWS[0][0]] == {"s1": torch.tensor(False), "s2": torch.tensor(True)}
        assert alone[V1_ROWS[0][1]] == {"s1": torch.tensor(True), "s2": torch.tensor(False)}

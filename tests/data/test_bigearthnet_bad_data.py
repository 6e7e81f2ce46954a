"""Every mistake with BigEarthNet is answered before training, with what, where and what to do."""

import builtins
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from bigearthnet_files import (
    AUSTRIA,
    ROWS,
    bigearthnet,
    pixels,
    remove_keys,
    s1_folder,
    s2_folder,
    write_lmdb,
    write_metadata,
    write_tif,
    write_v1,
    write_v2,
)

from fusionlab.data.bigearthnet import checks
from fusionlab.errors import InputError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bigearthnet")
    write_lmdb(folder / "lmdb")
    return write_v2(folder)


@pytest.fixture
def root(written, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(written, tmp_path / "copy")


def refuse(root, message, split="train", **options):
    with pytest.raises(InputError, match=message):
        bigearthnet(root, **options).dataset(split)


class TestOptions:
    def refuse(self, message, **options):
        with pytest.raises(InputError, match=message):
            bigearthnet("anywhere", **options)

    def test_unknown_band_with_near_matches_and_list(self):
        self.refuse(
            r"modalities\.s2: there is no band or band set 'B2'. Did you mean .*B02.*Known: VV, VH",
            modalities={"s2": ["B2"]},
        )
        self.refuse("'b8a'. Did you mean B8A", modalities={"s2": ["b8a"]})
        self.refuse("no band or band set 'B10'", modalities={"s2": ["B10"]})

    def test_no_modality_no_band_or_a_band_twice(self):
        self.refuse("modalities.s2 must name bands", modalities={"s2": []})
        self.refuse(r"\['B02'\] come twice", modalities={"s2": ["RGB", "B02"]})

    def test_unknown_country_with_near_matches_and_list(self):
        self.refuse(
            "countries: there is no country 'austria'. Did you mean Austria.*Known: Austria, Bel",
            countries=["austria"],
        )

    def test_unknown_season(self):
        self.refuse("no season 'fall'.*winter, spring, summer, autumn", seasons=["fall"])

    def test_unknown_modality_in_an_option(self):
        for option in ("mean", "std", "modality_dropout"):
            self.refuse(
                rf"{option}: there is no modality 'S1'. Did you mean s1.*Known: s1, s2",
                **{option: {"S1": 0.5}},
            )

    def test_wrong_number_of_statistics(self):
        self.refuse("2 bands .* but 3 values of mean", mean={"s1": [1, 2, 3]})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"version": "v3"}, "version: there is no version 'v3'"),
            ({"upsampling": "cubic"}, "way of upsampling 'cubic'.*nearest, bilinear"),
            ({"class_order": "lexical"}, "order 'lexical'.*alphabetical, paper"),
            ({"target": "map"}, "target 'map'.*labels, reference_map"),
            ({"predict_split": "validation"}, "predict_split.*Did you mean val"),
            ({"fraction": 0}, r"fraction must lie in \(0, 1\], got 0"),
            ({"fraction": {"validation": 0.1}}, "fraction: there is no split 'validation'"),
            ({"max_samples": 0}, "max_samples must be at least 1, got 0"),
            ({"max_samples": {"dev": 2}}, "max_samples: there is no split 'dev'"),
            ({"version": "v1", "countries": ["Austria"]}, "countries is for version v2"),
            ({"version": "v1", "target": "reference_map"}, "reference_map is for version v2"),
            ({"version": "v1", "lmdb": "x"}, "lmdb is for version v2"),
        ],
    )
    def test_choices(self, options, message):
        self.refuse(message, **options)

    def test_nothing_given(self):
        with pytest.raises(InputError, match=r"give `root`.*or `lmdb`"):
            bigearthnet(None)


class TestMetadata:
    def test_no_table(self, root):
        (root / "metadata.parquet").unlink()
        refuse(root, r"No metadata: looked for .*metadata\.parquet.*`root`.*`metadata`")

    def test_no_table_of_snow(self, root):
        (root / "metadata_for_patches_with_snow_cloud_or_shadow.parquet").unlink()
        refuse(root, "No metadata of patches with snow", include_snow_cloud=True)

    def test_missing_column(self, root):
        path = root / "metadata.parquet"
        pq.write_table(pq.read_table(path).drop_columns(["s1_name"]), path)
        refuse(root, r"no column \['s1_name'\]: it has \['patch_id', 'labels', 'split'")
        # Not needed without Sentinel-1.
        assert len(bigearthnet(root, modalities={"s2": "S2"}).dataset("train")) == 3

    def test_column_of_another_type(self, root):
        path = root / "metadata.parquet"
        table = pq.read_table(path)
        column = table.column_names.index("labels")
        pq.write_table(table.set_column(column, "labels", table["country"]), path)
        refuse(root, r"columns of the metadata .*'labels': 'string'.*'labels': 'list<")

    def test_not_parquet(self, root):
        (root / "metadata.parquet").write_text("patch_id,labels")
        refuse(root, r"Cannot read the metadata .*metadata\.parquet")

    def test_unknown_class(self, root):
        rows = (ROWS[1]._replace(labels=("Arable land", "Broad-leafed forest")), *ROWS[3:])
        write_metadata(root, rows)
        refuse(root, "no class 'Broad-leafed forest'. Did you mean Broad-leaved forest")

    def test_names_that_are_none(self, root):
        write_metadata(root, (ROWS[1]._replace(s2="patch_1"),))
        refuse(root, r"1 of 1 names in the column 'patch_id'.*'patch_1'. Expected names such as S2")
        write_metadata(root, (ROWS[1]._replace(s1=ROWS[1].s2),))
        refuse(root, "column 's1_name'")

    def test_empty_split(self, root):
        write_metadata(root, ROWS[:3])
        refuse(root, r"'val' is empty.*splits \['train'\], and none of 'validation'", "val")
        refuse(root, "none of its 3 patches .* lies in .'Serbia'", countries=["Serbia"])
        refuse(root, r"none of its 3 patches was acquired in the months", seasons=["spring"])


class TestFolders:
    def test_no_folder_of_a_sensor(self, root):
        shutil.rmtree(root / "BigEarthNet-S1")
        refuse(root, r"No folder of S1: .*BigEarthNet-S1 does not exist.*`s1_root`")

    def test_no_folder_of_maps(self, root):
        shutil.rmtree(root / "Reference_Maps")
        refuse(root, r"No folder of reference_map.*`reference_maps`", target="reference_map")

    def test_missing_patches(self, root):
        shutil.rmtree(s1_folder(root, ROWS[0]))
        shutil.rmtree(s1_folder(root, ROWS[2]))
        refuse(
            root,
            rf"2 of 3 patches of the split 'train' have no S1 in .*BigEarthNet-S1.*: {ROWS[2].s1}, "
            rf"{ROWS[0].s1}\. .*allow_missing: true",
        )

    def test_nothing_on_disk(self, root):
        for row in ROWS:
            shutil.rmtree(s1_folder(root, row), ignore_errors=True)
            shutil.rmtree(s2_folder(root, row), ignore_errors=True)
        refuse(root, "None of the 3 patches of 'train' has any of", allow_missing=True)

    @pytest.mark.parametrize("allow_missing", [False, True])
    def test_missing_band_file(self, root, allow_missing):
        (s2_folder(root, ROWS[1]) / f"{ROWS[1].s2}_B05.tif").unlink()
        refuse(
            root,
            rf"{ROWS[1].s2}_B05\.tif \(or \.tiff\) does not exist; that folder holds \[.*_B04.tif",
            allow_missing=allow_missing,
        )

    def test_band_of_another_size(self, root):
        path = s2_folder(root, ROWS[1]) / f"{ROWS[1].s2}_B05.tif"
        write_tif(path, np.ones((61, 60), np.uint16))
        refuse(
            root, r"_B05\.tif: expected B05 as uint16 of 60 × 60 pixels, found uint16 of 61 × 60"
        )

    def test_band_of_another_type(self, root):
        path = s1_folder(root, ROWS[1]) / f"{ROWS[1].s1}_VV.tif"
        write_tif(path, np.ones((120, 120), np.int32))
        refuse(root, "expected VV as float32 of 120 × 120 pixels, found int32")

    def test_damage_that_only_reading_finds(self, root, monkeypatch):
        path = s2_folder(root, ROWS[0]) / f"{ROWS[0].s2}_B02.tif"
        monkeypatch.setattr(checks, "CHECKED", 1)  # the first of three patches
        write_tif(path, np.ones((60, 60), np.uint16))
        dataset = bigearthnet(root).dataset("train")
        with pytest.raises(InputError, match=r"_B02\.tif: expected B02 .* found uint16 of 60 × 60"):
            dataset[2]
        path.unlink()
        with pytest.raises(InputError, match=r"_B02\.tif \(or \.tiff\) does not exist"):
            dataset[2]

    @pytest.mark.parametrize("size", [0, 3, 200, 20_000])
    def test_cut_off_file(self, root, size):
        path = s2_folder(root, ROWS[1]) / f"{ROWS[1].s2}_B02.tif"
        path.write_bytes(path.read_bytes()[:size])
        refuse(root, r"_B02\.tif (cannot be read|is incomplete).*download it again\.$")

    def test_cut_off_reference_map(self, root):
        path = root / "Reference_Maps" / AUSTRIA / ROWS[1].s2 / f"{ROWS[1].s2}_reference_map.tif"
        path.write_bytes(path.read_bytes()[:-200])
        refuse(root, r"reference_map\.tif cannot be read", target="reference_map")

    def test_missing_reference_map(self, root):
        shutil.rmtree(root / "Reference_Maps" / AUSTRIA / ROWS[1].s2)
        refuse(root, r"1 of 3 patches .* no reference map.*Reference_Maps", target="reference_map")

    def test_foreign_code(self, root):
        codes = pixels(ROWS[1].s2, "reference_map")
        codes[0, :2] = 7, 300
        path = root / "Reference_Maps" / AUSTRIA / ROWS[1].s2 / f"{ROWS[1].s2}_reference_map.tif"
        write_tif(path, codes)
        dataset = bigearthnet(root, target="reference_map").dataset("train")
        with pytest.raises(InputError, match=rf"map of {ROWS[1].s2} holds \[7, 300\]"):
            dataset[0]


class TestDatabase:
    def test_missing_key(self, root):
        remove_keys(root / "lmdb", ROWS[1].s1)
        refuse(
            root,
            rf"1 of 3 patches .* no S1 in .*lmdb: {ROWS[1].s1}\..*allow_missing: true",
            lmdb=root / "lmdb",
        )

    def test_key_that_goes_while_reading(self, root):
        dataset = bigearthnet(root, lmdb=root / "lmdb").dataset("train")
        with pytest.raises(InputError, match=r"The LMDB .*lmdb has no key 'S2X'"):
            dataset.source.read("S2", "S2X", ["B02"])

    def test_missing_map(self, root):
        remove_keys(root / "lmdb", f"{ROWS[1].s2}_reference_map")
        refuse(root, "no reference map in .*lmdb", lmdb=root / "lmdb", target="reference_map")

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            ({"B02": np.ones((120, 120), np.uint16)}, r"no whole tensor 'B03': it holds \['B02'\]"),
            ({"B02": np.ones((60, 60), np.uint16)}, "expected B02 as uint16 of 120 × 120 .* 60"),
            ({"B02": np.ones((120, 120), np.float32)}, "expected B02 as uint16 .* float32"),
            ({"B02": np.ones((120, 120), np.int64)}, "no safetensors blob of uint16 or float32"),
            (b"\xff" * 40, "no safetensors blob"),
        ],
    )
    def test_other_contents(self, root, tensors, message):
        import lmdb
        from safetensors.numpy import save

        blob = tensors if isinstance(tensors, bytes) else save(tensors)
        with lmdb.open(str(root / "lmdb"), map_size=2**26) as data, data.begin(write=True) as write:
            write.put(ROWS[1].s2.encode(), blob)
        refuse(root, message, lmdb=root / "lmdb", modalities={"s2": ["B02", "B03"]})

    def test_not_an_lmdb(self, root):
        refuse(root, r"not an LMDB folder: it holds no data\.mdb", lmdb=root / "BigEarthNet-S2")
        (root / "empty").mkdir()
        (root / "empty" / "data.mdb").write_bytes(b"no database" * 1000)
        refuse(root, "Cannot open the LMDB", lmdb=root / "empty")

    def test_not_installed(self, root, monkeypatch):
        real = builtins.__import__

        def without(name, *args, **kwargs):
            if name == "lmdb":
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.delitem(sys.modules, "lmdb", raising=False)
        monkeypatch.setattr(builtins, "__import__", without)
        refuse(root, r"pip install 'fusionlab\[bigearthnet\]'", lmdb=root / "lmdb")


class TestV1:
    def test_no_list(self, tmp_path):
        write_v1(tmp_path)
        (tmp_path / "val.csv").unlink()
        refuse(tmp_path, r"No list of the split 'val'.*val\.csv.*`metadata`", "val", version="v1")

    @pytest.mark.parametrize("text", ["", "one column\n", "S2A_MSIL2A_20170613_1,S1\n", "a,b,c\n"])
    def test_other_list(self, tmp_path, text):
        write_v1(tmp_path)
        (tmp_path / "train.csv").write_text(text)
        refuse(tmp_path, r"train\.csv", version="v1")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (None, "Cannot read the labels"),
            ("[]", "expected an object with labels"),
            ('{"labels": "Pastures"}', "expected a list of class names, found 'Pastures'"),
            ('{"labels": ["Pasture"]}', "no class 'Pasture'. Did you mean Pastures"),
        ],
    )
    def test_other_labels(self, tmp_path, text, message):
        write_v1(tmp_path)
        (path,) = (tmp_path / "BigEarthNet-v1.0").glob("S2A*/*.json")
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(InputError, match=message):
            bigearthnet(tmp_path, version="v1").dataset("train")[0]


def test_new_patches_that_are_not_there(tmp_path):
    (tmp_path / "BigEarthNet-S2").mkdir()
    new = {"split": "predict", "predict_split": "folder"}
    refuse(tmp_path, r"no patches to predict.*BigEarthNet-S2 \(as S2A_MSIL2A_.*T33UUP/S2A", **new)
    refuse(tmp_path / "no", r"no patches to read.*BigEarthNet-S1 does not exist", **new)

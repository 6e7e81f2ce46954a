import numpy as np
import pytest
import rasterio
from folder_files import NAMES, SIZE, classes, folders, heights, images, write, write_folders

from fusionlab.data import FolderDataModule, ImageFolder, TargetFolder
from fusionlab.errors import InputError

SHAPE = SIZE, SIZE + 6


@pytest.fixture
def root(tmp_path):
    return write_folders(tmp_path / "data")


def refuse(root, message, split="val", **options):
    with pytest.raises(InputError, match=message):
        folders(root, **options).dataset(split)


class TestFiles:
    def test_missing_root_and_folder(self, root, tmp_path):
        refuse(tmp_path / "nowhere", r"modalities\.s2: there is no folder .*nowhere/S2")
        refuse(
            root,
            r"modalities\.dem: there is no folder .*/DTM",
            modalities=images(dem={"path": "DTM"}),
        )
        refuse(root, r"target: there is no folder", target=TargetFolder("masks", classes=["a"]))

    def test_folder_without_rasters(self, root):
        (root / "empty").mkdir()
        refuse(
            root,
            r"\.s2: the folder .*empty holds no raster",
            modalities=images(s2={"path": "empty"}),
        )
        wanted = images(s2={"files": "{name}_S2.tif"})
        refuse(root, r"holds no file '\{name\}_S2.tif'", modalities=wanted)

    def test_two_files_of_one_name(self, root):
        (root / "S2/b.tif").rename(root / "S2/b.tiff")
        write(root / "S2/b.tif", np.ones((3, *SHAPE), np.uint16), place=1)
        refuse(root, r"S2/b\.tif.* would both be 'b'.*files: '\{name\}\.tif")

    def test_missing_image(self, root):
        (root / "DEM/north/d.tif").unlink()
        folders(root).dataset("val")  # another split
        refuse(
            root, r"modalities\.dem: 1 of 2 places have no file of 'dem', the first 'north/d'.*DEM"
            r"/a\.tif.*allow_missing", "train",
        )  # fmt: skip

    def test_missing_target(self, root):
        (root / "labels/b.tif").unlink()
        refuse(root, r"target: 1 of 1 places have no file here, the first 'b'")

    def test_nothing_but_a_target(self, root):
        for folder in ("S2", "DEM", "ortho"):
            (root / folder / "b.tif").unlink()
        refuse(root, r"1 of 1 places have a target, but no file of", allow_missing=True)

    @pytest.mark.parametrize("folder", ["S2", "labels"])
    def test_damaged_file(self, root, folder):
        path = root / folder / "b.tif"
        path.write_bytes(path.read_bytes()[:60])
        refuse(root, rf"{folder}/b\.tif cannot be read")

    def test_damage_behind_the_header(self, root):
        path = root / "S2/b.tif"
        dataset = folders(root).dataset("val")
        path.write_bytes(path.read_bytes()[:-2000])
        refuse(root, r"modalities\.s2: .*S2/b\.tif cannot be read .* bytes or more are there")
        with pytest.raises(
            InputError, match=r"modalities\.s2: .*S2/b\.tif cannot be read"
        ) as caught:
            dataset[0]
        assert isinstance(caught.value.__cause__, rasterio.errors.RasterioError)

    def test_complex_numbers(self, root):
        write(root / "S2/b.tif", np.ones((3, *SHAPE), np.complex64), place=1)
        refuse(root, r"modalities\.s2: expected real numbers, the files hold complex64")


class TestDisagreement:
    def test_other_size(self, root):
        write(root / "labels/b.tif", np.full((1, SIZE, SIZE), 10, np.uint8), place=1)
        refuse(
            root, r"target: .*labels/b\.tif has 24 × 24 pixels of 10 m, expected 24 × 30, as .*S2/b"
        )

    def test_a_coarse_image_that_is_half_a_pixel_short(self, root):
        write(root / "DEM/b.tif", np.ones((1, 12, 14)), gsd=20, place=1)
        refuse(root, r"DEM/b\.tif has 12 × 14 pixels of 20 m, expected 12 × 15")

    def test_no_whole_pixels_of_the_target(self, root):
        for folder in ("ortho", "labels"):
            (root / folder / "b.tif").unlink()
        write(root / "ortho/b.tif", np.ones((2, 49, 60), np.uint8), gsd=5, place=1)
        write(root / "labels/b.tif", np.full((1, 24, 30), 10, np.uint8), place=1)
        refuse(root, r"ortho/b\.tif has 49 × 60|labels/b\.tif has 24 × 30", use=["ortho"])

    def test_other_reference_system(self, root):
        write(root / "S2/b.tif", np.ones((3, *SHAPE), np.uint16), place=1, crs="EPSG:32633")
        refuse(root, r"DEM/b\.tif is in EPSG:32632, but .*S2/b\.tif is in EPSG:32633.*gdalwarp")

    def test_other_ground(self, root):
        write(root / "DEM/b.tif", np.ones((1, 12, 15)), gsd=20, place=2)
        refuse(root, r"modalities\.dem: .*DEM/b\.tif covers .*but .*S2/b\.tif covers.*same ground")

    def test_a_rounding_error_is_no_other_ground(self, root):
        transform = rasterio.transform.from_origin(600000.0000001, 5300000.0004, 10, 10)
        labels = np.full((1, *SHAPE), 10, np.uint8)
        write(root / "labels/b.tif", labels, transform=transform)
        assert folders(root).dataset("val")[0]["target"].unique().tolist() == [1]

    def test_files_without_a_place_are_compared_by_size(self, root):
        for crs in (None, 'LOCAL_CS["somewhere"]'):
            write(root / "labels/b.tif", np.full((1, *SHAPE), 10, np.uint8), place=1, crs=crs)
            assert folders(root).dataset("val")[0]["target"].unique().tolist() == [1]

    def test_other_pixel_size(self, root):
        write(root / "S2/b.tif", np.ones((3, *SHAPE), np.uint16), gsd=20, place=1)
        refuse(root, r"S2/b\.tif has pixels of 20 × 20 m, expected 10 m")
        refuse(root, r"modalities\.s2: pixels of 15 m do not fit those of 10 m",
               modalities=images(s2={"gsd": 15}))  # fmt: skip

    def test_another_number_of_bands(self, root):
        write(root / "S2/b.tif", np.ones((4, *SHAPE), np.uint16), place=1)
        refuse(root, r"S2/b\.tif has 4 band\(s\), expected the 3 bands \['B02', 'B03', 'B04'\]")
        write(root / "labels/b.tif", np.ones((2, *SHAPE), np.uint8), place=1)
        refuse(root, r"labels/b\.tif has 2 band\(s\), expected the 1 bands", use=["dem"])

    def test_how_many_places_are_bad(self, root):
        for place, name in enumerate(NAMES):
            write(root / f"labels/{name}.tif", np.full((1, 9, 9), 10, np.uint8), place=place)
        refuse(root, r"2 of 2 places cannot be used\. The first: .*labels/a", "train")


class TestValues:
    def test_unknown_class(self, root):
        labels = np.full((1, *SHAPE), 10, np.uint8)
        labels[0, 3, 4:6] = 7, 255
        write(root / "labels/b.tif", labels, place=1)
        dataset = folders(root).dataset("val")
        with pytest.raises(
            InputError, match=r"labels/b\.tif holds the values \[7, 255\].*10, 20, 80"
        ):
            dataset[0]
        assert folders(root, target=classes(ignore=[7], nodata=255)).dataset("val")[0]

    def test_classes_that_are_no_integers(self, root):
        write(root / "labels/b.tif", np.full((1, *SHAPE), 10.5, np.float32), place=1)
        with pytest.raises(InputError, match=r"labels/b\.tif holds the values \[10\.5\]"):
            folders(root).dataset("val")[0]


class TestOptions:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"bands": ["a", "a", "b"]}, "must differ"),
            ({"bands": ["a", "b"]}, r"s2\.mean: 3 numbers for 2 bands"),
            ({"bands": None}, r"describes its 3 band\(s\) as .*modalities\.s2\.bands: "),
            ({"std": None}, "both mean and std"),
            ({"gsd": 0}, "above 0"),
            ({"scale": [1.0]}, r"s2\.scale: 1 numbers for 3 bands"),
            ({"mean": [1.0, 2.0, float("nan")]}, "finite"),
            ({"files": "S2.tif"}, r"\{name\} in it once"),
        ],
    )
    def test_of_a_modality(self, root, changes, message):
        with pytest.raises(InputError, match=message):
            folders(root, modalities=images(s2=changes))

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (TargetFolder("labels"), "one of the two"),
            (TargetFolder("labels", classes=["a"], variables=["b"]), "one of the two"),
            (TargetFolder("labels", classes=["a", "b"], values=[1]), "2 classes need as many"),
            (TargetFolder("labels", classes=["a", "b"], values=[1, 1]), "different values"),
            (TargetFolder("labels", classes=["water"], values={1: "watre"}), "Did you mean water"),
            (classes(gsd=-10), "above 0"),
            (classes(ignore=[10]), r"values \[10\] stand for classes and are to be ignored"),
            (classes(units=["m"]), "for variables"),
            (classes(colors=["#000000"]), "one per class"),
            (heights(ignore=[0]), "ignore is for classes"),
            (heights(scale=0), "other than 0"),
            (TargetFolder("heights", variables=["a", "b"], units=["m"]), "1 units for 2 variables"),
            (TargetFolder("heights", variables=["a", "a"]), "must differ"),
        ],
    )
    def test_of_a_target(self, root, target, message):
        with pytest.raises(InputError, match=message):
            folders(root, target=target)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"use": ["s3"]}, "no modality 's3'"),
            ({"bands": {"s2": ["B8"]}}, r"data\.bands\.s2 .*\['B8'\] are missing"),
            ({"bands": {"s3": ["B8"]}}, "no modality 's3'"),
            ({"crop": 9}, "multiples of 2"),
            ({"crop": 12, "overlap": 12}, "smaller than crop"),
            ({"overlap": 2}, "set crop"),
            ({"predict_split": "everything"}, "no split 'everything'"),
            ({"split_blocks": 0}, "above 0"),
            ({"modality_dropout": {"s3": 0.5}}, "no modality 's3'"),
        ],
    )
    def test_of_the_data(self, root, options, message):
        with pytest.raises(InputError, match=message):
            folders(root, **options)

    def test_no_modality(self, root):
        with pytest.raises(InputError, match="at least one folder"):
            FolderDataModule(root, {})
        write(root / "x/a.tif", np.ones((1, 4, 4), np.uint8), crs=None)
        with pytest.raises(InputError, match="no pixel size in metres"):
            FolderDataModule(root, {"x": ImageFolder("x", ["x"])})

    def test_files_smaller_than_a_sample(self, root):
        refuse(root, r"crop: 'b' has 24 × 30 pixels of the target, fewer than the 26 × 26", crop=26)

    def test_files_of_different_sizes_in_one_batch(self, root):
        for folder, bands, gsd in (
            ("S2", 3, 10),
            ("DEM", 1, 20),
            ("ortho", 2, 5),
            ("labels", 1, 10),
        ):
            side = 20 * 10 // gsd
            values = np.full((bands, side, side), 10, np.uint8)
            write(root / folder / "a.tif", values, gsd=gsd)
        refuse(root, r"different sizes \('a': 20 × 20, 'north/d': 24 × 30\)", "train", batch_size=2)
        assert len(folders(root).dataset("train")) == 2
        assert len(folders(root, crop=20, batch_size=2).dataset("train")) == 1 + 4

    def test_a_prediction_without_a_grid(self, root):
        for folder in ("S2", "labels"):
            (root / folder / "north/c.tif").unlink()
        refuse(
            root,
            r"'north/c' has no file of \['s2'\], on whose pixels",
            "predict",
            allow_missing=True,
        )

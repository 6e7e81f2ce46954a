"""RGB and LiDAR pairs that cannot be used: what is said, where, and that all is said at once."""

import shutil

import numpy as np
import pytest
from PIL import Image
from rgb_lidar_files import AZIMUTH, depth, image, pairs_of, samples, write_pairs, write_png

from fusionlab.errors import InputError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "pairs")


def refused(root, match, **options):
    """The message, which must be read before anything else happens."""
    with pytest.raises(InputError, match=match) as error:
        pairs_of(root, **options)
    assert not list(root.glob("statistics-*"))
    return str(error.value)


def test_an_image_without_its_scan_is_named_and_the_other_way_round(root):
    (root / "cubes" / "lidar" / "0003.npy").unlink()
    message = refused(root, r"cubes/rgb/0003\.png: no LiDAR file of that name beside it")
    assert "allow_missing: true" in message
    (root / "spheres" / "rgb" / "0007.png").unlink()
    message = refused(root, r"spheres/lidar/0007\.npy: no RGB image of that name beside it")
    assert "cubes/rgb/0003.png" in message
    assert "2 files" in message


def test_all_that_is_wrong_is_said_at_once(root):
    for stem in ("0000", "0001", "0002", "0003", "0004"):
        (root / "cubes" / "lidar" / f"{stem}.npy").unlink()
    write_png(root / "spheres" / "rgb" / "0001.png", image(0)[..., :3])
    np.save(root / "spheres" / "lidar" / "0002.npy", depth(0)[:, :3])
    (root / "spheres" / "lidar" / "0003.npy").write_bytes(b"")
    message = refused(root, "8 files cannot be used")
    assert "cubes/rgb/0000.png, cubes/rgb/0001.png, cubes/rgb/0002.png and 2 more" in message
    for file in ("rgb/0001.png", "lidar/0002.npy", "lidar/0003.npy"):
        assert f"spheres/{file}" in message
    (root / "spheres" / "rgb" / "0005.png").write_bytes(b"GIF89a")
    write_png(root / "spheres" / "rgb" / "0006.png", image(0, (4, 8)))
    assert "more for other reasons" in refused(root, "10 files")


@pytest.mark.parametrize(
    ("pixels", "found"),
    [
        (image(0)[..., :3], "is RGB of 8 bits, expected RGBA"),
        (image(0)[..., 0], "is grey of 8 bits"),
        (image(0)[..., 0].astype(np.uint16), "is grey of 16 bits"),
        (image(0, (9, 8)), "is 9 × 8, but 31 others are 8 × 8"),
    ],
    ids=["three channels", "one channel", "sixteen bits", "another size"],
)
def test_images_of_another_kind(root, pixels, found):
    write_png(root / "spheres" / "rgb" / "0002.png", pixels)
    refused(root, rf"spheres/rgb/0002\.png: {found}")


def test_a_palette_is_no_rgba(root):
    Image.fromarray(image(0)).convert("P").save(root / "cubes" / "rgb" / "0000.png")
    refused(root, r"cubes/rgb/0000\.png: is palette of 8 bits")


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
        lambda content: b"not a picture, whatever its name says, but some text",
    ],
    ids=["empty", "head", "half", "last byte", "one bit", "text"],
)
def test_damaged_images(root, damage, cache):
    path = root / "cubes" / "rgb" / "0001.png"
    path.write_bytes(damage(path.read_bytes()))
    refused(root, r"cubes/rgb/0001\.png: is (a|no) PNG", cache=cache)


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), "is no array of numbers"),
        (lambda path: path.write_bytes(path.read_bytes()[:9]), "is no array of numbers"),
        (lambda path: path.write_bytes(b""), "is no array of numbers"),
        (lambda path: path.write_text("1 2 3"), "is no array of numbers"),
        (lambda path: np.save(path, np.array([{"a": 1}])), "is no array of numbers"),
        (lambda path: np.save(path, np.array([["a"]])), "is no array of numbers"),
        (lambda path: np.save(path, depth(0)[None]), "is 1 × 6 × 5, expected rows × columns"),
        (lambda path: np.save(path, depth(0)[0]), "is 5, expected rows × columns"),
        (lambda path: np.save(path, depth(0).T), "is 5 × 6, but azimuth.npy and zenith.npy have"),
    ],
    ids=["cut off", "head", "empty", "text", "pickle", "letters", "axes", "row", "turned"],
)
def test_damaged_scans(root, write, found):
    path = root / "spheres" / "lidar" / "0000.npy"
    write(path)
    refused(root, rf"spheres/lidar/0000\.npy: {found}")


def test_angles_that_do_not_fit(root):
    np.save(root / "cubes" / "azimuth.npy", AZIMUTH[:-1])
    message = refused(root, "12 files cannot be used")
    assert "is 6 × 5, but azimuth.npy and zenith.npy have 5 and 5 angles" in message


@pytest.mark.parametrize(
    ("angles", "found"),
    [
        (np.rad2deg(AZIMUTH), "expected radians"),
        (AZIMUTH * np.nan, "not finite"),
        (AZIMUTH[:, None], "is 6 × 1, expected one angle after the other"),
        (None, "is missing"),
    ],
    ids=["degrees", "nan", "axes", "missing"],
)
def test_angles_that_are_none(root, angles, found):
    path = root / "spheres" / "azimuth.npy"
    path.unlink()
    if angles is not None:
        np.save(path, angles)
    refused(root, rf"spheres/azimuth\.npy: .*{found}")


def test_scans_of_different_classes_have_one_size(root):
    for path in (root / "cubes" / "lidar").glob("*.npy"):
        np.save(path, np.load(path)[:, :4])
    np.save(root / "cubes" / "zenith.npy", np.load(root / "cubes" / "zenith.npy")[:4])
    refused(root, "12 files .* is 6 × 4, but 20 others are 6 × 5")


def test_an_empty_class(root):
    for path in (root / "cubes").rglob("0*"):
        path.unlink()
    refused(root, r"the classes \['cubes'\] .* are empty")
    (root / "cones").mkdir()
    refused(root, "there is no class folder 'cones'", classes=["cones", "spheres"])


def test_folders_that_are_none(tmp_path):
    refused(tmp_path / "none", "is no folder")
    refused(tmp_path, r"holds rgb/ \(PNG\) and lidar/ \(NPY\)")
    refused(tmp_path, "nothing to predict", predict_split="folder")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"val_size": 1.5}, "val_size is a share from 0 to 1, or a number of pairs, got 1.5"),
        ({"test_size": -1}, "test_size"),
        ({"test_size": 0.6, "val_size": 0.4}, "none is left to train on"),
        ({"val_size": 40}, "of the 12 pairs of 'cubes', 1 are for the test"),
        ({"size": 0}, "size is at least 1"),
        ({"modalities": ["radar"]}, "there is no modality 'radar'"),
        ({"modalities": []}, "modalities is empty"),
        ({"predict_split": "all"}, "there is no split 'all'"),
        ({"missing": ["rgb", "lidar"]}, "some, but not all"),
        ({"missing": ["rgb"], "modalities": ["rgb"]}, "some, but not all"),
        ({"modality_dropout": {"radar": 0.5}}, "no modality 'radar'"),
        ({"fraction": 0}, "fraction"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_make_no_sense(whole, options, found, tmp_path):
    with pytest.raises(InputError, match=found):
        pairs_of(whole, statistics=tmp_path, **options)


def test_files_that_change_in_the_middle_of_a_run_are_named(root):
    data = pairs_of(root, cache=False)
    dataset = data.dataset("val")
    name = dataset[0]["sample_id"]
    folder, stem = name.split("/")
    path = root / folder / "rgb" / f"{stem}.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=rf"{stem}\.png is a PNG that is damaged"):
        dataset[0]
    assert len(samples(data, "test")) == 3

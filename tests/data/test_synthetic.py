"""Synthetic landscapes: the FLAIR #2 layout, determinism, and what each sensor can tell."""

import hashlib
import json
import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio

from fusionlab.data.synthetic.landscape import (
    LandCover,
    LandscapeConfig,
    write_flair2,
    write_tile,
)
from fusionlab.data.synthetic.landscape.canvas import draw_segments
from fusionlab.data.synthetic.landscape.covers import (
    AERIAL_BANDS,
    ALIKE_FIELDS,
    Cover,
    materials,
    states,
)
from fusionlab.data.synthetic.landscape.domain import draw_domain
from fusionlab.data.synthetic.landscape.noise import smooth_noise
from fusionlab.errors import InputError

CONFIG = LandscapeConfig(
    train_domains=2, val_domains=1, test_domains=1, train_zones=2, val_zones=1, test_zones=1,
    patches_per_zone=9, patch_size=64, pixel_size=1.6, min_dates=18, max_dates=24,
)  # fmt: skip
TINY = LandscapeConfig(
    train_domains=1, val_domains=0, test_domains=1, train_zones=1, test_zones=1,
    patches_per_zone=2, patch_size=32, pixel_size=1.6, margin=60, short_margin=40,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_flair2(tmp_path_factory.mktemp("landscape") / "flair2", CONFIG).root


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def images(root: Path) -> list[Path]:
    return sorted(root.glob("flair*aerial*/*/*/img/IMG_*.tif"))


def beside(image: Path, folder: str) -> Path:
    """The zone's folder of another kind: `labels` or `sen`."""
    split = image.parents[3]
    return split.parent / split.name.replace("aerial", folder) / image.parts[-4] / image.parts[-3]


def mask_of(image: Path) -> Path:
    return beside(image, "labels") / "msk" / image.name.replace("IMG", "MSK")


def series_of(image: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    folder = beside(image, "sen") / "sen"
    stem = f"SEN2_sp_{image.parts[-4]}-{image.parts[-3]}"
    return (
        np.load(folder / f"{stem}_data.npy", mmap_mode="r"),
        np.load(folder / f"{stem}_masks.npy", mmap_mode="r"),
        (folder / f"{stem}_products.txt").read_text().split(),
    )


def pure_pixels(root: Path):
    """Label, aerial means (5,) and series (T, 10) with masks of 10 m pixels of one class."""
    centroids = json.loads((root / "flair-2_centroids_sp_to_patch.json").read_text())
    cell = (np.arange(64) * 10 // 64).astype(int)
    for path in images(root):
        with rasterio.open(path) as file, rasterio.open(mask_of(path)) as mask:
            image, labels = file.read().astype(float), mask.read(1)
        data, masks, _ = series_of(path)
        row, col = centroids[path.name]
        for i in range(10):
            for j in range(10):
                part = np.ix_(cell == i, cell == j)
                if len(np.unique(labels[part])) > 1:
                    continue
                place = np.s_[:, :, row - 5 + i, col - 5 + j]
                yield labels[part][0, 0], image[:, *part].mean((1, 2)), data[place], masks[place]


def test_folders_and_names(root):
    assert {path.name for path in root.iterdir()} == {
        "flair_aerial_train", "flair_labels_train", "flair_sen_train", "flair_2_aerial_test",
        "flair_2_labels_test", "flair_2_sen_test", "flair-2_centroids_sp_to_patch.json",
        "flair_aerial_metadata.json", "synthetic.json",
    }  # fmt: skip
    paths = images(root)
    assert len(paths) == 6 * 9
    assert len({path.name for path in paths}) == len(paths)
    for path in paths:
        assert re.fullmatch(r"IMG_\d{6}\.tif", path.name)
        assert re.fullmatch(r"D\d{3}_\d{4}", path.parts[-4])
        assert re.fullmatch(r"Z\d+_[A-Za-z0-9]+", path.parts[-3])
        assert mask_of(path).is_file()
    assert {path.name for path in (root / "flair_aerial_train").iterdir()} == {
        "D006_2020", "D007_2020", "D004_2021",
    }  # fmt: skip
    assert [path.name for path in (root / "flair_2_aerial_test").iterdir()] == ["D015_2020"]


def test_rasters(root):
    for path in images(root):
        with rasterio.open(path) as image, rasterio.open(mask_of(path)) as mask:
            assert (image.count, *image.shape, image.dtypes[0]) == (5, 64, 64, "uint8")
            assert (mask.count, *mask.shape, mask.dtypes[0]) == (1, 64, 64, "uint8")
            assert image.crs.to_epsg() == mask.crs.to_epsg() == 2154
            assert image.transform == mask.transform
            assert (image.transform.a, image.transform.e) == (1.6, -1.6)
            assert image.compression.name == "lzw"
            labels = mask.read(1)
            assert 1 <= labels.min() <= labels.max() <= 19


def test_series(root):
    for path in images(root)[::9]:
        data, masks, products = series_of(path)
        assert data.dtype == np.uint16
        assert masks.dtype == np.uint8
        assert data.shape[1] == 10
        assert masks.shape == (len(data), 2, *data.shape[2:])
        assert masks.max() <= 100
        assert len(products) == len(data)
        assert 18 <= len(data) <= 24
        dates = [datetime.strptime(re.search(r"_(\d{8})T", p)[1], "%Y%m%d") for p in products]
        assert dates == sorted(set(dates))
        assert {date.year for date in dates} == {int(path.parts[-4][-4:])}


def test_geometry(root):
    centroids = json.loads((root / "flair-2_centroids_sp_to_patch.json").read_text())
    metadata = json.loads((root / "flair_aerial_metadata.json").read_text())
    assert set(centroids) == {path.name for path in images(root)}
    assert set(metadata) == {path.stem for path in images(root)}
    corners = {}
    fits = []
    for path in images(root):
        row, col = centroids[path.name]
        data, _, _ = series_of(path)
        fits.append(20 <= row <= data.shape[2] - 20 and 20 <= col <= data.shape[3] - 20)
        assert 5 <= row <= data.shape[2] - 5
        assert 5 <= col <= data.shape[3] - 5
        with rasterio.open(path) as image:
            x, y = image.xy(31.5, 31.5)
        entry = metadata[path.stem]
        assert (entry["patch_centroid_x"], entry["patch_centroid_y"]) == pytest.approx((x, y))
        assert (entry["domain"], entry["zone"]) == path.parts[-4:-2]
        datetime.strptime(entry["date"] + entry["time"], "%Y-%m-%d%Hh%M")
        # All patches of a zone agree on where the super-area's corner is, within a pixel.
        corners.setdefault(path.parent, []).append((x - 10 * col, y + 10 * row))
    for found in corners.values():
        assert np.ptp(np.array(found), axis=0).max() <= 10
    assert 0.5 < np.mean(fits) < 1


@pytest.mark.slow
def test_processes_do_not_change_the_bytes(tmp_path):
    write_flair2(tmp_path / "one", TINY)
    write_flair2(tmp_path / "two", TINY, workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_same_seed_same_bytes(tmp_path):
    write_flair2(tmp_path / "one", TINY)
    write_flair2(tmp_path / "two", TINY)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    other = LandscapeConfig(**{**TINY.to_dict(), "seed": 1})
    write_flair2(tmp_path / "other", other)
    assert not set(digests(tmp_path / "one").values()) & {
        digest for name, digest in digests(tmp_path / "other").items() if "tif" in name
    }


def test_a_domain_does_not_depend_on_the_others(tmp_path):
    more = LandscapeConfig(**{**TINY.to_dict(), "train_domains": 2})
    one, two = (write_flair2(tmp_path / str(c.train_domains), c).root for c in (TINY, more))
    for part in ("flair_aerial_train", "flair_sen_train"):
        before = digests(one / part)
        assert before.items() <= digests(two / part).items()


def test_refuses_what_it_did_not_write(tmp_path):
    tmp_path.joinpath("mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        write_flair2(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_second_run_writes_nothing(tmp_path):
    assert write_flair2(tmp_path / "a", TINY).written
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*")}
    assert not write_flair2(tmp_path / "a", TINY).written
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*")} == before
    changed = LandscapeConfig(**{**TINY.to_dict(), "seed": 3})
    with pytest.raises(InputError, match="another configuration"):
        write_flair2(tmp_path / "a", changed)
    assert write_flair2(tmp_path / "a", changed, overwrite=True).written
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("disk full")

    monkeypatch.setattr("fusionlab.data.synthetic.landscape.write.write_zone", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_flair2(tmp_path / "a", TINY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value"),
    [("train_domains", 33), ("pixel_size", 0.0), ("min_dates", 40), ("test_zones", 0)],
)
def test_refuses_impossible_sizes(field, value):
    with pytest.raises(ValueError, match=field):
        LandscapeConfig(**{field: value})


def test_real_resolution_masks_are_constant_over_two_pixels(tmp_path):
    config = LandscapeConfig(
        train_domains=0, val_domains=0, test_domains=1, test_zones=1, patches_per_zone=1,
        patch_size=64, margin=30, short_margin=30,
    )  # fmt: skip
    path = images(write_flair2(tmp_path / "a", config).root)[0]
    with rasterio.open(path) as image, rasterio.open(mask_of(path)) as mask:
        labels = mask.read(1)
        assert (image.res, image.shape) == ((0.2, 0.2), (64, 64))
    np.testing.assert_array_equal(labels, labels[::2, ::2].repeat(2, 0).repeat(2, 1))


def test_common_classes_only(tmp_path):
    config = LandscapeConfig(**{**TINY.to_dict(), "classes": "common", "patches_per_zone": 9})
    for path in images(write_flair2(tmp_path / "a", config).root):
        with rasterio.open(mask_of(path)) as mask:
            assert mask.read(1).max() <= LandCover.SWIMMING_POOL


def test_the_sensors_see_one_scene(root):
    aerial, satellite = {}, {}
    for label, image, series, masks in pure_pixels(root):
        clear = (masks.max(1) < 10).nonzero()[0]
        summer = clear[len(clear) // 3 : 2 * len(clear) // 3 + 1]
        if not len(summer):
            continue
        values = series[summer].astype(float)
        ndvi = (values[:, 6] - values[:, 2]) / (values[:, 6] + values[:, 2])
        aerial.setdefault(label, []).append((image[3] - image[0]) / (image[3] + image[0]))
        satellite.setdefault(label, []).append(np.median(ndvi))
    labels = [label for label in aerial if len(aerial[label]) >= 15]
    assert len(labels) >= 8
    pair = [[np.mean(source[label]) for label in labels] for source in (aerial, satellite)]
    assert np.corrcoef(pair)[0, 1] > 0.9


def test_buildings_are_higher_than_impervious_surface_of_the_same_colour(root):
    found = {LandCover.BUILDING: [], LandCover.IMPERVIOUS_SURFACE: []}
    for path in images(root):
        with rasterio.open(path) as file, rasterio.open(mask_of(path)) as mask:
            image, labels = file.read().astype(float), mask.read(1)
        for label, values in found.items():
            values.append(image[:, labels == label])
    roof, ground = (np.concatenate(values, axis=1) for values in found.values())
    assert np.median(roof[4]) / 5 > 2.5
    assert np.median(ground[4]) / 5 < 0.5
    low, high = np.percentile(ground[:3], [1, 99], axis=1)[..., None]
    assert ((roof[:3] >= low) & (roof[:3] <= high)).all(0).mean() > 0.7


@pytest.fixture(scope="module")
def looks():
    """Many parcels of each kind: cover, aerial reflectance (S, 4), NDVI over a year (S, T)."""
    domain = draw_domain(CONFIG, "D006_2020")
    covers = np.repeat(np.array([*ALIKE_FIELDS, Cover.CONIFER, Cover.BROADLEAF]), 600)
    segments = draw_segments(np.random.default_rng(0), covers, 0.8)
    days = np.arange(5, 365, 10, dtype=np.int32)
    light = {}
    for name, when in (("then", np.array([domain.aerial_day], np.int32)), ("year", days)):
        green, dry = states(
            segments, when, aerial_day=domain.aerial_day, season_shift=domain.season_shift
        )
        leaf, ground = materials(segments, dry, domain.palette)
        light[name] = ground + green[..., None] * (leaf - ground)
    year = light["year"]
    ndvi = (year[..., 6] - year[..., 2]) / (year[..., 6] + year[..., 2])
    return covers, light["then"][:, 0, list(AERIAL_BANDS)], ndvi


@pytest.mark.parametrize(
    "pair",
    [
        ("MEADOW", "WHEAT"),
        ("MEADOW", "PLOWED"),
        ("RAPESEED", "MEADOW"),
        ("MAIZE", "PLOWED"),
        ("CONIFER", "BROADLEAF"),
    ],
)
def test_parcels_differ_in_time_and_not_on_the_aerial_date(looks, pair):
    covers, then, ndvi = looks
    first, second = (covers == Cover[name] for name in pair)

    def separation(values):
        gap = values[first].mean(0) - values[second].mean(0)
        return np.abs(gap) / np.sqrt((values[first].var(0) + values[second].var(0)) / 2)

    assert separation(then).max() < 0.25
    assert separation(ndvi).max() > 2


def test_tile(tmp_path):
    tile = write_tile(tmp_path / "tile", TINY, size=128, margin=30)
    assert tile.written
    with rasterio.open(tile.aerial) as aerial, rasterio.open(tile.truth) as truth:
        assert (aerial.count, aerial.shape) == (5, (80, 80))
        assert aerial.crs.to_epsg() == 2154
        assert aerial.transform == truth.transform
        assert 1 <= truth.read(1).min() <= truth.read(1).max() <= 19
        inner = aerial.bounds
    paths = sorted(tile.sentinel2.iterdir())
    assert TINY.min_dates <= len(paths) <= TINY.max_dates
    for path in paths:
        assert re.fullmatch(r"S2_2020\d{4}\.tif", path.name)
        with rasterio.open(path) as image:
            assert (image.count, image.dtypes[0], image.res) == (10, "uint16", (10, 10))
            assert image.crs.to_epsg() == 2154
            assert image.descriptions[0] == "B02"
            outer = image.bounds
        assert outer.left < inner.left < inner.right < outer.right
        assert outer.bottom < inner.bottom < inner.top < outer.top
    assert not write_tile(tmp_path / "tile", TINY, size=128, margin=30).written
    with pytest.raises(InputError, match="not empty"):
        write_flair2(tmp_path / "tile", TINY)


def test_smooth_noise_is_standard():
    field = smooth_noise(np.random.default_rng(0), (600, 500), 5)
    assert field.shape == (600, 500)
    assert abs(field.mean()) < 0.1
    assert field.std() == pytest.approx(1, abs=0.1)
    assert np.abs(np.diff(field, axis=0)).mean() < 0.3

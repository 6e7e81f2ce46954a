"""Means and standard deviations of RGB and LiDAR pairs: right, stored, reused, never outdated."""

import logging
import shutil

import numpy as np
import pytest
import torch
from rgb_lidar_files import (
    AZIMUTH,
    depth,
    image,
    names,
    pairs_of,
    samples,
    write_pairs,
    write_png,
)

from fusionlab.data.rgb_lidar import loading
from fusionlab.errors import InputError
from fusionlab.experts.base import InputContract


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def own(root, tmp_path):
    """A copy that a test may change, without statistics."""
    return shutil.copytree(root, tmp_path / "own", ignore=shutil.ignore_patterns("*.json"))


def raw(data, sensor, part="train"):
    found = [s["inputs"][sensor].double().numpy() for s in samples(data, part)]
    return np.stack(found)


def test_by_hand(own):
    data = pairs_of(own)
    for sensor, scale in (("rgb", 1 / 255), ("lidar", 1.0)):
        values = raw(data, sensor) * scale
        modality = data.schema.modalities[sensor]
        assert modality.mean == pytest.approx(values.mean(axis=(0, 2, 3)), rel=1e-6, abs=1e-9)
        assert modality.std == pytest.approx(values.std(axis=(0, 2, 3)), rel=1e-6)
        normal = InputContract(modality)(torch.from_numpy(raw(data, sensor)).float())
        assert torch.allclose(normal.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4)
        assert torch.allclose(normal.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-2)


def test_a_channel_that_never_changes_tells_nothing(own):
    for path in own.rglob("*.png"):
        pixels = image(int(path.stem))
        pixels[..., 3] = 255
        write_png(path, pixels)
    modality = pairs_of(own).schema.modalities["rgb"]
    assert (modality.mean[3], modality.std[3]) == (1.0, 1.0)


def test_points_that_are_none_are_left_out(own):
    for path in (own / "cubes" / "lidar").glob("*.npy"):
        values = np.load(path)
        values[2] = np.inf
        np.save(path, values)
    data = pairs_of(own)
    values = raw(data, "lidar")
    assert np.isnan(values).any()
    assert data.schema.modalities["lidar"].mean == pytest.approx(
        np.nanmean(values, axis=(0, 2, 3)), rel=1e-6
    )


def test_they_are_stored_and_used_again(own, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        first = pairs_of(own, cache=False)
    assert len([r for r in caplog.records if "Computing" in r.message]) == 2
    files = sorted(own.glob("statistics-*.json"))
    assert [path.name.split("-")[1] for path in files] == ["lidar", "rgb"]
    monkeypatch.setattr(loading, "read_image", None)
    monkeypatch.setattr(loading, "read_depth", None)
    assert pairs_of(own, cache=False).schema == first.schema


@pytest.mark.parametrize(
    "options",
    [{"size": 4}, {"split_seed": 1}, {"test_size": 0.2}, {"fraction": 0.5}],
    ids=lambda options: next(iter(options)),
)
def test_those_of_another_split_or_size_are_not_used(own, options, caplog):
    pairs_of(own)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        changed = pairs_of(own, **options)
    assert "Computing" in caplog.text
    values = raw(changed, "lidar")
    assert changed.schema.modalities["lidar"].mean == pytest.approx(
        values.mean(axis=(0, 2, 3)), rel=1e-6, abs=1e-9
    )


def test_those_of_changed_files_are_not_used(own):
    before = pairs_of(own)
    name = names(before, "train")[0]
    folder, stem = name.split("/")
    np.save(own / folder / "lidar" / f"{stem}.npy", depth(0) * 5)
    after = pairs_of(own)
    assert after.schema.modalities["lidar"].mean != before.schema.modalities["lidar"].mean
    assert after.schema.modalities["rgb"] == before.schema.modalities["rgb"]
    np.save(own / "cubes" / "azimuth.npy", AZIMUTH + 0.1)
    turned = pairs_of(own).schema.modalities["lidar"]
    assert turned.mean != after.schema.modalities["lidar"].mean


def test_a_file_of_other_data_is_said_and_replaced(own, tmp_path, caplog):
    right = pairs_of(own).schema
    (path,) = own.glob("statistics-rgb-*.json")
    for content in (path.read_text().replace('"of": "', '"of": "0'), "{", '{"of": 3}'):
        path.write_text(content)
        caplog.clear()
        assert pairs_of(own).schema == right
        assert "belongs to other data" in caplog.text
        caplog.clear()
        assert pairs_of(own).schema == right
        assert not caplog.records


def test_a_folder_of_ones_own(own, tmp_path, caplog):
    store = tmp_path / "store"
    pairs_of(own, statistics=store)
    assert len(list(store.iterdir())) == 2
    assert not list(own.glob("*.json"))
    blocked = tmp_path / "file"
    blocked.write_text("")
    pairs_of(own, statistics=blocked / "below")  # the run goes on
    assert "data.statistics" in caplog.text


def test_given_ones_win(own):
    data = pairs_of(own, mean={"rgb": [0.1] * 4}, std={"rgb": [0.2] * 4})
    assert data.schema.modalities["rgb"].mean == (0.1,) * 4
    assert not list(own.glob("statistics-rgb-*"))
    with pytest.raises(InputError, match="there is no modality 'radar'"):
        pairs_of(own, mean={"radar": [0.0] * 4})

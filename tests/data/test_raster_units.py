"""Rasters in another unit than that of training are warned of, and those in the same are not."""

import re
from dataclasses import replace

import numpy as np
import pytest
from patch_scenes import CLASSES, optical, patch_schema, patches, radar, write_optical
from raster_scenes import SCHEMA, series, windows, write

from fusionlab.data.raster import RasterDataModule
from fusionlab.data.raster.units import impossible
from fusionlab.types import Modality, Schema

STATISTICS = {
    "s1": {"mean": (-12.6, -19.4), "std": (5.1, 5.6)},
    "s2": {"mean": (438.0, 614.0, 588.0), "std": (607.0, 603.0, 685.0)},
}
HEIGHT, WIDTH = 40, 50


def schema():
    published = {
        name: replace(modality, **STATISTICS[name])
        for name, modality in patch_schema().modalities.items()
    }
    return Schema(published, CLASSES, target="multilabel")


def warnings(caplog, data, of=None):
    """What was said of units, once all windows are read."""
    caplog.clear()
    dataset = patches(data, of or schema())
    for sample in dataset:
        assert sample["inputs"]
    return [r.getMessage() for r in caplog.records if "another unit" in r.getMessage()]


@pytest.fixture
def s1(tmp_path):
    return write(tmp_path / "s1.tif", radar(HEIGHT, WIDTH), gsd=10)


def test_decibels_and_reflectance_are_as_in_training(s1, tmp_path, caplog):
    s2 = write_optical(tmp_path / "s2.tif", HEIGHT, WIDTH)
    assert warnings(caplog, RasterDataModule({"s1": s1, "s2": s2})) == []


def test_linear_power_is_no_decibels(tmp_path, caplog):
    power = 10 ** (radar(HEIGHT, WIDTH) / 10)
    power[:, :5] = 0  # nodata that nobody declared
    linear = write(tmp_path / "s1.tif", power, gsd=10)
    s2 = write_optical(tmp_path / "s2.tif", HEIGHT, WIDTH)
    (said,) = warnings(caplog, RasterDataModule({"s1": linear, "s2": s2}))
    assert said.startswith("data.rasters.s1: the values of ['VV', 'VH'] lie between 0.0")
    assert "none of them negative" in said
    assert "[-12.6, -19.4]" in said
    # It is told once of all files, and not where a scale says that it is known.
    more = write(tmp_path / "other.tif", power, gsd=10, x=WIDTH * 10)
    assert len(warnings(caplog, RasterDataModule({"s1": [linear, more]}))) == 1
    scaled = RasterDataModule({"s1": linear}, scale={"s1": 10.0}, offset={"s1": -20.0})
    assert warnings(caplog, scaled) == []


def test_declared_nodata_is_no_value(tmp_path, caplog):
    power = 10 ** (radar(HEIGHT, WIDTH) / 10)
    power[:, 10:20] = -9999
    linear = write(tmp_path / "s1.tif", power, gsd=10, nodata=-9999)
    assert len(warnings(caplog, RasterDataModule({"s1": linear}))) == 1


def test_reflectance_from_zero_to_one(tmp_path, caplog):
    image = optical(HEIGHT, WIDTH).astype(np.float32) / 10000
    s2 = write(tmp_path / "s2.tif", image, gsd=10)
    (said,) = warnings(caplog, RasterDataModule({"s2": s2}))
    assert "smaller by a factor of 100 or more in every band" in said
    assert warnings(caplog, RasterDataModule({"s2": s2}, scale={"s2": 10000.0})) == []


def test_nothing_is_said_where_no_statistics_are_published(tmp_path, caplog):
    linear = write(tmp_path / "s1.tif", 10 ** (radar(HEIGHT, WIDTH) / 10), gsd=10)
    assert warnings(caplog, RasterDataModule({"s1": linear}), patch_schema()) == []


@pytest.mark.parametrize(("mean", "warned"), [(-0.5, True), (0.5, False)])
def test_series_are_looked_at_in_their_physical_unit(mean, warned, tmp_path, caplog):
    folder = tmp_path / "s2"
    for day, image in enumerate(series(2, 50), 1):
        write(folder / f"2021070{day}.tif", image, gsd=10)
    own = replace(SCHEMA.modalities["sentinel2"], mean=(mean,) * 3, std=(0.1,) * 3)
    of = Schema({**SCHEMA.modalities, "sentinel2": own}, SCHEMA.classes)
    windows(RasterDataModule({"sentinel2": str(folder)}, window=10, overlap=5), of)
    assert ("another unit" in caplog.text) == warned


def modality(mean, std):
    return Modality(("a", "b"), 10.0, mean=mean, std=std)


@pytest.mark.parametrize(
    ("mean", "std", "values", "reason"),
    [
        # One network over radar in dB and reflectance: the radar tells.
        ((-12.0, 2000.0), (5.0, 1000.0), [[0.1, 0.3], [1500, 4000]], r"\['a'\].*none.*negative"),
        ((-12.0, 2000.0), (5.0, 1000.0), [[-9.0, 0.3], [1500, 4000]], None),
        # Values around zero may well have one sign in a window.
        ((-1.0, 200.0), (5.0, 100.0), [[0.1, 0.3], [150, 400]], None),
        ((0.05, 0.1), (0.1, 0.1), [[-12, -9], [-20, -18]], r"\['a', 'b'\].*none.*positive"),
        ((0.05, 0.1), (0.1, 0.1), [[500, 600], [700, 900]], "larger by a factor of 100"),
        ((0.05, 0.1), (0.1, 0.1), [[500, 600], [0.7, 0.9]], None),
        # Dark water is dark, but no hundred times.
        ((438.0, 2193.0), (607.0, 1369.0), [[90, 120], [40, 60]], None),
        ((-12.0, -19.0), (5.0, 5.0), [[0, 0], [np.nan, np.nan]], None),
        ((-12.0, -19.0), (5.0, 5.0), [[0.1, 0], [np.nan, np.nan]], r"\['a'\].*none.*negative"),
    ],
)
def test_what_is_impossible(mean, std, values, reason):
    found = impossible(np.array(values, float), modality(mean, std))
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(reason, found)

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from map_predictions import predict_map, read
from matplotlib.image import imread
from raster_scenes import SCHEMA, TinyTask, series, smooth_image, write

from fusionlab.callbacks.map_stream import blend_weights


def test_a_map_says_where_it_lies_and_what_it_shows(aerial, tmp_path):
    predict_map({"aerial": aerial}, tmp_path / "maps")
    path = tmp_path / "maps" / "zone_classes.tif"
    with rasterio.open(aerial) as source, rasterio.open(path) as file:
        assert file.crs == source.crs
        assert file.transform == source.transform
        assert file.shape == source.shape
        assert file.dtypes == ("uint8",)
        assert file.nodata == 255
        assert file.block_shapes == [(256, 256)]
        assert file.compression.name == "deflate"
        assert file.descriptions == ("class",)
        assert file.colormap(1)[1] == (0x15, 0x53, 0xAE, 255)
        assert file.tags(1)["CLASS_2"] == "tree & shrub"
        assert json.loads(file.tags()["CLASS_NAMES"]) == list(SCHEMA.classes)
        values = file.read(1)
    assert set(np.unique(values)) <= {0, 1, 2}
    assert len(np.unique(values)) > 1
    rasterio.shutil.copy(path, tmp_path / "legend.vrt", driver="VRT")  # what GIS programs read
    legend = (tmp_path / "legend.vrt").read_text()
    assert "<Category>building</Category>" in legend
    assert "tree &amp; shrub" in legend
    names = sorted(p.name for p in (tmp_path / "maps").iterdir())
    assert names == ["zone_classes.tif", "zone_classes.tif.aux.xml"]


def test_there_is_no_seam(aerial, tmp_path):
    predict_map({"aerial": aerial}, tmp_path / "tiled")
    predict_map({"aerial": aerial}, tmp_path / "whole", data={"window": 512, "overlap": 0})
    tiled, whole = (read(tmp_path / n / "zone_classes.tif")[0] for n in ("tiled", "whole"))
    inside = np.s_[8:-8, 8:-8]
    assert (tiled[inside] == whole[inside]).mean() > 0.999
    # The task is not trivial: without overlap, seams do show.
    predict_map({"aerial": aerial}, tmp_path / "cut", data={"overlap": 0})
    cut = read(tmp_path / "cut" / "zone_classes.tif")[0]
    assert (cut[inside] != whole[inside]).mean() > (tiled[inside] != whole[inside]).mean()


@pytest.mark.parametrize("overlap", [0, 17, 64, 127])
def test_constant_probabilities_stay_constant(tmp_path, overlap):
    path = write(tmp_path / "a.tif", smooth_image(150, 140), gsd=0.2)
    predict_map(
        {"aerial": path},
        tmp_path,
        task=TinyTask(constant=True),
        writer={"probabilities": "float16"},
        data={"overlap": overlap if overlap < 127 else 120},
    )
    values = read(tmp_path / "a_probabilities.tif")
    assert np.abs(values - np.array([0.2, 0.5, 0.3])[:, None, None]).max() < 2e-4
    assert (read(tmp_path / "a_classes.tif") == 1).all()


def test_weights_of_neighbours_at_half_overlap_sum_to_one():
    weights = blend_weights(64, 64)[32]
    assert np.allclose(weights[:32] + weights[32:], 1, atol=3e-3)
    assert blend_weights(5, 9).min() > 0


def test_probabilities_and_contributions_are_written_on_request(aerial, tmp_path):
    # Sentinel-2 covers the left half only.
    place = {"gsd": 10, "x": -58, "y": -20}
    s2 = tmp_path / "s2"
    for day, image in zip(("20210110", "20210610"), series(2, 10), strict=True):
        write(s2 / f"S2_{day}.tif", image, **place)
    rasters = {"aerial": aerial, "sentinel2": str(s2)}
    task = predict_map(rasters, tmp_path, writer={"probabilities": "uint8", "contributions": True})
    available = torch.cat([seen["sentinel2"] for _, seen in task.seen])
    assert available.any()
    assert not available.all()
    with rasterio.open(tmp_path / "zone_probabilities.tif") as file:
        assert file.descriptions == SCHEMA.classes
        assert file.dtypes == ("uint8",) * 3
        scaled = file.read() * file.scales[0]
        assert file.compression.name == "deflate"
    assert np.abs(scaled.sum(axis=0) - 1).max() < 0.01
    classes = read(tmp_path / "zone_classes.tif")[0]
    clear = np.sort(scaled, axis=0)[-1] - np.sort(scaled, axis=0)[-2] > 0.01
    assert (scaled.argmax(axis=0) == classes)[clear].all()
    with rasterio.open(tmp_path / "zone_contributions.tif") as file:
        assert file.descriptions == ("aerial", "sentinel2")
        percent = file.read()
    assert (percent[:, :, :64] == [[[75]], [[25]]]).all()
    assert (percent[:, :, -64:] == [[[100]], [[0]]]).all()
    predict_map(rasters, tmp_path / "half", writer={"probabilities": "float16"})
    with rasterio.open(tmp_path / "half" / "zone_probabilities.tif") as file:
        assert file.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "16"
        assert np.abs(file.read() - scaled).max() < 0.003


def test_a_missing_series_changes_nothing_but_its_availability(aerial, tmp_path):
    predict_map({"aerial": aerial}, tmp_path)
    assert (read(tmp_path / "zone_classes.tif") != 255).all()


@pytest.mark.parametrize("kind", ["value", "mask", "alpha"])
def test_nodata_of_the_input_is_nodata_in_the_map(tmp_path, kind):
    image = smooth_image(150, 200).clip(1)
    hole = np.s_[:, 100:, :70]
    image[hole] = 0
    path = tmp_path / "a.tif"
    if kind == "value":
        image[0, :20, :20] = 0  # one band without data is not nodata
        write(path, image, gsd=0.2, nodata=0)
    else:
        seen = np.full((1, 150, 200), 255, np.uint8)
        seen[hole] = 0
        if kind == "alpha":
            image = np.concatenate([image, seen])
        write(path, image, gsd=0.2)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            if kind == "mask":
                file.write_mask(seen[0])
            else:
                file.colorinterp = (*file.colorinterp[:5], rasterio.enums.ColorInterp.alpha)
    predict_map({"aerial": str(path)}, tmp_path, writer={"probabilities": "uint8"})
    values = read(tmp_path / "a_classes.tif")
    assert (values[hole] == 255).all()
    assert (values == 255).sum() == values[hole].size
    assert ((read(tmp_path / "a_probabilities.tif") == 255).all(axis=0) == (values[0] == 255)).all()


@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (33, 57), (128, 128), (700, 129)])
def test_any_size_is_mapped_whole(tmp_path, shape):
    path = write(tmp_path / "a.tif", smooth_image(*shape), gsd=0.2)
    predict_map({"aerial": path}, tmp_path)
    values = read(tmp_path / "a_classes.tif")
    assert values.shape == (1, *shape)
    assert (values != 255).all()


def test_several_rasters_and_a_batch_over_their_border(tmp_path):
    paths = [
        write(
            tmp_path / "in" / f"{n}.tif", smooth_image(140, 150 + 10 * n, seed=n), gsd=0.2, x=n * 50
        )
        for n in range(3)
    ]
    predict_map({"aerial": str(tmp_path / "in")}, tmp_path / "all", data={"batch_size": 7})
    for path in paths:
        predict_map({"aerial": path}, tmp_path / "one")
        name = f"{Path(path).stem}_classes.tif"
        assert np.array_equal(read(tmp_path / "all" / name), read(tmp_path / "one" / name))


def test_a_quick_look_is_small(aerial, tmp_path):
    predict_map({"aerial": aerial}, tmp_path, writer={"quicklook": True})
    picture = imread(tmp_path / "zone_quicklook.png")
    assert max(picture.shape) <= 1024
    assert picture.std() > 0.05


@pytest.mark.shared
def test_a_published_patch_is_mapped(shared, tmp_path):
    source = next((shared / "data/flair2/flair_aerial_train").rglob("IMG_*.tif"))
    predict_map({"aerial": str(source)}, tmp_path, data={"window": 256, "overlap": 128})
    with rasterio.open(source) as a, rasterio.open(tmp_path / f"{source.stem}_classes.tif") as b:
        assert (a.crs, a.transform, a.shape) == (b.crs, b.transform, b.shape)
        assert b.crs.to_epsg() == 2154

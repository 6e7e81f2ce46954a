"""Mapping new rasters from the command line, as the documentation says to."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from cli_runs import config, pixel_expert
from raster_scenes import smooth_image, write

from fusionlab.cli import run
from fusionlab.data import Flair2DataModule
from fusionlab.errors import InputError
from fusionlab.tasks import SegmentationTask

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[1] / "configs" / "predict" / "raster.yaml"
PIXEL = 3.2  # of the aerial images of the tiny FLAIR #2
S2_BANDS = 10


@pytest.fixture(scope="module")
def checkpoint(runs) -> Path:
    """A fusion of two trained experts."""
    return runs / "fused" / "best.ckpt"


def write_series(folder: Path, size: int, **place) -> Path:
    random = np.random.default_rng(0)
    for day in ("20210115", "20210603", "20210920"):
        image = random.integers(1, 9000, (S2_BANDS, size, size), dtype=np.uint16)
        write(folder / f"S2A_{day}.tif", image, gsd=10, nodata=0, **place)
    return folder


@pytest.fixture
def zone(tmp_path) -> Path:
    """An aerial image of 288 by 384 m, one corner of it without data."""
    image = smooth_image(90, 120).clip(1)
    image[:, 70:, :30] = 0
    return Path(write(tmp_path / "zone.tif", image, gsd=PIXEL, nodata=0))


def predict(checkpoint: Path, output: Path, *flags: str) -> None:
    """The documented command, on the processor and with windows that fit small rasters."""
    run([
        "predict", "--config", str(CONFIG), "--ckpt_path", str(checkpoint),
        "--output", str(output), "--data.window", "32", "--data.overlap", "16",
        "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", *flags,
    ])  # fmt: skip


def test_the_documented_command_maps_a_zone(checkpoint, flair2_root, zone, tmp_path):
    # Sentinel-2 covers the left half of the zone, which is 384 m wide.
    s2 = write_series(tmp_path / "s2", 60, x=-600 + 192, y=-150)
    maps = tmp_path / "maps"
    predict(
        checkpoint, maps,
        "--data.rasters.aerial", str(zone), "--data.rasters.sentinel2", f"{s2}/",
        "--writer.contributions", "true", "--writer.probabilities", "uint8",
    )  # fmt: skip
    schema = Flair2DataModule(str(flair2_root)).schema
    with rasterio.open(zone) as source:
        grid = (source.crs, source.transform, source.shape)
        hole = source.read(1) == 0
    files = {}
    for kind in ("classes", "probabilities", "contributions"):
        with rasterio.open(maps / f"zone_{kind}.tif") as file:
            assert (file.crs, file.transform, file.shape) == grid
            assert file.nodata == 255
            files[kind] = file.read()
            assert (files[kind][:, hole] == 255).all()
            assert (files[kind][:, ~hole] != 255).all()
            if kind == "classes":
                colours = file.colormap(1)
                assert json.loads(file.tags()["CLASS_NAMES"]) == list(schema.classes)
                assert file.tags(1)["CLASS_12"] == schema.classes[12]
            elif kind == "probabilities":
                assert file.descriptions == schema.classes
            else:
                assert file.descriptions == ("aerial", "sentinel2")
    assert files["classes"][0][~hole].max() < 13
    for i, colour in enumerate(schema.colors):
        assert colours[i] == (*bytes.fromhex(colour[1:]), 255)
    total = files["probabilities"][:, ~hole].astype(float).sum(axis=0)
    np.testing.assert_allclose(total, 254, atol=7)
    aerial, sentinel2 = files["contributions"]
    left, right = np.s_[:70, :24], np.s_[:, -32:]
    assert (sentinel2[left] > 0).all()
    assert (sentinel2[right] == 0).all()
    assert (aerial[right] == 100).all()
    assert (maps / "zone_quicklook.png").is_file()
    rasterio.shutil.copy(maps / "zone_classes.tif", tmp_path / "legend.vrt", driver="VRT")
    assert (tmp_path / "legend.vrt").read_text().count("<Category>") == 13


def test_an_expert_of_series_alone_maps_a_series_and_another_grid(checkpoint, zone, tmp_path):
    expert = checkpoint.parents[1] / "sentinel2" / "best.ckpt"
    s2 = write_series(tmp_path / "s2", 60, x=-100, y=-150)
    series = ["--data.rasters.sentinel2", str(s2)]
    with pytest.raises(InputError, match=r"crop of 12.*--data.window 3 --data.overlap 1"):
        predict(expert, tmp_path / "maps", *series)  # the crop is that of the training
    assert not (tmp_path / "maps").exists()
    predict(expert, tmp_path / "maps", *series, "--data.window", "10", "--data.overlap", "5")
    with rasterio.open(tmp_path / "maps" / "S2A_20210115_classes.tif") as file:
        assert file.res == (10, 10)
        assert file.shape == (60, 60)
        assert file.read(1).max() < 13
    predict(
        expert, tmp_path / "fine", *series, "--data.grid", str(zone),
        "--model.alignment", "Footprint",
    )  # fmt: skip
    with rasterio.open(tmp_path / "fine" / "zone_classes.tif") as file:
        assert math.isclose(file.res[0], PIXEL)
        values = file.read(1)
    assert (values[70:, :30] == 255).all()
    assert (values != 255).sum() == values.size - 20 * 30


def test_values_in_other_units_and_monthly_means_from_the_command_line(
    flair2_root, zone, tmp_path, monkeypatch
):
    run_folder = tmp_path / "run"
    model = pixel_expert(modality="sentinel2")
    file = config(tmp_path / "a.yaml", flair2_root, model, modalities=["sentinel2"])
    run(["fit", "--config", file, "--output", str(run_folder), "--data.monthly_means", "true"])
    schema = torch.load(run_folder / "best.ckpt", weights_only=True)["hyper_parameters"]
    preparation = schema["trained_on"]["modalities"]["sentinel2"]["preparation"]
    assert (preparation["crop_size"], preparation["monthly_means"]) == (12, True)

    seen = []
    predict_step = SegmentationTask.predict_step

    def watch(task, batch, batch_idx):
        seen.append(batch["inputs"]["sentinel2"])
        return predict_step(task, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "predict_step", watch)
    s2 = tmp_path / "s2"
    for day in ("20220102", "20220122", "20220603"):
        write(s2 / f"S2A_{day}.tif", np.full((S2_BANDS, 60, 60), 1500, np.uint16), gsd=10)
    predict(
        run_folder / "best.ckpt", tmp_path / "maps", "--data.rasters.sentinel2", str(s2),
        "--data.window", "10", "--data.overlap", "5", "--data.offset.sentinel2", "-1000",
        "--data.scale.sentinel2", str([1] * (S2_BANDS - 1) + [0.5]),
    )  # fmt: skip
    for series in seen:
        assert series.values.shape[1:] == (2, S2_BANDS, 12, 12)
        assert (series.values[:, :, :-1] == 500).all()
        assert (series.values[:, :, -1] == -250).all()


def bad_rasters(zone: Path, tmp_path: Path) -> dict[str, tuple[Path, Path, str]]:
    """An aerial image, a series, and what is said of them."""
    s2 = write_series(tmp_path / "s2", 60, x=-100, y=-150)
    bare = write(tmp_path / "bare.tif", smooth_image(40, 40), gsd=PIXEL, crs=None)
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(zone.read_bytes()[:-9000])
    (tmp_path / "empty").mkdir()
    image = np.ones((S2_BANDS, 20, 20), np.uint16)
    write(tmp_path / "undated" / "S2.tif", image, gsd=10)
    return {
        "no CRS": (Path(bare), s2, r"bare\.tif has no coordinate reference system.*-a_srs"),
        "no overlap": (
            zone,
            write_series(tmp_path / "far", 20, x=90000),
            "data.rasters.sentinel2: none of its rasters overlaps",
        ),
        "other CRS": (
            zone,
            write_series(tmp_path / "utm", 20, crs="EPSG:32631"),
            "is in EPSG:32631, but .*zone.tif is in EPSG:2154.*gdalwarp -t_srs EPSG:2154",
        ),
        "corrupt": (text, s2, r"text\.tif cannot be read.*gdalinfo"),
        "truncated": (cut, s2, r"cut\.tif cannot be read.*incomplete"),
        "missing": (tmp_path / "none.tif", s2, r"there is no file .*none\.tif"),
        "empty": (zone, tmp_path / "empty", "empty holds no raster"),
        "no date": (zone, tmp_path / "undated", r"no date in the name of .*S2\.tif.*YYYYMMDD"),
    }


def test_unusable_rasters_are_named_and_nothing_is_written(checkpoint, zone, tmp_path):
    for aerial, s2, message in bad_rasters(zone, tmp_path).values():
        with pytest.raises(InputError, match=message):
            predict(
                checkpoint, tmp_path / "maps",
                "--data.rasters.aerial", str(aerial), "--data.rasters.sentinel2", str(s2),
            )  # fmt: skip
        assert not (tmp_path / "maps").exists()


def test_a_stack_of_another_length_is_refused(checkpoint, zone, tmp_path):
    stack = write(tmp_path / "stack.tif", np.ones((2 * S2_BANDS + 1, 60, 60), np.uint16), gsd=10)
    (tmp_path / "dates.txt").write_text("20210115\n20210603\n")
    with pytest.raises(InputError, match=r"has 21 bands, but 2 dates .* make 20"):
        predict(
            checkpoint, tmp_path / "maps", "--data.rasters.aerial", str(zone),
            "--data.rasters.sentinel2", stack,
            "--data.dates.sentinel2", str(tmp_path / "dates.txt"),
        )  # fmt: skip
    assert not (tmp_path / "maps").exists()

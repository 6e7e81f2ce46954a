import json
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from matplotlib.image import imread
from raster_scenes import (
    SCHEMA,
    SERIES_SCHEMA,
    LatestExpert,
    TinyTask,
    series,
    smooth_image,
    trainer,
    write,
)

from fusionlab.callbacks.geotiff_writer import GeoTiffWriter
from fusionlab.callbacks.map_stream import MapStream, blend_weights
from fusionlab.data.raster import RasterDataModule
from fusionlab.errors import InputError
from fusionlab.models.align import Footprint
from fusionlab.tasks import SegmentationTask


def predict(rasters, output, *, task=None, writer=None, data=None, **options):
    task = task or TinyTask()
    module = RasterDataModule(
        rasters, **{"window": 128, "overlap": 64, "batch_size": 5, **(data or {})}
    )
    writer = GeoTiffWriter(output, **(writer or {}))
    trainer(writer, **options).predict(task, module, return_predictions=False)
    return task


def read(path):
    with rasterio.open(path) as file:
        return file.read()


@pytest.fixture
def zone(tmp_path):
    return write(tmp_path / "zone.tif", smooth_image(301, 423), gsd=0.2)


def test_a_map_says_where_it_lies_and_what_it_shows(zone, tmp_path):
    predict({"aerial": zone}, tmp_path / "maps")
    path = tmp_path / "maps" / "zone_classes.tif"
    with rasterio.open(zone) as source, rasterio.open(path) as file:
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


def test_there_is_no_seam(zone, tmp_path):
    predict({"aerial": zone}, tmp_path / "tiled")
    predict({"aerial": zone}, tmp_path / "whole", data={"window": 512, "overlap": 0})
    tiled, whole = (read(tmp_path / n / "zone_classes.tif")[0] for n in ("tiled", "whole"))
    inside = np.s_[8:-8, 8:-8]
    assert (tiled[inside] == whole[inside]).mean() > 0.999
    # The task is not trivial: without overlap, seams do show.
    predict({"aerial": zone}, tmp_path / "cut", data={"overlap": 0})
    cut = read(tmp_path / "cut" / "zone_classes.tif")[0]
    assert (cut[inside] != whole[inside]).mean() > (tiled[inside] != whole[inside]).mean()


@pytest.mark.parametrize("overlap", [0, 17, 64, 127])
def test_constant_probabilities_stay_constant(tmp_path, overlap):
    path = write(tmp_path / "a.tif", smooth_image(150, 140), gsd=0.2)
    predict(
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


def test_probabilities_and_contributions_are_written_on_request(zone, tmp_path):
    # Sentinel-2 covers the left half only.
    place = {"gsd": 10, "x": -58, "y": -20}
    s2 = tmp_path / "s2"
    for day, image in zip(("20210110", "20210610"), series(2, 10), strict=True):
        write(s2 / f"S2_{day}.tif", image, **place)
    rasters = {"aerial": zone, "sentinel2": str(s2)}
    task = predict(rasters, tmp_path, writer={"probabilities": "uint8", "contributions": True})
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
    predict(rasters, tmp_path / "half", writer={"probabilities": "float16"})
    with rasterio.open(tmp_path / "half" / "zone_probabilities.tif") as file:
        assert file.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "16"
        assert np.abs(file.read() - scaled).max() < 0.003


def test_a_missing_series_changes_nothing_but_its_availability(zone, tmp_path):
    predict({"aerial": zone}, tmp_path)
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
    predict({"aerial": str(path)}, tmp_path, writer={"probabilities": "uint8"})
    values = read(tmp_path / "a_classes.tif")
    assert (values[hole] == 255).all()
    assert (values == 255).sum() == values[hole].size
    assert ((read(tmp_path / "a_probabilities.tif") == 255).all(axis=0) == (values[0] == 255)).all()


@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (33, 57), (128, 128), (700, 129)])
def test_any_size_is_mapped_whole(tmp_path, shape):
    path = write(tmp_path / "a.tif", smooth_image(*shape), gsd=0.2)
    predict({"aerial": path}, tmp_path)
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
    predict({"aerial": str(tmp_path / "in")}, tmp_path / "all", data={"batch_size": 7})
    for path in paths:
        predict({"aerial": path}, tmp_path / "one")
        name = f"{Path(path).stem}_classes.tif"
        assert np.array_equal(read(tmp_path / "all" / name), read(tmp_path / "one" / name))


def test_a_quick_look_is_small(zone, tmp_path):
    predict({"aerial": zone}, tmp_path, writer={"quicklook": True})
    picture = imread(tmp_path / "zone_quicklook.png")
    assert max(picture.shape) <= 1024
    assert picture.std() > 0.05


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_an_interruption_leaves_nothing_behind(zone, tmp_path, interrupt):
    task = TinyTask(fail_at=3)
    task.interrupt = interrupt
    options = {"probabilities": "uint8", "quicklook": True}
    with pytest.raises((SystemExit, RuntimeError)):
        predict({"aerial": zone}, tmp_path / "maps", task=task, writer=options)
    assert list((tmp_path / "maps").iterdir()) == []


def test_an_interruption_keeps_the_map_of_an_earlier_run(zone, tmp_path):
    predict({"aerial": zone}, tmp_path / "maps")
    before = {p.name: p.read_bytes() for p in (tmp_path / "maps").iterdir()}
    task = TinyTask(fail_at=2)
    task.interrupt = RuntimeError()
    with pytest.raises(RuntimeError):
        predict({"aerial": zone}, tmp_path / "maps", task=task)
    assert {p.name: p.read_bytes() for p in (tmp_path / "maps").iterdir()} == before


def test_a_map_with_missing_windows_is_not_written(zone, tmp_path):
    predict({"aerial": zone}, tmp_path / "maps", limit_predict_batches=2)
    assert list((tmp_path / "maps").iterdir()) == []


def test_unusable_input_leaves_nothing_behind(zone, tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        predict({"aerial": str(tmp_path / "no.tif")}, tmp_path / "maps")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="output folder"):
        predict({"aerial": zone}, blocked)


def test_a_file_that_breaks_in_the_middle_is_named(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (5, 600, 600), np.uint8)
    path = Path(write(tmp_path / "a.tif", image, gsd=0.2, compress="deflate", interleave="band"))
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tif cannot be read"):
        predict({"aerial": str(path)}, tmp_path / "maps")
    assert list((tmp_path / "maps").iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(zone, tmp_path, monkeypatch):
    def full(stream, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MapStream, "_write_rows", full)
    with pytest.raises(InputError, match="No space left on device"):
        predict({"aerial": zone}, tmp_path / "maps")
    assert list((tmp_path / "maps").iterdir()) == []


def test_contributions_of_a_model_without_them_are_refused(zone, tmp_path):
    class Mute(TinyTask):
        def predict_step(self, batch, batch_idx):
            return {"probabilities": super().predict_step(batch, batch_idx)["probabilities"]}

    with pytest.raises(InputError, match="cannot say what each modality contributes"):
        predict({"aerial": zone}, tmp_path / "m", task=Mute(), writer={"contributions": True})
    assert list((tmp_path / "m").iterdir()) == []


def test_wide_rasters_are_buffered_on_disk(zone, tmp_path, monkeypatch):
    predict({"aerial": zone}, tmp_path / "a")
    monkeypatch.setattr("fusionlab.callbacks.map_stream._LARGEST_BUFFER", 0)
    predict({"aerial": zone}, tmp_path / "b")
    assert np.array_equal(*(read(tmp_path / n / "zone_classes.tif") for n in "ab"))
    assert len(list((tmp_path / "b").iterdir())) == 2


def test_windows_out_of_order_are_an_error(tmp_path):
    path = write(tmp_path / "a.tif", smooth_image(900, 30), gsd=0.2)
    stream = MapStream(
        path, tmp_path, window_height=30, classes=("a",), colors=["#000000"], band_counts=[5]
    )
    stream.add(600, 0, np.ones((1, 30, 30), np.float32), None)
    with pytest.raises(RuntimeError, match="row by row"):
        stream.add(0, 0, np.ones((1, 30, 30), np.float32), None)
    stream.abort()


def loud_series(folder, size, *, x=0.0, y=0.0, dates=("20210110", "20210610"), **options):
    """A series whose last date says one class per pixel; returns it and these classes."""
    classes = np.random.default_rng(3).integers(0, 3, (size, size))
    loud = (classes[None] == np.arange(3)[:, None, None]) * 5000 + 100
    for day in dates:
        image = loud if day == dates[-1] else np.full_like(loud, 100)
        write(folder / f"S2_{day}.tif", image.astype(np.uint16), gsd=10, x=x, y=y, **options)
    return str(folder), classes.astype(np.uint8)


def series_task(**options):
    return SegmentationTask(SERIES_SCHEMA, LatestExpert, **options)


@pytest.mark.parametrize("crop", [40, 20, 10, 41])
@pytest.mark.parametrize("window", [10, 9])
def test_a_series_alone_is_mapped_on_its_own_pixels(tmp_path, crop, window):
    folder, expected = loud_series(tmp_path / "s2", 53)
    data = {"window": window, "overlap": 5, "crop": {"sentinel2": crop}}
    options = {"quicklook": True, "probabilities": "uint8"}
    predict({"sentinel2": folder}, tmp_path / "maps", task=series_task(), data=data, writer=options)
    path = tmp_path / "maps" / "S2_20210110_classes.tif"
    with rasterio.open(Path(folder) / "S2_20210110.tif") as source, rasterio.open(path) as file:
        assert (file.crs, file.transform, file.shape) == (source.crs, source.transform, (53, 53))
        assert np.array_equal(file.read(1), expected)
    assert (tmp_path / "maps" / "S2_20210110_quicklook.png").is_file()


def test_a_stack_alone_is_mapped(tmp_path):
    folder, expected = loud_series(tmp_path / "s2", 23)
    images = [read(path) for path in sorted(Path(folder).iterdir())]
    stack = write(tmp_path / "stack.tif", np.concatenate(images), gsd=10)
    (tmp_path / "dates.txt").write_text("20210110\n20210610\n")
    data = {"window": 10, "overlap": 5, "dates": {"sentinel2": str(tmp_path / "dates.txt")}}
    writer = {"quicklook": True}
    predict({"sentinel2": stack}, tmp_path / "maps", task=series_task(), data=data, writer=writer)
    assert np.array_equal(read(tmp_path / "maps" / "stack_classes.tif")[0], expected)


def test_a_series_is_mapped_on_another_rasters_grid(tmp_path):
    # Pixels of 2 m, shifted against those of 10 m by parts of a pixel, and a hole in the grid.
    folder, classes = loud_series(tmp_path / "s2", 60, x=-203, y=-204)
    image = smooth_image(90, 110, bands=3).clip(1)
    image[:, 50:, :20] = 0
    grid = write(tmp_path / "zone.tif", image, gsd=2, nodata=0)
    predict(
        {"sentinel2": folder},
        tmp_path / "maps",
        task=series_task(alignment=Footprint),
        data={"grid": grid, "window": 50, "overlap": 25},
        writer={"quicklook": True},
    )
    with rasterio.open(grid) as source, rasterio.open(tmp_path / "maps/zone_classes.tif") as file:
        assert (file.crs, file.transform, file.shape) == (source.crs, source.transform, (90, 110))
        values = file.read(1)
    hole = image[0] == 0
    assert (values[hole] == 255).all()
    rows = np.floor(((np.arange(90) + 0.5) * 2 + 204) / 10).astype(int)
    columns = np.floor(((np.arange(110) + 0.5) * 2 + 203) / 10).astype(int)
    expected = classes[np.ix_(rows, columns)]
    # Bilinear logits round the corners of the squares off; nothing is shifted.
    assert (values == expected)[~hole].mean() > 0.9
    shifted = [(np.roll(values, s, a) == expected)[~hole].mean() for s in (-1, 1) for a in (0, 1)]
    assert (values == expected)[~hole].mean() > max(shifted)
    picture = imread(tmp_path / "maps" / "zone_quicklook.png")
    assert np.ptp(picture[..., :3], axis=-1).max() > 0.2


def test_where_no_modality_is_available_the_map_has_no_data(tmp_path):
    grid = write(tmp_path / "zone.tif", smooth_image(128, 384, bands=3), gsd=2)
    folder, _ = loud_series(tmp_path / "s2", 40)  # the left 400 of 768 m
    data = {"grid": grid, "window": 32, "overlap": 0, "min_cover": 0.99}
    writer = {"probabilities": "uint8"}
    predict({"sentinel2": folder}, tmp_path / "maps", task=series_task(), data=data, writer=writer)
    values = read(tmp_path / "maps" / "zone_classes.tif")[0]
    assert (values[:, :192] < 3).all()
    assert (values[:, 192:] == 255).all()
    probabilities = read(tmp_path / "maps" / "zone_probabilities.tif")
    assert ((probabilities == 255).all(axis=0) == (values == 255)).all()


def test_what_the_model_does_not_read_makes_no_map(tmp_path):
    # The aerial image is there everywhere, the series only on the left, and only it is read.
    aerial = write(tmp_path / "zone.tif", smooth_image(128, 384), gsd=0.2)
    folder, _ = loud_series(tmp_path / "s2", 7, x=-20, y=-20)
    predict(
        {"aerial": aerial, "sentinel2": folder},
        tmp_path / "maps",
        task=SegmentationTask(
            SCHEMA, partial(LatestExpert, modality="sentinel2"), alignment=Footprint
        ),
        data={"grid": aerial, "window": 32, "overlap": 0, "min_cover": 0.99},
    )
    values = read(tmp_path / "maps" / "zone_classes.tif")[0]
    assert (values[:, :224] < 3).all()
    assert (values[:, 256:] == 255).all()


def test_nothing_of_an_earlier_run_stays_beside_a_new_map(zone, tmp_path):
    s2 = tmp_path / "s2"
    write(s2 / "S2_20210110.tif", series(1, 60)[0], gsd=10, x=-250, y=-250)
    rasters = {"aerial": zone, "sentinel2": str(s2)}
    everything = {"probabilities": "uint8", "contributions": True, "quicklook": True}
    maps = tmp_path / "maps"
    predict(rasters, maps, writer=everything)
    for name in ("zone_probabilities.tif.aux.xml", "other_probabilities.tif", "zone_notes.txt"):
        (maps / name).write_text("")
    assert len(list(maps.iterdir())) == 8
    task = TinyTask(fail_at=2)
    task.interrupt = RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"):  # nothing goes before the new map is whole
        predict(rasters, maps, task=task)
    assert len(list(maps.iterdir())) == 8
    predict(rasters, maps, writer={"contributions": True})
    assert sorted(path.name for path in maps.iterdir()) == [
        "other_probabilities.tif",
        "zone_classes.tif",
        "zone_classes.tif.aux.xml",
        "zone_contributions.tif",
        "zone_notes.txt",
    ]


def test_dates_without_observation_leave_no_data_in_the_map(tmp_path):
    folder, expected = loud_series(tmp_path / "s2", 30)
    for path in Path(folder).iterdir():
        with rasterio.open(path, "r+") as file:
            image = file.read()
            image[:, :12] = 0
            file.write(image)
            file.nodata = 0
    data = {"window": 10, "overlap": 5}
    predict({"sentinel2": folder}, tmp_path / "maps", task=series_task(), data=data)
    values = read(tmp_path / "maps" / "S2_20210110_classes.tif")[0]
    assert (values[:12] == 255).all()
    assert np.array_equal(values[12:], expected[12:])


def test_an_answer_to_nothing_counts_for_nothing(tmp_path):
    path = write(tmp_path / "a.tif", smooth_image(30, 40), gsd=0.2)
    stream = MapStream(
        path, tmp_path, window_height=30, classes="ab", colors=["#000000"] * 2, band_counts=[5]
    )
    answer = np.stack([np.zeros((30, 20)), np.ones((30, 20))]).astype(np.float32)
    stream.add(0, 0, answer)
    stream.add(0, 10, np.full_like(answer, np.nan), present=False)
    stream.add(0, 20, np.full_like(answer, np.nan), present=False)
    stream.close()
    assert stream.complete
    values = read(tmp_path / "a_classes.tif")[0]
    assert (values[:, :20] == 1).all()
    assert (values[:, 20:] == 255).all()


SCRIPT = """
    import sys, torch
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    torch.set_num_threads(1)
    from raster_scenes import TinyTask, trainer
    from fusionlab.callbacks.geotiff_writer import GeoTiffWriter
    from fusionlab.data.raster import RasterDataModule
    if __name__ == "__main__":
        data = RasterDataModule({rasters!r}, {options})
        run = trainer(GeoTiffWriter({output!r}{writer}){trainer})
        run.predict(TinyTask(), data, return_predictions=False)
        # Not ru_maxrss: that starts from the size of the process that started this one.
        status = Path("/proc/self/status")
        if status.exists():
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
            print("peak", int(lines["VmHWM"].split()[0]) * 1024)
"""


def run_script(tmp_path, **values):
    script = tmp_path / "run.py"
    tests = str(Path(__file__).parents[1])
    defaults = {"tests": tests, "options": "", "writer": "", "trainer": ""}
    script.write_text(textwrap.dedent(SCRIPT).format(**{**defaults, **values}))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_two_processes_map_as_one(tmp_path):
    for n in range(3):
        write(
            tmp_path / "in" / f"{n}.tif", smooth_image(200, 150 + 50 * n, seed=n), gsd=0.2, x=n * 50
        )
    values = {
        "rasters": {"aerial": str(tmp_path / "in")},
        "options": "window=128, overlap=64, batch_size=3",
    }
    run_script(tmp_path, output=str(tmp_path / "one"), **values)
    values["trainer"] = ", devices=2, strategy='ddp'"
    run_script(tmp_path, output=str(tmp_path / "two"), **values)
    names = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "two").iterdir())
    assert len(names) == 6
    for name in names:
        if name.endswith(".tif"):
            assert np.array_equal(read(tmp_path / "one" / name), read(tmp_path / "two" / name))
    # Fewer rasters than processes: one process has nothing to do.
    values["rasters"] = {"aerial": str(tmp_path / "in" / "1.tif")}
    run_script(tmp_path, output=str(tmp_path / "idle"), **values)
    assert np.array_equal(
        read(tmp_path / "idle" / "1_classes.tif"), read(tmp_path / "one" / "1_classes.tif")
    )


def peak_memory(tmp_path, height, width, **options):
    tile = smooth_image(1500, 1500)
    image = np.tile(tile, (1, height // 1500, width // 1500))
    path = write(tmp_path / "big.tif", image, gsd=0.2, tiled=True, compress="deflate")
    del image
    output = run_script(
        tmp_path, rasters={"aerial": path}, output=str(tmp_path / "maps"), **options
    )
    with rasterio.open(tmp_path / "maps" / "big_classes.tif") as file:
        assert file.shape == (height, width)
    if "peak" not in output:
        pytest.skip("this system does not tell the peak memory of a process")
    megabytes = int(output.split("peak")[1]) / 1e6
    print(f"{height} x {width}: peak {megabytes:.0f} MB")
    return megabytes


@pytest.mark.slow
def test_a_large_raster_needs_less_than_two_gigabytes(tmp_path):
    options = {
        "options": "window=512, overlap=256, batch_size=4",
        "writer": ", probabilities='uint8', quicklook=True",
    }
    assert peak_memory(tmp_path, 6000, 6000, **options) < 2000


@pytest.mark.slow
def test_memory_does_not_grow_with_the_raster(tmp_path):
    options = {"options": "window=256, overlap=32, batch_size=4"}
    short = peak_memory(tmp_path, 3000, 1500, **options)
    assert peak_memory(tmp_path, 24000, 1500, **options) < 1.15 * short + 40


@pytest.mark.shared
def test_a_published_patch_is_mapped(shared, tmp_path):
    source = next((shared / "data/flair2/flair_aerial_train").rglob("IMG_*.tif"))
    predict({"aerial": str(source)}, tmp_path, data={"window": 256, "overlap": 128})
    with rasterio.open(source) as a, rasterio.open(tmp_path / f"{source.stem}_classes.tif") as b:
        assert (a.crs, a.transform, a.shape) == (b.crs, b.transform, b.shape)
        assert b.crs.to_epsg() == 2154

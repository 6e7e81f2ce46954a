import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rasterio
from map_predictions import predict_map, read
from raster_scenes import smooth_image, write

from fusionlab.callbacks.map_layers import ClassLayer
from fusionlab.callbacks.map_stream import MapStream


def test_wide_rasters_are_buffered_on_disk(aerial, tmp_path, monkeypatch):
    predict_map({"aerial": aerial}, tmp_path / "a")
    monkeypatch.setattr("fusionlab.callbacks.map_stream._LARGEST_BUFFER", 0)
    predict_map({"aerial": aerial}, tmp_path / "b")
    assert np.array_equal(*(read(tmp_path / n / "zone_classes.tif") for n in "ab"))
    assert len(list((tmp_path / "b").iterdir())) == 2


def test_windows_out_of_order_are_an_error(tmp_path):
    path = write(tmp_path / "a.tif", smooth_image(900, 30), gsd=0.2)
    layers = [ClassLayer(("a",), ["#000000"])]
    stream = MapStream(path, tmp_path, window_height=30, layers=layers, answers=1, band_counts=[5])
    stream.add(600, 0, np.ones((1, 30, 30), np.float32), None)
    with pytest.raises(RuntimeError, match="row by row"):
        stream.add(0, 0, np.ones((1, 30, 30), np.float32), None)
    stream.abort()


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

import numpy as np
import pytest
from raster_folders import small
from raster_scenes import series, smooth_image, windows, write

from fusionlab.data.raster import RasterDataModule
from fusionlab.errors import InputError


def bad_inputs(tmp_path):
    aerial = write(tmp_path / "zone.tif", smooth_image(64, 64), gsd=0.2)
    image = series(1, 20)[0]
    place = {"gsd": 10, "x": -100, "y": -100}
    plain = write(tmp_path / "nodate.tif", image, **place)
    stack = write(tmp_path / "stack.tif", np.concatenate([image, image[:1]]), **place)
    two = write(tmp_path / "two.tif", np.concatenate([image, image]), **place)
    far = write(tmp_path / "far_20210101.tif", image, gsd=10, x=90000)
    utm = write(tmp_path / "utm_20210101.tif", image, crs="EPSG:32631", **place)
    bare = write(tmp_path / "bare.tif", smooth_image(64, 64), gsd=0.2, crs=None)
    degrees = write(tmp_path / "deg.tif", smooth_image(64, 64), gsd=0.2, crs="EPSG:4326")
    system = 'LOCAL_CS["RGF93 v1 / Lambert-93",UNIT["metre",1]]'  # as the masks of FLAIR #2 say
    local = write(tmp_path / "local.tif", smooth_image(64, 64), gsd=0.2, crs=system)
    coarse = write(tmp_path / "coarse.tif", smooth_image(64, 64), gsd=0.25)
    rgb = write(tmp_path / "rgb.tif", smooth_image(64, 64, bands=3), gsd=0.2)
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    cut = tmp_path / "cut.tif"
    cut.write_bytes((tmp_path / "zone.tif").read_bytes()[:-3000])
    twin = write(tmp_path / "other" / "zone.tif", smooth_image(64, 64), gsd=0.2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "dates.txt").write_text("20210101\n")
    (tmp_path / "wrong.txt").write_text("20210101\nyesterday\n")
    dates = {"dates": {"sentinel2": str(tmp_path / "dates.txt")}}
    return {
        "no crs": ({"aerial": bare}, {}, "bare.tif has no coordinate reference system"),
        "degrees": ({"aerial": degrees}, {}, "deg.tif is in degrees"),
        "far": ({"aerial": aerial, "sentinel2": far}, {}, "none of its rasters overlaps"),
        "crs": ({"aerial": aerial, "sentinel2": utm}, {}, "utm_.* is in EPSG:32631.*gdalwarp"),
        "missing": ({"aerial": str(tmp_path / "none.tif")}, {}, "there is no file .*none.tif"),
        "pattern": ({"aerial": str(tmp_path / "x*.tif")}, {}, "no file matches"),
        "empty": ({"aerial": aerial, "sentinel2": str(tmp_path / "empty")}, {}, "holds no raster"),
        "date": ({"aerial": aerial, "sentinel2": plain}, {}, "no date in the name of .*nodate.tif"),
        "stack": ({"aerial": aerial, "sentinel2": two}, {}, "could be a stack of 2 dates"),
        "count": ({"aerial": aerial, "sentinel2": stack}, dates, "stack.tif has 4 bands, but 1"),
        "line": (
            {"aerial": aerial, "sentinel2": plain},
            {"dates": {"sentinel2": str(tmp_path / "wrong.txt")}},
            "^data.dates.sentinel2: line 2 of .*wrong.txt",
        ),
        "corrupt": ({"aerial": str(text)}, {}, "text.tif cannot be read"),
        "truncated": ({"aerial": str(cut)}, {}, "cut.tif cannot be read"),
        "pixel size": ({"aerial": coarse}, {}, r"coarse.tif has pixels of 0.25 .*gdalwarp"),
        "bands": ({"aerial": rgb}, {}, "5 bands .*rgb.tif has 3"),
        "twins": ({"aerial": [aerial, twin]}, {}, "have the same name"),
        "unknown": ({"aerial": aerial, "lidar": aerial}, {}, r"\['lidar'\], but the model"),
        "window": ({"sentinel2": far}, {}, "10 pixels of 40.*--data.window 10 --data.overlap 5"),
        "crop": (
            {"sentinel2": far},
            {"window": 32, "overlap": 0, "crop": {"sentinel2": 20}},
            "is 32 pixels of sentinel2, more than its crop of 20.*--data.window 5 --data.overlap 2",
        ),
        "grid": ({"aerial": aerial}, {"grid": bare}, "data.grid: .*bare.tif has no coordinate"),
        "local": ({"aerial": aerial}, {"grid": local}, "local.tif has a local .*gdal_edit.py"),
        "grids": (
            {"aerial": aerial},
            {"grid": [aerial, coarse]},
            "data.grid: .*coarse.tif has pixels of 0.25 .*zone.tif has 0.2 m",
        ),
        "grid far": ({"aerial": aerial}, {"grid": far}, "aerial: none of its rasters overlaps"),
        "grid crs": ({"aerial": aerial}, {"grid": utm}, "zone.tif is in EPSG:2154, but .*utm_"),
        "typo": ({"aerial": aerial}, {"crop": {"sentinel": 40}}, r"data.crop names \['sentinel'\]"),
    }


def test_unusable_input_is_refused_before_predicting(tmp_path):
    for rasters, options, message in bad_inputs(tmp_path).values():
        with pytest.raises(InputError, match=message):
            windows(small(rasters, **options))


def test_unusable_arguments_are_refused():
    with pytest.raises(InputError, match="overlap must be"):
        RasterDataModule({"aerial": "a.tif"}, window=64, overlap=64)
    with pytest.raises(InputError, match="No rasters"):
        RasterDataModule({})
    with pytest.raises(InputError, match="no labels"):
        RasterDataModule({"aerial": "a.tif"}).setup("fit")


@pytest.mark.shared
def test_a_published_mask_is_no_grid(shared, aerial):
    mask = shared / "data/flair2/flair_labels_train/D004_2021/Z6_NU/msk/MSK_000473.tif"
    with pytest.raises(InputError, match=r"data.grid: .*MSK_000473.*gdal_edit.py -a_srs EPSG:2154"):
        windows(small({"aerial": aerial}, grid=str(mask)))

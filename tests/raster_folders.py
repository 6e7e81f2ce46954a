"""A dated series of small rasters in a folder, and windows over rasters."""

from raster_scenes import write

from fusionlab.data.raster import RasterDataModule

NAMES = ("S2_20210115.tif", "S2A_2021-06-03_x.tif", "S2_20210920T105021.tif")
DAYS = [18642, 18781, 18890]


def write_folder(folder, values, **options):
    for name, image in zip(NAMES, values, strict=True):
        write(folder / name, image, gsd=10, **options)
    return str(folder)


def write_one_date(folder, image, **options):
    write(folder / "a_20210101.tif", image, **options)
    return str(folder)


def small(rasters, **options):
    return RasterDataModule(rasters, **{"window": 128, "overlap": 64, **options})

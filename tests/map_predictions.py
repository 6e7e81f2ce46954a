"""Maps by a `GeoTiffWriter`."""

import rasterio
from raster_scenes import TinyTask, trainer

from fusionlab.callbacks.geotiff_writer import GeoTiffWriter
from fusionlab.data.raster import RasterDataModule


def predict_map(rasters, output, *, task=None, writer=None, data=None, **options):
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

"""Predictions of patches by a `TableWriter`, and what they must be."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import rasterio
from patch_scenes import PATCH, PatchTask, patch_schema
from raster_scenes import trainer

from fusionlab.callbacks import TableWriter
from fusionlab.data.raster import RasterDataModule

MULTICLASS = patch_schema("multiclass")
HEIGHT, WIDTH = 40, 65  # no multiples of the patch of 12: 4 by 6 patches


def predict(rasters, output, *, task=None, writer=None, data=None, **options):
    task = task or PatchTask()
    module = RasterDataModule(rasters, **{"batch_size": 5, **(data or {})})
    trainer(TableWriter(output, **(writer or {})), **options).predict(task, module)
    return task


def table(folder, name="predictions.parquet"):
    return pq.read_table(Path(folder) / name).to_pydict()


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def grid_of(path):
    with rasterio.open(path) as file:
        return file.read()


def patch_means(image):
    """Mean over 1000 of every band of every patch, as far as it lies on the image, (K, r, c)."""
    rows, columns = (range(0, n, PATCH) for n in image.shape[1:])
    return np.array([
        [[band[r : r + PATCH, c : c + PATCH].mean() for c in columns] for r in rows]
        for band in image / 1000
    ])  # fmt: skip

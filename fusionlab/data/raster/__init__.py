"""New rasters: the data module that cuts them into windows, and how they are read."""

from fusionlab.data.raster.datamodule import RasterDataModule

__all__ = ["RasterDataModule"]

"""Data modules: each delivers the batch contract for one kind of data."""

from fusionlab.data.base import DataModule
from fusionlab.data.bigearthnet import BigEarthNetDataModule
from fusionlab.data.flair2 import Flair2DataModule
from fusionlab.data.folders import FolderDataModule, ImageFolder, TargetFolder
from fusionlab.data.raster import RasterDataModule
from fusionlab.data.rgb_lidar import MirrorPairs, RgbLidarDataModule
from fusionlab.data.transforms import D4, ModalityDropout, RandomD4, SampleTransform

__all__ = [
    "D4",
    "BigEarthNetDataModule",
    "DataModule",
    "Flair2DataModule",
    "FolderDataModule",
    "ImageFolder",
    "MirrorPairs",
    "ModalityDropout",
    "RandomD4",
    "RasterDataModule",
    "RgbLidarDataModule",
    "SampleTransform",
    "TargetFolder",
]

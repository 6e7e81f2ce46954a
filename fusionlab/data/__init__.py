"""Data modules: each delivers the batch contract for one kind of data."""

from fusionlab.data.base import DataModule
from fusionlab.data.bigearthnet import BigEarthNetDataModule
from fusionlab.data.flair2 import Flair2DataModule
from fusionlab.data.folders import FolderDataModule, ImageFolder, TargetFolder
from fusionlab.data.manifest import (
    ImageColumn,
    ManifestDataModule,
    ManifestSplits,
    SeriesColumns,
    TableColumns,
    TargetColumn,
    TemporalFile,
    TextColumn,
)
from fusionlab.data.mixing import CutMix, Mixing, MixUp
from fusionlab.data.raster import RasterDataModule
from fusionlab.data.rgb_lidar import MirrorPairs, RgbLidarDataModule
from fusionlab.data.transforms import (
    D4,
    Chain,
    ModalityDropout,
    RandomD4,
    SampleTransform,
    SpatialCrop,
    SpectralShift,
    SynonymReplacement,
)

__all__ = [
    "D4",
    "BigEarthNetDataModule",
    "Chain",
    "CutMix",
    "DataModule",
    "Flair2DataModule",
    "FolderDataModule",
    "ImageColumn",
    "ImageFolder",
    "ManifestDataModule",
    "ManifestSplits",
    "MirrorPairs",
    "MixUp",
    "Mixing",
    "ModalityDropout",
    "RandomD4",
    "RasterDataModule",
    "RgbLidarDataModule",
    "SampleTransform",
    "SeriesColumns",
    "SpatialCrop",
    "SpectralShift",
    "SynonymReplacement",
    "TableColumns",
    "TargetColumn",
    "TargetFolder",
    "TemporalFile",
    "TextColumn",
]

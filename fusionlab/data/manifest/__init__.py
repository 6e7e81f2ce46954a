"""Any data set listed in a table: one row per sample, with files, texts, numbers and labels."""

from fusionlab.data.manifest.datamodule import ManifestDataModule
from fusionlab.data.manifest.options import (
    ImageColumn,
    ManifestSplits,
    SeriesColumns,
    TableColumns,
    TargetColumn,
    TemporalFile,
    TextColumn,
)

__all__ = [
    "ImageColumn",
    "ManifestDataModule",
    "ManifestSplits",
    "SeriesColumns",
    "TableColumns",
    "TargetColumn",
    "TemporalFile",
    "TextColumn",
]

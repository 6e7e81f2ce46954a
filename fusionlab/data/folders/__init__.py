"""Data sets in folders: one folder per modality, with files of the same names in each."""

from fusionlab.data.folders.datamodule import FolderDataModule
from fusionlab.data.folders.dataset import FolderDataset
from fusionlab.data.folders.options import ImageFolder, TargetFolder

__all__ = ["FolderDataModule", "FolderDataset", "ImageFolder", "TargetFolder"]

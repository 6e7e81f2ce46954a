"""BigEarthNet: the data module, and how its published folders and databases are read."""

from fusionlab.data.bigearthnet.datamodule import BigEarthNetDataModule
from fusionlab.data.bigearthnet.dataset import BigEarthNetDataset

__all__ = ["BigEarthNetDataModule", "BigEarthNetDataset"]

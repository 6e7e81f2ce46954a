"""FLAIR #2: the data module, and how the published folders are read."""

from fusionlab.data.flair2.datamodule import Flair2DataModule
from fusionlab.data.flair2.dataset import Flair2Dataset

__all__ = ["Flair2DataModule", "Flair2Dataset"]

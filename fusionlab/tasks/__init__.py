"""Tasks: a model with its loss, metrics and optimiser."""

from fusionlab.tasks.base import ModelFactory, Task
from fusionlab.tasks.classification import ClassificationTask
from fusionlab.tasks.contrastive import ContrastiveTask
from fusionlab.tasks.regression import RegressionTask
from fusionlab.tasks.schedules import WarmupCosine
from fusionlab.tasks.segmentation import SegmentationTask
from fusionlab.tasks.supervised import SupervisedTask

__all__ = [
    "ClassificationTask",
    "ContrastiveTask",
    "ModelFactory",
    "RegressionTask",
    "SegmentationTask",
    "SupervisedTask",
    "Task",
    "WarmupCosine",
]

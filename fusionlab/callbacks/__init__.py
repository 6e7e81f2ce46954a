"""Callbacks: checkpoints, maps of predictions, reports and pictures of a run."""

from fusionlab.callbacks.attention_examples import AttentionExamples
from fusionlab.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from fusionlab.callbacks.class_similarities import ClassSimilarities
from fusionlab.callbacks.epoch_seed import EpochSeed
from fusionlab.callbacks.examples import Examples
from fusionlab.callbacks.geotiff_writer import GeoTiffWriter
from fusionlab.callbacks.initial_values import InitialValues
from fusionlab.callbacks.measures import Measures
from fusionlab.callbacks.monitor_check import MonitorCheck
from fusionlab.callbacks.report import Report
from fusionlab.callbacks.save_config import SaveConfig
from fusionlab.callbacks.table_writer import TableWriter

__all__ = [
    "AttentionExamples",
    "BestCheckpoint",
    "ClassSimilarities",
    "EpochSeed",
    "Examples",
    "GeoTiffWriter",
    "InitialValues",
    "LastCheckpoint",
    "Measures",
    "MonitorCheck",
    "Report",
    "SaveConfig",
    "TableWriter",
]

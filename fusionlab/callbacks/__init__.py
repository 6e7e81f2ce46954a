"""Callbacks: maps of predictions, reports and pictures of a run."""

from fusionlab.callbacks.epoch_seed import EpochSeed
from fusionlab.callbacks.examples import Examples
from fusionlab.callbacks.geotiff_writer import GeoTiffWriter
from fusionlab.callbacks.monitor_check import MonitorCheck
from fusionlab.callbacks.report import Report
from fusionlab.callbacks.table_writer import TableWriter

__all__ = ["EpochSeed", "Examples", "GeoTiffWriter", "MonitorCheck", "Report", "TableWriter"]

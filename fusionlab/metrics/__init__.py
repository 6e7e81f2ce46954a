"""Metrics of the field, exact over any number of processes."""

from fusionlab.metrics.classification import ClassificationMetrics, Curve, Decision
from fusionlab.metrics.segmentation import SegmentationMetrics
from fusionlab.metrics.shares import ModalityShares

__all__ = ["ClassificationMetrics", "Curve", "Decision", "ModalityShares", "SegmentationMetrics"]

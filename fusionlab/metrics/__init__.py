"""Metrics of the field, exact over any number of processes."""

from fusionlab.metrics.classification import ClassificationMetrics, Curve
from fusionlab.metrics.decision import Decision, probabilities
from fusionlab.metrics.mean_loss import MeanLoss
from fusionlab.metrics.regression import RegressionMetrics
from fusionlab.metrics.retrieval import RetrievalMetrics
from fusionlab.metrics.segmentation import SegmentationMetrics
from fusionlab.metrics.shares import ModalityShares

__all__ = [
    "ClassificationMetrics",
    "Curve",
    "Decision",
    "MeanLoss",
    "ModalityShares",
    "RegressionMetrics",
    "RetrievalMetrics",
    "SegmentationMetrics",
    "probabilities",
]

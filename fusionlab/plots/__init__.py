"""Charts and quick looks. Every function draws and returns a figure; the caller saves it."""

from fusionlab.plots.attention import AttendedSample, TokenWeights, attention_figure
from fusionlab.plots.class_scores import class_scores_chart
from fusionlab.plots.comparison import (
    comparison_curves_chart,
    member_colors,
    member_label,
    seeds_chart,
    trade_off_chart,
)
from fusionlab.plots.curves import curves_chart
from fusionlab.plots.decisions import confusion_matrix_chart, fusion_weights_chart
from fusionlab.plots.examples import Row, class_map_rgb, examples_figure
from fusionlab.plots.ladder import ladder_chart
from fusionlab.plots.regression import regression_chart
from fusionlab.plots.scores import average_precision_chart, precision_recall_chart
from fusionlab.plots.similarity import class_similarity_chart, similarity_chart
from fusionlab.plots.style import class_colors

__all__ = [
    "AttendedSample",
    "Row",
    "TokenWeights",
    "attention_figure",
    "average_precision_chart",
    "class_colors",
    "class_map_rgb",
    "class_scores_chart",
    "class_similarity_chart",
    "comparison_curves_chart",
    "confusion_matrix_chart",
    "curves_chart",
    "examples_figure",
    "fusion_weights_chart",
    "ladder_chart",
    "member_colors",
    "member_label",
    "precision_recall_chart",
    "regression_chart",
    "seeds_chart",
    "similarity_chart",
    "trade_off_chart",
]

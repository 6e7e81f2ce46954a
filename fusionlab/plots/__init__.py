"""Charts and quick looks. Every function draws and returns a figure; the caller saves it."""

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
from fusionlab.plots.regression import regression_chart
from fusionlab.plots.scores import average_precision_chart, precision_recall_chart
from fusionlab.plots.style import class_colors

__all__ = [
    "Row",
    "average_precision_chart",
    "class_colors",
    "class_map_rgb",
    "class_scores_chart",
    "comparison_curves_chart",
    "confusion_matrix_chart",
    "curves_chart",
    "examples_figure",
    "fusion_weights_chart",
    "member_colors",
    "member_label",
    "precision_recall_chart",
    "regression_chart",
    "seeds_chart",
    "trade_off_chart",
]

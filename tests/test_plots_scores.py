"""Charts of average precision and of precision by recall show the numbers they are given."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fusionlab.errors import InputError
from fusionlab.plots import (
    average_precision_chart,
    confusion_matrix_chart,
    curves_chart,
    precision_recall_chart,
)

CLASSES = (
    "Urban fabric",
    "Beaches, dunes, sands",
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
)
CURVE = (np.array([1.0, 0.5, 0.0]), np.array([0.25, 0.8, 1.0]))


def texts(axes):
    return [text.get_text() for text in axes.texts]


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def drawn(figure, folder):
    """Written without a display; every name lies within the picture, whole."""
    figure.savefig(folder / "figure.png", dpi=40)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.bbox
    renderer = canvas.get_renderer()
    for axes in figure.axes:
        names = [axes.title, axes._left_title, *axes.get_yticklabels()]
        for name in names:
            if name.get_visible() and name.get_text():
                extent = name.get_window_extent(renderer)
                assert box.x0 <= extent.x0 < extent.x1 <= box.x1
                assert box.y0 <= extent.y0 < extent.y1 <= box.y1
    return figure


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("k", [1, 2, 19])
def test_any_number_of_classes(k, tmp_path):
    classes = [f"{CLASSES[i % 3]} {i}" for i in range(k)]
    values = np.linspace(0, 1, k)
    bars = average_precision_chart(values, classes, support=np.ones(k), macro=0.5, micro=0.6)
    drawn(bars, tmp_path)
    curves = precision_recall_chart([CURVE] * k, classes, average_precision=values, micro=CURVE)
    drawn(curves, tmp_path)
    assert len(curves.axes) == k


def test_average_precision(tmp_path):
    figure = average_precision_chart(
        [0.342, 0.01, np.nan], CLASSES, support=[12824, 152, 0], macro=0.176, micro=np.nan,
        colors=("#ff0000", "#0000ff", "#ffff00"),
    )  # fmt: skip
    axes = drawn(figure, tmp_path).axes[0]
    assert texts(axes) == ["34.2", "1.0", "no samples"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.342, 0.01, 0])
    assert labels(figure) == ["macro 17.6"]
    assert axes.lines[0].get_xdata() == [0.176, 0.176]
    (samples,) = axes.child_axes
    assert [label.get_text() for label in samples.get_yticklabels()] == ["12.8 k", "152", "0"]
    shown = " ".join(axes.get_yticklabels()[2].get_text().split())
    assert shown == CLASSES[2]


def test_precision_by_recall(tmp_path):
    figure = precision_recall_chart(
        [CURVE, None, CURVE], CLASSES, average_precision=[0.9, np.nan, 0.05], micro=CURVE
    )
    first, second, third = drawn(figure, tmp_path).axes
    assert [a.get_title(loc="right") for a in figure.axes] == ["90.0", "", "5.0"]
    assert " ".join(third.get_title(loc="left").split()) == CLASSES[2]
    micro, curve, guessing = first.lines
    for line in (micro, curve):
        assert line.get_xydata().tolist() == [[0, 1], [0.5, 0.8], [1, 0.25]]
        assert line.get_drawstyle() == "steps-pre"  # so that the area is the score
    assert guessing.get_ydata() == [0.25, 0.25]
    assert len(second.lines) == 1
    assert texts(second) == ["no samples"]
    assert labels(figure) == ["this class", "all classes (micro)", "guessing"]
    alone = precision_recall_chart([CURVE], CLASSES[:1], average_precision=[0.9])
    assert labels(alone) == ["this class", "guessing"]


def test_a_confusion_matrix_of_samples():
    axes = confusion_matrix_chart(np.eye(3), CLASSES, counted="samples").axes[0]
    assert axes.child_axes[0].get_ylabel() == "samples"


def test_curves_of_a_run_leave_counts_out(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "step,val/ap_macro,val/classes_evaluated,val/ap/water\n1,0.5,19,0.2\n"
    )
    (axes,) = curves_chart(tmp_path / "metrics.csv").axes
    assert axes.get_title(loc="left") == "ap_macro"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: average_precision_chart([1], CLASSES, support=[1, 1, 1], macro=1, micro=1),
            "3 classes need 3 values",
        ),
        (
            lambda: average_precision_chart([1, 1, 1], CLASSES, support=[1], macro=1, micro=1),
            "3 numbers of samples",
        ),
        (
            lambda: precision_recall_chart([CURVE], CLASSES, average_precision=[1, 1, 1]),
            "3 curves and values, got 1",
        ),
    ],
)
def test_errors(draw, message):
    with pytest.raises(InputError, match=message):
        draw()

"""Charts show the numbers they are given, and are saved without a display."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from fusionlab.errors import InputError
from fusionlab.plots import (
    class_colors,
    class_map_rgb,
    confusion_matrix_chart,
    curves_chart,
    examples_figure,
    fusion_weights_chart,
)
from fusionlab.types import IGNORE_INDEX

CLASSES = ("building", "water", "Land principally occupied by agriculture, with natural vegetation")
COLORS = ("#ff0000", "#0000ff", "#ffff00")


def texts(axes):
    return [text.get_text() for text in axes.texts]


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.fixture(autouse=True)
def _drawable(tmp_path, request):
    """Whatever a test draws must also be written without pyplot."""
    figures = []
    request.node.figures = figures
    yield
    for figure in figures:
        figure.savefig(tmp_path / "figure.png", dpi=40)
        assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def drawn(request):
    def note(figure):
        request.node.figures.append(figure)
        return figure

    return note


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("k", [1, 19])
@pytest.mark.parametrize("m", [2, 4])
def test_any_number_of_classes_and_modalities(k, m, drawn):
    classes = [f"{CLASSES[i % 3]} {i}" for i in range(k)]
    weights = {f"modality {i}": np.full(k, 1 / m) for i in range(m)}
    drawn(fusion_weights_chart(weights, classes))
    drawn(fusion_weights_chart(weights, classes, class_colors(classes)))
    drawn(confusion_matrix_chart(np.eye(k), classes))
    maps = [("target", np.arange(k)[None]), ("prediction", np.arange(k)[:, None])]
    drawn(examples_figure([maps[:m]], classes))


def test_fusion_weights(drawn):
    weights = {"aerial": [0.75, 0.2, np.nan], "sentinel2": [0.25, 0.8, np.nan]}
    figure = drawn(fusion_weights_chart(weights, CLASSES, COLORS))
    (axes,) = figure.axes
    assert texts(axes) == ["75", "20", "25", "80", "not seen"]
    assert labels(figure) == ["aerial", "sentinel2"]
    assert axes.get_yticklabels()[0].get_text() == "building"
    assert [to_hex(line.get_color()) for line in axes.lines[-3:]] == list(COLORS)
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches[3:]]
    assert ends == pytest.approx([1, 1, 0])


def test_confusion_matrix_is_in_percent_of_the_true_class(drawn):
    figure = drawn(confusion_matrix_chart([[30, 10, 0], [1, 0, 1999], [0, 0, 0]], CLASSES))
    axes = figure.axes[0]
    # 1 of 2000 is left out; a class without pixels stays empty
    assert texts(axes) == ["75", "25", "100"]
    (pixels,) = axes.child_axes
    assert [label.get_text() for label in pixels.get_yticklabels()] == ["40", "2.0 k", "0"]


def test_class_map_in_its_colours():
    rgb = class_map_rgb([[0, 2], [IGNORE_INDEX, 1]], COLORS)
    assert rgb.dtype == np.uint8
    assert rgb.tolist() == [[[255, 0, 0], [255, 255, 0]], [[217, 217, 217], [0, 0, 255]]]
    with pytest.raises(InputError, match=r"holds \[3\].*0 to 2"):
        class_map_rgb([[3]], COLORS)


@pytest.mark.parametrize("k", [1, 13, 20, 45])
def test_default_colours_differ(k):
    classes = [str(i) for i in range(k)]
    assert len(set(class_colors(classes))) == k
    assert class_colors(classes, classes) == classes


def test_examples(drawn):
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    target = np.array([[0, IGNORE_INDEX]])
    row = [("aerial", image), ("target", target), ("weight", np.array([[0.2, 0.9]]))]
    figure = drawn(examples_figure([row, row[:2]], CLASSES, COLORS))
    assert labels(figure) == ["building", "unknown"]
    titles = [axes.get_title() for axes in figure.axes[:6]]
    assert titles == ["aerial", "target", "weight", "aerial", "target", ""]


def test_curves(tmp_path, drawn):
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,lr,train/loss,val/loss,val/miou,val/iou/water,val/miou_flair2\n"
        "0,0,0.1,2.0,,,,\n"
        "0,1,,1.5,,,,\n"
        "0,1,,,1.8,0.3,0.1,nan\n"
    )
    figure = drawn(curves_chart(tmp_path / "metrics.csv"))
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["loss", "miou", "miou_flair2"]
    train, val = panels["loss"].lines
    assert train.get_xydata().tolist() == [[0, 2.0], [1, 1.5]]
    assert val.get_xydata().tolist() == [[1, 1.8]]
    assert labels(figure) == ["train", "val"]


def test_curves_prefer_means_over_epochs(tmp_path, drawn):
    (tmp_path / "metrics.csv").write_text(
        "step,train/loss_step,train/loss_epoch\n0,2.0,\n1,1.0,\n1,,1.5\n"
    )
    (axes,) = drawn(curves_chart(tmp_path / "metrics.csv")).axes
    assert axes.get_title(loc="left") == "loss"
    assert axes.lines[0].get_xydata().tolist() == [[1, 1.5]]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: fusion_weights_chart({"aerial": [1.0]}, CLASSES), "3 classes need 3 weights"),
        (lambda: confusion_matrix_chart(np.eye(2), CLASSES), "3 by 3"),
        (lambda: class_colors(CLASSES, COLORS[:2]), "3 classes but 2 colours"),
        (lambda: examples_figure([]), "no pictures"),
        (lambda: examples_figure([[("odd", np.zeros((2, 2, 7)))]]), "'odd'.*shape"),
    ],
)
def test_errors(draw, message):
    with pytest.raises(InputError, match=message):
        draw()


def test_a_table_without_curves(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,lr\n0,0,0.1\n")
    with pytest.raises(InputError, match="nothing to draw"):
        curves_chart(tmp_path / "metrics.csv")

"""Charts of a comparison show the numbers they are given, whole, for any number of members."""

import numpy as np
import pytest
from finished_runs import LAND_COVER
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fusionlab.errors import InputError
from fusionlab.plots import (
    class_scores_chart,
    comparison_curves_chart,
    member_colors,
    member_label,
    seeds_chart,
    trade_off_chart,
)

LONG = "a_member_with_quite_a_long_name_over_many_words_and_more"


def names(n):
    return [f"{LONG} {i}" if i % 3 == 1 else f"member {i}" for i in range(n)]


def extents(figure):
    """Every visible writing outside the plots, with its place, after checking that it is whole."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    box = figure.bbox
    found = []
    for axes in figure.axes:
        texts = [axes._left_title, axes.xaxis.label, axes.yaxis.label]
        ticks = within(axes.get_xticklabels(), axes.get_xlim(), 0)
        ticks += within(axes.get_yticklabels(), axes.get_ylim(), 1)
        found += [t for t in (*texts, *ticks) if t.get_visible() and t.get_text()]
    for legend in figure.legends:
        found += legend.get_texts()
    boxes = [text.get_window_extent(renderer) for text in found]
    for text, place in zip(found, boxes, strict=True):
        assert box.x0 - 1 <= place.x0 <= place.x1 <= box.x1 + 1, text.get_text()
        assert box.y0 - 1 <= place.y0 <= place.y1 <= box.y1 + 1, text.get_text()
    return found, boxes


def within(labels, limits, coordinate):
    """Ticks beyond the limits of an axis are not drawn."""
    low, high = sorted(limits)
    return [label for label in labels if low <= label.get_position()[coordinate] <= high]


def whole_and_apart(figure):
    found, boxes = extents(figure)
    for i, (text, place) in enumerate(zip(found, boxes, strict=True)):
        for other, there in zip(found[:i], boxes[:i], strict=True):
            apart = place.padded(-1).x1 < there.x0 or there.padded(-1).x1 < place.x0
            apart |= place.padded(-1).y1 < there.y0 or there.padded(-1).y1 < place.y0
            same = text.get_text() == other.get_text()
            assert apart or same, (text.get_text(), other.get_text())


def curve(level, epochs=5):
    return [(float(e), level / e) for e in range(1, epochs + 1)]


@pytest.mark.parametrize("n", [1, 2, 8, 14])
def test_curves_of_any_number_of_members(n):
    panel = {name: [curve(1 + i), curve(2 + i)] for i, name in enumerate(names(n))}
    figure = comparison_curves_chart({"training: loss": panel, "validation: loss": panel})
    whole_and_apart(figure)
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.legends[0].get_lines()}
    assert len(styles) == n


def test_curves_are_means_in_a_band_from_least_to_most():
    seeds = [[(1.0, 4.0), (2.0, 2.0)], [(1.0, 6.0), (2.0, 3.0), (3.0, 1.0)]]
    figure = comparison_curves_chart({"loss": {"late": seeds, "early": [[(1.0, 5.0)]]}})
    (axes,) = figure.axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 5], [2, 2.5], [3, 1]]
    (band,) = axes.collections  # one seed has none
    path = {tuple(point) for path in band.get_paths() for point in path.vertices.tolist()}
    assert {(1, 4), (1, 6), (2, 2), (2, 3), (3, 1)} <= path
    assert axes.get_yscale() == "linear"


@pytest.mark.parametrize(
    ("values", "scale"), [((1.0, 1e-5), "log"), ((1.0, 0.5), "linear"), ((1.0, 0.0), "linear")]
)
def test_small_losses_have_a_logarithmic_axis(values, scale):
    figure = comparison_curves_chart({"loss": {"a": [list(enumerate(values))]}})
    assert figure.axes[0].get_yscale() == scale
    whole_and_apart(figure)


@pytest.mark.parametrize(("n", "classes"), [
    (2, ("cubes", "spheres")), (8, ("cubes", "spheres")), (14, ("cubes", "spheres")),
    (2, LAND_COVER), (14, LAND_COVER),
])  # fmt: skip
def test_scores_of_classes(n, classes):
    k = len(classes)
    values = {name: (np.linspace(0.02, 0.98, k), np.full(k, 0.05)) for name in names(n)}
    figure = class_scores_chart(values, classes, x_label="IoU, %", percent=True)
    assert len(figure.axes) == k
    width, height = figure.get_size_inches()
    assert width < 16
    assert height < 16
    whole_and_apart(figure)


def test_numbers_of_classes():
    figure = class_scores_chart(
        {"early": ([0.9, np.nan], [0.05, np.nan]), "late": ([0.04, 0.5], [np.nan, 0.0])},
        ("cubes", "spheres"), x_label="IoU, %", percent=True,
    )  # fmt: skip
    cubes, spheres = figure.axes
    assert [bar.get_width() for bar in cubes.patches] == [0.9, 0.04]
    assert [text.get_text() for text in cubes.texts] == ["90.0", "4.0"]
    assert [text.get_text() for text in spheres.texts] == ["no samples", "50.0"]
    (error,) = [c for c in cubes.collections if len(c.get_segments())]
    ((low, high),) = [segment[:, 0] for segment in error.get_segments()]
    assert (low, high) == pytest.approx((0.85, 0.95))
    # At the foot of a long bar, behind a short one.
    assert [text.xy[0] for text in cubes.texts] == [0.0, 0.04]


def test_scores_that_are_not_shares_may_be_negative():
    figure = class_scores_chart(
        {"a": ([-0.5, 12.0], [0.1, 1.0])}, ("height", "biomass"), x_label="R²", percent=False
    )
    low, high = figure.axes[0].get_xlim()
    assert low < -0.5 < high
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["-0.5", "12"]
    assert figure.axes[0].texts[0].get_ha() == "right"
    whole_and_apart(figure)


@pytest.mark.parametrize("n", [1, 2, 8, 14])
def test_trade_offs_of_any_number_of_members(n):
    costs = {name: (8e6 * (1 + i % 3), 90 + i, 0.5) for i, name in enumerate(names(n))}
    wide = {name: (10.0**i, y, None) for i, (name, (_, y, _)) in enumerate(costs.items())}
    figure = trade_off_chart({"parameters": costs, "FLOPs": wide}, y_label="mIoU, %")
    whole_and_apart(figure)
    shown = [(x.get_color(), x.get_marker()) for x in figure.legends[0].get_lines()[:-1]]
    assert len(set(shown)) == n
    assert figure.axes[1].get_xscale() == ("log" if n > 1 else "linear")


@pytest.mark.parametrize(("less", "corners"), [(False, [[1, 5], [3, 7]]), (True, [[1, 5], [2, 4]])])
def test_a_line_joins_what_nothing_outdoes(less, corners):
    points = {"a": (1, 5, None), "b": (2, 4, None), "c": (3, 7, None), "d": (2.5, 4, None)}
    axes = trade_off_chart({"cost": points}, y_label="score", less_is_better=less).axes[0]
    (line,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert line.get_xydata() == pytest.approx(np.array(corners))
    assert line.get_drawstyle() == "steps-post"


def test_members_of_one_cost_do_not_hide_each_other():
    points = {m: (1e6, 90.0 + i, 3.0) for i, m in enumerate("abc")} | {"d": (2e6, 95.0, 1.0)}
    axes = trade_off_chart({"cost": points}, y_label="score").axes[0]
    xs = [c.lines[0].get_xdata()[0] for c in axes.containers]
    assert len(set(xs)) == 4
    assert np.mean(xs[:3]) == pytest.approx(1e6)
    assert max(abs(x - 1e6) for x in xs[:3]) < 0.03e6
    assert xs[3] == 2e6


@pytest.mark.parametrize("n", [1, 2, 14])
def test_every_seed_is_a_point(n):
    scores = {name: [90.0 + i, 91.0, 92.5] for i, name in enumerate(names(n))}
    scores["none"] = []
    figure = seeds_chart(scores, x_label="mIoU, %")
    whole_and_apart(figure)
    (axes,) = figure.axes
    mean, points = axes.lines[:2]
    assert points.get_xdata().tolist() == [90.0, 91.0, 92.5]
    assert len(set(points.get_ydata())) == 3  # equal scores do not hide each other
    assert mean.get_xdata() == pytest.approx([np.mean([90, 91, 92.5])] * 2)
    assert [text.get_text() for text in axes.texts] == ["no score"]


def test_long_names_are_cut_in_the_middle():
    assert member_label("late") == "late"
    assert len(member_label(LONG)) == 40
    assert member_label(LONG).startswith("a_member")
    assert member_label(LONG).endswith("and_more")
    assert member_label(f"{LONG} 1") != member_label(f"{LONG} 2")
    assert len(set(member_colors(8))) == 8


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: comparison_curves_chart({"loss": {"a": [[]]}}), "no curve to draw"),
        (lambda: trade_off_chart({}, y_label="score"), "no member with both"),
        (lambda: seeds_chart({"a": []}, x_label="score"), "no score to draw"),
        (lambda: class_scores_chart({}, ("x",), x_label="", percent=True), "no scores of single"),
        (
            lambda: class_scores_chart({"a": ([1], [1])}, "xy", x_label="", percent=True),
            "2 classes need 2 means and deviations of 'a'",
        ),
    ],
)
def test_errors(draw, message):
    with pytest.raises(InputError, match=message):
        draw()

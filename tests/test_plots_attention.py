"""Pictures of attention and of similarities show the numbers they are given, and fit the page."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fusionlab.errors import InputError
from fusionlab.plots import (
    AttendedSample,
    TokenWeights,
    attention_figure,
    class_similarity_chart,
    similarity_chart,
)

PICTURE = np.linspace(0, 255, 8 * 12 * 3).reshape(8, 12, 3).astype(np.uint8)
LONG = "Land principally occupied by agriculture"


def drawn(figure, folder):
    """Written without a display; every name lies within the picture, whole."""
    figure.savefig(folder / "figure.png", dpi=40)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box, renderer = figure.bbox, canvas.get_renderer()
    for axes in figure.axes:
        names = [axes.title, axes._left_title, *axes.get_yticklabels(), *axes.get_xticklabels()]
        for name in names:
            if name.get_visible() and name.get_text():
                extent = name.get_window_extent(renderer)
                assert box.x0 - 1 <= extent.x0 < extent.x1 <= box.x1 + 1, name
                assert box.y0 - 1 <= extent.y0 < extent.y1 <= box.y1 + 1, name
    return figure


def sample(words, weights, **changes) -> AttendedSample:
    cells = np.full((2, 3), 0.1)
    cells[1, 2] = 0.5
    parts = {
        "name": "scene_1", "pictures": {"image": PICTURE},
        "maps": {"where caption looks": (PICTURE, cells)},
        "tokens": {"looked at in caption": TokenWeights(words, weights)},
    }  # fmt: skip
    return AttendedSample(**{**parts, **changes})


def test_bars_are_weights_of_words_in_their_order(tmp_path):
    words = ["dense", "forest", "", "lake"]
    figure = drawn(attention_figure([sample(words, [0.2, 0.5, 0.0, 0.3])]), tmp_path)
    picture, heat, bars = figure.axes
    assert [bar.get_width() for bar in bars.patches] == [0.2, 0.5, 0.3]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["dense", "forest", "lake"]
    assert [text.get_text() for text in bars.texts] == ["20 %", "50 %", "30 %"]
    weights = heat.images[1].get_array()
    assert weights[1, 2] == pytest.approx(3)  # times an even look
    assert tuple(heat.images[1].get_extent()) == (-0.5, 11.5, 7.5, -0.5)
    assert heat.get_xlabel() == "up to 3.0 times an even look"
    assert (picture.images[0].get_array() == PICTURE).all()


def test_of_many_tokens_the_heaviest_are_shown_in_order(tmp_path):
    words = [f"w{i}" for i in range(40)]
    weights = np.arange(40) % 20 / 380
    figure = drawn(attention_figure([sample(words, weights)]), tmp_path)
    bars = figure.axes[2]
    shown = [label.get_text() for label in bars.get_yticklabels()]
    assert shown == [f"w{i}" for i in (*range(12, 20), *range(32, 40))]
    assert bars.get_xlabel() == "and 24 more"


def test_many_dates_are_drawn_over_time(tmp_path):
    weeks = np.arange("2021-01-04", "2022-01-03", 7, dtype="datetime64[D]")
    names = [*np.datetime_as_string(weeks), "", ""]  # the last pad
    weights = np.arange(len(names)) / np.arange(len(weeks)).sum()
    figure = drawn(attention_figure([sample(names, weights)]), tmp_path)
    chart = figure.axes[2]
    (stems,) = (c for c in chart.collections if len(c.get_segments()) == len(weeks))
    tops = [segment[1, 1] for segment in stems.get_segments()]
    np.testing.assert_allclose(tops, 100 * weights[: len(weeks)])
    assert chart.lines[0].get_ydata()[0] == pytest.approx(100 / 52)
    assert not chart.patches


def test_what_is_missing_and_long_names(tmp_path):
    gone = sample([], [], maps={"where caption looks": None},
                  tokens={"looked at in caption": None}, pictures={"image": None})  # fmt: skip
    figure = drawn(attention_figure([sample([LONG], [1.0]), gone]), tmp_path)
    texts = [text.get_text() for axes in figure.axes[3:] for text in axes.texts]
    assert texts.count("not available") == 3
    (label,) = figure.axes[2].get_yticklabels()
    assert label.get_text() == "Land principally …"


def test_nothing_to_show():
    with pytest.raises(InputError, match="no samples"):
        attention_figure([])
    with pytest.raises(InputError, match="nothing to show"):
        attention_figure([AttendedSample("a")])
    with pytest.raises(InputError, match="no similarities"):
        similarity_chart({}, ["a"])
    with pytest.raises(InputError, match="no similarities"):
        class_similarity_chart(np.empty((0, 2)), [], ["a", "b"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("pairs", "n"), [(1, 1), (2, 16), (4, 5)])
def test_similarities_of_any_number_of_pairs(pairs, n, tmp_path):
    values = np.random.default_rng(0).uniform(-1, 1, (n, n))
    values[0] = np.nan
    cosines = {("image", f"radar{i}"): values for i in range(pairs)}
    figure = drawn(similarity_chart(cosines, [f"{LONG} {i}" for i in range(n)]), tmp_path)
    panels = [axes for axes in figure.axes if axes.get_xlabel().startswith("radar")]
    assert len(panels) == pairs
    shown = panels[0].images[0].get_array()
    assert shown.mask[0].all()
    np.testing.assert_array_equal(shown[1:], values[1:])


def test_classes_given_are_marked(tmp_path):
    cosines = [[0.1, 0.4, 0.2], [np.nan, np.nan, np.nan], [0.35, 0.3, 0.2]]
    names = ["one", "two", f"{LONG}_3"]
    figure = drawn(class_similarity_chart(cosines, names, ["forest", LONG, "sea"]), tmp_path)
    axes = figure.axes[0]
    assert [patch.get_xy() for patch in axes.patches] == [(0.5, -0.5), (-0.5, 1.5)]
    written = [text.get_text() for text in axes.texts]
    assert written == ["0.10", "0.40", "0.20", "0.35", "0.30", "0.20"]
    assert axes.get_yticklabels()[2].get_text() == "…cupied by agriculture_3"
    given = class_similarity_chart(
        cosines, names, ["a", "b", "c"], predicted=[[1, 0, 1], [1, 0, 0], [0, 0, 0]]
    )
    assert [patch.get_xy() for patch in given.axes[0].patches] == [(-0.5, -0.5), (1.5, -0.5)]


def test_shapes_that_do_not_fit():
    with pytest.raises(InputError, match="2 samples have 2 x 2 cosines"):
        similarity_chart({("a", "b"): np.zeros((2, 3))}, ["x", "y"])
    with pytest.raises(InputError, match="1 samples and 2 classes"):
        class_similarity_chart(np.zeros((2, 2)), ["x"], ["a", "b"])

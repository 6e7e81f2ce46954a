"""The chart of predicted by true values shows the numbers it is given."""

import numpy as np
import pytest

from fusionlab.errors import InputError
from fusionlab.plots import regression_chart


def pairs(n, seed=0):
    random = np.random.default_rng(seed)
    true = random.uniform(0, 30, n)
    return true, true + random.normal(0, 2, n)


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_a_panel_per_variable(tmp_path):
    figure = regression_chart(
        [pairs(5000), pairs(50), ([], []), pairs(900)], ["height", "cover", "none", "age"],
        units=["m", "", "", "years"], rmse=[2.04, 2, np.nan, 2], r2=[0.951, np.nan, np.nan, 0.9],
    )  # fmt: skip
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "height\nRMSE 2.04 m, R² 0.95"
    assert titles[1] == "cover\nRMSE 2"
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "true, m", "true", "true", "true, years"
    ]  # fmt: skip
    assert [text.get_text() for text in figure.axes[2].texts] == ["no values"]
    density, points = figure.axes[0], figure.axes[1]
    assert density.collections[0].get_array().sum() == pytest.approx(5000, rel=0.01)
    assert len(points.lines[0].get_xdata()) == 50
    for axes in (density, points):
        line = axes.lines[-1]
        assert list(line.get_xdata()) == list(line.get_ydata())
        assert axes.get_xlim() == axes.get_ylim()
    assert labels(figure) == ["predicted = true", "few values", "many"]
    figure.savefig(tmp_path / "figure.png", dpi=40)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_density_has_truth_across_and_prediction_up():
    true, predicted = np.full(1000, 1.0), np.full(1000, 3.0)
    true[0] = predicted[0] = 5.0
    figure = regression_chart([(true, predicted)], ["x"], rmse=[2.0], r2=[0.0])
    (mesh,) = figure.axes[0].collections
    rows, columns = np.nonzero(mesh.get_array().filled(0) > 900)
    edges = np.linspace(*figure.axes[0].get_xlim(), 81)
    assert edges[columns[0]] <= 1.0 <= edges[columns[0] + 1]
    assert edges[rows[0]] <= 3.0 <= edges[rows[0] + 1]


def test_outliers_do_not_stretch_the_axes_and_are_owned_up_to():
    true, predicted = pairs(2000)
    predicted[0], predicted[1], true[2] = 1e6, np.nan, np.inf
    figure = regression_chart([(true, predicted)], ["x"], rmse=[2.0], r2=[0.5])
    assert figure.axes[0].get_xlim()[1] < 60
    assert "% outside" in figure.axes[0].texts[-1].get_text()
    constant = np.full(10, 7.0)
    low, high = regression_chart([(constant, constant)], ["x"], rmse=[0], r2=[0]).axes[0].get_xlim()
    assert low < 7 < high


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rmse": []}, "1 variables need 1 values of rmse, got 0"),
        ({"units": ["m", "m"]}, "1 units, got 2"),
        ({"pairs": [([1, 2], [1])]}, "must be as many"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    given = {"pairs": [([1], [1])], "variables": ["x"], "rmse": [0.0], "r2": [0.0], **options}
    with pytest.raises(InputError, match=message):
        regression_chart(**given)

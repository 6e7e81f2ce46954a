"""Examples of a regression: maps with their errors, or numbers."""

from functools import partial

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from patch_scenes import patch_schema
from raster_scenes import trainer
from torch import nn
from torch.utils.data import DataLoader

from fusionlab.callbacks import Examples
from fusionlab.callbacks.value_figures import (
    MOST_MAPS,
    RegressedSample,
    value_maps_figure,
    values_figure,
)
from fusionlab.data.base import collate
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert
from fusionlab.tasks import RegressionTask
from fusionlab.types import Schema

VARIABLES, UNITS = ("canopy height", "slope", "index"), ("m", "%", "")


class Bands(Expert):
    """Answers with its bands, or their means."""

    def __init__(self, schema, *, pixelwise):
        super().__init__(schema, modality="s2")
        self.factor = nn.Parameter(torch.tensor(1.0))
        self.pixelwise = pixelwise

    def logits(self, values):
        bands = self.inputs(values) * self.factor
        return bands if self.pixelwise else bands.mean(dim=(2, 3))


def sample(i, target):
    s2 = torch.arange(3 * 12 * 12).reshape(3, 12, 12).float() + i
    return {
        "inputs": {"s1": torch.randn(2, 12, 12) - 12, "s2": s2},
        "available": {"s1": torch.tensor(i != 1), "s2": torch.tensor(True)},
        "target": target(s2),
        "sample_id": f"patch_{i}",
    }


def evaluate(tmp_path, kind, target, *, number=4, precision="32-true"):
    modalities = patch_schema().modalities
    schema = Schema(modalities, target=kind, variables=VARIABLES, units=UNITS, gsd=10.0)
    task = RegressionTask(schema, partial(Bands, pixelwise=kind == "regression"))
    loader = DataLoader([sample(i, target) for i in range(5)], 2, collate_fn=collate)
    callback = Examples(tmp_path, number=number)
    kept = []
    draw = callback._draw

    def watch(*args):
        kept.extend(callback._samples)
        draw(*args)

    callback._draw = watch
    trainer(callback, precision=precision).validate(task, loader, verbose=False)
    return kept


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_maps_are_kept_with_their_truth_and_drawn(tmp_path):
    def target(s2):
        truth = s2 + 3
        truth[0, :2] = np.nan
        return truth

    kept = evaluate(tmp_path, "regression", target)
    assert [one.name for one in kept] == [f"patch_{i}" for i in range(4)]
    assert kept[1].pictures["s1"] is None  # shown as missing, not left out
    assert kept[0].pictures["s1"].shape == (12, 12, 3)
    for one in kept:
        assert one.true.shape == one.predicted.shape == (3, 12, 12)
        assert np.isnan(one.true[0, :2]).all()
        np.testing.assert_allclose(one.predicted[0, 2:] - one.true[0, 2:], -3)
    assert imread(tmp_path / "val_examples.png").std() > 0.05


def test_numbers_are_kept_with_their_truth_and_drawn(tmp_path):
    kept = evaluate(tmp_path, "scalar_regression", lambda s2: s2.mean(dim=(1, 2)) + 3, number=3)
    assert len(kept) == 3
    for one in kept:
        assert one.true.shape == (3,)
        np.testing.assert_allclose(one.predicted - one.true, -3, rtol=1e-4)
    assert imread(tmp_path / "val_examples.png").std() > 0.05


def test_half_precision_can_be_drawn(tmp_path):
    kept = evaluate(tmp_path, "regression", lambda s2: s2, precision="bf16-mixed")
    assert kept[0].predicted.dtype == np.float32


def maps(seed=0, *, offset=0.0, unknown=False, s1=True):
    rng = np.random.default_rng(seed)
    true = np.float32([[[10]], [[1]], [[0.1]]]) * rng.normal(size=(3, 20, 30)).astype(np.float32)
    if unknown:
        true[0] = np.nan
    picture = rng.integers(0, 255, (16, 24, 3)).astype(np.uint8)
    pictures = {"s1": picture if s1 else None, "s2": picture}
    return RegressedSample(f"p{seed}", pictures, true, true + np.float32(offset))


def test_truth_and_prediction_share_their_colours_and_errors_are_around_zero():
    samples = [maps(0, offset=0.5), maps(1, offset=0.5, s1=False), maps(2, unknown=True)]
    figure = value_maps_figure(samples, VARIABLES, UNITS)
    FigureCanvasAgg(figure).draw()
    titled = {
        title: [axes.images[0] for axes in figure.axes if axes.get_title() == title]
        for title in ("truth", "prediction", "error", "s2")
    }
    assert [len(found) for found in titled.values()][:3] == [9, 9, 9]
    assert len(titled["s2"]) == 3  # once per sample, not per variable
    truth, prediction, error = (titled[name] for name in ("truth", "prediction", "error"))
    for i, (one, other, wrong) in enumerate(zip(truth, prediction, error, strict=True)):
        assert one.get_clim() == other.get_clim() == truth[i - i % 3].get_clim()  # of all samples
        low, high = wrong.get_clim()
        assert -low == high
        assert wrong.get_clim() == error[i - i % 3].get_clim()
        assert wrong.cmap.name != one.cmap.name == other.cmap.name
    assert len({image.get_clim() for image in truth}) == 3
    np.testing.assert_allclose(error[1].get_array(), 0.5, rtol=1e-5)
    assert error[2].get_array().mask.all()  # where the truth is unknown, so is the error
    bars = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    names = ["canopy height [m]", "slope [%]", "index"]
    assert sorted(bars) == sorted(names * 6)  # one for truth and prediction, one for the error
    assert "not available" in texts(figure)
    assert {"p0", "p1", "p2"} <= set(texts(figure))


def test_maps_of_many_variables_are_drawn_of_the_first_ones():
    many = np.zeros((MOST_MAPS + 4, 8, 8), np.float32)
    names = [f"v{i}" for i in range(len(many))]
    figure = value_maps_figure([RegressedSample("p", {}, many, many)], names, [""] * len(many))
    bars = {axes.get_xlabel() for axes in figure.axes} - {""}
    assert bars == set(names[:MOST_MAPS])


@pytest.mark.parametrize("length", [1, 120])
def test_numbers_stand_beside_the_pictures(length):
    names = ("canopy height", "b" * length, "index")
    one = maps()
    true = np.array([12.34, np.nan, -0.5], np.float32)
    predicted = np.array([11.84, 1234.5, 0.25], np.float32)
    sample = RegressedSample("patch", one.pictures, true, predicted)
    figure = values_figure([sample], names, UNITS)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    said = texts(figure)
    assert said[:3] == ["patch", "canopy height [m]", "true 12.34    predicted 11.84    error -0.5"]
    assert "truth unknown    predicted 1234" in said or "truth unknown    predicted 1235" in said
    assert said[-2:] == ["index", "true -0.5    predicted 0.25    error +0.75"]
    written = [t for axes in figure.axes for t in axes.texts]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in written]
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    assert not any(a.overlaps(b.padded(-1)) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_nothing_to_show_is_an_error():
    for draw in (value_maps_figure, values_figure):
        with pytest.raises(InputError, match="no samples"):
            draw([], VARIABLES, UNITS)

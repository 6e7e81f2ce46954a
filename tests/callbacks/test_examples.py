import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.image import imread
from patch_scenes import CLASSES, patch_schema
from raster_scenes import trainer
from torch import nn
from torch.utils.data import DataLoader

from fusionlab.callbacks import Examples
from fusionlab.callbacks.examples import RADAR_DECIBELS, picture, pictures
from fusionlab.callbacks.label_figure import LabelledSample, labels_figure
from fusionlab.data.base import collate
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert
from fusionlab.tasks import ClassificationTask
from fusionlab.types import Modality

LONG = "Land principally occupied by agriculture, with significant areas of natural vegetation"


class MeanExpert(Expert):
    """Says of a sample that its brightest bands apply."""

    def __init__(self, schema):
        super().__init__(schema, modality="s2")
        self.factor = nn.Parameter(torch.tensor(1.0))

    def logits(self, values):
        return (self.inputs(values).mean(dim=(2, 3)) - 500) * self.factor


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def titles(figure):
    axes = [inner for outer in figure.axes for inner in outer.child_axes]
    return [one.get_title(loc="left") for one in axes]


def sample(i, target):
    s2 = torch.full((3, 12, 12), 100, dtype=torch.int32)
    s2[i % 3] = 900
    return {
        "inputs": {"s1": torch.randn(2, 12, 12) - 12, "s2": s2},
        "available": {"s1": torch.tensor(i != 1), "s2": torch.tensor(True)},
        "target": target,
        "sample_id": f"patch_{i}",
    }


def evaluate(tmp_path, schema, targets, **options):
    task = ClassificationTask(schema, MeanExpert)
    loader = DataLoader([sample(i, t) for i, t in enumerate(targets)], 2, collate_fn=collate)
    callback = Examples(tmp_path, **options)
    drawn = []
    keep = callback._draw

    def watch(*args):
        drawn.extend(callback._samples)
        keep(*args)

    callback._draw = watch
    trainer(callback).validate(task, loader, verbose=False)
    return drawn


def test_labels_are_sorted_into_correct_missed_and_false(tmp_path):
    targets = [torch.tensor(t) for t in ([1.0, 1, 0], [0.0, 0, 1], [0.0, 0, 1])]
    drawn = evaluate(tmp_path, patch_schema("multilabel"), targets)
    assert [one.name for one in drawn] == ["patch_0", "patch_1", "patch_2"]
    assert [one.true for one in drawn] == [{0, 1}, {2}, {2}]
    assert [one.predicted for one in drawn] == [{0}, {1}, {2}]
    assert drawn[1].pictures["s1"] is None  # shown as missing, not left out
    assert drawn[0].pictures["s1"].shape == (12, 12, 3)
    assert imread(tmp_path / "val_examples.png").std() > 0.05
    figure = labels_figure(drawn, CLASSES)
    assert texts(figure) == [
        "patch_0", "correct", f"✓  {CLASSES[0]}", "missed", f"○  {CLASSES[1]}",
        "patch_1", "missed", f"○  {CLASSES[2]}", "false", f"✗  {CLASSES[1]}",
        "patch_2", "correct", f"✓  {CLASSES[2]}",
    ]  # fmt: skip
    assert titles(figure) == ["s1", "s2"] * 3


def test_soft_and_weighted_labels_count_from_a_half_on(tmp_path):
    targets = [torch.tensor(t) for t in ([0.9, 0.5, 0.4], [0.0, 2.0, 0.0])]
    drawn = evaluate(tmp_path, patch_schema("multilabel"), targets)
    assert [one.true for one in drawn] == [{0, 1}, {1}]


def test_one_class_each_and_an_unknown_truth(tmp_path):
    targets = [torch.tensor(i) for i in (0, 2, 255, 1, 0)]
    drawn = evaluate(tmp_path, patch_schema("multiclass"), targets, number=3)
    assert [one.true for one in drawn] == [{0}, {2}, None]
    assert [one.predicted for one in drawn] == [{0}, {1}, {2}]
    found = texts(labels_figure(drawn, CLASSES))
    assert found[-2:] == ["predicted, truth unknown", f"•  {CLASSES[2]}"]


def test_loggers_are_sent_the_picture(tmp_path):
    pytest.importorskip("tensorboard")
    task = ClassificationTask(patch_schema(), MeanExpert)
    data = [sample(i, torch.tensor([1.0, 0, 0])) for i in range(2)]
    loader = DataLoader(data, 2, collate_fn=collate)
    logger = TensorBoardLogger(tmp_path / "logs")
    trainer(Examples(tmp_path), logger=logger).test(task, loader, verbose=False)
    assert (tmp_path / "test_examples.png").is_file()
    content = b"".join(path.read_bytes() for path in (tmp_path / "logs").rglob("events*"))
    assert b"test/examples" in content


def overlapping(figure):
    """Pairs of texts of a figure that lie on each other, and those that leave it."""
    renderer = figure.canvas.get_renderer()
    boxes = [
        (text.get_text(), text.get_window_extent(renderer))
        for axes in figure.axes
        for text in axes.texts
    ]
    page = figure.bbox
    out = [t for t, b in boxes if b.x0 < 0 or b.y0 < 0 or b.x1 > page.x1 or b.y1 > page.y1]
    return out, [
        (a, b)
        for i, (a, one) in enumerate(boxes)
        for b, other in boxes[i + 1 :]
        if one.overlaps(other.padded(-1))
    ]


@pytest.mark.parametrize("modalities", [1, 4])
def test_many_long_labels_stay_on_the_page_and_apart(modalities):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    classes = [f"{LONG} {i}" for i in range(12)]
    shown = {f"m{i}": np.zeros((20, 20, 3), np.uint8) for i in range(modalities)}
    many = LabelledSample("p" * 50, shown, frozenset(range(8)), frozenset(range(4, 12)))
    few = LabelledSample("q", {**shown, "m0": None}, frozenset(), frozenset())
    figure = labels_figure([many, few, many], classes)
    FigureCanvasAgg(figure)
    outside, pairs = overlapping(figure)
    assert outside == []
    assert pairs == []
    lines = texts(figure)
    assert "no label, and none predicted" in lines
    assert "not available" in [
        t.get_text() for a in figure.axes for inner in a.child_axes for t in inner.texts
    ]
    assert " ".join(" ".join(lines[2:4]).split()) == f"✓ {LONG} 4"  # wrapped, not cut


def test_nothing_to_show_is_an_error():
    with pytest.raises(InputError, match="no samples"):
        labels_figure([], CLASSES)


def test_radar_is_shown_in_three_colours_alike_for_all_samples():
    modality = Modality(("VH", "VV"), 10.0)
    image = torch.zeros(2, 4, 4)
    image[0], image[1] = -19.0, -12.0
    expected = [
        (value - low) / (high - low) * 255
        for value, (low, high) in zip((-12, -19, 7), RADAR_DECIBELS, strict=True)
    ]
    image[:, 0, 0] = torch.nan
    image[1, 0, 1] = 40  # a bright point changes no other pixel
    shown = picture(image, modality)
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[0, 1, 0] == 255
    assert shown[2, 2].tolist() == pytest.approx(expected, abs=1)


def test_true_colour_needs_all_three_bands():
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(4, 20, 20, generator=rng)
    true = picture(image, Modality(("B02", "B03", "B04", "B08"), 10.0))
    assert np.corrcoef(true[..., 0].ravel(), image[2].ravel())[0, 1] > 0.99
    assert np.corrcoef(true[..., 2].ravel(), image[0].ravel())[0, 1] > 0.99
    grey = picture(image, Modality(("B05", "B03", "B04", "B08"), 10.0))
    assert (grey[..., 0] == grey[..., 1]).all()
    assert np.corrcoef(grey[..., 0].ravel(), image[0].ravel())[0, 1] > 0.99
    gap = image.clone()
    gap[:, :5] = torch.nan
    assert (picture(gap, Modality(("B02", "B03", "B04", "B08"), 10.0))[:5] == 0).all()
    assert (picture(gap, Modality(("B02", "B03", "B04", "B08"), 10.0))[5:] > 0).any()


def test_what_is_missing_has_no_picture():
    batch = collate([sample(i, torch.zeros(3)) for i in range(2)])
    assert list(pictures(batch, 0, patch_schema())) == ["s1", "s2"]
    assert list(pictures(batch, 1, patch_schema())) == ["s2"]

"""Words, cells and courses of samples, as lines beside their pictures."""

import numpy as np
import pytest
import torch

from fusionlab.callbacks.label_figure import LabelledSample, labels_figure
from fusionlab.callbacks.sample_figure import LETTERS
from fusionlab.callbacks.sample_notes import MOST_LINES, notes
from fusionlab.types import Modality, Schema, TimeSeries

SCHEMA = Schema(
    {
        "image": Modality(("red",)),
        "caption": Modality((), kind="text"),
        "site": Modality(("height", "season"), kind="table", categories={"season": ["dry", "wet"]}),
        "weather": Modality(("rain",), kind="series", temporal=True),
    },
    ["a", "b"],
    target="multiclass",
)


def said(caption="Trees", site=(12.5, 1.0), rain=(1.0, float("nan"), 3.0), missing=()) -> list[str]:
    days = torch.tensor([[19_359, 19_366, 19_373]])
    series = TimeSeries(torch.tensor(rain).view(1, 3, 1), days, torch.tensor([[True, True, False]]))
    batch = {
        "inputs": {
            "image": torch.zeros(1, 1, 4, 4),
            "caption": [caption],
            "site": torch.tensor([site]),
            "weather": series,
        },
        "available": {
            name: torch.tensor([name not in missing]) for name in SCHEMA.modalities
        },
    }  # fmt: skip
    return [line.text for line in notes(batch, 0, SCHEMA)]


def test_every_kind_says_what_it_holds():
    assert said() == [
        "caption", "Trees",
        "site", "height 12.5    season wet",
        "weather", "2 dates, 2023-01-02 to 2023-01-09    rain 1 to 1",
    ]  # fmt: skip


def test_what_is_missing_says_so():
    assert said(missing=["caption"])[:2] == ["caption", "not available"]
    assert said(site=(float("nan"), 2.0))[3] == "season unknown"


@pytest.mark.parametrize("text", ["word " * 5000, "x" * 10_000, "森" * 3000])
def test_long_texts_are_cut(text):
    lines = said(text)
    last = lines.index("site")
    assert last == 1 + MOST_LINES
    assert lines[last - 1].endswith(" …")
    assert all(len(line) <= LETTERS for line in lines)


def test_texts_are_no_formulas(tmp_path):
    batch = {
        "inputs": {"caption": ["costs $5 or $\\frac"]},
        "available": {"caption": torch.tensor([True])},
    }
    lines = notes(batch, 0, SCHEMA)
    picture = {"image": np.zeros((4, 4, 3), np.uint8)}
    sample = LabelledSample("s", picture, frozenset([0]), frozenset([1]), lines)
    labels_figure([sample], SCHEMA.classes).savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_samples_of_words_alone_are_drawn(tmp_path):
    batch = {"inputs": {"caption": ["Trees"]}, "available": {"caption": torch.tensor([True])}}
    sample = LabelledSample("s", {}, None, frozenset([1]), notes(batch, 0, SCHEMA))
    labels_figure([sample], SCHEMA.classes).savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000

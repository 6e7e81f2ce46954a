"""The table of what composed networks can: every cell is tried, the published one is complete."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fusionlab.decoders import DECODERS
from fusionlab.factory import build_model
from fusionlab.necks import NECKS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "encoder_decoder.md"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        yield importlib.import_module("check_portability")
    sys.modules.pop("check_portability", None)


class Trouble(nn.Module):
    """Computes, but cannot do what its option says."""

    def __init__(self, trouble):
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 1)
        self.trouble = trouble
        self.function = (lambda: 0) if trouble == "pickle" else None

    def forward(self, images):
        logits = self.conv(images)
        if self.trouble == "values" and images.sum() > 1e6:
            return -logits
        if self.trouble == "graph":
            torch._dynamo.graph_break()
        if self.trouble == "batch":
            return torch.stack([self.conv(image) for image in images])
        return logits


class Forgetful(Trouble):
    """Its copies have other weights."""

    def __deepcopy__(self, memo):
        return Trouble("")


def test_a_composed_network_can_everything(script):
    network = script.Network(
        "small", lambda: build_model("segmentation", "test_resnet", "FCN", bands=4, num_classes=3)
    )
    assert script.check(network) == ("small", "yes", "yes", "yes")


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        ("pickle", ("no: ", "yes", "yes")),
        ("graph", ("yes", "in parts: ", "yes")),
        ("values", ("yes", "in parts: what is done depends on values", "no: what is done")),
        ("batch", ("yes", "yes", "one batch size: ")),
    ],
)
def test_what_a_network_cannot_is_said_with_the_reason(script, trouble, expected):
    found = script.check(script.Network("a", lambda: Trouble(trouble)))[1:]
    for cell, start in zip(found, expected, strict=True):
        assert cell.startswith(start), found
        assert cell == "yes" or len(cell.partition(": ")[2]) > 5


def test_an_answer_that_changes_is_no_copy(script):
    assert "differ" in script.check(script.Network("a", lambda: Forgetful(""))).copies


def test_publishing_replaces_what_is_between_the_marks_only(script, tmp_path):
    document = tmp_path / "a.md"
    document.write_text("A\n<!-- portability: by x -->\nold\n<!-- end of portability -->\nB\n")
    table = script.markdown([script.Row("net", "yes", "no: a", "yes")])
    for _ in range(2):
        script.publish(table, document, script.MARK)
    text = document.read_text()
    assert text.startswith("A\n<!-- portability: by x -->\n\n| network |")
    assert text.endswith("| net | yes | no: a | yes |\n\n<!-- end of portability -->\nB\n")
    document.write_text("nothing")
    with pytest.raises(ValueError, match="no marks"):
        script.publish(table, document, script.MARK)


def test_the_published_table_has_every_network_decoder_and_neck(script):
    names = [network.name for network in script.networks()]
    lines = DOCUMENT.read_text().split("<!-- portability:")[1].split("<!-- end of")[0].splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert [found[0] for found in cells[1:]] == names
    assert all(len(found) == 4 for found in cells)
    parts = {part.split(",")[0].split(" (")[0] for name in names for part in name.split(" → ")}
    decoders = {entry.full_name.removeprefix("fusionlab/") for entry in DECODERS.list()}
    assert decoders | set(NECKS.own) <= parts
    text = DOCUMENT.read_text()
    assert [part for part in decoders | set(NECKS.own) if f"| `{part}` |" not in text] == []

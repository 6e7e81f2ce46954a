"""What a study tells as it goes is what its report says."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from finished_runs import finished

from fusionlab.study.progress import score_of
from fusionlab.study.table import compare


def left(folder: Path, scores: dict, monitor: str) -> SimpleNamespace:
    """A run whose files are there."""
    named = {f"test/{name}": value for name, value in scores.items()}
    (folder / "test_metrics.json").write_text(json.dumps(named | {"trained_parameters": 7}))
    (folder / "measures.json").write_text(json.dumps({"monitor": [monitor, "min"]}))
    return SimpleNamespace(folder=folder)


@pytest.mark.parametrize(
    ("scores", "monitor", "told"),
    [
        ({"loss": 0.1, "f1/a": 0.2, "overall_accuracy": 0.9}, "val/loss", "overall_accuracy 0.9"),
        ({"loss": 0.1, "miou": 0.25, "f1": 0.75}, "val/f1", "f1 0.75"),
        ({"loss": 0.1}, "val/loss", "loss 0.1"),
        ({"support": 3.0, "share/s1": 0.5, "rmse": 1.5}, "val/loss", "rmse 1.5"),
    ],
)
def test_a_finished_run_tells_the_score_that_ranks_the_table(tmp_path, scores, monitor, told):
    assert score_of(left(tmp_path, scores, monitor), None) == f"test/{told}"
    run = finished("a", 0, scores, measures={"monitor": [monitor, "min"]})
    assert told.startswith(f"{compare([run]).score} ")


def test_a_named_score(tmp_path):
    run = left(tmp_path, {"loss": 0.1, "miou": 0.25}, "val/loss")
    assert score_of(run, "loss") == score_of(run, "test/loss") == "test/loss 0.1"
    assert "no score 'mious'" in score_of(run, "mious")


def test_nothing_is_told_of_what_is_not_there(tmp_path):
    assert score_of(SimpleNamespace(folder=tmp_path), None) is None
    assert score_of(left(tmp_path, {"own": 1.0}, "val/loss"), None) is None
    assert score_of(left(tmp_path, {"miou": None}, "val/loss"), None) is None

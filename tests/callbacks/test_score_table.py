"""Scores as they are printed after an evaluation: all of them, in tables a reader can follow."""

import io
import json
import math
import re

import pytest
from bigearthnet_runs import best, without_pictures
from cli_runs import config, fused
from rich.console import Console

from fusionlab.callbacks import score_table
from fusionlab.callbacks.score_table import print_scores
from fusionlab.cli import run
from fusionlab.data.bigearthnet.constants import CLASSES

LONGEST = max(CLASSES, key=len)
FLAIR2 = ["--data", "Flair2DataModule", "--data.sen_crop_size", "12",
          "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]  # fmt: skip


def tables(text: str) -> dict[str, dict[str, list[str]]]:
    """Rows by first cell, the header among them, of each table by its title."""
    found: dict[str, dict[str, list[str]]] = {}
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = [re.split(r"\s{2,}", line.strip()) for line in block.splitlines()]
        if "scores" in lines[0][0]:
            found[lines[0][0]] = {name: cells for name, *cells in lines[1:]}
    return found


def multilabel(classes=CLASSES) -> dict[str, float]:
    scores = {"loss": 0.25, "ap_macro": 0.5, "classes_evaluated": 18.0, "share/s1": 0.75}
    for metric in ("ap", "f1", "support", "share/s1", "share/s2"):
        scores |= {f"{metric}/{name}": 0.125 for name in classes}
    return scores


def test_every_class_is_one_uncut_line_in_a_log(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # of whoever writes the log
    scores = multilabel()
    scores |= {f"support/{name}": 81_234.0 for name in CLASSES}
    scores[f"ap/{LONGEST}"] = math.nan
    print_scores("Test scores", scores, CLASSES)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "…" not in text
    rows = tables(text)["Test scores by class"]
    assert next(iter(rows)) == "class"
    assert rows.pop("class") == ["ap", "f1", "support", "share/s1", "share/s2"]
    assert [name for name in rows if name in CLASSES] == list(CLASSES)
    assert rows[LONGEST] == ["–", "0.1250", "81234", "0.1250", "0.1250"]
    assert rows[CLASSES[0]] == ["0.1250", "0.1250", "81234", "0.1250", "0.1250"]


def test_scores_over_all_come_first_and_in_their_order(capsys):
    print_scores("Test scores", multilabel(), CLASSES)
    first, second = tables(capsys.readouterr().out).items()
    assert (first[0], second[0]) == ("Test scores", "Test scores by class")
    names = [name for name in first[1] if "─" not in name]
    assert names == ["score", "loss", "ap_macro", "classes_evaluated", "share/s1"]
    assert first[1]["classes_evaluated"] == ["18"]
    assert first[1]["loss"] == ["0.2500"]


def test_a_small_number_is_told_from_none_and_infinity_shows(capsys):
    print_scores("Test scores", {"loss": math.inf, "rmse": 0.00002, "bias": -0.5, "mae": 0.0}, ())
    (rows,) = tables(capsys.readouterr().out).values()
    assert [rows[name][0] for name in ("loss", "rmse", "bias", "mae")] == [
        "inf", "2e-05", "-0.5000", "0.0000",
    ]  # fmt: skip


def test_without_classes_there_is_no_table_of_them(capsys):
    print_scores("Test scores", {"loss": 1.0, "share/s1": 0.5}, ())
    assert list(tables(capsys.readouterr().out)) == ["Test scores"]


def test_names_with_slashes_brackets_or_that_of_a_modality(capsys):
    classes = ("water", "bare soil, [wet] :smile:", "soil/water")
    scores = {"iou": 0.5, "share/water": 0.25, "only/water": 0.75}
    scores |= {f"{metric}/{c}": i / 8 for metric in ("iou", "share/water")
               for i, c in enumerate(classes)}  # fmt: skip
    print_scores("Test scores", scores, classes)
    overall, rows = tables(capsys.readouterr().out).values()
    assert overall["share/water"] == ["0.2500"]
    assert overall["only/water"] == ["0.7500"]  # not of every class: yet it is not lost
    assert rows["class"] == ["iou", "share/water"]
    assert [rows[name] for name in classes] == [[f"{i / 8:.4f}"] * 2 for i in range(3)]


@pytest.mark.parametrize("width", [80, 40])
def test_a_narrow_terminal_breaks_names_but_no_number(monkeypatch, width):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system=None, width=width)
    monkeypatch.setattr(score_table, "get_console", lambda: console)
    scores = multilabel() | {f"support/{name}": 12_345_678.0 for name in CLASSES}
    print_scores("Test scores", scores, CLASSES)
    text = re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue())
    assert "…" not in text
    by_class = text.split("by class")[1]
    assert by_class.count("12345678") == len(CLASSES)
    assert by_class.count("0.1250") == 4 * len(CLASSES)
    letters = re.sub(r"[\s\d.]", "", by_class)
    assert all(re.sub(r"\s", "", name) in letters for name in CLASSES)
    assert "share/s2" in re.sub(r"\s", "", by_class) or width < 80


def test_a_stream_of_few_signs_gets_those(monkeypatch):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    print_scores("Test scores", {"iou": 0.5, "iou/forêt": math.nan}, ["forêt"])
    stream.flush()
    assert re.search(r"for\?t +\| +-", written.getvalue().decode("ascii"))


def agrees(printed: dict[str, dict[str, list[str]]], saved: dict, stage: str, classes: list[str]):
    """All that the JSON holds is printed, and nothing else."""
    overall, rows = printed.values()
    metrics = rows.pop("class")
    assert [name for name in rows if "─" not in name] == list(classes)
    overall.pop("score")
    shown = {name: cells[0] for name, cells in overall.items() if cells}
    shown |= {f"{m}/{n}": v for n in classes for m, v in zip(metrics, rows[n], strict=True)}
    saved.pop("trained_parameters")
    assert {f"{stage}/{name}" for name in shown} == set(saved)
    for name, value in saved.items():
        cell = shown[name.removeprefix(f"{stage}/")]
        assert (cell == "–") == (value is None)
        assert value is None or float(cell) == pytest.approx(value, abs=1e-4)
    return overall, metrics


@pytest.mark.parametrize(("command", "stage"), [("test", "test"), ("validate", "val")])
def test_a_segmentation(runs, flair2_root, tmp_path, capsys, command, stage):
    capsys.readouterr()
    with without_pictures():
        cli = run([command, *FLAIR2, "--data.root", str(flair2_root), "--output", str(tmp_path),
                   "--ckpt_path", str(runs / "fused" / "best.ckpt")])  # fmt: skip
    text = capsys.readouterr().out
    assert "DataLoader 0" not in text  # Lightning's own table
    printed = tables(text)
    title = "Test scores" if stage == "test" else "Validation scores"
    assert list(printed) == [title, f"{title} by class"]
    saved = json.loads((tmp_path / f"{stage}_metrics.json").read_text())
    overall, metrics = agrees(printed, saved, stage, cli.model.schema.classes)
    assert {"loss", "miou", "miou_flair2", "share/aerial"} <= set(overall)
    assert metrics == ["iou", "f1", "share/aerial", "share/sentinel2"]


def test_a_multilabel_classification(bigearthnet_runs, bigearthnet_root, tmp_path, capsys):
    capsys.readouterr()
    with without_pictures():
        run(["test", *best(bigearthnet_runs, "decisions", bigearthnet_root),
             "--output", str(tmp_path)])  # fmt: skip
    text = capsys.readouterr().out
    assert "DataLoader 0" not in text
    saved = json.loads((tmp_path / "test_metrics.json").read_text())
    overall, metrics = agrees(tables(text), saved, "test", CLASSES)
    weighted = {"precision_weighted", "recall_weighted", "f1_weighted"}
    assert {"loss", "ap_macro", "f1_micro", "share/s1", "share/s2"} | weighted <= set(overall)
    assert metrics == ["ap", "f1", "precision", "recall", "support", "share/s1", "share/s2"]


def test_epochs_of_a_fit_print_no_scores(runs, flair2_root, tmp_path, capsys):
    file = config(tmp_path / "fusion.yaml", flair2_root, fused(runs),
                  modalities=["aerial", "sentinel2"])  # fmt: skip
    capsys.readouterr()
    run(["fit", "--config", file, "--output", str(tmp_path), "--trainer.fast_dev_run", "true"])
    assert "scores" not in capsys.readouterr().out


def test_a_model_without_anything_to_train_is_scored_once(runs, flair2_root, tmp_path, capsys):
    file = config(tmp_path / "mean.yaml", flair2_root, fused(runs, "Average"),
                  modalities=["aerial", "sentinel2"])  # fmt: skip
    capsys.readouterr()
    with without_pictures():
        run(["fit", "--config", file, "--output", str(tmp_path)])
    text = capsys.readouterr().out
    assert list(tables(text)) == ["Validation scores", "Validation scores by class"]
    assert "DataLoader 0" not in text

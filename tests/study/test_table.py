"""The comparison aggregates seeds and ranks members by what their scores mean."""

import csv
import io
import json
import math
import statistics
from pathlib import Path

import pytest
from finished_runs import STRATEGIES, config, finished, study, write_run
from rich.console import Console

from fusionlab.errors import InputError
from fusionlab.study import formats
from fusionlab.study.finished import FinishedRun, read_runs
from fusionlab.study.formats import as_json, markdown, per_class_csv, print_comparison, table_csv
from fusionlab.study.scores import better, default_score, direction, label, split_per_class
from fusionlab.study.significance import paired_tests
from fusionlab.study.table import Column, compare, statistic


def lines(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_mean_and_standard_deviation_of_a_sample():
    assert statistic([1.0, 2.0, 6.0]) == (3.0, statistics.stdev([1, 2, 6]), 3)
    assert statistic([2.5, None, math.nan, math.inf]) == (2.5, None, 1)
    assert statistic([None]) is None
    assert statistic([0.1] * 3) == (0.1, 0.0, 3)  # no rounding error


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("test/miou", "max"), ("ap_macro", "max"), ("val/overall_accuracy", "max"), ("r2", "max"),
        ("test/loss", "min"), ("rmse", "min"), ("val/mae/height", "min"), ("loss_deep", "min"),
        ("bias", "zero"),
    ],
)  # fmt: skip
def test_which_way_a_score_is_better(name, way):
    assert direction(name) == way


def test_better_is_larger():
    assert better("miou", 0.6) > better("miou", 0.5)
    assert better("rmse", 0.5) > better("rmse", 0.6)
    assert better("bias", -0.1) > better("bias", 0.2)


def test_scores_of_classes_are_told_from_scores_over_all():
    overall, per_class = split_per_class(
        {"test/miou": 1, "test/iou/a/b": 2, "test/share/s1": 3, "test/share/s1/a/b": 4}
    )
    assert overall == {"test/miou": 1, "test/share/s1": 3}
    assert per_class == {"test/iou": {"a/b": 2}, "test/share/s1": {"a/b": 4}}


@pytest.mark.parametrize(
    ("names", "monitored", "expected"),
    [
        (["loss", "miou", "overall_accuracy"], None, "miou"),
        (["ap_macro", "f1_macro"], None, "ap_macro"),  # multilabel
        (["ap_macro", "f1_macro", "overall_accuracy"], None, "f1_macro"),  # multiclass
        (["rmse", "mae", "r2"], None, "rmse"),
        (["rmse", "mae", "r2"], "val/r2", "r2"),
        (["loss"], "val/gone", "loss"),
        (["own"], None, None),
    ],
)
def test_what_ranks_by_default(names, monitored, expected):
    assert default_score(names, monitored) == expected


def test_labels():
    assert label("test/miou") == "mIoU, %"
    assert label("miou_flair2") == "mIoU flair2, %"
    assert label("rmse") == "RMSE"
    assert label("own_score") == "own score"


def test_seeds_are_aggregated():
    runs = study()
    comparison = compare(runs)
    assert comparison.score == "miou"
    assert [row.member for row in comparison.rows] == list(STRATEGIES)
    first = comparison.rows[0]
    values = [run.scores["test/miou"] for run in runs if run.member == "rgb"]
    assert first.seeds == (0, 1, 2)
    assert first.values["miou"].mean == pytest.approx(statistics.mean(values))
    assert first.values["miou"].std == pytest.approx(statistics.stdev(values))
    epochs = [statistics.mean(r.measures["seconds_per_epoch"]) for r in runs if r.member == "rgb"]
    assert first.values["seconds_per_epoch"].mean == pytest.approx(statistics.mean(epochs))
    assert first.values["total_parameters"] == (8_387_990, 0, 3)
    keys = [column.key for column in comparison.columns]
    assert keys == [
        "miou", "overall_accuracy", "best_val_loss", "mean_val_loss", "epochs",
        "trained_parameters", "total_parameters", "flops_per_sample", "seconds_per_epoch",
        "samples_per_second", "peak_memory_mb", "peak_gpu_memory_mb",
    ]  # fmt: skip
    ranks = sorted(comparison.rows, key=lambda row: row.values["miou"].mean, reverse=True)
    assert [row.rank for row in ranks] == list(range(1, 9))


def test_less_is_better_of_errors_and_ties_share_a_rank():
    runs = [finished(n, 0, {"rmse": v, "r2": 1 - v}) for n, v in (("a", 2), ("b", 1), ("c", 1))]
    comparison = compare(runs)
    assert (comparison.score, comparison.direction) == ("rmse", "min")
    assert [row.rank for row in comparison.rows] == [3, 1, 1]
    by_r2 = compare(runs, "test/r2")
    assert [row.rank for row in by_r2.rows] == [3, 1, 1]
    assert by_r2.direction == "max"


def test_what_the_trainings_monitored_ranks():
    scores = {"miou": 0.5, "f1": 0.4}
    runs = [finished(m, 0, scores, measures={"monitor": ["val/f1", "max"]}) for m in "ab"]
    assert compare(runs).score == "f1"
    runs[1] = finished("b", 0, scores, measures={"monitor": ["val/miou", "max"]})
    assert compare(runs).score == "miou"  # they do not agree


def test_members_without_a_test_are_shown_and_not_ranked():
    runs = [
        finished("a", 0, {"miou": 0.5}),
        finished("b", 0, {"miou": 0.9}, stage="val"),
        finished("a", 1, {"miou": 0.99}, stage="val"),
    ]
    comparison = compare(runs)
    a, b = comparison.rows
    assert (a.rank, a.seeds, a.values["miou"].mean) == (1, (0,), 0.5)
    assert (b.rank, b.stage, b.values["miou"].mean) == (None, "val", 0.9)
    assert comparison.by_seed() == {"a": {0: 0.5}, "b": {}}
    text = " ".join(comparison.remarks)
    assert "never tested: a, seed 1" in text
    assert "b was never tested" in text
    assert "1 (val)" in markdown(comparison)


def test_all_of_them_validated_only():
    runs = [finished(m, 0, {"miou": v}, stage="val") for m, v in (("a", 0.1), ("b", 0.2))]
    comparison = compare(runs)
    assert comparison.stage == "val"
    assert comparison.best.member == "b"


def test_a_score_that_is_no_number():
    runs = [finished("a", 0, {"miou": None}), finished("b", 0, {"miou": 0.2})]
    comparison = compare(runs)
    assert [row.rank for row in comparison.rows] == [None, 1]
    assert "Without a value of mIoU, %: a, seed 0." in comparison.remarks


def test_members_with_fewer_seeds_are_named():
    runs = [*study(("a", "b"), (0, 1)), *study(("c",), (0,))]
    assert "Not all members have 2 seeds: c 1." in compare(runs).remarks


@pytest.mark.parametrize(
    ("score", "hint"),
    [
        ("test/mious", "Did you mean test/miou or test/loss?"),
        ("val/miou", "Did you mean test/miou?"),
        ("own", "There are test/miou, test/loss."),
    ],
)
def test_an_unknown_score_is_remarked_upon_and_another_one_ranks(score, hint):
    runs = [finished(m, 0, {"miou": v, "loss": v}) for m, v in (("a", 0.2), ("b", 0.3))]
    comparison = compare(runs, score)
    assert (comparison.score, comparison.best.member) == ("miou", "b")
    assert comparison.remarks == (
        f"No run has the score {score!r}: ranked by test/miou instead. {hint}",
    )
    assert compare(runs, "miou").remarks == compare(runs, "test/miou").remarks == ()


def test_the_loss_ranks_only_where_there_is_nothing_else():
    monitor = {"monitor": ["val/loss", "min"]}
    runs = [finished(m, 0, {"loss": 0.2, "overall_accuracy": 0.9}, measures=monitor) for m in "ab"]
    assert compare(runs).score == "overall_accuracy"
    assert compare([finished("a", 0, {"loss": 0.2}, measures=monitor)]).score == "loss"


def test_members_that_read_stored_answers_are_named():
    def run(member: str, cache: str) -> FinishedRun:
        given = config(0)
        given["model"]["init_args"]["model"]["init_args"] = {"cache": cache}
        return finished(member, 0, {"miou": 0.5}, config=given)

    runs = [run("a", "study/cache"), run("b", ""), run("c", "elsewhere")]
    assert compare(runs).remarks == (
        "Times of a, c are of reading stored answers of the experts; the first to ask them also "
        "pays for that.",
    )
    assert compare(runs[1:2]).remarks == ()


def test_validations_without_a_finite_loss_are_remarked_upon(tmp_path):
    """As the log of a run has them, and the curves read from it leave them out."""
    head = "epoch,step,train/loss,val/loss,val/miou\n"
    log = head + "0,0,,0.8,0.1\n1,1,,nan,0.2\n2,2,,{},0.3\n3,3,0.5,,\n"
    folders = [
        write_run(tmp_path / name, scores={"miou": 0.5}, rows=log.format(third))
        for name, third in (("once", "0.7"), ("twice", "inf"))
    ]
    well = write_run(tmp_path / "well", scores={"miou": 0.5}, rows=head + "0,0,,0.8,0.1\n")
    (remark,) = compare(read_runs([*folders, well])[0]).remarks
    assert "was not a finite number" in remark
    assert remark.endswith(": once, seed 0 (1); twice, seed 0 (2).")


def test_the_embedding_size_is_among_the_costs():
    sized = finished("a", 0, {"miou": 0.5}, measures={"embedding_dim": 8192})
    plain = finished("b", 0, {"miou": 0.5}, measures={"embedding_dim": None})
    comparison = compare([sized, plain])
    text = markdown(comparison)
    assert "| member | seeds | mIoU, % | embedding size |" in text
    assert "| **a** | 1 | **50.00** | 8,192 |" in text
    assert "| **b** | 1 | **50.00** | – |" in text
    assert "embedding size" not in markdown(compare([plain]))


@pytest.mark.parametrize(
    ("runs", "score", "message"),
    [
        ([], None, "no finished run"),
        ([finished("a", 0, {"miou": 1})] * 2, None, "are both the run a, seed 0"),
        ([finished("a", 0, {"miou": 1, "loss": 1}), finished("b", 0, {"rmse": 1, "loss": 2})],
         None, "no score in common"),
        ([finished("a", 0, {"share/s1": 1})], None, "no score in common"),
    ],
)  # fmt: skip
def test_refused(runs, score, message):
    with pytest.raises(InputError, match=message):
        compare(runs, score)


@pytest.mark.parametrize(
    ("kind", "key", "value", "text"),
    [
        ("score", "miou", (0.81234, 0.01, 2), "81.23 ± 1.00"),
        ("score", "miou", (0.5, 0.0, 3), "50.00 ± 0.00"),
        ("score", "rmse", (1.23456, 0.0123, 2), "1.235 ± 0.012"),
        ("loss", "best_val_loss", (1.2874e-06, None, 1), "1.29e-06"),
        ("loss", "best_val_loss", (2.5, None, 1), "2.50"),
        ("count", "total_parameters", (8387990.0, 0.0, 3), "8,387,990"),
        ("operations", "flops_per_sample", (1.25e9, None, 1), "1.25 G"),
        ("operations", "flops_per_sample", (512, None, 1), "512"),
        ("decimal", "samples_per_second", (12345.6, None, 1), "12,346"),
        ("decimal", "seconds_per_epoch", (10.1, 0.12, 3), "10.1 ± 0.12"),
        ("decimal", "samples_per_second", (609.0, 503.4, 3), "609 ± 503"),
        ("decimal", "samples_per_second", (609.0, 99.7, 3), "609 ± 100"),
        ("loss", "best_val_loss", (12345.6, 99.2, 3), "12,346 ± 99"),
        ("score", "rmse", (12345.6, 609.4, 2), "12,346 ± 609"),
        ("score", "bias", (-12345.6, 1.0, 2), "-12,346 ± 1"),
        ("operations", "flops_per_sample", (999.7e6, None, 1), "1,000 M"),
        ("megabytes", "peak_memory_mb", (1024.4, 0.0, 2), "1,024"),
        ("loss", "best_val_loss", None, "–"),
    ],
)
def test_how_numbers_are_written(kind, key, value, text):
    assert Column(key, key, kind).text(value and statistic_of(value)) == text


def statistic_of(value):
    return type(statistic([1.0]))(*value)


def test_markdown():
    runs = [finished("a|b_c", 0, {"miou": 0.5}), finished("late", 0, {"miou": 0.75})]
    comparison = compare(runs)
    text = markdown(comparison, paired_tests(comparison.by_seed(), "miou"))
    assert "| member | seeds | mIoU, % |" in text
    assert "| a\\|b\\_c | 1 | 50.00 |" in text
    assert "| **late** | 1 | **75.00** |" in text
    assert "There is no test of late against a\\|b\\_c: both have a value of mIoU in one" in text


def test_markdown_says_what_the_table_does_not():
    runs = [finished("a", 0, {"miou": 0.5, "f1": 0.5, "loss": 1}), finished("a", 1, {"miou": None})]
    text = markdown(compare(runs), remarks=["x: 1 (a), 2 (b_c)"],
                    failed={"late, seed 0": "ended with status 1\nRuntimeError"})  # fmt: skip
    table, told, heading, _ = text.strip().split("\n\n")
    assert table.startswith("| member")
    assert told.splitlines() == [
        "- Not compared: late, seed 0: ended with status 1",
        "- x: 1 (a), 2 (b\\_c)",
        "- Without a value of mIoU, %: a, seed 1.",
    ]
    assert heading == "All scores:"


def test_csv_has_numbers_in_full():
    comparison = compare(study())
    head, first, *_ = lines(table_csv(comparison))
    row = dict(zip(head, first, strict=True))
    value = comparison.rows[0].values["miou"]
    assert float(row["miou_mean"]) == value.mean
    assert float(row["miou_std"]) == value.std
    assert (row["member"], row["rank"], row["seeds"]) == ("rgb", "8", "0 1 2")
    assert float(row["f1_mean"]) == comparison.rows[0].values["f1"].mean
    assert float(row["total_parameters_mean"]) == 8_387_990


def test_csv_of_classes():
    runs = study(("a", "b"), (0, 1), ("x", "y, z"))
    head, *rows = lines(per_class_csv(compare(runs)))
    assert head == ["member", "stage", "score", "class", "mean", "std", "seeds"]
    assert [row[:4] for row in rows] == [[m, "test", "iou", c] for m in "ab" for c in ("x", "y, z")]
    values = [run.per_class["test/iou"]["y, z"] for run in runs if run.member == "b"]
    assert float(rows[-1][4]) == pytest.approx(statistics.mean(values))
    assert float(rows[-1][5]) == pytest.approx(statistics.stdev(values))


def test_json_is_complete_and_valid():
    runs = study(("a", "b"), (0, 1, 2), ("x",))
    runs.append(finished("c", 0, {"miou": None}, measures={"best_val_loss": math.inf}))
    comparison = compare(runs)
    tests = paired_tests(comparison.by_seed(), "miou")
    text = as_json(comparison, tests, folder=Path("study"), failed={"d": "broke"}, remarks=["said"])
    content = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert [m["member"] for m in content["members"]] == ["a", "b", "c"]
    assert content["members"][2]["values"]["miou"] is None
    assert content["members"][2]["runs"][0]["measures"]["best_val_loss"] is None
    assert content["members"][0]["runs"][1]["folder"] == "../runs/seed_1/a"
    assert content["members"][0]["values"]["miou"]["n"] == 3
    assert content["significance"]["tests"][0]["p"] == tests.tests[0].p
    assert content["failed"] == {"d": "broke"}
    assert content["remarks"][0] == "said"


@pytest.mark.parametrize(("width", "terminal"), [(80, True), (200, False)])
def test_print(width, terminal, monkeypatch, capsys):
    console = Console(width=width, force_terminal=terminal)
    monkeypatch.setattr(formats, "get_console", lambda: console)
    comparison = compare(study())
    print_comparison(comparison, paired_tests(comparison.by_seed(), "miou"))
    text = capsys.readouterr().out
    for row in comparison.rows:
        for column in comparison.columns:
            assert column.text(row.values[column.key]) in text  # numbers are never broken
    if not terminal:
        assert len([x for x in text.splitlines() if x.startswith(" intermediate, low-rank")]) == 2
        assert "\x1b" not in text


def test_print_says_what_the_table_does_not(monkeypatch, capsys):
    console = Console(width=80, force_terminal=True)
    monkeypatch.setattr(formats, "get_console", lambda: console)
    comparison = compare(study(("a", "b"), (0, 1), ("x",)), "own")
    print_comparison(comparison, None, remarks=["augment differs"], failed={"late/0": "it broke\n"})
    lines = capsys.readouterr().out.splitlines()
    assert "- Not compared: late/0: it broke" in lines
    assert "- augment differs" in lines
    assert any(line.startswith("- No run has the score 'own'") for line in lines)

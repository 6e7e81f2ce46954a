"""Run folders are read as fit and test leave them; what is missing is named."""

import json
import math
import shutil

import pytest
import yaml
from cli_runs import run
from finished_runs import write_log, write_run

from fusionlab.errors import InputError
from fusionlab.study.finished import read_run, read_runs

TRAINED = "epoch,step,train/loss,val/loss,val/miou,val/iou/water\n"


@pytest.fixture(scope="module")
def tested(runs, tmp_path_factory):
    """A fusion that the command line has trained and tested."""
    folder = shutil.copytree(runs / "fused", tmp_path_factory.mktemp("tested") / "fused_seed42")
    config = str(runs / "fusion.yaml")
    run(["test", "--config", config, "--ckpt_path", str(folder / "best.ckpt"),
         "--output", str(folder)])  # fmt: skip
    return folder


def test_a_run_of_the_command_line(tested):
    found = read_run(tested)
    assert (found.member, found.seed, found.stage) == ("fused", 42, "test")
    assert found.name == "fused, seed 42"
    assert found.config["model"]["class_path"] == "fusionlab.tasks.SegmentationTask"
    written = json.loads((tested / "test_metrics.json").read_text())
    assert found.scores["test/miou"] == written["test/miou"]
    assert found.scores["test/share/aerial"] == written["test/share/aerial"]
    assert not any(name.count("/") > 1 and "share" not in name for name in found.scores)
    assert found.per_class["test/iou"]["building"] == written["test/iou/building"]
    assert len(found.per_class["test/iou"]) == 13
    assert set(found.per_class["test/share/aerial"]) == set(found.per_class["test/iou"])
    assert found.shares.keys() == {"aerial", "sentinel2"}
    assert sum(found.shares.values()) == pytest.approx(1, abs=1e-3)
    assert found.measures["trained_parameters"] == 26
    assert found.measures["epochs"] == 1
    ((epoch, loss),) = found.curves["val/loss"]
    assert (epoch, loss) == (1.0, found.measures["best_val_loss"])
    assert [x for x, _ in found.curves["train/loss_epoch"]] == [1.0]


def test_another_name(tested):
    assert read_run(tested, member="late").member == "late"


def test_a_training_without_a_test_has_the_scores_of_its_best_epoch(tmp_path):
    rows = "0,1,,0.5,0.6,0.3\n1,3,,0.4,0.8,\n2,5,,0.3,0.7,0.5\n"
    folder = write_run(tmp_path / "a", rows=TRAINED + "0,0,0.9,,,\n" + rows)
    found = read_run(folder)
    assert found.stage == "val"
    assert found.scores == {"val/loss": 0.4, "val/miou": 0.8}
    assert found.per_class == {"val/iou": {"water": None}}
    assert found.measures["best_val_loss"] == 0.3
    assert found.measures["mean_val_loss"] == pytest.approx(0.4)
    # What the training monitored decides, where it is known.
    (folder / "measures.json").write_text(json.dumps({"monitor": ["val/loss", "min"]}))
    assert read_run(folder).scores["val/miou"] == 0.7
    # A validation that was asked for goes before what was logged.
    (folder / "val_metrics.json").write_text('{"val/miou": 0.9, "trained_parameters": 3}')
    assert read_run(folder).scores == {"val/miou": 0.9}


def test_measures_win_over_what_is_derived(tmp_path):
    folder = write_run(tmp_path / "a", scores={"miou": 0.5}, rows=TRAINED + "0,0,1,2,0.1,\n")
    measures = {"best_val_loss": 1.5, "epochs": None, "shares": {"s1": 0.25, "s2": None}}
    (folder / "measures.json").write_text(json.dumps(measures))
    found = read_run(folder)
    assert found.measures["best_val_loss"] == 1.5
    assert found.measures["epochs"] == 1
    assert found.measures["trained_parameters"] == 7
    assert found.shares == {"s1": 0.25}


def test_values_of_steps_are_averaged_and_validations_spread(tmp_path):
    rows = "0,0,1.0,,,\n0,1,,0.9,,\n0,2,3.0,,,\n0,3,,0.7,,\n1,4,nan,,,\n1,5,,inf,,\n1,6,5.0,,,\n"
    found = read_run(write_run(tmp_path / "a", scores={"miou": 0.5}, rows=TRAINED + rows))
    assert found.curves["train/loss"] == [(1.0, 2.0), (2.0, 5.0)]
    assert found.curves["val/loss"] == [(0.5, 0.9), (1.0, 0.7)]


def test_a_resumed_training_goes_on_and_one_begun_anew_starts_over(tmp_path):
    head = TRAINED.split(",val/miou")[0] + "\n"
    folder = write_run(tmp_path / "a", scores={"miou": 0.5}, rows=head + "0,0,1,9\n1,1,2,8\n")
    write_log(folder, head + "1,1,3,7\n2,2,4,6\n", version=1)
    write_log(folder, "epoch,step,test/loss\n0,0,99\n", version=2)  # a test with loggers
    write_log(folder, "epoch,step,val/loss\n0,0,99\n", version=3)  # a validation
    resumed = read_run(folder)
    assert resumed.curves["val/loss"] == [(1.0, 9.0), (2.0, 7.0), (3.0, 6.0)]
    assert resumed.curves["train/loss"] == [(1.0, 1.0), (2.0, 3.0), (3.0, 4.0)]
    write_log(folder, head + "0,0,5,5\n", version=10)  # after version 2, not after version 1
    assert read_run(folder).curves["val/loss"] == [(1.0, 5.0)]


def test_a_model_with_nothing_to_train(tmp_path):
    rows = "epoch,step,val/loss,val/miou\n0,0,0.25,0.5\n"
    found = read_run(write_run(tmp_path / "a", rows=rows))
    assert found.curves["val/loss"] == [(0.0, 0.25)]
    assert found.measures["epochs"] is None
    assert found.scores["val/miou"] == 0.5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f), "is not a folder"),
        (lambda f: (f / "config.yaml").unlink(), "holds no config.yaml"),
        (lambda f: (f / "config.yaml").write_text("a: [1"), "config.yaml cannot be read"),
        (lambda f: (f / "config.yaml").write_text("nothing"), "holds no settings"),
        (lambda f: (f / "test_metrics.json").unlink(), "holds no scores: neither test_metrics"),
        (lambda f: (f / "test_metrics.json").write_text('{"te'), "test_metrics.json cannot be"),
        (lambda f: (f / "test_metrics.json").write_text("{}"), "test_metrics.json holds no scores"),
        (lambda f: (f / "measures.json").write_text("[1]"), "measures.json holds no measures"),
        (lambda f: write_log(f, "epoch,val/loss\n0,x\n"), "metrics.csv, line 2, cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(damage, message, tmp_path):
    folder = write_run(tmp_path / "run", scores={"miou": 0.5})
    damage(folder)
    with pytest.raises(InputError, match=message) as raised:
        read_run(folder)
    assert str(folder) in str(raised.value)


def test_folders_that_cannot_be_read_are_left_out_by_name(tmp_path):
    good = write_run(tmp_path / "good_seed3", seed=3, scores={"miou": 0.5})
    empty = tmp_path / "empty"
    empty.mkdir()
    runs, left_out = read_runs([good, empty])
    assert [(r.member, r.seed) for r in runs] == [("good", 3)]
    assert left_out.keys() == {str(empty)}
    assert "no config.yaml" in left_out[str(empty)]


def test_members_of_one_name_are_named_apart(tmp_path):
    folders = [
        write_run(tmp_path / study / "runs" / name, seed=seed, scores={"miou": 0.5})
        for study in ("a", "b")
        for name, seed in (("late_seed0", 0), ("late_seed1", 1), (f"only_{study}", 0))
    ]
    runs, _ = read_runs(folders)
    names = [(r.member, r.seed) for r in runs]
    assert names == [
        ("a/runs/late", 0), ("a/runs/late", 1), ("only_a", 0),
        ("b/runs/late", 0), ("b/runs/late", 1), ("only_b", 0),
    ]  # fmt: skip


def test_a_run_without_a_seed(tmp_path):
    folder = write_run(tmp_path / "run", scores={"miou": math.nan})
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"seed_everything": False}))
    found = read_run(folder)
    assert found.seed is None
    assert found.name == "run"


def test_folders_of_which_one_names_the_seed_are_told_apart(tmp_path):
    names = ["late", "late_seed0"]
    runs, _ = read_runs([write_run(tmp_path / n, seed=0, scores={"miou": 0.5}) for n in names])
    assert [run.member for run in runs] == names

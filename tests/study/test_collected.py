"""Finding finished runs, and what must be said of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from finished_runs import finished, write_run

from fusionlab.cli_compare import compare
from fusionlab.errors import InputError
from fusionlab.study.collected import (
    StudyRecord,
    finished_runs,
    remarks_on,
    run_folders,
    write_study_record,
)
from fusionlab.study.record import Record, write_record


def in_study(folder: Path, member: str, seed: int, *, jobs: int = 1) -> Path:
    run = write_run(folder / f"seed_{seed}" / member, seed=seed, scores={"miou": 0.5})
    write_record(run, Record(member, seed, "digest", {}, {}, state="done", jobs=jobs))
    return run


def write_small_study(folder: Path, members=("early", "late"), seeds=(0, 1)) -> Path:
    for member in members:
        for seed in seeds:
            in_study(folder, member, seed)
    write_study_record(folder, StudyRecord("title", list(members), list(seeds), None, []))
    return folder


def test_a_folder_of_runs_and_studies_stands_for_those_in_it(tmp_path):
    alone = write_run(tmp_path / "runs" / "flair2" / "aerial", scores={"miou": 0.5})
    study = write_small_study(tmp_path / "runs" / "flair2" / "study")
    other = write_run(tmp_path / "runs" / "other", scores={"miou": 0.5})
    (tmp_path / "runs" / "flair2" / "data").mkdir()
    found = run_folders(sorted((tmp_path / "runs").iterdir()))
    assert found[0] == alone
    assert found[-1] == other
    assert len(found) == 6
    assert {path.parents[1] for path in found[1:-1]} == {study}


def test_a_folder_counts_once_however_it_is_written(tmp_path, monkeypatch):
    write_run(tmp_path / "early", scores={"miou": 0.5})
    monkeypatch.chdir(tmp_path)
    assert len(run_folders([Path("early"), tmp_path / "early", Path("./early/../early")])) == 1


def test_a_file_called_like_a_seed_is_no_seed(tmp_path):
    study = write_small_study(tmp_path / "study")
    (study / "seed_list.txt").write_text("0 1")
    assert len(run_folders([study])) == 4


def test_a_single_run_beside_a_study_does_not_tear_its_seeds_apart(tmp_path):
    folder = tmp_path / "rgb_lidar"
    write_run(folder / "early", scores={"miou": 0.4})
    write_small_study(folder / "study")
    runs, left_out = finished_runs(run_folders([folder]), members=None, seeds=None)
    assert not left_out
    members = {}
    for run in runs:
        members.setdefault(run.member, []).append(run.seed)
    assert members == {"rgb_lidar/early": [0], "study/early": [0, 1], "late": [0, 1]}


def test_members_and_seeds_that_there_are_not(tmp_path):
    folders = run_folders([write_small_study(tmp_path / "study")])
    with pytest.raises(InputError, match=r"the members early, late with the seeds 0, 1\."):
        finished_runs(folders, members=["erly"], seeds=None)


def test_what_ran_beside_others_is_said(tmp_path):
    alone = in_study(tmp_path, "early", 0)
    beside = in_study(tmp_path, "late", 0, jobs=2)
    runs, _ = finished_runs([alone, beside], members=None, seeds=None)
    assert remarks_on(runs[:1]) == []
    (remark,) = remarks_on(runs)
    assert "Up to 2 runs were trained beside each other" in remark


def test_other_test_samples_are_said():
    def run(member, **support):
        run = finished(member, 0, {"overall_accuracy": 0.5})
        return replace(run, per_class={"test/support": support})

    same = [run("rgb", cube=12.0, sphere=17.0), run("early", cube=12.0, sphere=17.0)]
    assert remarks_on(same) == []
    (remark,) = remarks_on([*same, run("lidar", cube=12.0, sphere=13.0)])
    assert "not comparable" in remark
    assert "cube: 12, sphere: 17 (rgb, early) | cube: 12, sphere: 13 (lidar)" in remark


@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_an_output_that_cannot_be_made(place, tmp_path, capsys, monkeypatch):
    runs = [write_run(tmp_path / name, scores={"miou": 0.5}) for name in ("a", "b")]
    (tmp_path / "taken").write_text("a file")
    args = ["compare", *map(str, runs), "--output", str(tmp_path / place)]
    assert compare(args) == 2
    error = capsys.readouterr().err
    assert "--output" in error
    assert str(tmp_path / place) in error


def test_ranked_by_a_score_of_choice_and_repeated_as_given(tmp_path, capsys):
    scores = {"miou": 0.5, "overall_accuracy": 0.8}, {"miou": 0.4, "overall_accuracy": 0.9}
    runs = [
        write_run(tmp_path / name, scores=found) for name, found in zip("ab", scores, strict=True)
    ]
    output = tmp_path / "comparison"
    args = ["compare", *map(str, runs), "--output", str(output)]
    assert compare([*args, "--score", "test/overall_accuracy"]) == 0
    table = (output / "comparison.md").read_text()
    assert "**b**" in table
    assert "--score test/overall_accuracy" in (output / "report.html").read_text()
    assert compare(args) == 0
    assert "**a**" in (output / "comparison.md").read_text()
    assert json.loads((output / "comparison.json").read_text())
    capsys.readouterr()

"""``fusionlab compare`` as a user runs it: a whole study, and finished runs."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from bigearthnet_runs import without_pictures
from cli_runs import load
from study_runs import write_study

from fusionlab.cli_compare import compare
from fusionlab.errors import InputError
from fusionlab.study import member_process
from fusionlab.study.collected import run_folders
from fusionlab.study.members import read_members, runs_of
from fusionlab.study.record import Record, note, read_record, write_record
from fusionlab.study.standing import standings
from fusionlab.study.study_file import read_study

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]


def train(runs) -> dict[str, list[dict]]:
    """Does in this process what members do in theirs; returns their events."""
    events = {}
    for run in runs:
        needs = {n: read_record(run.folder.parent / n).identity for n in run.needs}
        record = Record(run.member, run.seed, run.digest, run.settings, run.config, needs=needs)
        write_record(run.folder, record)
        with without_pictures():
            pipe = io.StringIO()
            member_process.run_member(run.folder, pipe)
        note(run.folder, state="done", seconds=2.0)
        events[run.key] = [json.loads(line) for line in pipe.getvalue().splitlines()]
    return events


@pytest.fixture(scope="module")
def study(tmp_path_factory, flair2_root):
    """A study that is done, and what its members reported."""
    file = write_study(tmp_path_factory.mktemp("study"), flair2_root)
    read = read_study(file)
    runs = runs_of(read_members(read), read, read.seeds)
    return file, runs, train(runs)


def test_a_member_is_an_ordinary_run(study):
    _, runs, _ = study
    late = runs[-1].folder
    assert {path.name for path in late.iterdir()} >= {
        "config.yaml", "test_config.yaml", "best.ckpt", "last.ckpt", "logs", "test_metrics.json",
        "measures.json", "member.json",
    }  # fmt: skip
    config = yaml.safe_load((late / "config.yaml").read_text())
    assert config["seed_everything"] == 0
    assert config["output"] == str(late)
    assert load(late / "last.ckpt")["epoch"] == 1
    assert len(list(late.glob("logs/version_*"))) == 1  # the test logs nowhere


def test_what_a_member_reports(study):
    events = study[2]["aerial/0"]
    assert events[0] == {"event": "fit", "epochs": 2, "epoch": 0}
    epochs = [event for event in events if event["event"] == "epoch"]
    assert [event["epoch"] for event in epochs] == [1, 2]
    assert all(event["val_loss"] > 0 and event["seconds"] > 0 for event in epochs)
    steps = [event for event in events if event["event"] == "step"]
    assert steps[0]["step"] >= 1
    assert steps[0]["steps"] == 2
    assert steps[0]["loss"] > 0
    assert events[-1] == {"event": "test"}


def test_a_stopped_member_goes_on_and_ends_the_same(study, tmp_path):
    """Stopped after its training, it is only tested; within, it goes on from its last epoch."""
    runs = study[1]
    expected = runs[0].folder
    tested = shutil.copytree(expected, tmp_path / "tested")
    (tested / "test_metrics.json").unlink()
    note(tested, state="trained", config=moved(runs[0].config, tested))
    pipe = io.StringIO()
    with without_pictures():
        member_process.run_member(tested, pipe)
    assert [json.loads(line)["event"] for line in pipe.getvalue().splitlines()] == ["test"]
    assert scores(tested) == scores(expected)

    half = tmp_path / "half"
    config = moved(runs[0].config, half)
    stop = {"class_path": "small_models.StopAfter", "init_args": {"epochs": 1}}
    stopped = {**config, "trainer": {**config["trainer"], "callbacks": [stop]}}
    write_record(half, Record("aerial", 0, "", {}, stopped))
    with without_pictures():
        member_process.run_member(half, io.StringIO())
        assert load(half / "last.ckpt")["epoch"] == 0
        note(half, state="training", config=config)
        member_process.run_member(half, io.StringIO())
    assert load(half / "last.ckpt")["epoch"] == 1
    assert scores(half) == scores(expected)
    one, two = (json.loads((f / "measures.json").read_text()) for f in (half, expected))
    for name in ("epochs", "best_val_loss", "mean_val_loss", "flops_per_sample"):
        assert one[name] == two[name]


def moved(config: dict, folder: Path) -> dict:
    return {**config, "output": str(folder),
            "checkpoint": {**config["checkpoint"], "dirpath": str(folder)},
            "trainer": {**config["trainer"], "default_root_dir": str(folder)}}  # fmt: skip


def scores(folder: Path) -> dict:
    return json.loads((folder / "test_metrics.json").read_text())


# ---- the command --------------------------------------------------------------------------------


def run_compare(*args: object) -> int:
    return compare(["compare", *map(str, args)])


def test_a_study_that_is_done_is_only_reported(study, capsys):
    file, runs, _ = study
    before = {run.key: (run.folder / "best.ckpt").stat().st_mtime_ns for run in runs}
    assert run_compare("--config", file) == 0
    out = capsys.readouterr().out
    assert "3 of 3 runs are done already." in out
    output = runs[0].folder.parents[1]
    assert f"Report: {output / 'report.html'}" in out
    assert before == {run.key: (run.folder / "best.ckpt").stat().st_mtime_ns for run in runs}
    table = (output / "comparison.md").read_text()
    assert [name for name in ("aerial", "sentinel2", "late") if f"{name}" in table]
    # Its folder tells all of it once more, without the study file.
    (output / "comparison.md").unlink()
    assert run_compare(output) == 0
    assert (output / "comparison.md").read_text() == table


def test_finished_runs_are_compared(study, tmp_path, capsys):
    runs = study[1]
    folder = tmp_path / "runs"
    for run in runs:
        shutil.copytree(run.folder, folder / run.member)
    (folder / "late" / "test_metrics.json").unlink()
    note(folder / "late", state="trained")
    (folder / "cache").mkdir()
    (folder / "notes.txt").touch()
    shutil.copytree(folder / "aerial", tmp_path / "other" / "aerial")
    (tmp_path / "other" / "aerial" / "member.json").unlink()  # made by fit and test
    paths = [*sorted(folder.iterdir()), tmp_path / "other" / "aerial"]
    output = tmp_path / "comparison"
    assert run_compare(*paths, "--output", output) == 0
    said = capsys.readouterr()
    assert f"left out: {folder / 'late'}: was begun by a study and is not finished" in said.err
    assert f"left out: {folder / 'cache'} holds no config.yaml" in said.err
    assert "notes.txt" not in said.err
    found = json.loads((output / "comparison.json").read_text())
    names = json.dumps(found)
    for name in ("runs/aerial", "other/aerial", "sentinel2"):  # two of one name, told apart
        assert name in names
    assert run_compare(folder / "aerial", folder / "late", "--members", "late") == 2
    assert "No finished run to compare in 2 folders" in capsys.readouterr().err


def test_finished_runs_of_other_data_or_seeds_are_refused(study, tmp_path, capsys):
    runs = study[1]
    one, two = (shutil.copytree(run.folder, tmp_path / run.member) for run in runs[:2])
    for name in ("config.yaml", "test_config.yaml"):
        edit(two / name, lambda config: config["data"]["init_args"].update(root="elsewhere"))
    assert run_compare(one, two, "--output", tmp_path / "c") == 2
    said = capsys.readouterr().err
    assert "data.init_args.root  " in said
    assert "elsewhere (sentinel2)" in said
    assert not (tmp_path / "c").exists()
    allowed = ["--allow-differences", "data.root"]
    assert run_compare(one, two, "--output", tmp_path / "c", *allowed) == 0
    assert (
        "Data differ, as allowed: data.init_args.root" in (tmp_path / "c/report.html").read_text()
    )
    capsys.readouterr()
    edit(two / "config.yaml", lambda config: config.update(seed_everything=5))
    assert run_compare(one, two, "--output", tmp_path / "c", *allowed) == 2
    assert "seed_everything  0 (aerial) | 5 (sentinel2)" in capsys.readouterr().err
    assert run_compare(one, two, "--output", tmp_path / "c", *allowed, "seed_everything") == 0


def test_tests_on_other_data_are_refused(study, tmp_path, capsys):
    runs = study[1]
    one, two = (shutil.copytree(run.folder, tmp_path / run.member) for run in runs[:2])
    edit(two / "test_config.yaml", lambda c: c["data"]["init_args"].update(test_domains=["D1"]))
    assert run_compare(one, two, "--output", tmp_path / "c") == 2
    said = capsys.readouterr().err
    assert "The tests of the runs: members differ" in said
    assert 'data.init_args.test_domains  null (aerial) | ["D1"] (sentinel2)' in said


def edit(file: Path, change) -> None:
    content = yaml.safe_load(file.read_text())
    change(content)
    file.write_text(yaml.safe_dump(content, sort_keys=False))


def test_a_study_folder_stands_for_its_runs(study, tmp_path):
    output = study[1][0].folder.parents[1]
    assert run_folders([output]) == [run.folder for run in study[1]]
    assert run_folders([output, output / "seed_0" / "late"]) == [run.folder for run in study[1]]
    (tmp_path / "comparison.json").touch()
    assert run_folders([tmp_path]) == []
    with pytest.raises(InputError, match="gone does not exist"):
        run_folders([tmp_path / "gone"])


@pytest.mark.parametrize(
    "args",
    [[], ["--config", "a.yaml", "runs/b"], ["runs/a", "--jobs", "2"], ["runs/a", "--overwrite"],
     ["--config", "a.yaml", "--jobs", "0"], ["--confg", "a.yaml"]],
)  # fmt: skip
def test_arguments_that_make_no_sense(args, capsys):
    with pytest.raises(SystemExit) as ended:
        run_compare(*args)
    assert ended.value.code == 2
    assert "fusionlab compare: error:" in capsys.readouterr().err


def test_changed_members_are_named(study, tmp_path, capsys, flair2_root):
    runs = study[1]
    output = runs[0].folder.parents[1]
    longer = {"trainer": {"max_epochs": 5}}
    file = write_study(tmp_path, flair2_root, output=str(output), overlay=longer)
    assert run_compare("--config", file, "--members", "aerial") == 2
    said = capsys.readouterr().err
    assert f"{runs[0].folder}: trainer.max_epochs was 2, is 5" in said
    assert "--overwrite" in said


def test_help_starts_fast():
    """Without importing what training needs."""
    code = (
        "import sys; sys.argv = ['fusionlab', 'compare', '--help']\n"
        "from fusionlab.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'lightning', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fusionlab compare --config configs/rgb_lidar/study.yaml" in done.stdout


# ---- processes ----------------------------------------------------------------------------------


def started(file: Path, *args: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "fusionlab", "compare", "--config", str(file), *args],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=TESTS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_stopped_by_ctrl_c_and_started_again_it_ends_the_same(tmp_path, flair2_root):
    """Stopped within the training of the first member; scores are those of never stopping."""
    slow = {"trainer": {"callbacks": [{"class_path": "small_models.SlowSteps"}], "max_epochs": 4}}
    members = {"aerial": ["aerial.yaml"], "sentinel2": ["sentinel2.yaml"]}
    whole, parts = (
        write_study(tmp_path / name, flair2_root, members=members, overlay=slow)
        for name in ("whole", "parts")
    )
    read = read_study(whole)
    train(runs_of(read_members(read), read, read.seeds))

    earlier = signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in the background of a shell
    process = started(parts)
    signal.signal(signal.SIGINT, earlier)
    last = tmp_path / "parts/out/seed_0/aerial/last.ckpt"
    end = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    (child,) = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "stopped; 0 of 2 runs are done. The same command goes on where it was." in said
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    read = read_study(parts)
    states = standings(runs_of(read_members(read), read, read.seeds))
    assert states == {"aerial/0": "half", "sentinel2/0": "new"}
    assert not (tmp_path / "parts/out/comparison.md").exists()
    assert load(last)["epoch"] < 3

    process = started(parts)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "aerial, seed 0: goes on" in said
    for name in members:
        one, two = (tmp_path / folder / "out/seed_0" / name for folder in ("whole", "parts"))
        assert scores(one) == scores(two), name
        weights = load(one / "last.ckpt")["state_dict"], load(two / "last.ckpt")["state_dict"]
        assert all((weights[0][key] == weights[1][key]).all() for key in weights[0]), name


@pytest.mark.slow
def test_a_failed_member_in_a_study_of_two_jobs(tmp_path, flair2_root):
    broken = {"model": {"init_args": {"model": {"init_args": {"width": 0}}}}}
    file = write_study(
        tmp_path, flair2_root,
        members={"aerial": ["aerial.yaml"], "sentinel2": ["sentinel2.yaml", broken],
                 "late": ["late.yaml"]},
    )  # fmt: skip
    process = started(file, "--jobs", "2")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 1, said
    assert "sentinel2, seed 0: FAILED" in said
    assert "late/0: not run, because it needs sentinel2/0, which failed" in said
    assert "aerial, seed 0: done, test/miou" in said
    log = tmp_path / "out/seed_0/sentinel2/log.txt"
    assert "Traceback" in log.read_text()
    assert "not run, because it needs sentinel2/0" in (tmp_path / "out/report.html").read_text()

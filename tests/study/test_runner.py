"""Running members: order, several at once, failures, stopping and going on."""

import _thread
import io
import os
import re
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fusionlab.errors import InputError
from fusionlab.study import runner as runner_module
from fusionlab.study.members import MemberRun
from fusionlab.study.progress import Display, Forecast, Progress, duration
from fusionlab.study.record import read_record, write_record
from fusionlab.study.runner import Runner, cores, environment
from fusionlab.study.standing import refuse_changed, standings

PRETEND = Path(__file__).with_name("pretend_member.py")


@pytest.fixture(autouse=True)
def heeds_ctrl_c():
    """As in a terminal: processes that a shell starts in the background ignore it."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


def planned(folder: Path, members: dict[str, dict], seeds=(0,)) -> list[MemberRun]:
    """Runs of members that do what they are told; `needs` says whom they need."""
    runs = []
    for seed in seeds:
        for name, told in members.items():
            needs = tuple(told.get("needs", ()))
            settings = {"pretend": told, "seed_everything": seed}
            runs.append(
                MemberRun(
                    name, seed, folder / f"seed_{seed}" / name,
                    {"pretend": told, "trainer": {"devices": "auto"}}, needs,
                    str(sorted(told.items())), settings,
                )
            )  # fmt: skip
    return runs


class Study:
    """Runs members in a folder and keeps what was said."""

    def __init__(self, folder: Path, members: dict[str, dict], *, seeds=(0,), jobs: int = 1):
        self.folder = folder
        self.runs = planned(folder, members, seeds)
        self.lines: list[str] = []
        self.jobs = jobs

    def __call__(self) -> Runner:
        progress = Progress(self.runs, jobs=self.jobs, write=self.lines.append)
        runner = Runner(
            self.runs, jobs=self.jobs, progress=progress,
            command=lambda folder: [sys.executable, "-S", str(PRETEND), str(folder)],
        )  # fmt: skip
        self.runner = runner
        runner.run()
        return runner

    @property
    def order(self) -> list[str]:
        """Begins (+) and ends (-) of runs."""
        return (self.folder / "order.txt").read_text().split()

    def states(self) -> dict[str, str]:
        return {key: str(state) for key, state in standings(self.runs).items()}


FUSED = {"aerial": {}, "sentinel2": {}, "late": {"needs": ["aerial", "sentinel2"]}}


def test_runs_one_after_the_other_and_tells_of_it(tmp_path):
    study = Study(tmp_path, FUSED, seeds=(0, 1))
    assert study().failed == {}
    names = ["aerial/0", "sentinel2/0", "late/0", "aerial/1", "sentinel2/1", "late/1"]
    assert study.order == [f"{sign}{name}" for name in names for sign in "+-"]
    assert set(study.states().values()) == {"done"}
    first = [line for line in study.lines if line.startswith("aerial, seed 0")]
    assert first[0] == "aerial, seed 0: started"
    assert first[2] == "aerial, seed 0: epoch 2/3, val loss 0.5, 0.0 s"
    done = r"aerial, seed 0: done, test/miou 0\.5, \d+ s \[1/6, about \d+ s left\]"
    assert re.fullmatch(done, first[-1])
    assert study.lines[-1].endswith("[6/6]")


def test_what_is_done_is_not_done_again(tmp_path):
    Study(tmp_path, FUSED)()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = Study(tmp_path, FUSED, seeds=(0, 1))
    again()
    assert again.order[6:] == ["+aerial/1", "-aerial/1", "+sentinel2/1", "-sentinel2/1",
                               "+late/1", "-late/1"]  # fmt: skip
    kept = {p: t for p, t in before.items() if p.name != "order.txt"}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert again.lines[0] == "3 of 6 runs are done already."


def test_several_at_once_each_after_those_it_needs(tmp_path):
    slow = {name: {**told, "takes": 0.4} for name, told in FUSED.items()}
    study = Study(tmp_path, slow, seeds=(0, 1), jobs=3)
    begin = time.monotonic()
    study()
    assert time.monotonic() - begin < 6 * 0.4 + 1.5
    order = study.order
    assert all(entry.startswith("+") for entry in order[:3])
    most = running = 0
    for entry in order:
        running += 1 if entry.startswith("+") else -1
        most = max(most, running)
        if entry.startswith("+late"):
            seed = entry[-1]
            ended = order[: order.index(entry)]
            assert {f"-aerial/{seed}", f"-sentinel2/{seed}"} <= set(ended)
    assert most == 3
    assert read_record(study.runs[0].folder).jobs == 3


def test_a_failed_member_stops_nobody_but_those_that_need_it(tmp_path):
    members = {"bad": {"fails": "crash"}, "refused": {"fails": "input"}, "killed": {"killed": True},
               "late": {"needs": ["bad"]}, "later": {"needs": ["late"]}, "good": {},
               "silent": {"silent": True}}  # fmt: skip
    study = Study(tmp_path, members)
    failed = study().failed
    assert set(failed) == {f"{name}/0" for name in members} - {"good/0"}
    assert failed["refused/0"] == "model.model: what was given is of no use"
    how, *last = failed["bad/0"].splitlines()
    assert how == f"ended with status 3, see {study.runs[0].folder / 'log.txt'}"
    assert last == ["Traceback: somewhere", "RuntimeError: it broke"]
    assert "ended by SIGKILL (out of memory?)" in failed["killed/0"]
    assert failed["late/0"] == "not run, because it needs bad/0, which failed"
    assert failed["later/0"] == "not run, because it needs late/0, which failed"
    assert "status 0" in failed["silent/0"]  # it left no scores
    assert not (tmp_path / "seed_0" / "late").exists()
    assert study.states()["good/0"] == "done"
    assert any("bad, seed 0: FAILED: ended with status 3" in line for line in study.lines)
    # Failed runs are tried again, and go on where they were.
    members["bad"] = {}
    again = Study(tmp_path, members)
    again.runs = [replace(run, digest=study.runs[0].digest) if run.member == "bad" else run
                  for run in again.runs]  # fmt: skip
    again.runs[0].config["pretend"] = {}
    record = read_record(again.runs[0].folder)
    write_record(again.runs[0].folder, replace(record, config=again.runs[0].config))
    assert set(again().failed) == {"refused/0", "killed/0", "silent/0"}
    assert "bad, seed 0: goes on" in again.lines
    assert again.states()["later/0"] == "done"


def interrupt_when(seen: Path) -> threading.Thread:
    """Does what Ctrl-C does, as soon as a file is there."""

    def wait() -> None:
        while not seen.exists():
            time.sleep(0.01)
        time.sleep(0.1)
        _thread.interrupt_main()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_stopped_and_started_again(tmp_path):
    members = {**FUSED, "sentinel2": {"hangs": 1}}
    study = Study(tmp_path, members)
    hung = tmp_path / "seed_0" / "sentinel2" / "hung"
    interrupt_when(hung)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        study()
    assert time.monotonic() - begin < 20
    assert not study.runner._running
    states = study.states()
    assert states == {"aerial/0": "done", "sentinel2/0": "half", "late/0": "new"}
    again = Study(tmp_path, members)
    assert again().failed == {}
    assert again.order == [
        "+aerial/0", "-aerial/0", "+sentinel2/0", "+sentinel2/0", "-sentinel2/0", "+late/0",
        "-late/0",
    ]  # fmt: skip
    assert "sentinel2, seed 0: goes on" in again.lines
    # The first epoch was not trained again.
    assert not [line for line in again.lines if line.startswith("sentinel2, seed 0: epoch 1/")]


def test_a_half_done_study_goes_on_where_it_was_moved_to(tmp_path):
    members = {"aerial": {"hangs": 1}}
    study = Study(tmp_path / "here", members)
    for run in study.runs:
        run.config["output"] = str(run.folder)
    (tmp_path / "here").mkdir()
    interrupt_when(study.runs[0].folder / "hung")
    with pytest.raises(KeyboardInterrupt):
        study()
    (tmp_path / "here").rename(tmp_path / "there")
    moved = Study(tmp_path / "there", members)
    for run in moved.runs:
        run.config["output"] = str(run.folder)
    assert moved().failed == {}
    assert not (tmp_path / "here").exists()
    assert read_record(moved.runs[0].folder).config["output"] == str(moved.runs[0].folder)
    assert moved.states() == {"aerial/0": "done"}


def test_a_run_without_a_checkpoint_begins_anew_in_an_empty_folder(tmp_path):
    members = {"aerial": {"hangs": 0}}
    study = Study(tmp_path, members)
    folder = study.runs[0].folder
    interrupt_when(folder / "hung")
    with pytest.raises(KeyboardInterrupt):
        study()
    (folder / "test_metrics.json").write_text("{}")  # of whatever was there before
    (folder / "best.ckpt").touch()
    first = read_record(folder).identity
    again = Study(tmp_path, members)
    marker = folder / "hung"
    # It begins anew and hangs anew; this time nobody waits for it.
    marker.unlink()
    interrupt_when(marker)
    with pytest.raises(KeyboardInterrupt):
        again()
    assert {path.name for path in folder.iterdir()} == {"member.json", "log.txt", "hung", "threads"}
    assert read_record(folder).identity != first


def test_changed_settings_are_refused_and_named(tmp_path):
    Study(tmp_path, FUSED)()
    changed = Study(tmp_path, {**FUSED, "aerial": {"takes": 0.01}})
    states = standings(changed.runs)
    assert states["aerial/0"] == "changed"
    with pytest.raises(InputError, match=r"pretend\.takes was null, is 0\.01[\s\S]*--overwrite"):
        refuse_changed(changed.runs, states, overwrite=False)
    refuse_changed(changed.runs, states, overwrite=True)
    before = read_record(tmp_path / "seed_0" / "sentinel2")
    changed()
    assert read_record(tmp_path / "seed_0" / "sentinel2") == before
    assert changed.order[6:8] == ["+aerial/0", "-aerial/0"]
    # What was made of the earlier one is stale now.
    assert changed.states() == {"aerial/0": "done", "sentinel2/0": "done", "late/0": "changed"}
    with pytest.raises(InputError, match=r"late: uses another aerial and sentinel2"):
        refuse_changed(changed.runs, standings(changed.runs), overwrite=False)
    changed()
    assert changed.states()["late/0"] == "done"


def test_folders_of_others_are_never_replaced(tmp_path):
    study = Study(tmp_path, {"aerial": {}})
    folder = study.runs[0].folder
    folder.mkdir(parents=True)
    (folder / ".member.json.part").touch()  # all that is left of a study that was stopped at once
    assert study.states() == {"aerial/0": "new"}
    (folder / "best.ckpt").touch()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="holds files that no study made"):
            refuse_changed(study.runs, standings(study.runs), overwrite=overwrite)


def test_jobs_share_the_cores_and_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr(runner_module, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert environment(1, 0) == dict(os.environ)
    assert [environment(3, slot)["OMP_NUM_THREADS"] for slot in range(3)] == ["2"] * 3
    assert [environment(3, slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["4", "6", "4"]
    assert environment(2, 1, one_gpu=False)["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert environment(100, 0)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the user's own wish
    assert environment(3, 0)["OMP_NUM_THREADS"] == "1"
    study = Study(tmp_path, {"a": {}, "b": {}}, jobs=2)
    study()
    assert (study.runs[0].folder / "threads").read_text() == "1"
    assert cores() >= 1


# ---- what is shown ------------------------------------------------------------------------------


def test_bars_on_a_terminal(tmp_path):
    runs = planned(tmp_path, FUSED)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    display = Display(runs, jobs=1, console=console)
    display.known(runs[0], 60.0, done=True)
    display.begin()
    display.started(runs[1], resumed=False)
    display.reported(runs[1], {"event": "fit", "epochs": 4, "epoch": 0})
    display.reported(runs[1], {"event": "step", "epoch": 1, "step": 5, "steps": 10, "loss": 0.25})
    display.bars.refresh()
    shown = out.getvalue()
    assert "1/3" in shown
    assert "  sentinel2, seed 0" in shown
    assert "epoch 2/4, step 5/10, loss 0.25" in shown
    task = next(t for t in display.bars.tasks if "sentinel2" in t.description)
    assert task.completed == pytest.approx(1.5 / 4)
    display.failed(runs[1], "no such file")
    display.close()
    assert "sentinel2, seed 0: FAILED: no such file" in out.getvalue()


def test_how_long_it_will_take(tmp_path, monkeypatch):
    runs = planned(tmp_path, FUSED, seeds=(0, 1))
    now = [100.0]
    monkeypatch.setattr("fusionlab.study.progress.time.monotonic", lambda: now[0])
    forecast = Forecast(runs, jobs=1)
    assert forecast.seconds() is None
    forecast.end(runs[0], 30.0)
    assert forecast.seconds() == pytest.approx(5 * 30)
    forecast.end(runs[1], 90.0)
    # Known for members that were run: aerial 30 and sentinel2 90; late is as the mean of both.
    assert forecast.seconds() == pytest.approx(30 + 90 + 2 * 60)
    forecast.start("late/0")
    now[0] += 10
    forecast.advance("late/0", 0.1)  # 100 s in all
    assert forecast.seconds() == pytest.approx(90 + 30 + 90 + (30 + 90 + 100) / 3)
    forecast.jobs = 10
    assert forecast.seconds() == pytest.approx(90)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (99, "99 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text

"""Runs the members of a study as processes of their own, one after the other or several at once."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from fusionlab.study.events import read_event
from fusionlab.study.members import MemberRun
from fusionlab.study.progress import Progress
from fusionlab.study.record import Record, note, read_record, write_record
from fusionlab.study.standing import standings

LOG = "log.txt"
"""What a run prints, in its folder."""

Command = Callable[[Path], Sequence[str]]
"""The command that runs what lies in a folder."""

_PATIENCE = (20.0, 5.0)
"""Seconds that a process is given to stop when it is asked, and when it is told."""


def member_command(folder: Path) -> list[str]:
    """The command line of a member's process."""
    return [sys.executable, "-m", "fusionlab.study.member_process", str(folder)]


@dataclass
class _Process:
    """A run that is under way.

    Attributes:
        run: which.
        process: of it.
        reader: hands on its events.
        begun: when, by the monotonic clock.
        earlier: seconds that earlier parts of the run took.
        slot: its place among those that run beside each other.
        reason: why it failed, if it said so.
    """

    run: MemberRun
    process: subprocess.Popen[str]
    reader: threading.Thread
    begun: float
    earlier: float
    slot: int
    reason: str | None = None


class Runner:
    """Runs what is not done yet, every run after those that it needs.

    Args:
        runs: of all members and seeds, in the order of the study.
        jobs: how many run beside each other; each gets its share of the processor's cores.
        progress: shows what happens.
        command: what runs a member; another one in tests.

    Attributes:
        failed: by `MemberRun.key`, why a run failed or could not be started.
    """

    def __init__(
        self,
        runs: Sequence[MemberRun],
        *,
        jobs: int,
        progress: Progress,
        command: Command = member_command,
    ) -> None:
        self.runs = runs
        self.jobs = jobs
        self.progress = progress
        self.command = command
        self.failed: dict[str, str] = {}
        self._done: set[str] = set()
        self._running: dict[str, _Process] = {}
        self._events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    def run(self) -> None:
        """Runs all that is not done, and returns when nothing is left that could be.

        Raises:
            KeyboardInterrupt: if the user stops it; then no process is left.
        """
        found = standings(self.runs)
        waiting = []
        for run in self.runs:
            if found[run.key] == "done":
                self._done.add(run.key)
                self.progress.known(run, _seconds(run), done=True)
            else:
                waiting.append(run)
        self.progress.begin()
        try:
            while waiting or self._running:
                waiting = self._started(waiting)
                self._listen()
                for key in [k for k, p in self._running.items() if p.process.poll() is not None]:
                    self._ended(self._running[key])
        finally:
            self._stop()

    def _started(self, waiting: Sequence[MemberRun]) -> list[MemberRun]:
        """Starts what can be started now; the runs that go on waiting."""
        left = []
        for run in waiting:
            needed = [f"{need}/{run.seed}" for need in run.needs]
            if broken := [need for need in needed if need in self.failed]:
                self._fail(run, f"not run, because it needs {_names(broken)}, which failed")
            elif self._done.issuperset(needed) and len(self._running) < self.jobs:
                self._start(run)
            else:
                left.append(run)
        return left

    def _start(self, run: MemberRun) -> None:
        try:
            record = self._prepared(run)
        except OSError as error:
            self._fail(run, f"cannot write {run.folder}: {error}")
            return
        slot = min(set(range(self.jobs)) - {p.slot for p in self._running.values()})
        with (run.folder / LOG).open("a") as log:
            log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {run.key}\n")
            log.flush()
            process = subprocess.Popen(
                list(self.command(run.folder)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(self.jobs, slot, one_gpu=_wants_one_gpu(run)),
                text=True,
                # Ctrl-C reaches the study alone, which then stops its members one by one.
                start_new_session=True,
            )
        assert process.stdout is not None
        reader = threading.Thread(target=self._read, args=(run.key, process.stdout), daemon=True)
        now = time.monotonic()
        self._running[run.key] = _Process(run, process, reader, now, record.seconds, slot)
        reader.start()
        self.progress.started(run, resumed=record.state != "training" or record.seconds > 0)

    def _prepared(self, run: MemberRun) -> Record:
        """The record of a run that is about to start; what it cannot go on from is removed."""
        record = read_record(run.folder)
        needs = {}
        for need in run.needs:
            other = read_record(run.folder.parent / need)
            assert other is not None
            needs[need] = other.identity
        trained = record is not None and record.state != "training"
        goes_on = record is not None and record.digest == run.digest and record.needs == needs
        if record is not None and goes_on and (trained or (run.folder / "last.ckpt").is_file()):
            # Paths are those of today: the study may have been moved since.
            return note(run.folder, jobs=max(record.jobs, self.jobs), config=run.config)
        if record is not None:
            _remove(run.folder)
        new = Record(
            member=run.member,
            seed=run.seed,
            digest=run.digest,
            settings=run.settings,
            config=run.config,
            needs=needs,
            jobs=self.jobs,
        )
        write_record(run.folder, new)
        return new

    def _read(self, key: str, lines: IO[str]) -> None:
        with suppress(ValueError):  # closed while it is read, where the process is killed
            for line in lines:
                if event := read_event(line):
                    self._events.put((key, event))

    def _listen(self) -> None:
        """Shows what was reported since; waits a moment if nothing was."""
        with suppress(queue.Empty):
            key, event = self._events.get(timeout=0.1)
            while True:
                self._show(key, event)
                key, event = self._events.get_nowait()

    def _show(self, key: str, event: Mapping[str, Any]) -> None:
        running = self._running.get(key)
        if running is None:
            return
        if event["event"] == "failed":
            running.reason = str(event.get("reason"))
        else:
            self.progress.reported(running.run, event)

    def _ended(self, ended: _Process) -> None:
        ended.reader.join(timeout=2.0)
        with suppress(queue.Empty):
            while True:
                self._show(*self._events.get_nowait())
        run, status = ended.run, ended.process.returncode
        del self._running[run.key]
        _close(ended)
        seconds = ended.earlier + time.monotonic() - ended.begun
        if status == 0 and (run.folder / "test_metrics.json").is_file():
            note(run.folder, state="done", seconds=seconds)
            self._done.add(run.key)
            self.progress.finished(run, seconds)
            return
        note(run.folder, seconds=seconds)
        self._fail(run, ended.reason or _reason(status, run.folder / LOG))

    def _fail(self, run: MemberRun, reason: str) -> None:
        self.failed[run.key] = reason
        self.progress.failed(run, reason)

    def _stop(self) -> None:
        """Stops what still runs: asks first, then tells, then kills; a second Ctrl-C kills."""
        ways = ((signal.SIGINT, _PATIENCE[0]), (signal.SIGTERM, _PATIENCE[1]))
        try:
            for way, patience in ways:
                for running in self._running.values():
                    if running.process.poll() is None:
                        running.process.send_signal(way)
                end = time.monotonic() + patience
                while self._alive() and time.monotonic() < end:
                    time.sleep(0.05)
        finally:
            for running in self._running.values():
                if running.process.poll() is None:
                    running.process.kill()
                running.process.wait()
                seconds = running.earlier + time.monotonic() - running.begun
                note(running.run.folder, seconds=seconds)
                _close(running)
            self._running.clear()

    def _alive(self) -> bool:
        return any(running.process.poll() is None for running in self._running.values())


def _remove(folder: Path) -> None:
    """Removes a folder; what is left if this is stopped is not taken for a run."""
    hidden = folder.with_name(f".{folder.name}.removed")
    if hidden.exists():
        shutil.rmtree(hidden)
    folder.rename(hidden)
    shutil.rmtree(hidden)


def environment(jobs: int, slot: int, *, one_gpu: bool = True) -> dict[str, str]:
    """The environment of one of several runs beside each other: its cores, and its GPU.

    Args:
        jobs: how many there are. A single one has what this process has.
        slot: which of them, from 0.
        one_gpu: whether it is to have one GPU of several for itself.
    """
    env = dict(os.environ)
    if jobs == 1:
        return env
    share = max(1, cores() // jobs)
    given = env.get("OMP_NUM_THREADS", "")
    env["OMP_NUM_THREADS"] = str(min(share, int(given)) if given.isdigit() else share)
    visible = env.get("CUDA_VISIBLE_DEVICES")
    gpus = range(torch.cuda.device_count()) if visible is None else visible.split(",")
    if one_gpu and len(gpus) > 1:
        env["CUDA_VISIBLE_DEVICES"] = str(gpus[slot % len(gpus)])
    return env


def _wants_one_gpu(run: MemberRun) -> bool:
    return run.config["trainer"].get("devices") in ("auto", 1, "1")


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _close(running: _Process) -> None:
    """Takes away what a run may have left: processes that read its samples, and the pipe."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(running.process.pid, signal.SIGKILL)
    if running.process.stdout is not None and not running.reader.is_alive():
        running.process.stdout.close()


def _seconds(run: MemberRun) -> float:
    record = read_record(run.folder)
    return 0.0 if record is None else record.seconds


def _reason(status: int, log: Path) -> str:
    """Why a process ended that did not say so."""
    said = log.read_text(errors="replace").rpartition("\n--- ")[-1].splitlines()[1:]
    last = [line.strip() for line in said if line.strip()][-3:]
    how = f"ended with status {status}"
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        memory = " (out of memory?)" if name == "SIGKILL" else ""
        how = f"was ended by {name}{memory}"
    return "\n".join([f"{how}, see {log}", *last])


def _names(names: Iterable[str]) -> str:
    return " and ".join(names)

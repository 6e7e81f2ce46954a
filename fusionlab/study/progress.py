"""How a study goes: bars on a terminal, and one line per event everywhere else."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from fusionlab.study.members import MemberRun
from fusionlab.study.scores import default_ranking, rankable, split_per_class
from fusionlab.study.study_file import or_known


class Forecast:
    """How long what is left of a study will take.

    A run is expected to take as long as another of its member, or else as the mean of those known;
    one that is under way, what the part that is done of it says.

    Args:
        runs: all of the study.
        jobs: how many run beside each other.
    """

    def __init__(self, runs: Sequence[MemberRun], jobs: int) -> None:
        self.jobs = jobs
        self._left = {run.key: run.member for run in runs}
        self._known: dict[str, list[float]] = {}
        self._begun: dict[str, float] = {}
        self._part: dict[str, float] = {}

    def start(self, key: str) -> None:
        """A run begins or goes on."""
        self._begun[key] = time.monotonic()

    def advance(self, key: str, part: float) -> None:
        """This part of a run is done, in [0, 1]."""
        self._part[key] = part

    def end(self, run: MemberRun, seconds: float | None) -> None:
        """A run is over; its seconds are None if they say nothing."""
        self._left.pop(run.key, None)
        self._begun.pop(run.key, None)
        if seconds:
            self._known.setdefault(run.member, []).append(seconds)

    def seconds(self) -> float | None:
        """Until the end; None as long as nothing tells."""
        now = time.monotonic()
        known = [value for values in self._known.values() for value in values]
        running = {
            key: (now - begun) / part
            for key, begun in self._begun.items()
            if (part := self._part.get(key, 0.0)) > 0.05
        }
        every = [*known, *running.values()]
        if not every:
            return None
        total, longest = 0.0, 0.0
        for key, member in self._left.items():
            own = self._known.get(member)
            whole = sum(own) / len(own) if own else sum(every) / len(every)
            whole = running.get(key, whole)
            left = max(0.0, whole - (now - self._begun[key])) if key in self._begun else whole
            total, longest = total + left, max(longest, left)
        return max(total / self.jobs, longest)


class Progress:
    """Tells of a study as it goes, in lines; `Display` does so in bars.

    Args:
        runs: all of the study, done or not.
        jobs: how many run beside each other.
        score: what to tell of a finished run; None for what ranks the report by default.
        write: takes a line.
    """

    def __init__(
        self,
        runs: Sequence[MemberRun],
        *,
        jobs: int,
        score: str | None = None,
        write: Callable[[str], None] | None = None,
    ) -> None:
        self.runs = runs
        self.score = score
        self.total = len(runs)
        self.over = 0
        self.forecast = Forecast(runs, jobs)
        self.write = write or _print
        self._epochs: dict[str, int] = {}

    def known(self, run: MemberRun, seconds: float, *, done: bool) -> None:
        """A run that was done before."""
        self.over += done
        self.forecast.end(run, seconds)

    def begin(self) -> None:
        """Before the first run starts."""
        if self.over:
            self.write(f"{self.over} of {self.total} runs are done already.")

    def started(self, run: MemberRun, *, resumed: bool) -> None:
        """A run begins, or goes on where it was stopped."""
        self.forecast.start(run.key)
        self.write(f"{name_of(run)}: {'goes on' if resumed else 'started'}")

    def reported(self, run: MemberRun, event: Mapping[str, Any]) -> None:
        """A run tells of itself; see `Events`."""
        key = run.key
        if event["event"] == "fit":
            self._epochs[key] = event.get("epochs") or 0
        elif event["event"] == "epoch":
            self.forecast.advance(key, self._share(key, event["epoch"]))
            self.epoch(run, event)
        elif event["event"] == "step":
            steps = event.get("steps") or math.inf
            self.forecast.advance(key, self._share(key, event["epoch"] + event["step"] / steps))
            self.step(run, event)

    def epoch(self, run: MemberRun, event: Mapping[str, Any]) -> None:
        """An epoch of a run is over."""
        loss = event.get("val_loss")
        told = f", val loss {loss:.4g}" if isinstance(loss, int | float) else ""
        seconds = f", {event['seconds']:.1f} s" if "seconds" in event else ""
        self.write(f"{name_of(run)}: epoch {event['epoch']}/{self.epochs(run)}{told}{seconds}")

    def step(self, run: MemberRun, event: Mapping[str, Any]) -> None:
        """Some steps of a run are over; lines do not tell of them."""

    def finished(self, run: MemberRun, seconds: float) -> None:
        """A run is done."""
        self.over += 1
        self.forecast.end(run, seconds)
        told = f", {score}" if (score := score_of(run, self.score)) else ""
        self.write(f"{name_of(run)}: done{told}, {duration(seconds)} [{self.standing()}]")

    def failed(self, run: MemberRun, reason: str) -> None:
        """A run failed, or could not be started."""
        self.over += 1
        self.forecast.end(run, None)
        text = reason.replace("\n", "\n    ")
        self.write(f"{name_of(run)}: FAILED: {text} [{self.standing()}]")

    def close(self) -> None:
        """Nothing comes any more."""

    def epochs(self, run: MemberRun) -> int | str:
        """How many a run has at most."""
        epochs = self._epochs.get(run.key, 0)
        return epochs if epochs > 0 else "?"

    def standing(self) -> str:
        """How many runs are over, and how long the rest will take."""
        left = self.forecast.seconds() if self.over < self.total else None
        return f"{self.over}/{self.total}" + (f", about {duration(left)} left" if left else "")

    def _share(self, key: str, epochs: float) -> float:
        whole = self._epochs.get(key) or 0
        return min(1.0, epochs / whole) if whole > 0 else 0.0


class Display(Progress):
    """Bars on a terminal: one of the study, and one of each member that runs."""

    def __init__(
        self,
        runs: Sequence[MemberRun],
        *,
        jobs: int,
        score: str | None = None,
        console: Console | None = None,
    ) -> None:
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[told]}", markup=False, style="dim"),
            console=console,
        )
        super().__init__(
            runs,
            jobs=jobs,
            score=score,
            write=lambda line: self.bars.console.print(line, markup=False, highlight=False),
        )
        self._all: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}

    def begin(self) -> None:
        """Shows the bar of the study."""
        super().begin()
        self._all = self.bars.add_task("study", total=self.total, completed=self.over, told="")
        self.bars.start()
        self._overall()

    def started(self, run: MemberRun, *, resumed: bool) -> None:
        """Shows a bar."""
        self.forecast.start(run.key)
        self._tasks[run.key] = self.bars.add_task(
            f"  {name_of(run)}", total=1.0, told="goes on" if resumed else "starts"
        )

    def reported(self, run: MemberRun, event: Mapping[str, Any]) -> None:
        """Moves a bar."""
        super().reported(run, event)
        if event["event"] == "test":
            self._tell(run, 1.0, "test")

    def epoch(self, run: MemberRun, event: Mapping[str, Any]) -> None:
        """Moves a bar to the end of an epoch."""
        loss = event.get("val_loss")
        told = f", val loss {loss:.4g}" if isinstance(loss, int | float) else ""
        share = self._share(run.key, event["epoch"])
        self._tell(run, share, f"epoch {event['epoch']}/{self.epochs(run)}{told}")

    def step(self, run: MemberRun, event: Mapping[str, Any]) -> None:
        """Moves a bar a little."""
        steps, loss = event.get("steps"), event.get("loss")
        share = self._share(run.key, event["epoch"] + event["step"] / (steps or math.inf))
        at = f"epoch {event['epoch'] + 1}/{self.epochs(run)}, step {event['step']}/{steps or '?'}"
        told = f", loss {loss:.4g}" if isinstance(loss, int | float) else ""
        self._tell(run, share, f"{at}{told}")

    def finished(self, run: MemberRun, seconds: float) -> None:
        """Takes a bar away, and leaves a line."""
        self._remove(run)
        super().finished(run, seconds)
        self._overall()

    def failed(self, run: MemberRun, reason: str) -> None:
        """Takes a bar away, and leaves why."""
        self._remove(run)
        super().failed(run, reason)
        self._overall()

    def close(self) -> None:
        """Takes all bars away."""
        for task in list(self.bars.task_ids):
            self.bars.remove_task(task)
        self.bars.stop()

    def _tell(self, run: MemberRun, share: float, told: str) -> None:
        if run.key in self._tasks:
            self.bars.update(self._tasks[run.key], completed=share, told=told)
            self._overall()

    def _remove(self, run: MemberRun) -> None:
        if run.key in self._tasks:
            self.bars.remove_task(self._tasks.pop(run.key))

    def _overall(self) -> None:
        if self._all is not None:
            self.bars.update(self._all, completed=self.over, told=self.standing())


def name_of(run: MemberRun) -> str:
    """Member and seed, for people."""
    return f"{run.member}, seed {run.seed}"


def duration(seconds: float) -> str:
    """Seconds in words: ``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def score_of(run: MemberRun, score: str | None) -> str | None:
    """The score of a finished run, as it is told, or that there is none of that name.

    None if the run's files do not say.
    """
    try:
        scores = json.loads((run.folder / "test_metrics.json").read_text())
        if score is None:
            monitored = json.loads((run.folder / "measures.json").read_text())["monitor"][0]
            score = default_ranking(rankable(split_per_class(scores)[0], "test"), monitored)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if score is None:
        return None
    name = score if score in scores else f"test/{score}"
    if name not in scores:
        known = [other for other in scores if other.count("/") == 1]
        return f"no score {score!r} (`score:` in the study file).{or_known(score, known)}"
    return f"{name} {scores[name]:.4g}" if scores[name] is not None else None


def _print(line: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)

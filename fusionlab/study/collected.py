"""Finished runs that are compared: found in folders, and checked for being comparable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fusionlab.errors import InputError
from fusionlab.study.agreement import SEED, Difference, refusal, require_agreement
from fusionlab.study.finished import FinishedRun, read_runs
from fusionlab.study.record import read_record

_FILE = "study.json"


@dataclass(frozen=True)
class StudyRecord:
    """What a study notes in its folder, so that it can be compared without its file.

    Attributes:
        title: of the report.
        members: in the order of the table.
        seeds: that it has trained.
        score: what ranks the members; None for what their trainings monitored.
        allow_differences: keys in which their data may differ.
        rungs: of members that are rungs of a ladder, the modalities that they are given.
    """

    title: str
    members: list[str]
    seeds: list[int]
    score: str | None
    allow_differences: list[str]
    rungs: dict[str, list[str]] = field(default_factory=dict)


def write_study_record(folder: Path, record: StudyRecord) -> None:
    """Writes it into the folder of the study."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FILE).write_text(json.dumps(asdict(record), indent=2) + "\n")


def read_study_record(folder: Path) -> StudyRecord | None:
    """That of a study's folder; None if it is no such folder."""
    try:
        return StudyRecord(**json.loads((folder / _FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """Folders of runs: those given, and in the place of other folders those of the runs in them.

    A study's folder stands for its runs, a folder of folders such as ``runs/flair2`` for the runs
    and studies in it. Files, and folders that hold a comparison only, are left out, for a pattern
    such as ``runs/*`` finds them too.

    Raises:
        InputError: for a path that does not exist.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist. Name folders of runs, or of a study.")
        if path.is_dir():
            for folder in _folders_in(path, below=1):
                found.setdefault(folder.resolve(), folder)  # named once, however it was written
    return list(found.values())


def finished_runs(
    folders: Sequence[Path], *, members: Sequence[str] | None, seeds: Sequence[int] | None
) -> tuple[list[FinishedRun], dict[str, str]]:
    """Reads finished runs.

    Args:
        folders: of runs.
        members: of those wanted; all if None.
        seeds: of those wanted; all if None.

    Returns:
        The runs, and for each folder that is left out the reason.
    """
    unfinished = {
        str(folder): "was begun by a study and is not finished: go on with `fusionlab compare "
        "--config`"
        for folder in folders
        if (record := read_record(folder)) is not None and record.state != "done"
    }
    runs, unread = read_runs([folder for folder in folders if str(folder) not in unfinished])
    wanted = [
        run
        for run in runs
        if (members is None or run.member in members) and (seeds is None or run.seed in seeds)
    ]
    if not wanted:
        every = unfinished | unread
        reasons = "".join(f"\n  {reason}" for reason in list(every.values())[:3])
        there = ""
        if runs:
            of = ", ".join(dict.fromkeys(run.member for run in runs))
            with_ = ", ".join(dict.fromkeys(str(run.seed) for run in runs))
            there = f" Finished are the members {of} with the seeds {with_}."
        raise InputError(f"No finished run to compare in {len(folders)} folders.{there}{reasons}")
    return wanted, unfinished | unread


def require_comparable(runs: Sequence[FinishedRun], *, allowed: Sequence[str]) -> list[str]:
    """Refuses finished runs that were not trained and tested on the same data with the same seeds.

    Args:
        runs: to compare.
        allowed: keys in which they may differ; ``seed_everything`` for seeds.

    Returns:
        Remarks for the report, see `require_agreement`.

    Raises:
        InputError: a table of what differs.
    """
    named = {run.name: run.config for run in runs}
    if len({run.member for run in runs}) == len(runs):
        named = {run.member: run.config for run in runs}
    seeds: dict[str, list[str]] = {}
    for run in runs:
        seeds.setdefault(run.member, []).append("none" if run.seed is None else str(run.seed))
    by_member = {member: ", ".join(sorted(of)) for member, of in seeds.items()}
    remarks = []
    if len(set(by_member.values())) > 1:
        difference = Difference(SEED, by_member)
        if not {SEED, "seed", "seeds"} & set(allowed):
            raise InputError(refusal([difference], where="The runs"))
        remarks.append(f"Seeds differ, as allowed: {difference}")
    remarks += require_agreement(named, allowed=allowed, where="The runs")
    # A test may have been asked for other data than the training.
    tested = {
        name: {**config, "data": data}
        for (name, config), run in zip(named.items(), runs, strict=True)
        if (data := _test_data(run.folder)) is not None
    }
    again = require_agreement(tested, allowed=allowed, where="The tests of the runs")
    return list(dict.fromkeys([*remarks, *again]))


def _test_data(folder: Path) -> dict[str, Any] | None:
    """What a test was configured to read, without what matters in training only."""
    try:
        data = yaml.safe_load((folder / "test_config.yaml").read_text())["data"]
        arguments = dict(data["init_args"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return None
    for name in ("augment", "mix", "modality_dropout", "drop_last"):
        arguments.pop(name, None)
    return {**data, "init_args": arguments}


def remarks_on(runs: Sequence[FinishedRun]) -> list[str]:
    """What the report must say of runs beside how they were configured."""
    records = [record for run in runs if (record := read_record(run.folder)) is not None]
    jobs = max((record.jobs for record in records), default=1)
    beside = (
        f"Up to {jobs} runs were trained beside each other, each with its share of the cores: "
        "their times are longer than those of single ones, and not quite comparable."
    )
    return [*([beside] if jobs > 1 else []), *_other_samples(runs)]


def _other_samples(runs: Sequence[FinishedRun]) -> list[str]:
    """Whether members were tested on other samples, as far as their numbers per class tell."""
    members: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        support = run.per_class.get(f"{run.stage}/support")
        if support:
            counts = tuple(f"{name}: {count:.0f}" for name, count in sorted(support.items())
                           if count is not None)  # fmt: skip
            members.setdefault(counts, [])
            if run.member not in members[counts]:
                members[counts].append(run.member)
    if len(members) < 2:
        return []
    told = " | ".join(
        f"{', '.join(counts[:4])}{' …' * (len(counts) > 4)} ({', '.join(who)})"
        for counts, who in members.items()
    )
    return [
        f"Not all were tested on the same samples, so their scores are not comparable: {told}. "
        "Are there samples that lack a modality?"
    ]


def _folders_in(path: Path, *, below: int) -> Iterator[Path]:
    """The folder itself, or those of the runs in it, so many levels down."""
    record = read_study_record(path)
    seeds = sorted((p for p in path.glob("seed_*") if p.is_dir()), key=_number)
    if record is not None or (seeds and not (path / "config.yaml").is_file()):
        names = dict.fromkeys(record.members if record else [])
        names |= dict.fromkeys(p.name for seed in seeds for p in sorted(seed.glob("[!.]*")))
        for name in names:
            for seed in seeds:
                # Beside runs there may be what they share.
                if (seed / name / "config.yaml").is_file() or read_record(seed / name):
                    yield seed / name
        return
    inside = [p for p in sorted(path.iterdir()) if p.is_dir()] if below else []
    inside = [p for p in inside if (p / "config.yaml").is_file() or read_study_record(p)]
    if inside and not (path / "config.yaml").is_file():
        for folder in inside:
            yield from _folders_in(folder, below=0)
    elif (path / "config.yaml").is_file() or not (path / "comparison.json").is_file():
        yield path


def _number(path: Path) -> tuple[int, str]:
    digits = path.name.removeprefix("seed_")
    return (int(digits) if digits.isdigit() else -1, path.name)

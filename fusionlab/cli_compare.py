"""``fusionlab compare``: trains the members of a study, or takes finished runs, and compares them.

Its help starts without what training needs.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionlab.errors import InputError

if TYPE_CHECKING:
    from fusionlab.study.collected import StudyRecord
    from fusionlab.study.members import MemberRun
    from fusionlab.study.report import Report
    from fusionlab.study.study_file import Study

_EXAMPLES = """examples:
  fusionlab compare --config configs/rgb_lidar/study.yaml
      trains every member with every seed, or goes on with what is not done yet
  fusionlab compare --config study.yaml --seeds 0 1 2 --jobs 2
      several seeds, two runs at a time
  fusionlab compare --config study.yaml --members early late
      these members, and those whose runs they use
  fusionlab compare runs/aerial runs/sentinel2 runs/fused --output runs/comparison
      a report on finished runs
  fusionlab compare runs/rgb_lidar/study
      the report on a study once more
"""
_INTERRUPTED = 130


def compares(args: Sequence[str]) -> bool:
    """Whether a command line is this command."""
    return args[:1] == ["compare"]


def compare(args: Sequence[str]) -> int:
    """Runs the command.

    Args:
        args: ``compare`` and its options.

    Returns:
        The exit status: 0, 1 if a member failed, 2 for input that cannot be used or if no member
        finished, 130 if the user stopped it.

    Raises:
        SystemExit: after the help, or for other arguments.
    """
    options = _parsed(args[1:])
    options.command = shlex.join(["fusionlab", *args])
    # Classes of the user's own are found in the folder, as `python -m fusionlab` finds them.
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        return _study(options) if options.config else _finished(options)
    except InputError as error:
        if os.environ.get("FUSIONLAB_TRACEBACK"):
            raise
        sys.stderr.write(f"fusionlab: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\nfusionlab: stopped.\n")
        return _INTERRUPTED


def _parsed(args: Sequence[str]) -> Namespace:
    parser = ArgumentParser(
        prog="fusionlab compare",
        description="Trains members of a study on the same data, with the same seeds, and writes "
        "tables, charts and one HTML report; or does so for runs that are finished.",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("runs", nargs="*", type=Path, metavar="RUN",
        help="folders of finished runs, or of studies; instead of --config, and before options "
        "that take several values")  # fmt: skip
    add("-c", "--config", metavar="STUDY", help="the study file: members, seeds, output")
    add("--output", type=Path, metavar="FOLDER",
        help="of the study, instead of the file's; with RUN, of the report (default: comparison, "
        "or the study's folder)")  # fmt: skip
    add("--seeds", type=int, nargs="+", metavar="SEED", help="instead of those of the study")
    add("--members", nargs="+", metavar="NAME", help="only these, and those whose runs they use")
    add("--jobs", type=int, default=1, metavar="N",
        help="runs at a time, each with its share of the cores (default: 1; times of several "
        "beside each other are longer)")  # fmt: skip
    add("--overwrite", action="store_true",
        help="train anew what was trained with other settings than the study has now")  # fmt: skip
    add("--score", metavar="NAME",
        help="what ranks the members, such as test/f1_macro; instead of the study's, or of what "
        "the trainings monitored")  # fmt: skip
    add("--allow-differences", nargs="+", default=[], metavar="KEY",
        help="settings of the data in which members may differ, such as data.augment, or "
        "seed_everything; a key stands for all below it")  # fmt: skip
    options = parser.parse_args(args)
    if bool(options.config) == bool(options.runs):
        parser.error("expected either --config STUDY or folders of runs")
    if options.jobs < 1:
        parser.error(f"--jobs: expected 1 or more, got {options.jobs}")
    if options.runs and (options.overwrite or options.jobs > 1):
        parser.error("--jobs and --overwrite are for training, with --config")
    return options


def _study(options: Namespace) -> int:
    """Trains what is not done, and reports."""
    # Its mistakes are found before all that training needs is imported.
    from fusionlab.study.study_file import read_study

    study = read_study(options.config, output=options.output, seeds=options.seeds)
    if options.score is not None:
        study = replace(study, score=options.score)

    from fusionlab.study.agreement import require_agreement, require_one_seed
    from fusionlab.study.collected import StudyRecord, read_study_record, write_study_record
    from fusionlab.study.members import chosen_members, read_members, runs_of
    from fusionlab.study.runner import Runner
    from fusionlab.study.standing import refuse_changed, standings

    _check_trackers(study)
    members = read_members(study)
    allowed = [*study.allow_differences, *options.allow_differences]
    configs = {name: member.config for name, member in members.items()}
    chosen = chosen_members(members, options.members)
    runs = runs_of(chosen, study, study.seeds)
    earlier = read_study_record(study.output)
    seeds = list(dict.fromkeys([*(earlier.seeds if earlier else []), *study.seeds]))
    # A part of a study is reported on with all of it that is done.
    every = runs_of(members, study, seeds)
    state = standings(every)
    keys = {run.key for run in runs}
    done_before = [run for run in every if run.key not in keys and state[run.key] == "done"]
    reported = {run.member for run in [*runs, *done_before]}
    compared = {name: config for name, config in configs.items() if name in reported}
    where = str(study.file)
    remarks = [
        *require_agreement(compared, allowed=allowed, where=where),
        *require_one_seed(compared, allowed=allowed, where=where),
    ]
    with _alone(study.output):
        refuse_changed(runs, standings(runs), overwrite=options.overwrite)
        record = StudyRecord(
            study.title, list(members), seeds, study.score, list(allowed),
            {name: list(member.rung) for name, member in members.items() if member.rung},
        )  # fmt: skip
        write_study_record(study.output, record)
        progress = _progress(runs, options.jobs, study.score)
        runner = Runner(runs, jobs=options.jobs, progress=progress)
        try:
            with _terminated_as_interrupted():
                runner.run()
        except KeyboardInterrupt:
            progress.close()
            done = sum(state == "done" for state in standings(runs).values())
            sys.stderr.write(
                f"\nfusionlab: stopped; {done} of {len(runs)} runs are done. The same command goes "
                "on where it was.\n"
            )
            return _INTERRUPTED
        finally:
            progress.close()
        state = standings(every)  # training a member anew undoes those that use it
        still = [run for run in done_before if state[run.key] == "done"]
        return _report_study(options, study, [*runs, *still], runner.failed, remarks, record)


def _report_study(
    options: Namespace,
    study: Study,
    runs: Sequence[MemberRun],
    failed: dict[str, str],
    remarks: Sequence[str],
    noted: StudyRecord,
) -> int:
    from fusionlab.study.collected import remarks_on
    from fusionlab.study.finished import read_run

    order = {name: i for i, name in enumerate(noted.members)}
    finished = []
    for run in sorted(runs, key=lambda run: (order[run.member], run.seed)):
        if run.key not in failed:
            try:
                finished.append(read_run(run.folder, run.member))
            except InputError as error:
                failed[run.key] = str(error)
    if not finished:
        reasons = "".join(f"\n  {key}: {reason}" for key, reason in failed.items())
        raise InputError(f"No run of the study is finished.{reasons}")
    told = [*remarks, *remarks_on(finished)]
    report = _write(
        options, finished, study.output, study.title, failed, told, study.score, noted.rungs
    )
    if study.trackers:
        from fusionlab.study.tracking import log_report

        log_report(report, study.trackers)
    if failed:
        sys.stderr.write(f"fusionlab: {len(failed)} of {len(runs)} runs failed:\n")
        for key, reason in failed.items():
            sys.stderr.write(f"  {key}: {reason.replace(chr(10), f'{chr(10)}    ')}\n")
    return 1 if failed else 0


def _finished(options: Namespace) -> int:
    """Reports on finished runs."""
    from fusionlab.study.collected import (
        finished_runs,
        read_study_record,
        remarks_on,
        require_comparable,
        run_folders,
    )

    record = read_study_record(options.runs[0]) if len(options.runs) == 1 else None
    folders = run_folders(options.runs)
    runs, left_out = finished_runs(folders, members=options.members, seeds=options.seeds)
    for folder, reason in left_out.items():
        text = reason if folder in reason else f"{folder}: {reason}"
        sys.stderr.write(f"fusionlab: left out: {text}\n")
    allowed = [*options.allow_differences, *(record.allow_differences if record else [])]
    remarks = require_comparable(runs, allowed=allowed)
    output = options.output or (options.runs[0] if record else Path("comparison"))
    title = record.title if record else "comparison"
    score = options.score or (record.score if record else None)
    told = [*remarks, *remarks_on(runs)]
    _write(options, runs, output, title, left_out, told, score, record.rungs if record else {})
    return 0


def _write(
    options: Namespace,
    runs: Sequence[Any],
    folder: Path,
    title: str,
    failed: dict[str, str],
    remarks: Sequence[str],
    score: str | None,
    rungs: Mapping[str, Sequence[str]],
) -> Report:
    """Writes the report, and prints the table and where it lies."""
    from fusionlab.study.report import write_report

    _make(folder)
    report = write_report(
        runs,
        folder,
        title=title,
        failed=failed,
        remarks=remarks,
        score=score,
        rungs=rungs,
        command=options.command,
    )
    report.print()
    sys.stdout.write(f"Report: {report.files['html'].resolve()}\n")
    sys.stdout.flush()
    return report


def _check_trackers(study: Study) -> None:
    if study.trackers:
        from fusionlab.study.tracking import check_trackers

        try:
            check_trackers(study.trackers)
        except InputError as error:
            raise InputError(f"{study.file}: {error}") from error


def _progress(runs: Sequence[MemberRun], jobs: int, score: str | None) -> Any:  # noqa: ANN401
    from fusionlab.study.progress import Display, Progress

    kind = Display if sys.stdout.isatty() else Progress
    return kind(runs, jobs=jobs, score=score)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output: the folder {folder} cannot be made: {error.strerror}. Choose another."
        ) from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"--output: nothing can be written to {folder}. Choose another folder.")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a second command off a study that is under way; where the system can do that.

    Raises:
        InputError: if this is the second one.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    _make(folder)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another `fusionlab compare` works on this study. Wait for it, or "
                "choose another --output."
            ) from error
        except OSError:  # a file system without locks
            pass
        yield


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Has a request to terminate, as batch systems send it, stop a study as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    earlier = None
    with suppress(ValueError):  # not in the main thread
        earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if earlier is not None:
            signal.signal(signal.SIGTERM, earlier)

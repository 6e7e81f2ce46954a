"""The process of one run of a study: trains a member and tests its best epoch.

Started by the study as ``python -m fusionlab.study.member_process FOLDER``. It reads what to run in
the folder's ``member.json``, writes events to its standard output, and everything else that is
printed to its standard error, which is the run's log.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import IO, Any

import yaml
from lightning.pytorch import Callback, Trainer

from fusionlab.cli import FusionlabCLI
from fusionlab.errors import InputError
from fusionlab.study.events import Events
from fusionlab.study.record import note, read_record


class MemberCLI(FusionlabCLI):
    """The command line, with a callback that reports and without a progress bar of its own.

    Args:
        args: of the command.
        events: reports.
    """

    def __init__(self, args: list[str], events: Events) -> None:
        self._events = events
        super().__init__(args)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        quiet = {**config, "enable_progress_bar": False}
        return super()._instantiate_trainer(quiet, [*callbacks, self._events])


def run_member(folder: Path, pipe: IO[str]) -> None:
    """Trains and tests what the record of a folder says, or what is left of that to do.

    Args:
        folder: of the run, with a ``member.json``.
        pipe: for events.

    Raises:
        InputError: for input that cannot be used.
    """
    record = read_record(folder)
    if record is None:
        raise InputError(f"{folder} has no member.json: start it with `fusionlab compare`.")
    events = Events(pipe)
    if record.state == "training":
        last = folder / "last.ckpt"
        go_on = ["--ckpt_path", str(last)] if last.is_file() else []
        config = yaml.safe_dump(record.config, sort_keys=False)
        MemberCLI(["fit", "--config", config, *go_on], events)
        if _is_first():
            note(folder, state="trained")
    # The checkpoint says what the model is: experts answer themselves, not from the cache.
    best = folder / "best.ckpt"
    if not best.is_file():  # never validated
        best = folder / "last.ckpt"
    kept = {"seed_everything", "data", "trainer", "output"}
    config = yaml.safe_dump({k: v for k, v in record.config.items() if k in kept}, sort_keys=False)
    MemberCLI(
        ["test", "--config", config, "--ckpt_path", str(best), "--trainer.logger", "false"], events
    )


def _is_first() -> bool:
    return int(os.environ.get("LOCAL_RANK", 0)) == 0 and int(os.environ.get("NODE_RANK", 0)) == 0


def main() -> None:
    """Runs the member of this process; status 2 for input that cannot be used."""
    # Also where the study runs in the background of a shell, which would have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as pipe:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        try:
            run_member(Path(sys.argv[1]), pipe)
        except InputError as error:
            message = str(error).rsplit("InputError: ", 1)[-1].strip()
            sys.stderr.write(f"fusionlab: error: {message}\n")
            if _is_first():
                Events(pipe).send("failed", reason=message)
            sys.exit(2)


if __name__ == "__main__":
    main()

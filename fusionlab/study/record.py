"""What a study notes in the folder of a run: ``member.json``, how far the run has come.

A run counts as done only when its last file is written; nothing else tells so.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fusionlab.study.agreement import Difference, nested_differences

State = Literal["training", "trained", "done"]
_FILE = "member.json"


@dataclass(frozen=True)
class Record:
    """A run of a study.

    Attributes:
        member: its name.
        seed: of the training.
        digest: of all settings that change what is learned.
        settings: these settings.
        config: whole, as it is run.
        identity: of this training, another one whenever it begins anew.
        needs: per member whose run it uses, the identity of that run.
        state: how far it has come.
        seconds: that it took so far, starts included.
        jobs: how many ran beside each other, at most.
    """

    member: str
    seed: int
    digest: str
    settings: dict[str, Any]
    config: dict[str, Any]
    identity: str = field(default_factory=lambda: secrets.token_hex(8))
    needs: dict[str, str] = field(default_factory=dict)
    state: State = "training"
    seconds: float = 0.0
    jobs: int = 1


def read_record(folder: Path) -> Record | None:
    """The record of a run; None if there is none, or none that can be read."""
    try:
        return Record(**json.loads((folder / _FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(folder: Path, record: Record) -> None:
    """Writes a record whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{_FILE}.part"
    with part.open("w") as file:
        json.dump(asdict(record), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / _FILE)


def note(folder: Path, **changes: Any) -> Record:  # noqa: ANN401
    """Changes attributes of a record that is there."""
    record = read_record(folder)
    assert record is not None, f"{folder} has no record"
    record = replace(record, **changes)
    write_record(folder, record)
    return record


def changed_settings(record: Record, settings: Mapping[str, Any]) -> list[Difference]:
    """What a configuration says otherwise than that of an earlier run."""
    earlier = json.loads(json.dumps(record.settings, default=str))
    now = json.loads(json.dumps(settings, default=str))
    return list(nested_differences({"was": earlier, "is": now}))

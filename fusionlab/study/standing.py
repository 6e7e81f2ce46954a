"""How far the runs of a study have come, and what may not be replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from fusionlab.errors import InputError
from fusionlab.study.members import MemberRun
from fusionlab.study.record import changed_settings, read_record

Standing = Literal["new", "half", "done", "changed", "foreign"]


def standing(run: MemberRun, identities: Mapping[str, str]) -> Standing:
    """How far a run has come, by what its folder holds.

    Args:
        run: as the study describes it now.
        identities: of the runs of the same seed that it uses, as far as there are such.

    Returns:
        ``new``; ``half`` if it can go on; ``done``; ``changed`` if it was run with other settings,
        or with other runs of the members that it uses; ``foreign`` if no study made the folder.
    """
    if not run.folder.exists():
        return "new"
    record = read_record(run.folder)
    if record is None:
        # A study that is stopped before it has noted anything leaves no more than a hidden file.
        there = [path for path in run.folder.iterdir() if not path.name.startswith(".")]
        return "foreign" if there else "new"
    if record.digest != run.digest or record.needs != {n: identities.get(n) for n in run.needs}:
        return "changed"
    return "done" if record.state == "done" else "half"


def standings(runs: Sequence[MemberRun]) -> dict[str, Standing]:
    """How far each run has come, by `MemberRun.key`; every one after those that it needs."""
    found: dict[str, Standing] = {}
    for run in runs:
        identities = {}
        for other in runs:
            record = read_record(other.folder) if other.seed == run.seed else None
            if record is not None and other.member in run.needs:
                identities[other.member] = record.identity
        found[run.key] = standing(run, identities)
    return found


def refuse_changed(
    runs: Sequence[MemberRun], found: Mapping[str, Standing], *, overwrite: bool
) -> None:
    """Refuses to train what was trained with other settings, unless told to.

    Raises:
        InputError: names the runs and what has changed; folders of others are never replaced.
    """
    foreign = [run for run in runs if found[run.key] == "foreign"]
    if foreign:
        raise InputError(
            f"{foreign[0].folder} holds files that no study made. Move it away, or choose another "
            "--output for the study."
        )
    changed = [run for run in runs if found[run.key] == "changed"]
    if not changed or overwrite:
        return
    lines = []
    for run in changed:
        record = read_record(run.folder)
        assert record is not None
        differing = changed_settings(record, run.settings)
        why = "; ".join(
            f"{d.key} was {json.dumps(d.values.get('was'))}, is {json.dumps(d.values.get('is'))}"
            for d in differing[:3]
        )
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        others = " and ".join(run.needs)
        lines.append(f"  {run.folder}: {why or f'uses another {others}'}{more}")
    raise InputError(
        "\n".join(
            [
                f"{len(changed)} run{'s were' if len(changed) > 1 else ' was'} trained with other "
                "settings than the study has now:",
                *lines[:12],
                *([f"  … and {len(lines) - 12} more"] if len(lines) > 12 else []),
                "Train these anew with --overwrite, which replaces them, or choose another "
                "--output.",
            ]
        )
    )

"""What a reader must know of the numbers of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fusionlab.study.finished import FinishedRun
from fusionlab.study.scores import label


def caveats(
    members: Mapping[str, Sequence[FinishedRun]],
    kept: Mapping[str, Sequence[FinishedRun]],
    stage: str,
    score: str,
) -> Iterator[str]:
    """Sentences on seeds, tests and scores that are missing, on losses that diverged, and on times.

    Args:
        members: all runs by member.
        kept: those of them that the comparison is made of.
        stage: of the scores that rank.
        score: that ranks, without stage.
    """
    numbers = {member: len(group) for member, group in kept.items()}
    if len(set(numbers.values())) > 1:
        few = [f"{m} {n}" for m, n in numbers.items() if n < max(numbers.values())]
        yield f"Not all members have {max(numbers.values())} seeds: {', '.join(few)}."
    for member, group in kept.items():
        if left := [run.name for run in members[member] if run not in group]:
            yield f"Left out because they were never tested: {'; '.join(left)}."
        if group[0].stage != stage:
            yield f"{member} was never tested: its scores are those of the validation, not ranked."
        unscored = [r.name for r in group if r.scores.get(f"{r.stage}/{score}") is None]
        if unscored:
            yield f"Without a value of {label(score)}: {'; '.join(unscored)}."
    runs = [run for group in kept.values() for run in group]
    if diverged := [f"{run.name} ({n})" for run in runs if (n := _not_finite(run))]:
        yield (
            "The validation loss was not a finite number in some validations, which its best and "
            f"its mean leave out: {'; '.join(diverged)}."
        )
    if stored := [member for member, group in kept.items() if any(map(_has_cache, group))]:
        yield (
            f"Times of {', '.join(stored)} are of reading stored answers of the experts; the first "
            "to ask them also pays for that."
        )


def _not_finite(run: FinishedRun) -> int:
    """Number of validations that logged finite scores but no finite loss.

    Curves leave out what is not finite: a gap is seen where another curve goes on. A validation of
    which nothing was finite is not seen.
    """
    if "val/loss" not in run.curves:
        return 0
    validated = {
        x for name, curve in run.curves.items() if name.startswith("val/") for x, _ in curve
    }
    return len(validated - {x for x, _ in run.curves["val/loss"]})


def _has_cache(run: FinishedRun) -> bool:
    """Whether its model keeps the answers of frozen experts."""
    value: Any = run.config
    for key in ("model", "init_args", "model", "init_args", "cache"):
        value = value.get(key) if isinstance(value, Mapping) else None
    return bool(value)

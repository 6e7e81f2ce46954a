"""What each modality adds: the same fusion with it and without it, over the rungs of a ladder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fusionlab.study.scores import is_fraction, label, number
from fusionlab.study.significance import difference_text
from fusionlab.study.table import Comparison, Statistic, statistic


@dataclass(frozen=True)
class Gain:
    """What a modality adds to the ranking score.

    Attributes:
        modality: its name.
        alone: the score of its member alone; None if there is none.
        added: by the number of other modalities that were there before, how much the score rises
            (or falls, below 0) when it joins: the mean over all members that differ in it only,
            then over seeds. Only numbers for which there are such members.
    """

    modality: str
    alone: Statistic | None
    added: dict[int, Statistic]


def gains(comparison: Comparison) -> list[Gain]:
    """What each modality of a ladder adds; nothing if the study has no ladder.

    Args:
        comparison: of its members.
    """
    modalities = list(dict.fromkeys(m for kept in comparison.rungs.values() for m in kept))
    scores = comparison.by_seed()
    by_rung = {
        frozenset(kept): scores[member]
        for member, kept in comparison.rungs.items()
        if scores.get(member)
    }
    found = []
    for modality in modalities:
        added = {}
        for before in range(1, len(modalities)):
            steps = [
                (by_rung[kept - {modality}], with_it)
                for kept, with_it in by_rung.items()
                if modality in kept and len(kept) == before + 1 and kept - {modality} in by_rung
            ]
            rise = statistic(_rise(steps))
            if rise is not None:
                added[before] = rise
        alone = by_rung.get(frozenset({modality}))
        found.append(Gain(modality, None if alone is None else statistic(alone.values()), added))
    return found if any(gain.added for gain in found) else []


def _rise(steps: Sequence[tuple[dict[int, float], dict[int, float]]]) -> Iterator[float]:
    """For each seed, the mean difference over the steps that have it on both sides."""
    for seed in dict.fromkeys(seed for _, with_it in steps for seed in with_it):
        rises = [after[seed] - before[seed] for before, after in steps if {seed} <= before.keys()
                 and seed in after]  # fmt: skip
        if rises:
            yield sum(rises) / len(rises)


def gains_table(comparison: Comparison) -> list[list[str]]:
    """The gains in cells, with their heading first; nothing if there are none."""
    found = gains(comparison)
    if not found:
        return []
    score = comparison.score
    steps = sorted({before for gain in found for before in gain.added})
    last = len(found) - 1
    head = ["modality", f"alone: {label(score)}", *(_step(before, last) for before in steps)]
    unit = " (points)" if is_fraction(score) else ""
    lines = [[*head[:2], *(f"{text}{unit}" for text in head[2:])]]
    for gain in found:
        alone = "–" if gain.alone is None else number(gain.alone.mean, score)
        if gain.alone is not None and gain.alone.std is not None:
            alone += f" ± {number(gain.alone.std, score, digits=2)}"
        lines.append([gain.modality, alone, *(_text(gain.added.get(n), score) for n in steps)])
    return lines


def _step(before: int, last: int) -> str:
    if before == last:
        return "added to all others" if last > 1 else "added to the other"
    return f"added to {'one other' if before == 1 else f'{before} others'}"


def _text(value: Statistic | None, score: str) -> str:
    if value is None:
        return "–"
    text = difference_text(value.mean, score)
    return (
        text if value.std is None else f"{text} ± {difference_text(value.std, score, sign=False)}"
    )

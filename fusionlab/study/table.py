"""The comparison of a study's members: one row per member, seeds aggregated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

from fusionlab.errors import InputError
from fusionlab.study.caveats import caveats
from fusionlab.study.finished import FinishedRun
from fusionlab.study.scores import (
    STAGES,
    Direction,
    better,
    default_ranking,
    direction,
    label,
    number,
    quantity,
    rankable,
    significant,
)

Kind = Literal["score", "loss", "count", "operations", "decimal", "megabytes"]


class Statistic(NamedTuple):
    """A quantity over the seeds of a member.

    Attributes:
        mean: over the seeds that have it.
        std: standard deviation of a sample (n - 1); None of a single seed.
        n: number of seeds that have it.
    """

    mean: float
    std: float | None
    n: int


def statistic(values: Iterable[float | None]) -> Statistic | None:
    """Mean and standard deviation of the values that are numbers; None if none is."""
    finite = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return None
    n = len(finite)
    # Every value the same must give that value, and no deviation: a count stays whole.
    mean = finite[0] if len(set(finite)) == 1 else math.fsum(finite) / n
    std = math.sqrt(math.fsum((x - mean) ** 2 for x in finite) / (n - 1)) if n > 1 else None
    return Statistic(mean, std, n)


@dataclass(frozen=True)
class Column:
    """A column of the comparison.

    Attributes:
        key: its name in machine-readable files.
        label: its heading, with the unit.
        kind: how its numbers are written.
        note: what is meant by it, where the heading does not say.
    """

    key: str
    label: str
    kind: Kind
    note: str = ""

    def text(self, value: Statistic | None) -> str:
        """A cell: mean, and ± standard deviation where there is one that shows."""
        if value is None:
            return "–"
        mean = self._number(value.mean)
        if value.std is None or (value.std == 0 and self.kind not in ("score", "loss")):
            return mean
        std = self._number(value.std, digits=2)
        return f"{mean} ± {std}"

    def _number(self, value: float, *, digits: int = 4) -> str:
        match self.kind:
            case "score":
                return number(value, self.key, digits=digits)
            case "count":
                return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
            case "operations":
                return operations(value)
            case "megabytes":
                return f"{value:,.0f}"
            case "decimal" | "loss":
                return significant(value, f"#.{min(digits, 3)}g")


def operations(flops: float) -> str:
    """Floating point operations in three digits or so, e.g. ``1.25 G``."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if flops >= factor:
            return f"{significant(flops / factor, '#.3g')} {unit}"
    return f"{flops:.0f}"


@dataclass(frozen=True)
class MemberRow:
    """A member in the comparison.

    Attributes:
        member: its name.
        seeds: of its runs that the row is made of.
        stage: of its scores; ``val`` if none of its runs was tested.
        values: by column, None where there is nothing.
        rank: 1 is the best; None without a ranking score of the comparison's stage.
    """

    member: str
    seeds: tuple[int | None, ...]
    stage: str
    values: Mapping[str, Statistic | None]
    rank: int | None


@dataclass(frozen=True)
class Comparison:
    """All members of a study, side by side.

    Attributes:
        score: what ranks them, without stage.
        stage: of the scores that rank: ``test``, or ``val`` if nothing was tested.
        columns: of the table: the ranking score, others, cost.
        score_columns: all scores over all classes, the ranking one first.
        rows: in the order of the study.
        runs: that the rows are made of, by member.
        remarks: what a reader must know of the numbers.
        rungs: of members that are rungs of a modality ladder, the modalities that they are given.
    """

    score: str
    stage: str
    columns: tuple[Column, ...]
    score_columns: tuple[Column, ...]
    rows: tuple[MemberRow, ...]
    runs: Mapping[str, Sequence[FinishedRun]]
    remarks: tuple[str, ...]
    rungs: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def direction(self) -> Direction:
        """Which way the ranking score is better."""
        return direction(self.score)

    @property
    def best(self) -> MemberRow | None:
        """The row that ranks first."""
        return next((row for row in self.rows if row.rank == 1), None)

    def by_seed(self) -> dict[str, dict[int, float]]:
        """The ranking score per member and seed, of the comparison's stage."""
        return {
            member: {
                run.seed: value
                for run in runs
                if run.seed is not None
                and run.stage == self.stage
                and (value := run.scores.get(f"{self.stage}/{self.score}")) is not None
            }
            for member, runs in self.runs.items()
        }


_COSTS: tuple[tuple[Column, Callable[[dict[str, Any]], float | None]], ...] = (
    (
        Column("best_val_loss", "best val loss", "loss", "least of all validations"),
        lambda m: m.get("best_val_loss"),
    ),
    (
        Column("mean_val_loss", "mean val loss", "loss", "mean of all validations"),
        lambda m: m.get("mean_val_loss"),
    ),
    (Column("epochs", "epochs", "count"), lambda m: m.get("epochs")),
    (
        Column("trained_parameters", "parameters trained", "count", "without frozen ones"),
        lambda m: m.get("trained_parameters"),
    ),
    (
        Column("total_parameters", "parameters", "count", "with frozen ones"),
        lambda m: m.get("total_parameters"),
    ),
    (
        Column(
            "embedding_dim",
            "embedding size",
            "count",
            "values of the embedding, of the fused one where several are fused",
        ),
        lambda m: m.get("embedding_dim"),
    ),
    (
        Column(
            "flops_per_sample",
            "FLOPs per sample",
            "operations",
            "of a forward pass; a multiplication and an addition are two",
        ),
        lambda m: m.get("flops_per_sample"),
    ),
    (
        Column(
            "seconds_per_epoch",
            "s per epoch",
            "decimal",
            "of training, with the reading of samples, without validation",
        ),
        lambda m: _mean(m.get("seconds_per_epoch")),
    ),
    (
        Column("samples_per_second", "samples per s", "decimal", "of training in that time"),
        lambda m: m.get("samples_per_second"),
    ),
    (
        Column(
            "peak_memory_mb",
            "memory, MiB",
            "megabytes",
            "most that the whole process held, without processes that read samples",
        ),
        lambda m: m.get("peak_memory_mb"),
    ),
    (
        Column(
            "peak_gpu_memory_mb",
            "GPU memory, MiB",
            "megabytes",
            "most that tensors took on the GPU",
        ),
        lambda m: m.get("peak_gpu_memory_mb"),
    ),
)
"""What a member costs, and where its measures say so; memory is in units of 2^20 bytes."""


def compare(
    runs: Sequence[FinishedRun],
    score: str | None = None,
    rungs: Mapping[str, Sequence[str]] | None = None,
) -> Comparison:
    """Aggregates runs over seeds and ranks their members.

    Members that were only validated are shown with those scores, and not ranked among members that
    were tested.

    Args:
        runs: of any number of members and seeds, in the order of the table.
        score: what ranks, with or without its stage. If it is not given, or no run has it (then a
            remark says so), see `default_ranking`.
        rungs: see `Comparison`.

    Raises:
        InputError: if there is no run, two runs are of one member and seed, or the runs have no
            score in common that ranks them.
    """
    members = _by_member(runs)
    stage = next((s for s in STAGES if any(run.stage == s for run in runs)), "val")
    kept = {
        member: [r for r in group if r.stage == stage] or group for member, group in members.items()
    }
    ranked = [run for group in kept.values() for run in group if run.stage == stage]
    names = _score_names(ranked)
    ranking = _ranking(score, names, ranked, stage)
    others = [name for name in names if name != ranking]
    score_columns = tuple(Column(n, label(n), _kind(n)) for n in (ranking, *others))
    costs = tuple(
        column
        for column, read in _COSTS
        if any(read(run.measures) is not None for group in kept.values() for run in group)
    )
    shown = [c for c in score_columns[1:] if c.key == "overall_accuracy"]
    unknown = [] if score is None else _unknown(score, names, stage, ranking)
    unranked = [_row(m, group, (*score_columns, *costs)) for m, group in kept.items()]
    return Comparison(
        score=ranking,
        stage=stage,
        columns=(score_columns[0], *shown, *costs),
        score_columns=score_columns,
        rows=_with_ranks(unranked, ranking, stage),
        runs=kept,
        remarks=(*unknown, *caveats(members, kept, stage, ranking)),
        rungs={member: of for member, of in (rungs or {}).items() if member in kept},
    )


def _by_member(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    if not runs:
        raise InputError("There is no finished run to compare. Train some, or name their folders.")
    members: dict[str, list[FinishedRun]] = {}
    for run in runs:
        group = members.setdefault(run.member, [])
        if same := next((other for other in group if other.seed == run.seed), None):
            raise InputError(
                f"{same.folder} and {run.folder} are both the run {run.name}. Leave one out, or "
                "give their folders other names."
            )
        group.append(run)
    return members


def _score_names(runs: Sequence[FinishedRun]) -> list[str]:
    """Scores over all of any run, those that most runs have first."""
    counts: dict[str, int] = {}
    for run in runs:
        for name in rankable(run.scores, run.stage):
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: (-counts[name], name == "loss"))


def _is_there(score: str, names: Sequence[str], stage: str) -> bool:
    return quantity(score) in names and score in (quantity(score), f"{stage}/{quantity(score)}")


def _unknown(score: str, names: Sequence[str], stage: str, ranking: str) -> list[str]:
    """A remark on a score that no run has; an error would come after all of the training."""
    if _is_there(score, names, stage):
        return []
    there = [f"{stage}/{name}" for name in names]
    near = get_close_matches(score, there, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else f" There are {', '.join(there)}."
    return [f"No run has the score {score!r}: ranked by {stage}/{ranking} instead.{hint}"]


def _ranking(score: str | None, names: list[str], runs: Sequence[FinishedRun], stage: str) -> str:
    if score is not None and _is_there(score, names, stage):
        return quantity(score)
    common = [n for n in names if all(f"{run.stage}/{n}" in run.scores for run in runs)]
    if names != ["loss"]:  # losses of different tasks cannot be compared
        common = [name for name in common if name != "loss"]
    found = default_ranking(common, _monitored(runs))
    if found is None:
        each = "; ".join(
            f"{run.name}: {', '.join(quantity(n) for n in run.scores)}"
            for run in {tuple(sorted(run.scores)): run for run in runs}.values()
        )
        raise InputError(
            f"The runs have no score in common that could rank them ({each}). Compare runs of one "
            "task, or name a `score:`."
        )
    return found


def _monitored(runs: Sequence[FinishedRun]) -> str | None:
    """What all trainings chose their best epoch by; None if unknown, or not the same."""
    found = set()
    for run in runs:
        measured = run.measures.get("monitor")
        given = (run.config.get("checkpoint") or {}).get("monitor")
        found.add(measured[0] if measured else given)
    return found.pop() if len(found) == 1 else None


def _kind(name: str) -> Kind:
    return "loss" if name == "loss" else "score"


def _mean(values: Sequence[float] | float | None) -> float | None:
    if isinstance(values, int | float) or values is None:
        return values
    return sum(values) / len(values) if values else None


def _row(member: str, runs: Sequence[FinishedRun], columns: Sequence[Column]) -> MemberRow:
    values: dict[str, Statistic | None] = {}
    readers = {column.key: read for column, read in _COSTS}
    for column in columns:
        read = readers.get(column.key)
        values[column.key] = statistic(
            read(run.measures) if read else run.scores.get(f"{run.stage}/{column.key}")
            for run in runs
        )
    return MemberRow(member, tuple(run.seed for run in runs), runs[0].stage, values, None)


def _with_ranks(rows: Sequence[MemberRow], score: str, stage: str) -> tuple[MemberRow, ...]:
    scored = {
        row.member: better(score, value.mean)
        for row in rows
        if row.stage == stage and (value := row.values[score]) is not None
    }
    ranks = {member: 1 + sum(o > own for o in scored.values()) for member, own in scored.items()}
    return tuple(MemberRow(r.member, r.seeds, r.stage, r.values, ranks.get(r.member)) for r in rows)

"""A finished run, read from its folder: how it was made, what it cost and how well it did."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from fusionlab.errors import InputError
from fusionlab.study.record import read_record
from fusionlab.study.scores import better, default_score, quantity, split_per_class

Curve = list[tuple[float, float]]
"""Values by the number of epochs trained when they were measured."""

_SEED_IN_NAME = re.compile(r"[_-]seed[_-]?(\d+)$")


@dataclass(frozen=True)
class FinishedRun:
    """What a run left.

    Attributes:
        member: what was trained; runs of one member differ in their seed only.
        seed: of the training; None if it was not seeded.
        folder: of the run.
        config: its whole configuration.
        measures: what it took, as the callback ``Measures`` writes it. What of ``epochs``,
            ``best_val_loss``, ``mean_val_loss`` and ``trained_parameters`` is not in its file is
            taken from the logged values and the scores; the rest may be missing.
        curves: per logged column of training and validation, values by epochs trained: 1 is the
            end of the first epoch. ``train/…_epoch`` is the mean over all steps of an epoch; what
            was logged for single steps only is averaged over those that were.
        scores: by ``<stage>/<score>``, None where there was nothing to score.
        per_class: by ``<stage>/<score>``, those of single classes or variables.
        stage: ``test``, or ``val`` if the run was never tested.
    """

    member: str
    seed: int | None
    folder: Path
    config: dict[str, Any]
    measures: dict[str, Any]
    curves: dict[str, Curve]
    scores: dict[str, float | None]
    per_class: dict[str, dict[str, float | None]]
    stage: Literal["test", "val"]

    @property
    def name(self) -> str:
        """Member and seed, as errors and tables name a run."""
        return self.member if self.seed is None else f"{self.member}, seed {self.seed}"

    @property
    def shares(self) -> dict[str, float]:
        """Mean share of each modality in the decisions, in [0, 1]; empty where there is none."""
        prefix = f"{self.stage}/share/"
        scored = {
            name.removeprefix(prefix): value
            for name, value in self.scores.items()
            if name.startswith(prefix) and value is not None
        }
        measured = self.measures.get("shares") or {}
        return scored or {k: float(v) for k, v in measured.items() if v is not None}


def read_run(folder: Path, member: str | None = None) -> FinishedRun:
    """Reads the folder that ``fusionlab fit`` and ``fusionlab test`` leave.

    Scores are those of ``test_metrics.json``; of a run that was never tested those of
    ``val_metrics.json``, or else of the best epoch that was logged.

    Args:
        folder: the run's ``--output``.
        member: what was trained; the folder's name without ``_seed<number>`` if not given.

    Raises:
        InputError: if the folder holds no configuration or no scores, or a file cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Name the --output of a run.")
    config = _config(folder)
    curves = _curves(folder)
    found = _measures(folder, curves)
    stage, scores = _scores(folder, curves, found.get("monitor"))
    trained = scores.pop("trained_parameters", None)
    if found.get("trained_parameters") is None and trained is not None:
        found["trained_parameters"] = int(trained)
    overall, per_class = split_per_class(scores)
    return FinishedRun(
        member=member or _SEED_IN_NAME.sub("", folder.resolve().name) or folder.resolve().name,
        seed=_seed(config),
        folder=folder,
        config=config,
        measures=found,
        curves=curves,
        scores=overall,
        per_class=per_class,
        stage=stage,
    )


def read_runs(folders: Sequence[Path]) -> tuple[list[FinishedRun], dict[str, str]]:
    """Reads all folders that can be read.

    Runs of the same name and seed get their names from where they lie: of ``a/fused`` and
    ``b/fused`` become the members ``a/fused`` and ``b/fused``.

    Returns:
        The runs in the order given, and for each folder left out the reason.
    """
    runs, left_out = [], {}
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except InputError as error:
            left_out[str(folder)] = str(error)
    return _named_apart(runs), left_out


def _named_apart(runs: list[FinishedRun]) -> list[FinishedRun]:
    names = [run.member for run in runs]
    clashing = {
        run.member
        for i, run in enumerate(runs)
        for other in runs[:i]
        if (run.member, run.seed) == (other.member, other.seed)
    }
    folders = [run.folder.resolve().name if run.member in clashing else run.member for run in runs]
    if len({(name, run.seed) for name, run in zip(folders, runs, strict=True)}) == len(runs):
        names = folders  # such as `fused` and `fused_seed0`, both of seed 0
    parents = [_places(run.folder.resolve()) for run in runs]
    for depth in range(max(map(len, parents), default=0)):
        keys = [(name, run.seed) for name, run in zip(names, runs, strict=True)]
        if len(set(keys)) == len(keys):
            break
        for i, run in enumerate(runs):
            if run.member in clashing and depth < len(parents[i]):
                names[i] = f"{parents[i][depth].name}/{names[i]}"
    return [replace(run, member=name) for run, name in zip(runs, names, strict=True)]


def _places(folder: Path) -> list[Path]:
    """The folders that a run lies in; of a study the study's, not those of its seeds."""
    in_study = read_record(folder) is not None and folder.parent.name.startswith("seed_")
    return list(folder.parents)[in_study:]


def _config(folder: Path) -> dict[str, Any]:
    names = ("config.yaml", "test_config.yaml", "validate_config.yaml")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise InputError(
            f"{folder} holds no config.yaml: it is no folder of a run. Name the --output of "
            "`fusionlab fit`."
        )
    config = _read(path, yaml.safe_load, yaml.YAMLError)
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no settings. Run `fusionlab fit` again to write it.")
    return config


def _seed(config: dict[str, Any]) -> int | None:
    seed = config.get("seed_everything")
    return None if isinstance(seed, bool) or seed is None else int(seed)


def _measures(folder: Path, curves: dict[str, Curve]) -> dict[str, Any]:
    path = folder / "measures.json"
    found = _read(path, json.loads, ValueError) if path.is_file() else {}
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no measures. Remove it, or train once more.")
    losses = [value for _, value in curves.get("val/loss", [])]
    epochs = [
        x for column, curve in curves.items() if column.startswith("train/") for x, _ in curve
    ]
    derived: dict[str, float | int | None] = {
        "best_val_loss": min(losses, default=None),
        "mean_val_loss": sum(losses) / len(losses) if losses else None,
        "epochs": round(max(epochs)) if epochs else None,
    }
    return found | {k: v for k, v in derived.items() if found.get(k) is None}


def _scores(
    folder: Path, curves: dict[str, Curve], monitor: Sequence[str] | None
) -> tuple[Literal["test", "val"], dict[str, float | None]]:
    for stage in ("test", "val"):
        path = folder / f"{stage}_metrics.json"
        if path.is_file():
            scores = _read(path, json.loads, ValueError)
            if isinstance(scores, dict) and any(str(n).startswith(f"{stage}/") for n in scores):
                return ("test" if stage == "test" else "val"), scores
            raise InputError(f"{path} holds no scores. Run `fusionlab test` again to write it.")
    if scores := _best_epoch(curves, monitor):
        return "val", scores
    raise InputError(
        f"{folder} holds no scores: neither test_metrics.json, nor val_metrics.json, nor a "
        "metrics.csv with validation scores. Finish the run (`fusionlab fit`, `fusionlab test`)."
    )


def _best_epoch(curves: dict[str, Curve], monitor: Sequence[str] | None) -> dict[str, float | None]:
    """Validation scores of the epoch that was best by what the training monitored."""
    validated = {name: dict(curve) for name, curve in curves.items() if name.startswith("val/")}
    names = [quantity(name) for name in validated]
    score = default_score(names, monitor[0] if monitor else None)
    if score is None:
        return {}
    at = validated[f"val/{score}"]
    sign = {"min": -1.0, "max": 1.0}.get(monitor[1]) if monitor and len(monitor) > 1 else None
    monitored = monitor is not None and quantity(monitor[0]) == score

    def rank(epoch: float) -> float:
        return sign * at[epoch] if monitored and sign else better(score, at[epoch])

    best = max(at, key=rank)
    return {name: values.get(best) for name, values in validated.items()}


def _curves(folder: Path) -> dict[str, Curve]:
    """Curves of all logs of a run, which may have been resumed or begun anew.

    A later log takes the place of earlier ones from its first epoch on. Logs of other commands than
    fit have no part in it; of a model with nothing to train, the validation has.
    """
    logs = [rows for path in _tables(folder) if (rows := list(_rows(path)))]
    fits = [rows for rows in logs if any(n.startswith("train/") for _, row in rows for n in row)]
    kept: list[tuple[int, dict[str, float]]] = []
    for rows in fits or logs[-1:]:
        first = min(epoch for epoch, _ in rows)
        kept = [row for row in kept if row[0] < first] + rows
    by_column: dict[str, dict[int, list[float]]] = {}
    for epoch, values in kept:
        for name, value in values.items():
            by_column.setdefault(name, {}).setdefault(epoch, []).append(value)
    trained = 1 if fits else 0  # epochs, when the values of epoch 0 were measured
    return {
        name: [
            point
            for epoch, values in sorted(epochs.items())
            for point in _points(name, epoch + trained, values)
        ]
        for name, epochs in by_column.items()
    }


def _points(name: str, end: int, values: list[float]) -> Curve:
    """One point per epoch of a training, one per validation, spread evenly up to its end."""
    if name.startswith("train/"):
        finite = [value for value in values if math.isfinite(value)]
        return [(float(end), sum(finite) / len(finite))] if finite else []
    n = len(values)
    spread = [(end - 1 + (i + 1) / n, value) for i, value in enumerate(values)]
    return [(x, value) for x, value in spread if math.isfinite(value)]


def _tables(folder: Path) -> list[Path]:
    """Tables of Lightning's CSV logger, in the order in which they were begun."""
    patterns = ("*/version_*/metrics.csv", "*/metrics.csv", "metrics.csv")
    found = [path for pattern in patterns for path in folder.glob(pattern)]

    def version(path: Path) -> tuple[int, str]:
        number = path.parent.name.rpartition("_")[-1]
        return (int(number) if number.isdigit() else -1, str(path))

    return sorted(found, key=version)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Epoch and values of training and validation, row by row."""
    with path.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                values = {
                    name if name.startswith("train/") else name.removesuffix("_epoch"): float(text)
                    for name, text in row.items()
                    if text and name and name.startswith(("train/", "val/"))
                    and not (name.endswith("_step") and f"{name[:-5]}_epoch" in row)
                }  # fmt: skip
                if values:
                    yield int(float(row.get("epoch") or 0)), values
            except ValueError as error:
                raise InputError(f"{path}, line {line}, cannot be read: {error}.") from error


def _read(path: Path, load: Callable[[str], Any], wrong: type[Exception]) -> Any:  # noqa: ANN401
    try:
        return load(path.read_text())
    except (wrong, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read: {text}. Run the command again.") from error

"""The comparison of a study in trackers: its table, figures and page beside the runs themselves."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers as lightning_loggers
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from fusionlab.callbacks.trackers import closing_trackers, log_image, make_logger
from fusionlab.errors import InputError
from fusionlab.study.report import FIGURES, Report
from fusionlab.study.scores import quantity

_STEP = 0  # a comparison is one moment


def check_trackers(specs: Sequence[Mapping[str, Any]]) -> None:
    """Refuses trackers that cannot be made, before anything is trained.

    Args:
        specs: each ``class_path`` and ``init_args`` of a Lightning logger, as in
            ``trainer.logger``.

    Raises:
        InputError: for what is no logger, takes other arguments, or needs a package that is not
            installed.
    """
    if not isinstance(specs, Sequence) or isinstance(specs, str):
        raise InputError(
            f"`trackers:` is a list of loggers, each with class_path and init_args, got {specs!r}."
        )
    for i, spec in enumerate(specs):
        where = f"trackers[{i}]"
        cls, options = _class(spec, where), _options(spec, where)
        parameters = inspect.signature(cls).parameters
        unknown = [name for name in options if name not in parameters]
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            raise InputError(
                f"{where}: {cls.__name__} takes no {', '.join(unknown)}. It takes "
                f"{', '.join(parameters)}."
            )
        try:
            inspect.signature(cls).bind(**options)
        except TypeError as error:
            raise InputError(f"{where}: {cls.__name__}: {error}.") from error
        package = {WandbLogger: "wandb", MLFlowLogger: "mlflow", TensorBoardLogger: "tensorboard"}
        name = next((p for kind, p in package.items() if issubclass(cls, kind)), None)
        if name is not None and importlib.util.find_spec(name) is None:
            raise InputError(
                f"{where}: {cls.__name__} needs a package that is not installed: pip install "
                f'"fusionlab[{name}]", or leave the tracker out.'
            )


def log_report(
    report: Report, specs: Sequence[Mapping[str, Any]], *, name: str = "comparison"
) -> None:
    """Logs a report with trackers: a score per member, the table, the figures, and the page.

    A tracker that fails, as when its server cannot be reached, is warned of; the files are there.

    Args:
        report: that was written.
        specs: as for `check_trackers`; ``{output}`` stands for the report's folder.
        name: under which all of it is logged.
    """
    for i, spec in enumerate(specs):
        where = f"trackers[{i}]"
        cls, options = _class(spec, where), _options(spec, where)
        try:
            with closing_trackers():
                logger = make_logger(cls, (), options, output=report.folder)
                _log(logger, report, name)
                logger.save()
                logger.finalize("success")
        except Exception as error:
            text = " ".join(str(error).split())
            warnings.warn(
                f"The comparison was not logged with {cls.__name__}: {text}", stacklevel=2
            )


def _log(logger: Logger, report: Report, name: str) -> None:
    comparison = report.comparison
    scores = {
        f"{name}/{quantity(comparison.score)}/{_plain(row.member)}": value.mean
        for row in comparison.rows
        if (value := row.values[comparison.score]) is not None
    }
    logger.log_metrics(scores, step=_STEP)
    _log_files(logger, report, name)
    for kind in FIGURES:
        if kind in report.files:
            log_image([logger], f"{name}/{kind}", report.files[kind], _STEP)


def _log_files(logger: Logger, report: Report, name: str) -> None:
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text(f"{name}/table", report.files["markdown"].read_text(), _STEP)
    elif isinstance(logger, WandbLogger):
        import wandb

        columns, *rows = _cells(report.files["csv"])
        logger.log_table(f"{name}/table", columns=columns, data=rows, step=_STEP)
        page = wandb.Html(report.files["html"].read_text(), inject=False)
        logger.experiment.log({f"{name}/report": page})
    elif isinstance(logger, MLFlowLogger) and logger.run_id is not None:
        for kind in ("markdown", "csv", "per_class_csv", "json", "html"):
            logger.experiment.log_artifact(logger.run_id, str(report.files[kind]), name)


def _cells(path: Path) -> list[list[Any]]:
    """The lines of a table, numbers as numbers, gaps as None."""
    with path.open(newline="") as file:
        head, *lines = list(csv.reader(file))
    return [head, *[[cell if i < 4 else _number(cell) for i, cell in enumerate(line)]
                    for line in lines]]  # fmt: skip


def _number(text: str) -> float | None:
    return float(text) if text else None


def _plain(member: str) -> str:
    """A name of letters that every tracker takes in the name of a metric."""
    return re.sub(r"[^\w.-]+", "_", member)


def _class(spec: Mapping[str, Any], where: str) -> type[Logger]:
    path = spec.get("class_path") if isinstance(spec, Mapping) else None
    if not isinstance(path, str):
        raise InputError(
            f"{where} needs a class_path, such as WandbLogger, MLFlowLogger or TensorBoardLogger; "
            f"got {spec!r}."
        )
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module) if module else lightning_loggers, name)
    except (ImportError, AttributeError):
        found = None
    if not (isinstance(found, type) and issubclass(found, Logger)):
        known = sorted(n for n in vars(lightning_loggers) if n.endswith("Logger") and n != "Logger")
        raise InputError(
            f"{where}: {path!r} is no logger. Name one of {', '.join(known)}, or a class of your "
            "own, derived from lightning.pytorch.loggers.Logger, with its module."
        )
    return found


def _options(spec: Mapping[str, Any], where: str) -> dict[str, Any]:
    options = spec.get("init_args") or {}
    wrong = [key for key in spec if key not in ("class_path", "init_args")]
    if wrong or not isinstance(options, Mapping):
        raise InputError(
            f"{where} has class_path and init_args, and nothing else; got {', '.join(spec)}."
        )
    return dict(options)

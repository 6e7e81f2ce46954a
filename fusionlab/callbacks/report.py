"""What a run leaves for people: scores as JSON and in print, curves and the task's own charts."""

from __future__ import annotations

import json
import math
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from fusionlab.callbacks.score_table import print_scores
from fusionlab.plots import curves_chart
from fusionlab.tasks import Task
from fusionlab.tasks.base import Stage


class Report(Callback):
    """Writes a run's scores and charts into its folder and prints scores, on the first process.

    After fit: ``curves.png`` (if the run logs CSV), and one ``<name>.png`` for each of
    `Task.fit_charts`, such as ``fusion_weights.png`` with the share of each modality per class.
    After validate and test: ``<stage>_metrics.json``, and one ``<stage>_<name>.png`` for each of
    `Task.charts`; then the scores are printed, see `print_scores`. Run Lightning's ``validate`` and
    ``test`` with ``verbose=False``, or they print all of them once more.

    Args:
        output: the run's folder.
    """

    def __init__(self, output: str | Path) -> None:
        self.output = Path(output)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what the training came to."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.output.mkdir(parents=True, exist_ok=True)
        assert isinstance(pl_module, Task)
        for name, figure in pl_module.fit_charts().items():
            figure.savefig(self.output / f"{name}.png")
        for logger in trainer.loggers:
            table = Path(logger.log_dir or "", "metrics.csv")
            if table.is_file():
                logger.save()
                curves_chart(table).savefig(self.output / "curves.png")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports a validation that was asked for; epochs of a fit only log."""
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports a test."""
        self._report(trainer, pl_module, "test")

    def _report(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        if not trainer.is_global_zero:
            return
        self.output.mkdir(parents=True, exist_ok=True)
        scores = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(f"{stage}/")
        }
        report: dict[str, float | None] = {
            name: value if math.isfinite(value) else None  # a class that does not occur
            for name, value in scores.items()
        }
        report["trained_parameters"] = sum(
            p.numel() for p in pl_module.parameters() if p.requires_grad
        )
        text = json.dumps(report, indent=2, allow_nan=False)
        (self.output / f"{stage}_metrics.json").write_text(text)
        assert isinstance(pl_module, Task)
        for name, figure in pl_module.charts(stage).items():
            figure.savefig(self.output / f"{stage}_{name}.png")
        # Last, so that nothing scrolls it away.
        title = "Validation scores" if stage == "val" else "Test scores"
        plain = {name.removeprefix(f"{stage}/"): value for name, value in scores.items()}
        print_scores(title, plain, pl_module.schema.classes)

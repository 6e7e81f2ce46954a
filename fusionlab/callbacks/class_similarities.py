"""How alike samples and descriptions of classes are: a picture beside the table of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from fusionlab.models import ZeroShot
from fusionlab.plots import class_similarity_chart
from fusionlab.tasks import Task
from fusionlab.types import Batch

_NUMBER = 24


class ClassSimilarities(Callback):
    """Draws the first samples that a `ZeroShot` model predicts, and does nothing for other models.

    Writes ``predictions_similarity.png`` into the run's folder, on the first process: the cosine of
    every sample and class, with the classes that the sample is given marked. A sample of which
    there is nothing to see is grey.

    Args:
        output: the run's folder.
        number: how many samples.
    """

    def __init__(self, output: str | Path, *, number: int = _NUMBER) -> None:
        self.output = Path(output)
        self.number = number
        self._names: list[str] = []
        self._cosines: list[Tensor] = []
        self._given: list[Tensor] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew."""
        self._names, self._cosines, self._given = [], [], []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps what there is to draw."""
        missing = self.number - len(self._names)
        model = pl_module.model
        if missing <= 0 or not trainer.is_global_zero or not isinstance(model, ZeroShot):
            return
        there = batch["available"][model.modality][:, None]
        with trainer.precision_plugin.forward_context():
            cosines = model.cosines(batch).float()
        self._cosines.append(torch.where(there, cosines, torch.nan)[:missing].cpu())
        self._given.append(outputs["labels"][:missing].cpu())
        self._names += batch["sample_id"][:missing]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what was kept."""
        if not self._names:
            return
        assert isinstance(pl_module, Task)
        figure = class_similarity_chart(
            torch.cat(self._cosines).numpy(),
            self._names,
            pl_module.schema.classes,
            predicted=torch.cat(self._given).numpy(),
        )
        self.output.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.output / "predictions_similarity.png")

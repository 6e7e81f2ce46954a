"""Segmentation: one class per pixel."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MeanMetric

from fusionlab.errors import InputError
from fusionlab.fusion import Fusion
from fusionlab.losses import CrossEntropy, LossFactory
from fusionlab.metrics import ModalityShares, SegmentationMetrics
from fusionlab.models.align import AlignmentFactory, CentreCrop
from fusionlab.plots import confusion_matrix_chart, fusion_weights_chart
from fusionlab.tasks.base import ModelFactory, Stage, Task
from fusionlab.types import IGNORE_INDEX, Batch, Grid, Output, Schema


class Evaluation(nn.Module):
    """What is measured over an evaluation, exactly and over all processes.

    Args:
        contributors: names of the parts among which the model shares decisions.
        schema: class names and score conventions.
    """

    def __init__(self, contributors: tuple[str, ...], schema: Schema) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy=torch.inf)  # a loss that is no number must show
        self.scores = SegmentationMetrics(schema.classes, schema.scores)
        several = len(contributors) > 1
        self.shares = ModalityShares(contributors, schema.classes) if several else None

    def reset(self) -> None:
        """Begins a new evaluation; the totals of the last one stay readable."""
        self.loss.reset()
        self.scores.reset()
        if self.shares is not None:
            self.shares.reset()


class SegmentationTask(Task):
    """Trains, tests and applies a model that gives every pixel a class.

    Logs ``{train,val,test}/loss``, and for val and test the scores of `SegmentationMetrics`:
    ``miou``, one ``miou_<name>`` per convention of the data set, ``overall_accuracy``, ``f1``, and
    ``iou/<class>`` and ``f1/<class>``. A model that weights modalities also logs
    ``share/<modality>`` and ``share/<modality>/<class>``: its mean share where that class is
    predicted.

    Args:
        schema: what the data deliver; linked from the data module.
        model: an expert or a fused model.
        loss: of logits and target.
        alignment: how the model's logits come onto the grid of the target, where that is another:
            a Sentinel-2 expert answers at 10 m, with context around what the labels cover.
        auxiliary_weight: weight of the same loss on auxiliary logits, where a model has them
            (0.4 in UNetFormer, arXiv 2109.08937).
        optimizer: any torch optimiser.
        lr_scheduler: any torch scheduler, or `WarmupCosine`.
        parameter_groups: optimiser options by glob over parameter names.
        layer_decay: see `Task`.
        strip_frozen: see `Task`.
        trained_on: set by the command line when a checkpoint is restored.
    """

    def __init__(
        self,
        schema: Schema,
        model: ModelFactory,
        *,
        loss: LossFactory = CrossEntropy,
        alignment: AlignmentFactory = CentreCrop,
        auxiliary_weight: float = 0.4,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        parameter_groups: dict[str, dict[str, float]] | None = None,
        layer_decay: float | None = None,
        strip_frozen: bool = False,
        trained_on: dict[str, Any] | None = None,
    ) -> None:
        if schema.target != "segmentation":
            raise InputError(
                f"SegmentationTask gives every pixel a class, but the data's target is "
                f"{schema.target!r}: use ClassificationTask, or a target that is a map."
            )
        super().__init__(
            schema,
            model,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            parameter_groups=parameter_groups,
            layer_decay=layer_decay,
            strip_frozen=strip_frozen,
            trained_on=trained_on,
        )
        if not self.schema.classes:
            raise InputError("Segmentation needs class names, but the data name none.")
        self.loss = loss(self.schema.classes)
        self.loss.require(self.schema.target)
        self.alignment = alignment()
        self.auxiliary_weight = auxiliary_weight
        # Attributes rather than a dict of stages, so that each metric has its own state and type.
        self.val = Evaluation(self.model.contributors, self.schema)
        self.test = Evaluation(self.model.contributors, self.schema)
        self.explain = False
        """Whether predictions come with the share of each modality; set by who writes them."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, auxiliary logits included."""
        output: Output = self(batch)
        target = self.target(batch)
        # Nothing can be learned from a sample of which nothing was seen.
        seen = torch.stack([batch["available"][name] for name in self.model.modalities]).any(dim=0)
        target = torch.where(seen[:, None, None], target, torch.full_like(target, IGNORE_INDEX))
        loss: Tensor = self.loss(self._on_target(output.logits, batch), target)
        for logits in output.auxiliary:
            auxiliary = self.loss(self._on_target(logits, batch), target)
            loss = loss + self.auxiliary_weight * auxiliary
        self.log("train/loss", loss, prog_bar=True, batch_size=len(target))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Updates the metrics; returns the predicted classes for whoever draws them."""
        return self._evaluate(batch, self.val)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Updates the metrics; returns the predicted classes for whoever draws them."""
        return self._evaluate(batch, self.test)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Class probabilities ``(B, K, H, W)``, and on request the shares of the modalities."""
        if not self.explain:
            return {"probabilities": self._probabilities(self(batch), batch)}
        output, shares = self.model.explain(batch)
        on_target = {
            name: self._on_target(share[:, None].float(), batch)[:, 0]
            for name, share in shares.items()
        }
        return {"probabilities": self._probabilities(output, batch), "shares": on_target}

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of an epoch."""
        self._log_scores("val", self.val)

    def on_test_epoch_end(self) -> None:
        """Logs the scores of the test."""
        self._log_scores("test", self.test)

    def target(self, batch: Batch) -> Tensor:
        """Targets in the class order of the model; samples counted elsewhere are ignored."""
        target = batch["target"]
        if self.data_schema.classes and self.data_schema.classes != self.schema.classes:
            order = [self.schema.classes.index(name) for name in self.data_schema.classes]
            table = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX, device=target.device)
            table[: len(order)] = torch.tensor(order, device=target.device)
            target = table[target]
        if "counted" in batch:
            counted = batch["counted"].reshape(-1, *[1] * (target.ndim - 1))
            target = torch.where(counted, target, torch.full_like(target, IGNORE_INDEX))
        return target

    def _on_target(self, maps: Tensor, batch: Batch) -> Tensor:
        """Maps of the model on the grid of the target, or of the raster to predict."""
        if "placement" in batch:
            placement = batch["placement"]
            rows, columns = placement["shape"][0].tolist()
            grid = Grid(rows, columns, float(placement["gsd"][0]))
        else:
            rows, columns = batch["target"].shape[-2:]
            grid = Grid(rows, columns, self.data_schema.gsd or self.model.gsd)
        name = self.model.reference
        offset = batch.get("offset", {}).get(name)
        aligned: Tensor = self.alignment(maps, grid, gsd=self.model.gsd, name=name, offset=offset)
        return aligned

    def _probabilities(self, output: Output, batch: Batch) -> Tensor:
        return self._on_target(output.logits.float(), batch).softmax(dim=1)

    def _evaluate(self, batch: Batch, evaluation: Evaluation) -> dict[str, Tensor]:
        output: Output = self(batch)
        target = self.target(batch)
        valid = target != IGNORE_INDEX
        logits = self._on_target(output.logits, batch)
        # A mean weighted by pixels, so that it does not depend on how samples were batched.
        evaluation.loss.update(self.loss(logits, target), weight=valid.sum())
        predicted = logits.argmax(dim=1)
        evaluation.scores.update(predicted, target)
        if output.weights is not None and evaluation.shares is not None:
            weights = {
                name: value if value.shape[-1] == 1 else self._on_target(value, batch)
                for name, value in output.weights.items()
            }
            evaluation.shares.update(weights, predicted, valid)
        return {"predicted": predicted}

    def _log_scores(self, stage: str, evaluation: Evaluation) -> None:
        scores = {"loss": evaluation.loss.compute(), **evaluation.scores.compute()}
        shares = evaluation.shares
        if shares is not None and shares.update_called:  # an operator without weights has none
            scores |= {f"share/{name}": value for name, value in shares.compute().items()}
        self.log_dict({f"{stage}/{name}": value for name, value in scores.items()})
        evaluation.reset()

    @property
    def monitor(self) -> tuple[str, Literal["min", "max"]]:
        """The mean IoU."""
        return "val/miou", "max"

    def charts(self, stage: Stage) -> dict[str, Figure]:
        """The confusion matrix and, for a model that weights modalities, their shares."""
        classes, colors = self.schema.classes, self.schema.colors
        confusion = self.confusion(stage).cpu().numpy()
        charts = {"confusion": confusion_matrix_chart(confusion, classes, colors)}
        return charts | self._weights_chart(stage)

    def fit_charts(self) -> dict[str, Figure]:
        """The shares of the modalities, for a model that weights them."""
        return self._weights_chart("val")

    def _weights_chart(self, stage: Stage) -> dict[str, Figure]:
        weights = self.fusion_weights(stage)
        if weights is None:
            return {}
        arrays = {name: value.cpu().numpy() for name, value in weights.items()}
        chart = fusion_weights_chart(arrays, self.schema.classes, self.schema.colors)
        return {"fusion_weights": chart}

    def confusion(self, stage: Stage) -> Tensor:
        """Pixels by true and predicted class of the last ``val`` or ``test``, ``(K, K)`` int64."""
        return self._evaluation(stage).scores.total

    def fusion_weights(self, stage: Stage) -> dict[str, Tensor] | None:
        """Share of each modality per class, ``(K,)``: learned, or measured in ``val`` or ``test``.

        None for a model that does not weight modalities.
        """
        fusion = getattr(self.model, "fusion", None)
        static = fusion.class_weights() if isinstance(fusion, Fusion) else None
        if static is not None:
            return {name: weights.detach() for name, weights in static.items()}
        shares = self._evaluation(stage).shares
        if shares is None or shares.total.isnan().all():
            return None
        return dict(zip(self.model.contributors, shares.total, strict=True))

    def _evaluation(self, stage: Stage) -> Evaluation:
        return self.val if stage == "val" else self.test

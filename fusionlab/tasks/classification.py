"""Classification of whole samples: one class each, or any number of them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MeanMetric

from fusionlab.errors import InputError
from fusionlab.experts import Expert
from fusionlab.fusion import Fusion
from fusionlab.losses import BinaryCrossEntropy, CrossEntropy, Loss, LossFactory
from fusionlab.metrics import ClassificationMetrics, Decision, ModalityShares
from fusionlab.plots import (
    average_precision_chart,
    confusion_matrix_chart,
    fusion_weights_chart,
    precision_recall_chart,
)
from fusionlab.tasks.base import ModelFactory, Stage, Task
from fusionlab.types import IGNORE_INDEX, Batch, Output, Schema


class Evaluation(nn.Module):
    """What is measured over an evaluation, exactly and over all processes.

    Args:
        contributors: names of the parts among which the model shares decisions.
        schema: class names and kind of target.
        threshold: see `Decision`.
    """

    def __init__(
        self, contributors: tuple[str, ...], schema: Schema, threshold: float | dict[str, float]
    ) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy=torch.inf)  # a loss that is no number must show
        self.scores = ClassificationMetrics(schema.classes, schema.target, threshold)
        several = len(contributors) > 1
        self.shares = ModalityShares(contributors, schema.classes) if several else None
        self.results: dict[str, Tensor] = {}

    def compute(self) -> dict[str, Tensor]:
        """All scores by name."""
        self.results = {"loss": self.loss.compute(), **self.scores.compute()}
        if self.shares is not None and self.shares.update_called:  # not every operator has weights
            shares = self.shares.compute()
            self.results |= {f"share/{name}": value for name, value in shares.items()}
        return self.results

    def reset(self) -> None:
        """Begins a new evaluation; the results of the last one stay readable."""
        self.loss.reset()
        self.scores.reset()
        if self.shares is not None:
            self.shares.reset()


class ClassificationTask(Task):
    """Trains, tests and applies a model that gives a whole sample one class, or any number.

    Which of the two follows from the data's target. With ``multiclass`` the classes exclude each
    other, probabilities are a softmax, and a sample is given the most probable class. With
    ``multilabel`` each class applies or not, probabilities are sigmoids, and a sample is given
    every class at its threshold or over.

    Logs ``{train,val,test}/loss``, and for val and test the scores of `ClassificationMetrics`:
    ``ap_macro``, ``ap_micro``, ``f1_macro``, ``f1_micro``, ``ap/<class>`` and ``f1/<class>``,
    ``classes_evaluated``, for multiclass targets ``overall_accuracy``, and, except during a fit,
    ``support/<class>``. A model that weights modalities also logs ``share/<modality>`` and
    ``share/<modality>/<class>``: its mean share where that class is given.

    A training sample of which none of the model's modalities is available takes no part in the
    loss. In an evaluation it counts: it has to be answered too.

    Args:
        schema: what the data deliver; linked from the data module.
        model: an expert or a fused model.
        loss: of logits and target; `BinaryCrossEntropy` for multilabel targets and `CrossEntropy`
            for multiclass ones if not given.
        threshold: for multilabel targets, the probability from which on a class is given: one for
            all, or by class name, with 0.5 for those not named.
        auxiliary_weight: weight of the same loss on auxiliary logits, where a model has them.
        optimizer: any torch optimiser.
        lr_scheduler: any torch scheduler, or `WarmupCosine`.
        parameter_groups: optimiser options by glob over parameter names.
        layer_decay: see `Task`.
        strip_frozen: see `Task`.
        trained_on: set by the command line when a checkpoint is restored.

    Attributes:
        explain: whether predictions come with the share of each modality; set by who writes them.
        embeddings: whether they come with embeddings; set by who writes them.

    Raises:
        InputError: for a target of another kind, too few or too many classes, a loss that does not
            fit the target, or a threshold that `Decision` refuses.
    """

    def __init__(
        self,
        schema: Schema,
        model: ModelFactory,
        *,
        loss: LossFactory | None = None,
        threshold: float | dict[str, float] = 0.5,
        auxiliary_weight: float = 0.4,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        parameter_groups: dict[str, dict[str, float]] | None = None,
        layer_decay: float | None = None,
        strip_frozen: bool = False,
        trained_on: dict[str, Any] | None = None,
    ) -> None:
        trained = Schema.from_dict(trained_on) if trained_on else schema
        _check(trained, schema)
        # Before the model, which may be large.
        built = _loss(loss, trained)
        decision = Decision(trained.classes, trained.target, threshold)
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
        self.loss = built
        self.threshold = threshold
        self.decision = decision
        self.auxiliary_weight = auxiliary_weight
        # Attributes rather than a dict of stages, so that each metric has its own state and type.
        self.val = Evaluation(self.model.contributors, self.schema, threshold)
        self.test = Evaluation(self.model.contributors, self.schema, threshold)
        self.explain = False
        self.embeddings = False

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, auxiliary logits included."""
        output = self._checked(self(batch))
        target = self.target(batch)
        # Nothing can be learned from a sample of which nothing was seen.
        seen = torch.stack([batch["available"][name] for name in self.model.modalities]).any(dim=0)
        counted = self._counted(batch) & seen
        loss: Tensor = self.loss(output.logits, target, counted)
        for logits in output.auxiliary:
            loss = loss + self.auxiliary_weight * self.loss(logits, target, counted)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(target))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Updates the metrics; returns the classes given, see `_evaluate`."""
        return self._evaluate(batch, self.val)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Updates the metrics; returns the classes given, see `_evaluate`."""
        return self._evaluate(batch, self.test)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Answers new samples, whose target nobody knows.

        Returns:
            ``probabilities``, float32 ``(B, K)``, and ``labels``, bool ``(B, K)``, the classes
            given. With `explain`, ``shares``: ``(B,)`` per modality. With `embeddings`,
            ``embeddings``: ``(B, D)`` per expert and, where the model fuses them, ``fused``.

        Raises:
            InputError: if embeddings are asked for and the model has none.
        """
        shares = None
        if self.explain:
            output, shares = self.model.explain(batch)
        else:
            output = self(batch)
        probabilities = self.decision.probabilities(self._checked(output).logits)
        prediction: dict[str, Any] = {
            "probabilities": probabilities,
            "labels": self.decision(probabilities),
        }
        if shares is not None:
            prediction["shares"] = {name: share.float() for name, share in shares.items()}
        if self.embeddings:
            prediction["embeddings"] = self._embeddings(output, batch)
        return prediction

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of an epoch."""
        self._log_scores("val", self.val)

    def on_test_epoch_end(self) -> None:
        """Logs the scores of the test."""
        self._log_scores("test", self.test)

    def target(self, batch: Batch) -> Tensor:
        """Targets in the class order of the model."""
        target = batch["target"]
        data, model = self.data_schema.classes, self.schema.classes
        if not data or data == model:
            return target
        if self.schema.target == "multilabel":
            return target[:, [data.index(name) for name in model]]
        table = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX, device=target.device)
        order = [model.index(name) for name in data]
        table[: len(order)] = torch.tensor(order, device=target.device)
        return table[target]

    def _counted(self, batch: Batch) -> Tensor:
        """Samples whose target is known and which no other process counts, ``(B,)`` bool."""
        target = batch["target"]
        known = torch.ones(len(target), dtype=torch.bool, device=target.device)
        if self.schema.target == "multiclass":
            known = target != IGNORE_INDEX
        return known & batch["counted"] if "counted" in batch else known

    def _checked(self, output: Output) -> Output:
        shape, k = tuple(output.logits.shape), self.schema.num_classes
        if len(shape) != 2 or shape[1] != k:
            raise InputError(
                f"{type(self.model).__name__} answers logits of shape {shape}. A whole sample is "
                f"classified by logits of shape (samples, {k}): use a model that gives these."
            )
        return output

    def _embeddings(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        if output.embeddings is not None:
            return {name: values.float() for name, values in output.embeddings.items()}
        if isinstance(self.model, Expert):
            name = self.model.modality
            return {name: self.model.features(batch["inputs"][name]).float()}
        raise InputError(
            f"Embeddings were asked for, but {type(self.model).__name__} fuses decisions and has "
            "none. Leave them out, or predict with an expert or a FeatureFusion."
        )

    def _evaluate(self, batch: Batch, evaluation: Evaluation) -> dict[str, Tensor]:
        """Returns ``predicted``: bool ``(B, K)`` multilabel, class indices ``(B,)`` multiclass."""
        output = self._checked(self(batch))
        target, counted = self.target(batch), self._counted(batch)
        # A mean weighted by samples, so that it does not depend on how they were batched.
        evaluation.loss.update(self.loss(output.logits, target, counted), weight=counted.sum())
        probabilities = self.decision.probabilities(output.logits)
        evaluation.scores.update(probabilities, target, counted)
        predicted = self.decision(probabilities)
        if not self.decision.multilabel:
            predicted = probabilities.argmax(dim=1)
        if output.weights is not None and evaluation.shares is not None:
            weights = {
                # Of a fusion of maps, the mean over the map.
                name: value if value.ndim == 2 else value.flatten(2).mean(dim=2)
                for name, value in output.weights.items()
            }
            evaluation.shares.update(weights, predicted, counted)
        return {"predicted": predicted}

    def _log_scores(self, stage: Stage, evaluation: Evaluation) -> None:
        fitting = self.trainer.state.fn == "fit"
        self.log_dict(
            {
                f"{stage}/{name}": value
                for name, value in evaluation.compute().items()
                if not (fitting and name.startswith("support/"))  # the same in every epoch
            }
        )
        evaluation.reset()

    @property
    def monitor(self) -> tuple[str, Literal["min", "max"]]:
        """Macro average precision of a multilabel target, macro F1 of a multiclass one."""
        return ("val/ap_macro" if self.decision.multilabel else "val/f1_macro"), "max"

    def charts(self, stage: Stage) -> dict[str, Figure]:
        """Average precision and curves per class; confusion and shares where there are such."""
        classes, colors = self.schema.classes, self.schema.colors
        charts = {}
        evaluation = self._evaluation(stage)
        results = {name: float(value) for name, value in evaluation.results.items()}
        if results and results["classes_evaluated"]:
            precision = [results[f"ap/{name}"] for name in classes]
            charts["average_precision"] = average_precision_chart(
                precision,
                classes,
                support=evaluation.scores.support.cpu().numpy(),
                macro=results["ap_macro"],
                micro=results["ap_micro"],
                colors=colors,
            )
            per_class, micro = evaluation.scores.curves()
            charts["precision_recall"] = precision_recall_chart(
                [curve and curve.numpy() for curve in per_class],
                classes,
                average_precision=precision,
                micro=micro and micro.numpy(),
            )
        confusion = self.confusion(stage)
        if confusion is not None:
            charts["confusion"] = confusion_matrix_chart(
                confusion.cpu().numpy(), classes, colors, counted="samples"
            )
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

    def confusion(self, stage: Stage) -> Tensor | None:
        """Samples by true and predicted class of the last ``val`` or ``test``, ``(K, K)`` int64.

        None for multilabel targets.
        """
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


def _check(trained: Schema, data: Schema) -> None:
    """Refuses what cannot be classified."""
    if trained.target not in ("multiclass", "multilabel"):
        raise InputError(
            f"ClassificationTask classifies whole samples, but the target is {trained.target!r}: "
            "use SegmentationTask, or data with a target per sample."
        )
    if data.classes and data.target != trained.target:
        raise InputError(
            f"The checkpoint was trained on a {trained.target} target, but that of the data is "
            f"{data.target}. Use data with the same kind of target."
        )
    least, most = (2, IGNORE_INDEX) if trained.target == "multiclass" else (1, None)
    k = trained.num_classes
    if k < least or (most is not None and k > most):
        raise InputError(
            f"A {trained.target} target needs at least {least} class names, the data name {k}."
            if k < least
            else f"A multiclass target has at most {most} classes, because {IGNORE_INDEX} is the "
            f"index of what is unknown; the data have {k}."
        )


def _loss(loss: LossFactory | None, schema: Schema) -> Loss:
    default = BinaryCrossEntropy if schema.target == "multilabel" else CrossEntropy
    built = (loss or default)(schema.classes)
    built.require(schema.target)
    return built

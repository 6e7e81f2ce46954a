"""Classification of whole samples: one class each, or any number of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric

from fusionlab.errors import InputError
from fusionlab.losses import BinaryCrossEntropy, CrossEntropy, LossFactory
from fusionlab.metrics import ClassificationMetrics, Decision, probabilities
from fusionlab.plots import (
    average_precision_chart,
    confusion_matrix_chart,
    precision_recall_chart,
)
from fusionlab.tasks.base import ModelFactory, Stage
from fusionlab.tasks.supervised import SupervisedTask
from fusionlab.tasks.target_order import TargetOrder
from fusionlab.types import IGNORE_INDEX, Batch, Schema, Target, is_soft, known_shares


class ClassificationTask(SupervisedTask):
    """Trains, tests and applies a model that gives a whole sample one class, or any number.

    Which of the two follows from the data's target. With ``multiclass`` the classes exclude each
    other, probabilities are a softmax, and a sample is given the most probable class. With
    ``multilabel`` each class applies or not, probabilities are sigmoids, and a sample is given
    every class at its threshold or over.

    Logs what `SupervisedTask` logs, and for val and test the scores of `ClassificationMetrics`:
    ``ap_macro``, ``ap_micro``, ``f1_macro``, ``f1_micro``, weighted by support ``f1_weighted``,
    ``precision_weighted`` and ``recall_weighted``, per class ``ap/<class>``, ``f1/<class>``,
    ``precision/<class>`` and ``recall/<class>``, ``classes_evaluated``, for multiclass targets
    ``overall_accuracy``, and, except during a fit, ``support/<class>``.

    Args:
        schema: what the data deliver; linked from the data module.
        model: an expert or a fused model.
        threshold: for multilabel targets, the probability from which on a class is given: one for
            all, or by class name, with 0.5 for those not named.
        classes: names of the classes to tell apart, one per sample, where the data name none: a
            `ZeroShot` model needs no target.
        options: as for `SupervisedTask`; the loss is `BinaryCrossEntropy` for multilabel targets
            and `CrossEntropy` for multiclass ones if not given.

    Attributes:
        decision: which classes a sample is given.

    Raises:
        InputError: as `SupervisedTask`, for too few or too many classes, other `classes` than the
            data's, or a threshold that `Decision` refuses.
    """

    losses: ClassVar[Mapping[Target, LossFactory]] = MappingProxyType(
        {"multilabel": BinaryCrossEntropy, "multiclass": CrossEntropy}
    )

    def __init__(
        self,
        schema: Schema,
        model: ModelFactory,
        *,
        threshold: float | dict[str, float] = 0.5,
        classes: list[str] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        if classes is not None:
            schema = _with_classes(schema, classes)

        def metrics(schema: Schema) -> ClassificationMetrics:
            return ClassificationMetrics(schema.classes, schema.target, threshold)

        super().__init__(schema, model, metrics=metrics, **options)
        self.threshold = threshold
        self.decision = Decision(self.schema.classes, self.schema.target, threshold)
        self.target_order = TargetOrder(self.data_schema, self.schema)

    @classmethod
    def require(cls, schema: Schema) -> None:
        """See `SupervisedTask.require`."""
        super().require(schema)
        least, most = (2, IGNORE_INDEX) if schema.target == "multiclass" else (1, None)
        k = schema.num_classes
        if k < least:
            raise InputError(
                f"A {schema.target} target needs at least {least} class names, the data name {k}. "
                "Name them with `classes:` of the task, or give the data a target."
            )
        if most is not None and k > most:
            raise InputError(
                f"A multiclass target has at most {most} classes, because {IGNORE_INDEX} is the "
                f"index of what is unknown; the data have {k}."
            )

    def target(self, batch: Batch) -> Tensor:
        """Class indices ``(B,)``, or values or shares ``(B, K)``, in the order of the model."""
        ordered: Tensor = self.target_order(batch["target"])
        return ordered

    def known(self, target: Tensor) -> Tensor:
        """Samples whose classes are known, ``(B,)``."""
        if self.schema.target == "multiclass":
            return known_shares(target) if is_soft(target) else target != IGNORE_INDEX
        return torch.ones(len(target), dtype=torch.bool, device=target.device)

    def on_target(self, values: Tensor, batch: Batch) -> Tensor:
        """Logits per sample ``(B, K)`` as they are.

        Raises:
            InputError: if they are not that.
        """
        shape, k = tuple(values.shape), self.schema.num_classes
        if len(shape) != 2 or shape[1] != k:
            raise InputError(
                f"{type(self.model).__name__} answers logits of shape {shape}. A whole sample is "
                f"classified by logits of shape (samples, {k}): use a model that gives these."
            )
        return values

    def weights_on_target(self, weights: Tensor, batch: Batch) -> Tensor:
        """A modality's share; of a fusion of maps, its mean over the map."""
        return weights if weights.ndim == 2 else weights.flatten(2).mean(dim=2)

    def score(self, metric: Metric, logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Bool ``(B, K)`` if multilabel, else indices ``(B,)``; see `SupervisedTask.score`."""
        found = probabilities(logits, self.schema.target)
        metric.update(found, target, counted)
        if self.decision.multilabel:
            given: Tensor = self.decision(found)
            return given
        return found.argmax(dim=1)

    def logged(self, scores: dict[str, Tensor]) -> dict[str, Tensor]:
        """All scores, but the support, which is the same in every epoch, not during a fit."""
        if self.trainer.state.fn != "fit":
            return scores
        return {name: s for name, s in scores.items() if not name.startswith("support/")}

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Answers new samples, whose target nobody knows.

        Returns:
            ``probabilities``, float32 ``(B, K)``, and ``labels``, bool ``(B, K)``, the classes
            given. With `explain`, ``shares``: ``(B,)`` per modality. With `embeddings`,
            ``embeddings``: ``(B, D)`` per expert and, where the model fuses them, ``fused``.

        Raises:
            InputError: if embeddings are asked for and the model has none.
        """
        output, shares = self.answer(batch)
        found = probabilities(self.on_target(output.logits, batch), self.schema.target)
        prediction: dict[str, Any] = {"probabilities": found, "labels": self.decision(found)}
        if shares is not None:
            prediction["shares"] = shares
        if self.embeddings:
            prediction["embeddings"] = self.embeddings_of(output, batch)
        return prediction

    @property
    def monitor(self) -> tuple[str, Literal["min", "max"]]:
        """Macro average precision of a multilabel target, macro F1 of a multiclass one."""
        return ("val/ap_macro" if self.decision.multilabel else "val/f1_macro"), "max"

    def charts(self, stage: Stage) -> dict[str, Figure]:
        """Average precision and curves per class; confusion and shares where there are such."""
        classes, colors = self.schema.classes, self.schema.colors
        charts = {}
        scores = self._scores(stage)
        results = {name: float(v) for name, v in self.evaluation(stage).results.items()}
        if results and results["classes_evaluated"]:
            precision = [results[f"ap/{name}"] for name in classes]
            charts["average_precision"] = average_precision_chart(
                precision,
                classes,
                support=scores.support.cpu().numpy(),
                macro=results["ap_macro"],
                micro=results["ap_micro"],
                colors=colors,
            )
            per_class, micro = scores.curves()
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
        return charts | self.weights_chart(stage)

    def confusion(self, stage: Stage) -> Tensor | None:
        """Samples by true and predicted class of the last ``val`` or ``test``, ``(K, K)`` int64.

        None for multilabel targets.
        """
        return self._scores(stage).total

    def _scores(self, stage: Stage) -> ClassificationMetrics:
        scores = self.evaluation(stage).scores
        assert isinstance(scores, ClassificationMetrics)
        return scores


def _with_classes(schema: Schema, classes: list[str]) -> Schema:
    """The schema with classes that the data do not name."""
    if not schema.outputs:
        return Schema(schema.modalities, classes, gsd=schema.gsd, target="multiclass")
    if set(schema.outputs) != set(classes):
        raise InputError(
            f"`classes` of the task are {classes}, but the data name {schema.kind} of their own: "
            f"{list(schema.outputs)}. Leave `classes` out, or use data without a target."
        )
    return schema

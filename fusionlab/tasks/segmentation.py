"""Segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric

from fusionlab.errors import InputError
from fusionlab.losses import CrossEntropy, LossFactory
from fusionlab.metrics import SegmentationMetrics, probabilities
from fusionlab.plots import confusion_matrix_chart
from fusionlab.tasks.aligned import AlignedTask
from fusionlab.tasks.base import ModelFactory, Stage
from fusionlab.tasks.target_order import TargetOrder
from fusionlab.types import IGNORE_INDEX, Batch, Schema, Target, is_soft, known_shares


class SegmentationTask(AlignedTask):
    """Trains, tests and applies a model that gives every pixel a class.

    Logs what `SupervisedTask` logs, and for val and test the scores of `SegmentationMetrics`:
    ``miou``, one ``miou_<name>`` per convention of the data set, ``overall_accuracy``, ``f1``, and
    ``iou/<class>`` and ``f1/<class>``.

    Args:
        schema: what the data deliver; linked from the data module.
        model: an expert or a fused model.
        options: as for `AlignedTask`; the loss is `CrossEntropy` if not given.

    Raises:
        InputError: as `SupervisedTask`, or if the data name no classes.
    """

    losses: ClassVar[Mapping[Target, LossFactory]] = MappingProxyType(
        {"segmentation": CrossEntropy}
    )

    def __init__(
        self,
        schema: Schema,
        model: ModelFactory,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(schema, model, metrics=_metrics, **options)
        self.target_order = TargetOrder(self.data_schema, self.schema)

    @classmethod
    def require(cls, schema: Schema) -> None:
        """See `SupervisedTask.require`."""
        super().require(schema)
        if not schema.classes:
            raise InputError("Segmentation needs class names, but the data name none.")

    def target(self, batch: Batch) -> Tensor:
        """Class indices ``(B, H, W)``, or shares ``(B, K, H, W)``, in the order of the model."""
        ordered: Tensor = self.target_order(batch["target"])
        return ordered

    def known(self, target: Tensor) -> Tensor:
        """Pixels whose class is known, ``(B, H, W)``."""
        return known_shares(target) if is_soft(target) else target != IGNORE_INDEX

    def score(self, metric: Metric, logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Predicted class indices ``(B, H, W)``; see `SupervisedTask.score`."""
        predicted = logits.argmax(dim=1)
        metric.update(predicted, target, counted)
        return predicted

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Class probabilities ``(B, K, H, W)``, and on request the shares of the modalities."""
        output, shares = self.answer(batch)
        logits = self.on_target(output.logits.float(), batch)
        prediction: dict[str, Any] = {"probabilities": probabilities(logits, self.schema.target)}
        if shares is not None:
            prediction["shares"] = self.shares_on_target(shares, batch)
        return prediction

    @property
    def monitor(self) -> tuple[str, Literal["min", "max"]]:
        """The mean IoU."""
        return "val/miou", "max"

    def charts(self, stage: Stage) -> dict[str, Figure]:
        """The confusion matrix and, for a model that weights modalities, their shares."""
        classes, colors = self.schema.classes, self.schema.colors
        confusion = self.confusion(stage).cpu().numpy()
        charts = {"confusion": confusion_matrix_chart(confusion, classes, colors)}
        return charts | self.weights_chart(stage)

    def confusion(self, stage: Stage) -> Tensor:
        """Pixels by true and predicted class of the last ``val`` or ``test``, ``(K, K)`` int64."""
        scores = self.evaluation(stage).scores
        assert isinstance(scores, SegmentationMetrics)
        return scores.total


def _metrics(schema: Schema) -> SegmentationMetrics:
    return SegmentationMetrics(schema.classes, schema.scores)

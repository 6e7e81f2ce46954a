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
from fusionlab.models.align import AlignmentFactory, CentreCrop
from fusionlab.plots import confusion_matrix_chart
from fusionlab.tasks.base import ModelFactory, Stage
from fusionlab.tasks.class_order import ClassOrder
from fusionlab.tasks.supervised import SupervisedTask
from fusionlab.types import IGNORE_INDEX, Batch, Grid, Schema, Target


class SegmentationTask(SupervisedTask):
    """Trains, tests and applies a model that gives every pixel a class.

    Logs what `SupervisedTask` logs, and for val and test the scores of `SegmentationMetrics`:
    ``miou``, one ``miou_<name>`` per convention of the data set, ``overall_accuracy``, ``f1``, and
    ``iou/<class>`` and ``f1/<class>``.

    Args:
        schema: what the data deliver; linked from the data module.
        model: an expert or a fused model.
        alignment: how the model's logits come onto the grid of the target, where that is another:
            a Sentinel-2 expert answers at 10 m, with context around what the labels cover.
        options: as for `SupervisedTask`; the loss is `CrossEntropy` if not given.

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
        *,
        alignment: AlignmentFactory = CentreCrop,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(schema, model, metrics=_metrics, **options)
        self.alignment = alignment()
        self.class_order = ClassOrder(
            self.data_schema.classes, self.schema.classes, self.schema.target
        )

    @classmethod
    def require(cls, schema: Schema) -> None:
        """See `SupervisedTask.require`."""
        super().require(schema)
        if not schema.classes:
            raise InputError("Segmentation needs class names, but the data name none.")

    def target(self, batch: Batch) -> Tensor:
        """Class indices ``(B, H, W)`` in the order of the model."""
        order: Tensor = self.class_order(batch["target"])
        return order

    def known(self, target: Tensor) -> Tensor:
        """Pixels whose class is known, ``(B, H, W)``."""
        return target != IGNORE_INDEX

    def on_target(self, values: Tensor, batch: Batch) -> Tensor:
        """Maps ``(B, C, h, w)`` on the grid of the target, or of the raster to predict."""
        if "placement" in batch:
            placement = batch["placement"]
            rows, columns = placement["shape"][0].tolist()
            grid = Grid(rows, columns, float(placement["gsd"][0]))
        else:
            rows, columns = batch["target"].shape[-2:]
            grid = Grid(rows, columns, self.data_schema.gsd or self.model.gsd)
        name = self.model.reference
        offset = batch.get("offset", {}).get(name)
        aligned: Tensor = self.alignment(values, grid, gsd=self.model.gsd, name=name, offset=offset)
        return aligned

    def weights_on_target(self, weights: Tensor, batch: Batch) -> Tensor:
        """Maps of a modality's share; one that is the same everywhere stays as it is."""
        return weights if weights.shape[-1] == 1 else self.on_target(weights, batch)

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
            prediction["shares"] = {
                name: self.on_target(share[:, None], batch)[:, 0] for name, share in shares.items()
            }
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

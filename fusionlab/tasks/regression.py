"""Regression: values of variables, per pixel or per sample."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric

from fusionlab.errors import InputError
from fusionlab.losses import LossFactory, MeanSquaredError
from fusionlab.metrics import RegressionMetrics
from fusionlab.plots import regression_chart
from fusionlab.tasks.aligned import AlignedTask
from fusionlab.tasks.base import ModelFactory, Stage
from fusionlab.tasks.target_order import TargetOrder
from fusionlab.types import Batch, Schema, Target


class RegressionTask(AlignedTask):
    """Trains, tests and applies a model that gives every pixel, or every sample, values.

    Which of the two follows from the data's target: ``regression`` has a value per pixel and
    variable (canopy height, elevation), ``scalar_regression`` per sample and variable (biomass of a
    plot, yield of a field). Answers are in the units of the variables; what is not finite in a
    target is unknown.

    Logs what `SupervisedTask` logs, and for val and test the scores of `RegressionMetrics`:
    ``rmse``, ``mae``, ``bias``, ``r2``, and of several variables ``rmse/<variable>`` and so on.

    Args:
        schema: what the data deliver; linked from the data module.
        model: an expert or a fused model.
        options: as for `AlignedTask`; the loss is `MeanSquaredError` if not given. There is nothing
            to align where whole samples are answered.

    Raises:
        InputError: as `SupervisedTask`, or if the data name no variables.
    """

    losses: ClassVar[Mapping[Target, LossFactory]] = MappingProxyType(
        {"regression": MeanSquaredError, "scalar_regression": MeanSquaredError}
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
        if not schema.variables:
            raise InputError(
                "Regression needs the names of what is regressed, but the data name no variables."
            )

    def target(self, batch: Batch) -> Tensor:
        """Values ``(B, V, H, W)`` or ``(B, V)``, variables in the order of the model.

        Raises:
            InputError: if the data deliver other shapes.
        """
        target = batch["target"]
        if not self._fits(target):
            raise InputError(
                f"A {self.schema.target} target has the shape {self._shape()}, for the variables "
                f"{list(self.schema.variables)}, but the data deliver {tuple(target.shape)}."
            )
        ordered: Tensor = self.target_order(target)
        return ordered

    def _fits(self, values: Tensor) -> bool:
        axes = 4 if self.schema.pixelwise else 2
        return values.ndim == axes and values.shape[1] == len(self.schema.variables)

    def _shape(self) -> str:
        grid = ", rows, columns" if self.schema.pixelwise else ""
        return f"(samples, {len(self.schema.variables)}{grid})"

    def known(self, target: Tensor) -> Tensor:
        """Values that are known, of the shape of the target."""
        return target.isfinite()

    def on_target(self, values: Tensor, batch: Batch) -> Tensor:
        """Values on the grid of the target, or of the raster to predict; of samples as they are.

        Raises:
            InputError: if the model does not answer a value per variable, and per pixel or sample.
        """
        if not self._fits(values):
            what = "pixels" if self.schema.pixelwise else "whole samples"
            raise InputError(
                f"{type(self.model).__name__} answers values of shape {tuple(values.shape)}, but "
                f"the variables {list(self.schema.variables)} of {what} need {self._shape()}. Use "
                f"a model for {what}; an expert of your own answers `self.num_outputs` channels."
            )
        return self.aligned(values, batch) if self.schema.pixelwise else values

    def weights_on_target(self, weights: Tensor, batch: Batch) -> Tensor:
        """A modality's share in a value, on the grid of the target."""
        return super().weights_on_target(weights, batch) if self.schema.pixelwise else weights

    def score(self, metric: Metric, logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Values of the shape of the target; see `SupervisedTask.score`."""
        values = logits.float()
        metric.update(values, target, counted)
        return values

    def logged(self, scores: dict[str, Tensor]) -> dict[str, Tensor]:
        """All scores, but those of a single variable, which are the means, only once."""
        if len(self.schema.variables) > 1:
            return scores
        (only,) = self.schema.variables
        twice = {f"{score}/{only}" for score in ("rmse", "mae", "bias", "r2")}
        return {name: score for name, score in scores.items() if name not in twice}

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Answers new data, whose target nobody knows.

        Returns:
            ``values``, float32 ``(B, V, H, W)`` or ``(B, V)``. With `explain`, ``shares``:
            ``(B, H, W)`` or ``(B,)`` per modality. With `embeddings`, ``embeddings``: ``(B, D)``
            per expert and, where the model fuses them, ``fused``.

        Raises:
            InputError: if embeddings are asked for and the model has none.
        """
        output, shares = self.answer(batch)
        prediction: dict[str, Any] = {"values": self.on_target(output.logits.float(), batch)}
        if shares is not None:
            pixelwise = self.schema.pixelwise
            prediction["shares"] = self.shares_on_target(shares, batch) if pixelwise else shares
        if self.embeddings:
            prediction["embeddings"] = self.embeddings_of(output, batch)
        return prediction

    @property
    def monitor(self) -> tuple[str, Literal["min", "max"]]:
        """The root of the mean squared error."""
        return "val/rmse", "min"

    def charts(self, stage: Stage) -> dict[str, Figure]:
        """Predicted by true values and, for a model that weights modalities, their shares."""
        evaluation = self.evaluation(stage)
        assert isinstance(evaluation.scores, RegressionMetrics)
        results = {name: float(value) for name, value in evaluation.results.items()}
        variables = self.schema.variables
        charts = {}
        if results:
            charts["regression"] = regression_chart(
                evaluation.scores.pairs(),
                variables,
                units=self.schema.units,
                rmse=[results[f"rmse/{name}"] for name in variables],
                r2=[results[f"r2/{name}"] for name in variables],
            )
        return charts | self.weights_chart(stage)


def _metrics(schema: Schema) -> RegressionMetrics:
    return RegressionMetrics(schema.variables)

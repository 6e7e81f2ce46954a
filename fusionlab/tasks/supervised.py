"""What all tasks with a target have in common: a loss, evaluations, and shares of modalities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import Metric

from fusionlab.data import Mixing
from fusionlab.errors import InputError
from fusionlab.experts import Expert
from fusionlab.fusion import Fusion
from fusionlab.losses import Loss, LossFactory
from fusionlab.metrics import MeanLoss, ModalityShares
from fusionlab.models import EarlyFusion
from fusionlab.plots import fusion_weights_chart
from fusionlab.tasks.base import ModelFactory, Stage, Task
from fusionlab.types import Batch, Output, Schema, Target

_TASKS: Mapping[Target, str] = MappingProxyType(
    {
        "segmentation": "SegmentationTask",
        "multiclass": "ClassificationTask",
        "multilabel": "ClassificationTask",
        "regression": "RegressionTask",
        "scalar_regression": "RegressionTask",
    }
)
"""Which task is there for which kind of target."""


class Evaluation(nn.Module):
    """What is measured over an evaluation, exactly and over all processes.

    Args:
        scores: the metric of the task.
        shares: those of the modalities, where a decision is shared.

    Attributes:
        results: all scores by name, as of the last `compute`.
    """

    def __init__(self, scores: Metric, shares: ModalityShares | None) -> None:
        super().__init__()
        self.loss = MeanLoss()
        self.scores = scores
        self.shares = shares
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


class SupervisedTask(Task):
    """Trains and tests a model by comparing its answers with a target.

    Logs ``{train,val,test}/loss``, and for val and test what the metric computes; while training,
    ``train/loss_<name>`` of auxiliary heads that have a name. Losses of the training are logged for
    steps (``train/loss_step``) and as their mean over an epoch (``train/loss_epoch``). A model that
    weights modalities also logs ``share/<modality>`` and, where there are classes,
    ``share/<modality>/<class>``: its mean share where that class is predicted; or
    ``share/<modality>/<variable>`` of several variables.

    A training sample of which none of the model's modalities is available takes no part in the
    loss. In an evaluation it counts: it has to be answered too.

    A task derives from it by saying what it answers (`losses`), how a target is read (`known`,
    `target`), how answers come onto it (`on_target`, `weights_on_target`), and how they are scored
    (`metrics`, `score`).

    Args:
        schema: what the data deliver; linked from the data module.
        model: an expert or a fused model.
        metrics: makes the metric of an evaluation.
        loss: of the model's answer and the target; if not given, that of the task for this kind of
            target: `CrossEntropy`, `BinaryCrossEntropy` for multilabel ones, `MeanSquaredError` for
            values.
        auxiliary_weight: weight of the same loss on answers of auxiliary heads, where a model has
            them and does not weight them itself (0.4 in UNetFormer, arXiv 2109.08937).
        trained_on: set by the command line when a checkpoint is restored.
        options: as for `Task`.

    Attributes:
        explain: whether predictions come with the share of each modality; set by who writes them.
        embeddings: whether predictions of whole samples come with embeddings; set likewise.
        val: what is measured in a validation.
        test: what is measured in a test.

    Raises:
        InputError: for a target of another kind, or a loss that does not fit it.
    """

    losses: ClassVar[Mapping[Target, LossFactory]] = MappingProxyType({})
    """The kinds of target that it answers, with the loss of each unless another is given."""

    def __init__(
        self,
        schema: Schema,
        model: ModelFactory,
        *,
        metrics: Callable[[Schema], Metric],
        loss: LossFactory | None = None,
        auxiliary_weight: float = 0.4,
        trained_on: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        answered = Schema.from_dict(trained_on) if trained_on else schema
        self.require(answered)
        if schema.outputs and schema.target != answered.target:
            raise InputError(
                f"The checkpoint was trained on a {answered.target} target, but that of the data "
                f"is {schema.target}. Use data with the same kind of target."
            )
        # Before the model, which may be large.
        compared: Loss = (loss or self.losses[answered.target])(answered.outputs)
        compared.require(answered.target)
        measured = metrics(answered), metrics(answered)
        super().__init__(schema, model, trained_on=trained_on, **options)
        self.loss = compared
        self.auxiliary_weight = auxiliary_weight
        # Attributes rather than a dict of stages, so that each metric has its own state and type.
        self.val, self.test = (Evaluation(metric, self._shares()) for metric in measured)
        self.explain = False
        self.embeddings = False

    @classmethod
    def require(cls, schema: Schema) -> None:
        """Refuses what it cannot answer.

        Raises:
            InputError: names the task that can, if the target is of another kind.
        """
        if schema.target not in cls.losses:
            raise InputError(
                f"{cls.__name__} answers targets of the kind {list(cls.losses)}, but the data's "
                f"target is {schema.target!r}: use {_TASKS[schema.target]}, or data with another "
                "target."
            )

    def require_mixed(self, mix: Mixing) -> None:
        """Refuses mixed samples if the loss cannot be compared with their targets.

        Raises:
            InputError: names the losses that can.
        """
        if mix.softens(self.schema.target):
            self.loss.require_soft()

    def target(self, batch: Batch) -> Tensor:
        """What the model should answer; tasks that change what the data say override it."""
        return batch["target"]

    def known(self, target: Tensor) -> Tensor:
        """Which of its pixels or samples a target says something about, bool ``(B, ...)``."""
        raise NotImplementedError(f"{type(self).__name__} does not define known().")

    def on_target(self, values: Tensor, batch: Batch) -> Tensor:
        """What the model says, ``(B, K, ...)``, on the target's grid; as is unless overridden."""
        return values

    def weights_on_target(self, weights: Tensor, batch: Batch) -> Tensor:
        """A modality's share in an answer, see `Output`, on the grid of the target."""
        return self.on_target(weights, batch)

    def score(self, metric: Metric, logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Adds a batch to a metric.

        Args:
            metric: made by `metrics`.
            logits: on the grid of the target.
            target: as `target` gives it.
            counted: what of it counts, as `known`.

        Returns:
            What is predicted, as `ModalityShares` takes it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define score().")

    def logged(self, scores: dict[str, Tensor]) -> dict[str, Tensor]:
        """What of the scores of an evaluation is logged; all of them if not overridden."""
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, auxiliary logits included."""
        output: Output = self(batch)
        target = self.target(batch)
        # Nothing can be learned from a sample of which nothing was seen.
        seen = torch.stack([batch["available"][name] for name in self.model.modalities]).any(dim=0)
        counted = self._counted(batch) & seen
        loss: Tensor = self.loss(self.on_target(output.logits, batch), target, counted)
        for name, logits, own_weight in output.auxiliary:
            auxiliary = self.loss(self.on_target(logits, batch), target, counted)
            weight = self.auxiliary_weight if own_weight is None else own_weight
            loss = loss + weight * auxiliary
            if name:
                self._log_training(f"train/loss_{name}", auxiliary, len(target))
        self._log_training("train/loss", loss, len(target), prog_bar=True)
        return loss

    def _log_training(self, name: str, loss: Tensor, size: int, *, prog_bar: bool = False) -> None:
        self.log(name, loss, prog_bar=prog_bar, on_step=True, on_epoch=True, batch_size=size)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Updates the metrics; returns what is ``predicted`` for whoever draws it.

        Beside it ``attention``, see `Output`, of models that have it.
        """
        return self._evaluate(batch, self.val)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """As `validation_step`."""
        return self._evaluate(batch, self.test)

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of an epoch."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Logs the scores of the test."""
        self._log_scores("test")

    def answer(self, batch: Batch) -> tuple[Output, dict[str, Tensor] | None]:
        """The model's answer, and on request (`explain`) the shares of the modalities."""
        if not self.explain:
            return self(batch), None
        output, shares = self.model.explain(batch)
        return output, {name: share.float() for name, share in shares.items()}

    def embeddings_of(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Embeddings ``(B, D)`` behind an answer: per expert and, where they are fused, ``fused``.

        Raises:
            InputError: if the model has none.
        """
        found = output.embeddings
        if found is None:
            self.require_embeddings()
            if isinstance(self.model, EarlyFusion):
                found = self.model.embed(batch)
            else:
                assert isinstance(self.model, Expert)  # one that does not hand them on
                name = self.model.modality
                found = {name: self.model.features(batch["inputs"][name])}
        return {name: values.float() for name, values in found.items()}

    def evaluation(self, stage: Stage) -> Evaluation:
        """What is measured in the ``val`` or ``test`` stage."""
        return self.val if stage == "val" else self.test

    def fit_charts(self) -> dict[str, Figure]:
        """The shares of the modalities, for a model that weights them."""
        return self.weights_chart("val")

    def weights_chart(self, stage: Stage) -> dict[str, Figure]:
        """The shares of the modalities per class or variable, for a model that weights them."""
        weights = self.fusion_weights(stage)
        if weights is None or not self.schema.outputs:
            return {}
        arrays = {name: value.cpu().numpy() for name, value in weights.items()}
        chart = fusion_weights_chart(arrays, self.schema.outputs, self.schema.colors)
        return {"fusion_weights": chart}

    def fusion_weights(self, stage: Stage) -> dict[str, Tensor] | None:
        """Share of each modality per class or variable, ``(K,)``: learned, or measured.

        None for a model that does not weight modalities.
        """
        fusion = getattr(self.model, "fusion", None)
        static = fusion.class_weights() if isinstance(fusion, Fusion) else None
        if static is not None:
            return {name: weights.detach() for name, weights in static.items()}
        shares = self.evaluation(stage).shares
        if shares is None or shares.total.isnan().all():
            return None
        return dict(zip(self.model.contributors, shares.total, strict=True))

    def _shares(self) -> ModalityShares | None:
        contributors = self.model.contributors
        if len(contributors) < 2:
            return None
        variables = self.schema.variables
        # Of a single variable, its shares are those of all.
        names = self.schema.classes or (variables if len(variables) > 1 else ())
        return ModalityShares(contributors, names)

    def _counted(self, batch: Batch) -> Tensor:
        """Samples that no other process counts, ``(B,)`` bool."""
        if "counted" in batch:
            return batch["counted"]
        target = batch["target"]
        return torch.ones(len(target), dtype=torch.bool, device=target.device)

    def _evaluate(self, batch: Batch, evaluation: Evaluation) -> dict[str, Any]:
        output: Output = self(batch)
        target, counted = self.target(batch), self._counted(batch)
        known = self.known(target)
        valid = known & counted.reshape(-1, *[1] * (known.ndim - 1))
        logits = self.on_target(output.logits, batch)
        # Weighted by pixels or samples, so that it does not depend on how these were batched.
        evaluation.loss.update(self.loss(logits, target, counted), weight=valid.sum())
        predicted = self.score(evaluation.scores, logits, target, valid)
        if output.weights is not None and evaluation.shares is not None:
            weights = {
                name: self.weights_on_target(value, batch) for name, value in output.weights.items()
            }
            evaluation.shares.update(weights, predicted, valid)
        if output.attention is None:
            return {"predicted": predicted}
        return {"predicted": predicted, "attention": output.attention}

    def _log_scores(self, stage: Stage) -> None:
        evaluation = self.evaluation(stage)
        scores = self.logged(evaluation.compute())
        self.log_dict({f"{stage}/{name}": value for name, value in scores.items()})
        evaluation.reset()

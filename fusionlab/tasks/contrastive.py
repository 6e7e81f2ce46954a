"""Contrastive learning: what different sensors and texts say of one sample is brought together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from matplotlib.figure import Figure
from torch import Tensor
from torch.optim import Optimizer

from fusionlab.errors import InputError
from fusionlab.losses.contrastive import (
    ContrastiveLoss,
    ContrastiveLossFactory,
    Embedded,
    InfoNCE,
    all_pairs,
    mean_over_pairs,
    stacked,
)
from fusionlab.metrics import RetrievalMetrics
from fusionlab.models.contrastive import (
    ContrastiveModel,
    ContrastiveModelFactory,
    sample_schema,
)
from fusionlab.plots import similarity_chart
from fusionlab.tasks.base import Stage, Task
from fusionlab.tasks.parameter_groups import ParameterGroup, parameter_groups
from fusionlab.types import Batch, Schema

_DRAWN = 16
"""Samples in the picture of an evaluation."""


class ContrastiveTask(Task):
    """Trains experts to embed what they see of one sample alike, and different samples differently.

    Needs no target; one that the data have is not looked at. Samples that share a `place` in the
    batch are no negative examples for each other; a sample that one expert of a pair has no data
    of takes no part in that pair. In a distributed run samples of all processes are compared.

    Logs ``train/loss`` and, of several pairs, ``train/loss/<expert>_and_<expert>``;
    ``train/scale/<expert>_and_<expert>``, the learned factor on cosines; for val and test
    ``loss``, of every sample compared with all others of the evaluation, and what
    `RetrievalMetrics` computes. None of these depends on batches or processes.

    Predictions are embeddings: `TableWriter` writes the column ``embedding_<expert>`` of each. The
    checkpoint's encoders are experts for other models, as ``PretrainedExpert`` or ``FrozenExpert``
    with ``checkpoint:`` and ``part:``, and it is what `ZeroShot` classifies with.

    Args:
        schema: what the data deliver; linked from the data module.
        model: a `ContrastiveModel`.
        pairs: which experts to compare, by name, e.g. ``[[image, caption], [s1, s2]]``; every two
            if not given. Every expert is in one.
        loss: `InfoNCE` or `SigmoidContrastive`.
        trained_on: set by the command line when a checkpoint is restored.
        options: as for `Task`. Parameters of the loss have a group without weight decay, unless
            ``parameter_groups`` names them.

    Attributes:
        val: what is measured in a validation.
        test: what is measured in a test.
        pairs: as given, or every two experts.

    Raises:
        InputError: for another kind of model, pairs that `ContrastiveLoss` refuses, or an expert
            that is in none of them.
    """

    only_embeddings = True

    def __init__(
        self,
        schema: Schema,
        model: ContrastiveModelFactory,
        *,
        pairs: list[list[str]] | None = None,
        loss: ContrastiveLossFactory = InfoNCE,
        trained_on: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(sample_schema(schema), model, trained_on=trained_on, **options)
        if not isinstance(self.model, ContrastiveModel):
            raise InputError(
                f"ContrastiveTask trains a ContrastiveModel, got {type(self.model).__name__}. For "
                "one that decides, use ClassificationTask, SegmentationTask or RegressionTask."
            )
        experts = list(self.model.experts)
        self.pairs = all_pairs(experts) if pairs is None else [_pair(names) for names in pairs]
        self.loss: ContrastiveLoss = loss(experts, self.pairs)
        idle = [name for name in experts if not any(name in pair for pair in self.pairs)]
        if idle:
            raise InputError(
                f"pairs: {idle} of the experts {experts} are in none of the pairs "
                f"{[list(pair) for pair in self.pairs]} and would learn nothing. Add a pair with "
                "each, or leave them out."
            )
        # What a checkpoint says of its scales, which are by pair.
        self.hparams["pairs"] = [list(pair) for pair in self.pairs]
        self.val = RetrievalMetrics(experts, self.pairs)
        self.test = RetrievalMetrics(experts, self.pairs)
        self._drawn: list[tuple[list[str], Embedded]] = []

    @property
    def monitor(self) -> tuple[str, Literal["min", "max"]]:
        """The mean of the recalls among the first 1, 5 and 10 matches, of all pairs both ways."""
        return "val/mean_recall", "max"

    def check(self, trainer: Trainer, data: object, stage: str) -> None:
        """As `Task.check`.

        Raises:
            InputError: also where there is nothing to compare: a batch of one sample to train on,
                or a pair of which one expert's modality is left out by ``data.missing``.
        """
        super().check(trainer, data, stage)
        if stage == "fit" and getattr(data, "batch_size", 2) * trainer.world_size < 2:
            raise InputError(
                "ContrastiveTask compares the samples of a batch with each other, but "
                "data.batch_size is 1: there would be nothing to learn from. Take 2 or more, "
                "better some hundreds."
            )
        assert isinstance(self.model, ContrastiveModel)
        missing = set(getattr(data, "missing", ()) or ())
        for pair in self.pairs:
            away = {self.model.expert(name).modality for name in pair} & missing
            if away and stage != "predict":
                raise InputError(
                    f"data.missing: without {sorted(away)} there is nothing to compare in the "
                    f"pair {list(pair)}. Leave data.missing out, or the pair (`pairs:`)."
                )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, and of those of all processes."""
        losses, samples = self.loss.per_pair(self.embedded(batch))
        loss = mean_over_pairs(losses, samples)
        size = len(next(iter(batch["available"].values())))
        # Every process compares its own samples: the mean is that of all.
        self.log("train/loss", loss, prog_bar=True, batch_size=size, sync_dist=True)
        for i, pair in enumerate(self.pairs):
            name = "_and_".join(pair)
            if len(self.pairs) > 1:
                self.log(f"train/loss/{name}", losses[i], batch_size=size, sync_dist=True)
            self.log(f"train/scale/{name}", self.loss.log_scale[i].detach().exp(), batch_size=size)
        return loss

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """A step, after which the scales are in their bounds."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.loss.clamp()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the embeddings of a batch."""
        self._evaluate(batch, self.val)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the embeddings of a batch."""
        self._evaluate(batch, self.test)

    def on_validation_epoch_start(self) -> None:
        """Begins a new picture."""
        self._drawn = []

    def on_test_epoch_start(self) -> None:
        """Begins a new picture."""
        self._drawn = []

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of an epoch."""
        self._log_scores("val", self.val)

    def on_test_epoch_end(self) -> None:
        """Logs the scores of the test."""
        self._log_scores("test", self.test)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Embeds new samples.

        Returns:
            ``embeddings``: per expert ``(B, D)`` float32 of length 1, zeros where it is missing.
        """
        assert isinstance(self.model, ContrastiveModel)
        return {"embeddings": self.model.embed(batch)}

    def embedded(self, batch: Batch) -> Embedded:
        """Embeddings of a batch by all experts, in the order of the loss."""
        assert isinstance(self.model, ContrastiveModel)
        embeddings = self.model.embed(batch)
        available = self.model.available(batch)
        return stacked(self.loss.experts, embeddings, available, batch.get("place"))

    def fit_charts(self) -> dict[str, Figure]:
        """As `charts`, of the last validation."""
        return self.charts("val")

    def charts(self, stage: Stage) -> dict[str, Figure]:
        """How alike the first samples of this process are, of each pair of experts."""
        if not self._drawn:
            return {}
        names = [name for listed, _ in self._drawn for name in listed]
        embeddings = torch.cat([part.embeddings for _, part in self._drawn]).cpu()
        available = torch.cat([part.available for _, part in self._drawn]).cpu()
        order = self.loss.experts.index
        cosines = {}
        for first, second in self.pairs:
            a, b = order(first), order(second)
            values = embeddings[:, a] @ embeddings[:, b].T
            there = available[:, a, None] & available[None, :, b]
            cosines[first, second] = values.masked_fill(~there, torch.nan).numpy()
        return {"similarity": similarity_chart(cosines, names)}

    def _evaluate(self, batch: Batch, metrics: RetrievalMetrics) -> None:
        found = self.embedded(batch)
        metrics.update(*found, counted=batch.get("counted"))
        missing = _DRAWN - sum(len(names) for names, _ in self._drawn)
        if missing > 0:
            size = min(missing, len(found.embeddings))
            names = batch.get("sample_id", [""] * size)[:size]
            kept = Embedded(found.embeddings[:size].detach(), found.available[:size])
            self._drawn.append((list(names), kept))

    def _log_scores(self, stage: Stage, metrics: RetrievalMetrics) -> None:
        scores = metrics.compute()
        if metrics.found is not None:
            embeddings, known = metrics.found
            # A place is kept beside whether it is known, which is so for all samples or for none.
            place = known[:, -2] if bool(known[:, -1].all()) else None
            every = Embedded(embeddings, known[:, :-2].bool(), place)
            losses, samples = self.loss.over_all(every)
            scores = {"loss": mean_over_pairs(losses, samples), **scores}
        if self.trainer.state.fn == "fit":
            scores = {name: s for name, s in scores.items() if not name.startswith("candidates")}
        self.log_dict({f"{stage}/{name}": value for name, value in scores.items()})
        metrics.reset()

    def _groups(self) -> list[ParameterGroup]:
        groups: dict[str, Mapping[str, float]] = dict(self.parameter_groups)
        own = [f"loss.{name}" for name, _ in self.loss.named_parameters()]
        if not all(any(fnmatch(name, pattern) for pattern in groups) for name in own):
            groups["loss.*"] = {"weight_decay": 0.0}
        return parameter_groups(self, groups, layer_decay=self.layer_decay)


def _pair(names: Sequence[str]) -> tuple[str, str]:
    if len(names) != 2:
        raise InputError(f"pairs: a pair is the names of two experts, got {list(names)}.")
    return names[0], names[1]

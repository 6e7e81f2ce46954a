"""The base of all tasks: model, optimiser groups, schedule, and checkpoints that stand alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from matplotlib.figure import Figure

from fusionlab.checkpoints import (
    STRIPPED,
    check_weights,
    fill_stripped,
    fingerprint,
    strip_weights,
)
from fusionlab.component import Component, Model
from fusionlab.data import Mixing
from fusionlab.errors import InputError
from fusionlab.tasks.parameter_groups import (
    ParameterGroup,
    check_same_groups,
    parameter_groups,
)
from fusionlab.tasks.schedules import WarmupCosine
from fusionlab.types import Batch, Output, Schema

Stage = Literal["val", "test"]
ModelFactory = Callable[[Schema], Model]
"""In YAML: ``class_path`` and ``init_args`` of an expert or a fused model."""


class Task(LightningModule):
    """A model with what it takes to train it. Knows nothing of sensors or file formats.

    Args:
        schema: what the data deliver; linked from the data module.
        model: the model, built from the schema.
        optimizer: any torch optimiser; receives the trainable parameters only.
        lr_scheduler: any torch scheduler, or `WarmupCosine`, which learns the number of steps
            from the trainer.
        parameter_groups: optimiser options (``lr``, ``weight_decay``) by glob over parameter names,
            e.g. ``{"model.backbone.*": {lr: 6.0e-5}}``; the first that fits counts, the rest of the
            parameters form a group of their own.
        layer_decay: factor in (0, 1] on the learning rate of a backbone from each layer to the one
            below it, counted from its output (ULMFiT, arXiv 1801.06146; BEiT, arXiv 2106.08254).
        strip_frozen: leave frozen weights that came from a file or a hub out of checkpoints, for
            their licence or size. Restoring such a checkpoint gets them again and checks them.
        trained_on: the schema of the data that the checkpoint was trained on; set by the command
            line when a checkpoint is restored, and then decides bands and class order.

    Raises:
        InputError: if a glob matches no parameter, if nothing is trainable, or if the data and the
            checkpoint disagree on the names of classes or variables, or on units.
    """

    only_embeddings: ClassVar[bool] = False
    """Whether its predictions are embeddings, and nothing besides."""

    def __init__(
        self,
        schema: Schema,
        model: ModelFactory,
        *,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        parameter_groups: Mapping[str, Mapping[str, float]] | None = None,
        layer_decay: float | None = None,
        strip_frozen: bool = False,
        trained_on: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if layer_decay is not None and not 0 < layer_decay <= 1:
            raise InputError(f"layer_decay is a factor in (0, 1], got {layer_decay}.")
        self.data_schema = schema
        self.schema = Schema.from_dict(trained_on) if trained_on else schema
        if not self.schema.modalities:
            raise InputError(
                "The data do not say what they deliver, so a model cannot be built from them. "
                "Restore a trained one with --ckpt_path, which says what it needs."
            )
        trained, data = self.schema.outputs, schema.outputs
        if data and set(data) != set(trained):
            kind = self.schema.kind
            raise InputError(
                f"The checkpoint was not trained on the {kind} of the data ({len(trained)} and "
                f"{len(data)}): only the checkpoint knows {[n for n in trained if n not in data]}, "
                f"only the data know {[n for n in data if n not in trained]}. Use data with the "
                f"same {kind}."
            )
        self.schema.require_same_units(schema, where="The checkpoint")
        # From the command line these are plain values. Built in Python, arguments may be factories,
        # which a checkpoint cannot hold.
        self.save_hyperparameters(ignore=["schema", "model", "trained_on"], logger=False)
        for name in [name for name, value in self.hparams.items() if callable(value)]:
            del self.hparams[name]
        self.model = model(self.schema)
        if schema.modalities and schema.modalities != self.schema.modalities:
            self.model.rebind(schema)
        try:
            self.model.describe()
        except TypeError as error:
            raise InputError(f"No checkpoint could be saved of this model. {error}") from error
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.parameter_groups = dict(parameter_groups or {})
        self.layer_decay = layer_decay
        self.strip_frozen = strip_frozen
        self._stripped: dict[str, str] = {}

    def forward(self, batch: Batch) -> Output:
        """The model's answer; see `Output`."""
        output: Output = self.model(batch)
        return output

    @property
    def monitor(self) -> tuple[str, Literal["min", "max"]]:
        """What tells the best epoch: a logged name, and whether less or more is better."""
        return "val/loss", "min"

    def charts(self, stage: Stage) -> dict[str, Figure]:
        """Pictures of the last evaluation, by name."""
        return {}

    def fit_charts(self) -> dict[str, Figure]:
        """Pictures of what a fit came to, by name."""
        return {}

    def require_embeddings(self) -> None:
        """Refuses to give embeddings where the model has none, before they are asked for.

        Raises:
            InputError: if the model says so.
        """
        try:
            getattr(self.model, "embedding_dim", None)
        except InputError as error:
            raise InputError(
                f"Embeddings were asked for, but {error} Leave them out, or predict with a "
                "FeatureFusion or an expert that gives features."
            ) from error

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser over trainable parameters in their groups, and the schedule."""
        groups = self._groups()
        optimizer = self.optimizer([{"params": g.parameters, **g.options} for g in groups])
        for group, planned in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = group["lr"] * planned.scale
        self._options = [
            {name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "monitor": scheduler.monitor},
            }
        interval = "epoch"
        if isinstance(scheduler, WarmupCosine):
            scheduler.set_total_steps(int(self.trainer.estimated_stepping_batches))
            interval = "step"
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": interval},
        }

    def require_mixed(self, mix: Mixing) -> None:
        """Refuses to train on samples that are mixed with one another.

        Args:
            mix: what mixes them.

        Raises:
            InputError: of every task that does not say otherwise.
        """
        raise InputError(
            f"data.mix: {type(mix).__name__} mixes samples and their targets, but "
            f"{type(self).__name__} trains on samples as they are. Leave mix out."
        )

    def setup(self, stage: str) -> None:
        """See `check`."""
        self.check(self.trainer, getattr(self.trainer, "datamodule", None), stage)

    def check(self, trainer: Trainer, data: object, stage: str) -> None:
        """Refuses a run that cannot go well; the command line asks before anything is written.

        Args:
            trainer: of the run.
            data: its data module, if it has one.
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            InputError: for half precision throughout, or double precision; mixed samples that
                `require_mixed` refuses; `strip_frozen` where no part is frozen and can be had
                again.
        """
        mix = getattr(data, "mix", None)
        if stage == "fit" and mix is not None:
            self.require_mixed(mix)
        precision = str(trainer.precision)
        if precision.endswith("-true") and precision != "32-true":
            raise InputError(
                f"--trainer.precision {precision} would convert all there is: raw values, the "
                "statistics that normalise them, and metrics. Say bf16-mixed (or 16-mixed), which "
                "computes in half precision where that is safe, or 32-true."
            )
        if stage == "fit" and self.strip_frozen and not self._fingerprints():
            raise InputError(
                f"strip_frozen is set, but no part of {type(self.model).__name__} is both frozen "
                "and from a file or a hub, so checkpoints would hold all weights. Freeze what "
                "must not be in them (FrozenExpert, or `frozen: true`), or leave strip_frozen out."
            )

    def on_train_start(self) -> None:
        """What the user says of the optimiser today wins over what a resumed checkpoint stores."""
        if self.trainer.ckpt_path is None:
            return
        optimizer = self.trainer.optimizers[0]
        scheduled = self.lr_scheduler is not None
        for group, options in zip(optimizer.param_groups, self._options, strict=True):
            kept = {"lr", "initial_lr"} if scheduled else set()
            group.update({k: v for k, v in options.items() if k not in kept})
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, WarmupCosine):
            scheduler.set_total_steps(scheduler.total_steps)

    def _groups(self) -> list[ParameterGroup]:
        return parameter_groups(self, self.parameter_groups, layer_decay=self.layer_decay)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Says in one message what does not fit, before Lightning tries.

        Raises:
            InputError: if the weights are not those of this model, or, where a fit goes on, if its
                optimiser had other groups of parameters.
        """
        where = "the checkpoint to restore"
        state_dict = fill_stripped(
            checkpoint["state_dict"], checkpoint.get(STRIPPED) or {}, self, where=where
        )
        check_weights(self, state_dict, where=where)
        checkpoint["state_dict"] = state_dict
        if self._trainer is not None and self._trainer.state.fn == "fit":
            settings = {name: getattr(self, name) for name in ("layer_decay", "parameter_groups")}
            check_same_groups(checkpoint, self._groups(), settings)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes the checkpoint describe its model in full, so that it can be restored alone."""
        hyper_parameters = checkpoint.setdefault("hyper_parameters", {})
        hyper_parameters["model"] = self._description()
        if self.strip_frozen:
            checkpoint[STRIPPED] = self._fingerprints()
            strip_weights(checkpoint["state_dict"], checkpoint[STRIPPED])
        hyper_parameters["trained_on"] = self.schema.to_dict()
        hyper_parameters.pop("schema", None)
        hyper_parameters.setdefault(
            "_class_path", f"{type(self).__module__}.{type(self).__qualname__}"
        )

    def _description(self) -> dict[str, Any]:
        """The model in plain values, for a checkpoint with or without frozen weights."""
        for module in self.model.modules():
            if isinstance(module, Component):
                module.stripped = self.strip_frozen
        return self.model.describe()

    def _fingerprints(self) -> dict[str, str]:
        """By prefix, of the weights to leave out; they never change, so they are hashed once."""
        if not self._stripped:
            for name, module in self.model.named_modules(prefix="model"):
                parts = module.restorable if isinstance(module, Component) else ()
                outer = tuple(self._stripped)
                if not outer or not f"{name}.".startswith(outer):
                    for part in parts:
                        weights = module.get_submodule(part).state_dict()
                        self._stripped[f"{name}.{part}."] = fingerprint(weights)
        return self._stripped

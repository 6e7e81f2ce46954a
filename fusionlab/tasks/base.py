"""The base of all tasks: model, optimiser groups, schedule, and checkpoints that stand alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import Parameter

from fusionlab.checkpoints import check_weights
from fusionlab.component import Model
from fusionlab.errors import InputError
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
        trained_on: the schema of the data that the checkpoint was trained on; set by the command
            line when a checkpoint is restored, and then decides bands and class order.

    Raises:
        InputError: if a glob matches no parameter, if nothing is trainable, or if the data and the
            checkpoint disagree on the class names.
    """

    def __init__(
        self,
        schema: Schema,
        model: ModelFactory,
        *,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        parameter_groups: Mapping[str, Mapping[str, float]] | None = None,
        trained_on: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.data_schema = schema
        self.schema = Schema.from_dict(trained_on) if trained_on else schema
        if not self.schema.modalities:
            raise InputError(
                "The data do not say what they deliver, so a model cannot be built from them. "
                "Restore a trained one with --ckpt_path, which says what it needs."
            )
        if schema.classes and set(schema.classes) != set(self.schema.classes):
            raise InputError(
                f"The checkpoint was trained on the classes {list(self.schema.classes)}, the data "
                f"have {list(schema.classes)}. Use data with the same classes."
            )
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

    def forward(self, batch: Batch) -> Output:
        """The model's answer; see `Output`."""
        output: Output = self.model(batch)
        return output

    def confusion(self, stage: Stage) -> Tensor | None:
        """Counts by true and predicted class of the last evaluation, where the task has them."""
        return None

    def fusion_weights(self, stage: Stage) -> dict[str, Tensor] | None:
        """Share of each modality per class, where the model weights modalities."""
        return None

    def target(self, batch: Batch) -> Tensor:
        """What the model should answer; kinds of task that change it say how."""
        return batch["target"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser over trainable parameters in their groups, and the schedule."""
        optimizer = self.optimizer(self._groups())
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

    def _groups(self) -> list[dict[str, Any]]:
        groups: dict[str, list[Parameter]] = {pattern: [] for pattern in self.parameter_groups}
        rest: list[Parameter] = []
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            pattern = next((p for p in self.parameter_groups if fnmatch(name, p)), None)
            (rest if pattern is None else groups[pattern]).append(parameter)
        for pattern, parameters in groups.items():
            if not parameters:
                names = [n for n, p in self.named_parameters() if p.requires_grad]
                raise InputError(
                    f"parameter_groups: {pattern!r} matches no trainable parameter. Their names "
                    f"begin {names[:5]}."
                )
        if not rest and not any(groups.values()):
            raise InputError(
                f"{type(self.model).__name__} has nothing to train: every part is frozen or has no "
                "parameters. It can be tested as it is."
            )
        named = [
            {"params": parameters, **self.parameter_groups[pattern]}
            for pattern, parameters in groups.items()
        ]
        return [*named, {"params": rest}] if rest else named

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Says in one message what does not fit, before Lightning tries.

        Raises:
            InputError: if the weights are not those of this model.
        """
        check_weights(self, checkpoint["state_dict"], where="the checkpoint to restore")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes the checkpoint describe its model in full, so that it can be restored alone."""
        hyper_parameters = checkpoint.setdefault("hyper_parameters", {})
        hyper_parameters["model"] = self.model.describe()
        hyper_parameters["trained_on"] = self.schema.to_dict()
        hyper_parameters.pop("schema", None)
        hyper_parameters.setdefault(
            "_class_path", f"{type(self).__module__}.{type(self).__qualname__}"
        )

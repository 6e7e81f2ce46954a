"""What a running member tells the study: lines of JSON through a pipe."""

from __future__ import annotations

import json
import time
from typing import IO, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

EVERY = 0.5
"""Seconds between two reports of training steps."""


class Events(Callback):
    """Reports epochs, steps and losses; sends nothing from other processes than the first.

    Events are dictionaries with an ``event``: ``fit`` (``epochs``, ``epoch`` where it goes on),
    ``step`` (``epoch``, ``step``, ``steps``, ``loss``), ``epoch`` (``epoch``, ``val_loss``,
    ``seconds``), ``test``. Who no longer reads them ends the run: a study that was killed leaves
    no members behind.

    Args:
        pipe: to write to.
    """

    def __init__(self, pipe: IO[str]) -> None:
        self.pipe = pipe
        self._last = 0.0
        self._begun = 0.0

    def send(self, event: str, **values: Any) -> None:  # noqa: ANN401
        """Writes an event.

        Raises:
            BrokenPipeError: if nobody reads any more.
        """
        self.pipe.write(json.dumps({"event": event, **values}) + "\n")
        self.pipe.flush()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A training begins, or goes on."""
        if trainer.is_global_zero:
            self.send("fit", epochs=trainer.max_epochs, epoch=trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the time, and has what was logged so far written."""
        self._begun = time.monotonic()
        _save_logs(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """A step, now and then."""
        now = time.monotonic()
        if now - self._last < EVERY or not trainer.is_global_zero:
            return
        self._last = now
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        self.send(
            "step",
            epoch=trainer.current_epoch,
            step=batch_idx + 1,
            steps=_finite(trainer.num_training_batches),
            loss=float(loss) if isinstance(loss, Tensor) else None,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch, with its validation."""
        if not trainer.is_global_zero:
            return
        loss = trainer.callback_metrics.get("val/loss")
        self.send(
            "epoch",
            epoch=trainer.current_epoch + 1,
            val_loss=None if loss is None else float(loss),
            seconds=time.monotonic() - self._begun,
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Has the scores written, so that a killed run has not lost them."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            _save_logs(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The test."""
        if trainer.is_global_zero:
            self.send("test")


def read_event(line: str) -> dict[str, Any] | None:
    """An event of a line; None if it is something else."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _save_logs(trainer: Trainer) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            logger.save()


def _finite(number: int | float) -> int | None:
    return None if number == float("inf") else int(number)

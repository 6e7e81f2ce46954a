"""Refuses to train by a score that nobody logs."""

from __future__ import annotations

from collections.abc import Iterator

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from fusionlab.errors import InputError, did_you_mean

_ALWAYS = {"epoch", "step"}
"""What a checkpoint may be chosen by without anybody logging it."""


class MonitorCheck(Callback):
    """Refuses early stopping, checkpoints and schedules that watch a score that is not logged.

    Lightning finds that out when the first epoch is over, which may be after hours. The few batches
    that it validates before training tell the names already. Scores that come with training itself
    (``train/…``) are not known yet and left to Lightning, and so is everything where
    ``num_sanity_val_steps`` is 0.
    """

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares what is watched with what is logged.

        Raises:
            InputError: for a name that is not logged; names similar ones.
        """
        logged = sorted(trainer.callback_metrics)
        if not logged:
            return
        for who, name in _watched(trainer):
            if name in logged or name in _ALWAYS or name.startswith("train/"):
                continue
            few = [known for known in logged if known.count("/") < 2]  # without those per class
            raise InputError(
                f"{who} watches {name!r}, which is not logged."
                f"{did_you_mean(name, logged)} Logged are {', '.join(few)}."
            )


def _watched(trainer: Trainer) -> Iterator[tuple[str, str]]:
    """Who watches which score, and cannot do without it."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        strict = getattr(callback, "strict", True)
        if isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor and strict:
            yield type(callback).__name__, callback.monitor
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and config.monitor and config.strict:
            yield type(config.scheduler).__name__, config.monitor

"""Says that scores and predictions are those of a model that was not trained."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_warn


class InitialValues(Callback):
    """Warns of trainable parameters that no checkpoint was loaded into; not for training."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the validation split is scored."""
        _warn(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the test split is scored."""
        _warn(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before anything is predicted."""
        _warn(trainer, pl_module)


def _warn(trainer: Trainer, pl_module: LightningModule) -> None:
    trainable = {n: p.numel() for n, p in pl_module.named_parameters() if p.requires_grad}
    if trainable and trainer.ckpt_path is None:
        rank_zero_warn(
            f"No --ckpt_path is given: {sum(trainable.values())} trainable parameters "
            f"({next(iter(trainable))}, …) have their initial values, and what follows is not "
            "the answer of a trained model."
        )

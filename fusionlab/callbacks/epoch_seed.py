"""Randomness that depends on seed and epoch alone."""

from __future__ import annotations

import os
import random

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from fusionlab.data.base import epoch_seed


class EpochSeed(Callback):
    """Seeds dropout and augmentation anew in every epoch.

    A run that was stopped and resumed then gives the weights of one that never stopped; without
    this, a resumed run would begin again with the random numbers of the first epoch.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seeds the main process; worker processes are seeded by their loader."""
        seed = epoch_seed(
            int(os.environ.get("PL_GLOBAL_SEED", 0)), trainer.current_epoch, trainer.global_rank
        )
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  # what augmentation libraries draw from

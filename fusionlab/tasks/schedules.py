"""Learning-rate schedules that know the length of the run."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fusionlab.errors import InputError


class WarmupCosine(LambdaLR):
    """Linear warm-up, then a half cosine down to a final factor (Loshchilov & Hutter 2017).

    Advances per optimiser step. The number of steps is told by the trainer.

    Args:
        optimizer: whose learning rates it scales.
        warmup: steps spent warming up: their number, or in [0, 1) their fraction of the run. At
            most half of the run.
        final_factor: factor on the learning rate at the last step.
        total_steps: length of the run in steps, if used without a trainer.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        warmup: int | float = 0.05,
        final_factor: float = 0.01,
        total_steps: int = 1,
    ) -> None:
        if warmup < 0 or (isinstance(warmup, float) and warmup >= 1):
            raise InputError(
                "warmup is a whole number of steps or a fraction of the run in [0, 1), got "
                f"{warmup}."
            )
        self.warmup = warmup
        self.final_factor = final_factor
        self.total_steps = total_steps
        super().__init__(optimizer, self.factor)

    def set_total_steps(self, total_steps: int) -> None:
        """Sets the length of the run."""
        self.total_steps = max(1, total_steps)
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base_lr * self.factor(self.last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """How far it has come. What it was set up with is not restored: the user may change it."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on at the step where it was, with the learning rates of today."""
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        self.set_total_steps(self.total_steps)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def factor(self, step: int) -> float:
        """Factor on the learning rate at a step."""
        warmup_steps = int(self.warmup if self.warmup >= 1 else self.warmup * self.total_steps)
        warmup_steps = min(warmup_steps, self.total_steps // 2)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, self.total_steps - warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.final_factor + (1 - self.final_factor) * cosine

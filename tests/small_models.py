"""Small experts of a user's own, quick to train; named in YAML as ``small_models.PixelExpert``."""

import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from fusionlab.experts import Expert
from fusionlab.types import Schema, TimeSeries


class PixelExpert(Expert):
    """Answers every pixel by its own bands; has BatchNorm and dropout, as real experts do."""

    def __init__(self, schema: Schema, *, width: int = 8, **contract):
        super().__init__(schema, **contract)
        self.layers = nn.Sequential(
            nn.Conv2d(len(self.inputs), width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(width, self.num_outputs, 1),
        )

    def logits(self, values: Tensor | TimeSeries) -> Tensor:
        if isinstance(values, TimeSeries):
            weight = values.valid.float()[:, :, None, None, None]
            frames = self.inputs(values.values) * weight
            image = frames.sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        else:
            image = self.inputs(values)
        return self.layers(image)


class ConstantExpert(Expert):
    """Answers the same logits everywhere; has nothing to train."""

    def __init__(self, schema: Schema, *, value: float = 1.0, **contract):
        super().__init__(schema, **contract)
        self.value = value

    def logits(self, values: Tensor | TimeSeries) -> Tensor:
        image = values.values[:, 0] if isinstance(values, TimeSeries) else values
        shape = (len(image), self.num_outputs, *image.shape[-2:])
        return torch.full(shape, self.value, device=image.device)


class StopAfter(Callback):
    """Ends a run early, as a time limit does."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


class SlowSteps(Callback):
    """Takes its time, so that a run can be stopped in the middle."""

    def on_train_batch_end(self, *_) -> None:
        time.sleep(0.4)

"""What a fit costs and comes to, for comparisons: ``measures.json`` in the folder of a run."""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from fusionlab.callbacks.checkpoints import BestCheckpoint
from fusionlab.callbacks.flops import flops_per_sample
from fusionlab.errors import InputError
from fusionlab.tasks import Task

_PACKAGES = ("fusionlab", "torch", "lightning", "torchmetrics", "timm", "numpy")
_SHARE = "val/share/"


class Measures(Callback):
    """Measures a fit, and writes ``measures.json`` at its end, on the first process.

    - ``total_parameters``, ``trained_parameters``: numbers of weights, frozen ones in the first.
    - ``flops_per_sample``: of a forward pass, see `flops_per_sample`; null where not countable.
    - ``epochs``, ``seconds_per_epoch``: of training alone, from the start of an epoch to its last
      batch, reading of samples included; validation, checkpoints and the start are not in it.
    - ``samples_per_second``: training samples of all processes in that time.
    - ``peak_memory_mb``: most memory that the process held, MiB, without processes that read
      samples; ``peak_gpu_memory_mb``: most that its tensors took on the GPU; null without one.
    - ``best_val_loss``, ``mean_val_loss``: over the validations of the fit.
    - ``monitor``: what tells the best epoch: its name, and ``min`` or ``max``.
    - ``shares``: of each modality in the decisions of the validation split, at the best epoch,
      where the model weights modalities; else null.
    - ``embedding_dim``: width of the embedding that whole samples are decided by, the fused one
      where several are fused; null where decisions do not come from an embedding.
    - ``device``, ``versions``.

    What it knows is saved in checkpoints, so that a resumed run reports all of its epochs. Training
    is not changed by it: random numbers, weights and losses are the same without.

    Args:
        output: the run's folder.
        enabled: False measures nothing; for commands that restore checkpoints with its state.
    """

    def __init__(self, output: str | Path, *, enabled: bool = True) -> None:
        self.output = Path(output)
        self.enabled = enabled
        self.flops: int | None = None
        self.flops_asked = False
        self.seconds: list[float] = []
        self.samples: list[int] = []
        self.val_losses: list[float] = []
        self.shares: dict[str, float] | None = None
        self.best: float | None = None
        self.peak_memory: float | None = None
        self.peak_gpu_memory: float | None = None
        self.device: str | None = None
        self._since: float | None = None  # when what is timed began; None while it stands still
        self._seconds, self._samples = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from, in plain values."""
        self._note_memory()
        return {name: value for name, value in vars(self).items() if name in _KEPT}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the state of an earlier part of the run."""
        if self.enabled:
            vars(self).update({name: state_dict[name] for name in _KEPT & state_dict.keys()})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on the GPU's memory counts."""
        # At the end of a fit the model is back on the CPU.
        self.device = _device(trainer, pl_module)
        if self.enabled and pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._since, self._seconds, self._samples = time.perf_counter(), 0.0, 0

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Counts operations once; starts the clock again after a validation within the epoch."""
        if self._since is None:
            self._since = time.perf_counter()
        if self.enabled and not self.flops_asked:
            begin = time.perf_counter()
            self._count(trainer, pl_module, batch)
            self._since += time.perf_counter() - begin

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Adds a batch."""
        assert self._since is not None
        if batch_idx + 1 == trainer.num_training_batches and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        now = time.perf_counter()
        self._seconds += now - self._since
        self._since = now
        self._samples += _size(batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes an epoch, before it is saved."""
        self.seconds.append(self._seconds)
        self.samples.append(self._samples * trainer.world_size)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._since = None
        self.device = self.device or _device(trainer, pl_module)  # of one with nothing to train

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts operations of a model that has nothing to train."""
        if self.enabled and not self.flops_asked and trainer.state.fn == "validate":
            self._count(trainer, pl_module, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the loss, and the shares of the best epoch so far."""
        if not self.enabled or trainer.sanity_checking:
            return
        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if "val/loss" in scores:
            self.val_losses.append(scores["val/loss"])
        name, mode = _monitor(trainer, pl_module)
        score = scores.get(name, math.nan)
        if self.best is None or (score < self.best if mode == "min" else score > self.best):
            self.best = None if math.isnan(score) else score
            shares = {
                key.removeprefix(_SHARE): value
                for key, value in scores.items()
                if key.startswith(_SHARE) and key.count("/") == 2
            }
            self.shares = shares or None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes what was measured."""
        idle = trainer.fast_dev_run or not trainer.is_global_zero  # type: ignore[attr-defined]
        if not self.enabled or idle:
            return
        self._note_memory()
        seconds, samples = sum(self.seconds), sum(self.samples)
        losses = [loss for loss in self.val_losses if math.isfinite(loss)]
        parameters = list(pl_module.parameters())
        found = {
            "total_parameters": sum(p.numel() for p in parameters),
            "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "flops_per_sample": self.flops,
            "epochs": trainer.current_epoch,
            "seconds_per_epoch": [round(value, 4) for value in self.seconds],
            "samples_per_second": round(samples / seconds, 2) if seconds > 0 else None,
            "peak_memory_mb": self.peak_memory and round(self.peak_memory, 1),
            "peak_gpu_memory_mb": self.peak_gpu_memory and round(self.peak_gpu_memory, 1),
            "best_val_loss": min(losses, default=None),
            "mean_val_loss": sum(losses) / len(losses) if losses else None,
            "monitor": _monitor(trainer, pl_module),
            "shares": self.shares and {n: v for n, v in self.shares.items() if math.isfinite(v)},
            "embedding_dim": _embedding_dim(pl_module),
            "device": self.device,
            "versions": _versions(),
        }
        self.output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(found, indent=2, allow_nan=False)
        (self.output / "measures.json").write_text(text + "\n")

    def _count(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:  # noqa: ANN401
        self.flops_asked = True
        # Where weights are spread over processes, one of them cannot run the model.
        whole = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
        if whole and trainer.is_global_zero and isinstance(pl_module, Task):
            with trainer.precision_plugin.forward_context():
                self.flops = flops_per_sample(pl_module, batch)

    def _note_memory(self) -> None:
        self.peak_memory = _most(self.peak_memory, peak_memory())
        if torch.cuda.is_available():
            used = torch.cuda.max_memory_allocated() / 2**20
            self.peak_gpu_memory = _most(self.peak_gpu_memory, used or None)


_KEPT = {
    "flops", "flops_asked", "seconds", "samples", "val_losses", "shares", "best", "peak_memory",
    "peak_gpu_memory",
}  # fmt: skip
"""Attributes that are saved in checkpoints."""


def peak_memory() -> float | None:
    """Most memory that this process held at a time so far (resident set size), MiB.

    None where the system does not tell.
    """
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent held when it started this process
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def _most(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _monitor(trainer: Trainer, pl_module: LightningModule) -> tuple[str, str]:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, BestCheckpoint) and callback.monitor is not None:
            return callback.monitor, callback.mode
    return pl_module.monitor if isinstance(pl_module, Task) else ("val/loss", "min")


def _embedding_dim(pl_module: LightningModule) -> int | None:
    try:
        found = getattr(getattr(pl_module, "model", None), "embedding_dim", None)
    except InputError:  # it says so where it has none
        return None
    return found if isinstance(found, int) else None


def _size(batch: Any) -> int:  # noqa: ANN401
    """Samples in a batch."""
    return len(next(iter(batch["available"].values())))


def _device(trainer: Trainer, pl_module: LightningModule) -> str:
    if pl_module.device.type == "cuda":
        name = torch.cuda.get_device_name(pl_module.device)
    elif pl_module.device.type == "cpu":
        name = f"CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    else:
        name = str(pl_module.device.type)
    return name if trainer.world_size == 1 else f"{trainer.world_size} x {name}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from its source
            continue
    return found

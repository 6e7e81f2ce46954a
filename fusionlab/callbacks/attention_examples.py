"""Where a model that fuses by attention looks in the first samples of an evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from fusionlab.callbacks.examples import pictures
from fusionlab.callbacks.trackers import log_image, takes_images
from fusionlab.experts import Expert
from fusionlab.models import FeatureFusion
from fusionlab.plots import AttendedSample, TokenWeights, attention_figure
from fusionlab.tasks import SupervisedTask
from fusionlab.types import Batch, Raw, TimeSeries

Attention = Mapping[tuple[str, str], Tensor]
"""See `Output`."""


class AttentionExamples(Callback):
    """Draws where the experts of a model look at each other, and nothing for models that do not.

    Writes ``<stage>_attention.png`` into the run's folder, and sends the figure to loggers that
    take images. Of each sample: its pictures; for each expert that looks at a picture, where, as
    the mean over its tokens; and how much the tokens of other kinds (words, columns, dates) are
    looked at, as the mean over the tokens of all other experts that are there.

    Args:
        output: the run's folder.
        number: how many samples.
    """

    def __init__(self, output: str | Path, *, number: int = 3) -> None:
        self.output = Path(output)
        self.number = number
        self._samples: list[AttendedSample] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps what there is to draw."""
        if not trainer.sanity_checking:
            self._keep(trainer, pl_module, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps what there is to draw."""
        self._keep(trainer, pl_module, outputs, batch)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew, so that at the end of a fit the last epoch's are there."""
        self._samples = []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what was kept, if a logger shows how the samples develop."""
        during_fit = trainer.state.fn == "fit"
        if not during_fit or any(takes_images(logger) for logger in trainer.loggers):
            self._draw(trainer, "val")
            self._samples = []

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what the last validation left."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._draw(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what was kept."""
        self._draw(trainer, "test")
        self._samples = []

    def _keep(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
    ) -> None:
        missing = self.number - len(self._samples)
        if missing <= 0 or not trainer.is_global_zero or not outputs:
            return
        attention = outputs.get("attention")
        if not attention or not isinstance(pl_module, SupervisedTask):
            return
        assert isinstance(pl_module.model, FeatureFusion)
        with trainer.precision_plugin.forward_context():
            looks = _Looks(pl_module.model, batch, attention, missing)
        for i in range(looks.number):
            shown = pictures(batch, i, pl_module.data_schema)
            name = batch["sample_id"][i] if "sample_id" in batch else ""
            self._samples.append(looks.sample(i, name, shown))

    def _draw(self, trainer: Trainer, stage: str) -> None:
        if not self._samples:
            return
        figure = attention_figure(self._samples)
        self.output.mkdir(parents=True, exist_ok=True)
        path = self.output / f"{stage}_attention.png"
        with warnings.catch_warnings():  # fonts do not have every script that texts may have
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            figure.savefig(path)
        log_image(trainer.loggers, f"{stage}/attention", path, trainer.global_step)


class _Looks:
    """Who looks at what in the first samples of a batch.

    Args:
        model: that fused them.
        batch: with these samples.
        attention: of all samples.
        number: how many samples to look into, at most.
    """

    def __init__(
        self, model: FeatureFusion, batch: Batch, attention: Attention, number: int
    ) -> None:
        self.number = min(number, len(next(iter(attention.values()))))
        self.modalities = {name: model.expert(name).modality for name in model.experts}
        self.available = {
            name: there[: self.number].cpu() for name, there in model.available(batch).items()
        }
        self.rows: dict[tuple[str, str], Tensor] = {}
        for pair, weights in attention.items():
            found = weights[: self.number].float()
            # The mean over the tokens that ask; those that only pad have no weights at all.
            asking = (found.sum(dim=2) > 0).sum(dim=1, keepdim=True).clamp(min=1)
            self.rows[pair] = (found.sum(dim=1) / asking).cpu()
        self.grids: dict[str, tuple[int, int]] = {}
        self.names: dict[str, list[list[str]]] = {}
        for name in model.experts:
            self._ask(name, model.expert(name), batch)

    def _ask(self, name: str, expert: Expert, batch: Batch) -> None:
        values = _first(batch["inputs"][expert.modality], self.number)
        with torch.no_grad():
            grid = expert.tokens(values).grid
            if grid is None:
                self.names[name] = expert.token_names(values)
            else:
                self.grids[name] = grid

    def sample(self, i: int, name: str, shown: Mapping[str, NDArray[Any]]) -> AttendedSample:
        """One of the samples, with its pictures by modality."""
        looked_at = dict.fromkeys(self.modalities[expert] for expert in self.grids)
        maps: dict[str, tuple[NDArray[Any], NDArray[Any]] | None] = {}
        tokens: dict[str, TokenWeights | None] = {}
        for expert, (rows, columns) in self.grids.items():
            picture = shown.get(self.modalities[expert])
            for asking in self._askers(expert):
                title = f"where {asking} looks" + (f" on {expert}" if len(self.grids) > 1 else "")
                seen = self._there(asking, i) and self._there(expert, i)
                weights = self.rows[asking, expert][i].reshape(rows, columns).numpy()
                maps[title] = (picture, weights) if seen and picture is not None else None
        for expert, names in self.names.items():
            there = [asking for asking in self._askers(expert) if self._there(asking, i)]
            title = f"looked at in {expert}"
            tokens[title] = None
            if there and self._there(expert, i):
                every = torch.stack([self.rows[asking, expert][i] for asking in there])
                tokens[title] = TokenWeights(names[i], every.mean(dim=0).numpy())
        return AttendedSample(name, {title: shown.get(title) for title in looked_at}, maps, tokens)

    def _askers(self, asked: str) -> list[str]:
        return [first for first, second in self.rows if second == asked]

    def _there(self, name: str, i: int) -> bool:
        return bool(self.available[name][i])


def _first(values: Raw, number: int) -> Raw:
    if isinstance(values, TimeSeries):
        return TimeSeries(*(part[:number] for part in values))
    return values[:number]

"""Examples of an evaluation: images, truth and prediction side by side, to file and loggers.

Maps are drawn beside the images, those of values with their errors; of patches, the labels that are
right, missed or wrong, or true and predicted values, and what texts, tables and series say.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from fusionlab.callbacks.label_figure import LabelledSample, labels_figure
from fusionlab.callbacks.sample_notes import notes
from fusionlab.callbacks.trackers import log_image, takes_images
from fusionlab.callbacks.value_figures import RegressedSample, value_maps_figure, values_figure
from fusionlab.plots import examples_figure
from fusionlab.tasks import SupervisedTask
from fusionlab.types import IGNORE_INDEX, Batch, Modality, Schema, TimeSeries

TRUE_COLOR = (("red", "green", "blue"), ("R", "G", "B"), ("B04", "B03", "B02"))
"""Bands that make a picture as the eye sees it, by the names that data sets give them."""
RADAR = ("VV", "VH")
"""Bands of Sentinel-1, in decibels: with their difference they make a picture."""
RADAR_DECIBELS = ((-22.0, -2.0), (-29.0, -9.0), (0.0, 15.0))
"""What is black and what is bright of VV, VH and their difference, from calm water to towns."""
POINTS = ("X", "Y", "Z", "A")
"""Channels of a LiDAR scan: a point, and whether there is one."""


class Examples(Callback):
    """Draws the first samples of every evaluation.

    Writes ``<stage>_examples.png`` into the run's folder, and sends the figure to loggers that take
    images.

    Args:
        output: the run's folder.
        number: how many samples.
    """

    def __init__(self, output: str | Path, *, number: int = 4) -> None:
        self.output = Path(output)
        self.number = number
        self._samples: list[Any] = []  # as the figure for the kind of target takes them

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

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what was kept, if a logger shows how the examples develop."""
        during_fit = trainer.state.fn == "fit"
        if not during_fit or any(takes_images(logger) for logger in trainer.loggers):
            self._draw(trainer, pl_module, "val")
            self._forget()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew, so that at the end of a fit the last epoch's are there."""
        self._forget()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what the last validation left."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._draw(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what was kept."""
        self._draw(trainer, pl_module, "test")
        self._forget()

    def _forget(self) -> None:
        self._samples = []

    def _keep(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Tensor] | None,
        batch: Batch,
    ) -> None:
        missing = self.number - len(self._samples)
        if missing <= 0 or not trainer.is_global_zero or not outputs:
            return
        if not isinstance(pl_module, SupervisedTask):
            return  # there is no truth to show beside the answer
        schema = pl_module.schema
        target, predicted = pl_module.target(batch), outputs["predicted"]
        for i in range(min(missing, len(target))):
            shown = pictures(batch, i, pl_module.data_schema)
            name = batch["sample_id"][i] if "sample_id" in batch else ""
            true, said = _array(target[i]), _array(predicted[i])
            every = {**dict.fromkeys(_images(batch, pl_module.data_schema)), **shown}
            noted = notes(batch, i, pl_module.data_schema)
            if schema.regresses:
                self._samples.append(RegressedSample(name, every, true, said, noted))
            elif schema.pixelwise:
                maps = {"truth": true, "prediction": said}
                self._samples.append([*shown.items(), *maps.items()])
            else:
                labels = _label_set(said) or frozenset()
                self._samples.append(LabelledSample(name, every, _label_set(true), labels, noted))

    def _figure(self, schema: Schema) -> Figure:
        if schema.regresses:
            draw = value_maps_figure if schema.pixelwise else values_figure
            return draw(self._samples, schema.variables, schema.units)
        if schema.pixelwise:
            return examples_figure(self._samples, schema.classes, schema.colors)
        return labels_figure(self._samples, schema.classes)

    def _draw(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not self._samples:
            return
        assert isinstance(pl_module, SupervisedTask)
        figure = self._figure(pl_module.schema)
        self.output.mkdir(parents=True, exist_ok=True)
        path = self.output / f"{stage}_examples.png"
        with warnings.catch_warnings():  # fonts do not have every script that texts may have
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            figure.savefig(path)
        log_image(trainer.loggers, f"{stage}/examples", path, trainer.global_step)


def _images(batch: Batch, schema: Schema) -> list[str]:
    """Names of what can be shown as pictures; data may deliver what the schema does not name."""
    kinds = {name: modality.kind for name, modality in schema.modalities.items()}
    return [name for name in batch["inputs"] if kinds.get(name, "image") == "image"]


def pictures(batch: Batch, i: int, schema: Schema) -> dict[str, NDArray[Any]]:
    """A picture of every image and series of a sample, by modality; uint8 ``(H, W, 3)``."""
    shown = {}
    for name, values in batch["inputs"].items():
        if name not in schema.modalities or not bool(batch["available"][name][i]):
            continue
        if isinstance(values, list) or schema.modalities[name].kind != "image":
            continue
        if isinstance(values, TimeSeries):
            valid = values.valid[i].nonzero().flatten()
            if len(valid) == 0:
                continue
            # The middle of the observed dates: mostly summer, and the same for all samples.
            image = values.values[i, valid[len(valid) // 2]]
        else:
            image = values[i]
        if image.ndim == 3:
            shown[name] = picture(image.float().cpu(), schema.modalities[name])
    return shown


def picture(image: Tensor, modality: Modality) -> NDArray[np.uint8]:
    """A picture of an image ``(C, H, W)``, stretched to 2 to 98 percent; uint8 ``(H, W, 3)``.

    True colour where the bands allow it; Sentinel-1 in false colour: VV, VH and their difference in
    decibels, the same shades for every sample; LiDAR scans the brighter the nearer; else the first
    band in grey. Gaps are black.
    """
    found = next((c for c in TRUE_COLOR if set(c) <= set(modality.bands)), None)
    if found is None and set(RADAR) <= set(modality.bands):
        vv, vh = (image[modality.bands.index(band)] for band in RADAR)
        shades = zip((vv, vh, vv - vh), RADAR_DECIBELS, strict=True)
        channels = torch.stack(
            [((c - low) / (high - low)).clamp(0, 1) for c, (low, high) in shades]
        )
        channels = torch.nan_to_num(channels, nan=0.0)
    elif set(POINTS) <= set(modality.bands):
        near = _nearness(image[[modality.bands.index(band) for band in POINTS]])
        channels = near.expand(3, -1, -1)
    else:
        bands = found or modality.bands[:1] * 3
        channels = _stretched(image[[modality.bands.index(band) for band in bands]])
    pixels: NDArray[np.uint8] = (channels * 255).byte().permute(1, 2, 0).numpy()
    return pixels


def _stretched(values: Tensor) -> Tensor:
    limits = torch.tensor([0.02, 0.98])
    low, high = torch.nanquantile(values[..., ::2, ::2].flatten(), limits)
    stretched = ((values - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return torch.nan_to_num(stretched, nan=0.0)


def _nearness(scan: Tensor) -> Tensor:
    """How near the points of a scan ``(4, H, W)`` are, in [0, 1], ``(H, W)``; 0 is none."""
    distance = scan[:3].norm(dim=0)
    there = (scan[3] > 0) & (distance > 0)
    if not there.any():
        return torch.zeros_like(distance)
    nearest = distance[there].quantile(0.02)
    return torch.where(there, nearest / distance, 0.0).clamp(0, 1)


def _array(values: Tensor) -> NDArray[Any]:
    """An array; numpy has no bfloat16."""
    values = values.detach().cpu()
    array: NDArray[Any] = (values.float() if values.is_floating_point() else values).numpy()
    return array


def _label_set(labels: NDArray[Any]) -> frozenset[int] | None:
    """Indices of the classes of a sample, ``(K,)`` or one index; None where they are unknown.

    Soft and weighted labels count from 0.5 on.
    """
    if labels.ndim:
        return frozenset(np.flatnonzero(labels >= 0.5).tolist())
    return None if labels == IGNORE_INDEX else frozenset([int(labels)])

"""Small rasters of Sentinel-1 and Sentinel-2, and a model that says what it sees of a patch."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from raster_scenes import trainer, write
from torch import nn

from fusionlab.data.raster import RasterDataModule
from fusionlab.types import Modality, Schema

PATCH = 12
S2_BANDS = ("B02", "B03", "B04")
CLASSES = ("Wälder, Büsche", 'Land "mixed", with areas of 湿地', "Inland waters")
COLORS = ("#db0e9a", "#1553ae", "#46e483")


def patch_schema(target="multilabel", classes=CLASSES, colors=COLORS, image_size=PATCH) -> Schema:
    made = {} if image_size is None else {"image_size": image_size}
    return Schema(
        {
            "s1": Modality(("VV", "VH"), 10.0, preparation=made),
            "s2": Modality(S2_BANDS, 10.0, preparation=made),
        },
        classes,
        colors=colors,
        target=target,
    )


class Mean(nn.Module):
    """Gives every class the mean of one band of Sentinel-2, in thousands."""

    modalities = ("s1", "s2")
    reference = "s2"


class PatchTask(pl.LightningModule):
    """Answers with the mean of band k, over 1000, as the probability of class k.

    Without Sentinel-2 every class gets 0.3, without anything 0.9.
    """

    threshold = 0.5

    def __init__(self, schema: Schema | None = None, *, fail_at: int = -1) -> None:
        super().__init__()
        self.schema = schema or patch_schema()
        self.model = Mean()
        self.explain = False
        self.embeddings = False
        self.fail_at = fail_at
        self.interrupt: BaseException = KeyboardInterrupt()
        self.seen: list = []

    def predict_step(self, batch, batch_idx):
        if batch_idx == self.fail_at:
            raise self.interrupt
        self.seen.append(batch)
        s1, s2 = batch["available"]["s1"], batch["available"]["s2"]
        means = batch["inputs"]["s2"].float().mean(dim=(2, 3)) / 1000
        one = means.new_ones(())
        probabilities = torch.where(s2[:, None], means, torch.where(s1[:, None], 0.3 * one, 0.9))
        if self.schema.target == "multilabel":
            labels = probabilities >= self.threshold
        else:
            labels = nn.functional.one_hot(probabilities.argmax(dim=1), 3).bool()
        answer = {"probabilities": probabilities, "labels": labels}
        if self.explain:
            share = s1.float() * 0.25
            answer["shares"] = {"s1": share, "s2": 1 - share}
        if self.embeddings:
            answer["embeddings"] = {"s2": means.half(), "fused": torch.cat([means, means], dim=1)}
        return answer


def optical(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Bands between 1 and 1000, even within patches, so that mirroring changes no mean."""
    cells = -(-height // PATCH), -(-width // PATCH)
    values = np.random.default_rng(seed).integers(1, 1000, (len(S2_BANDS), *cells))
    return values.repeat(PATCH, axis=1).repeat(PATCH, axis=2)[:, :height, :width].astype(np.uint16)


def radar(height: int, width: int) -> np.ndarray:
    """Decibels."""
    return np.random.default_rng(1).normal(-12, 4, (2, height, width)).astype(np.float32)


def write_optical(path: Path, height: int, width: int, *, seed: int = 0, **options) -> str:
    image = options.pop("image", optical(height, width, seed=seed))
    return write(path, image, gsd=10, nodata=0, **options)


def patches(data: RasterDataModule, schema: Schema | None = None):
    """The data set as it would be when predicting."""
    data.trainer = trainer()
    data.trainer.strategy._lightning_module = PatchTask(schema)
    data.setup("predict")
    return data._datasets["predict"]

"""Small rasters and a small fusion to map them with."""

from itertools import pairwise
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import rasterio
import torch
from lightning.pytorch import Trainer
from rasterio.transform import from_origin
from torch import nn

from fusionlab.data.raster import RasterDataModule
from fusionlab.experts.base import Expert
from fusionlab.types import Modality, Schema

BANDS = ("red", "green", "blue", "infrared", "height")
S2_BANDS = ("B02", "B03", "B04")
LEFT, TOP = 873782.4, 6891028.8
SCHEMA = Schema(
    {
        "aerial": Modality(BANDS, 0.2, mean=(100.0,) * 5, std=(50.0,) * 5),
        "sentinel2": Modality(S2_BANDS, 10.0, scale=(1e-4,) * 3, temporal=True),
    },
    ("building", "water", "tree & shrub"),
    colors=("#db0e9a", "#1553ae", "#46e483"),
)


def write(path: Path, values: np.ndarray, *, gsd: float, x: float = 0, y: float = 0, **options):
    """Writes (bands, rows, columns), its top left corner x metres right, y below the common one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"crs": "EPSG:2154", "transform": from_origin(LEFT + x, TOP - y, gsd, gsd), **options}
    count, height, width = values.shape
    with rasterio.open(
        path, "w", "GTiff", width, height, count, dtype=values.dtype, **profile
    ) as dataset:
        dataset.write(values)
    return str(path)


def smooth_image(height: int, width: int, bands: int = 5, seed: int = 0) -> np.ndarray:
    noise = torch.rand(
        1, bands, -(-height // 12) + 1, -(-width // 12) + 1,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    image = nn.functional.interpolate(noise, size=(height, width), mode="bilinear")
    return (image[0] * 255).to(torch.uint8).numpy()


def series(dates: int, size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 5000, (dates, len(S2_BANDS), size, size)).astype(np.uint16)


class ConvExpert(Expert):
    """Fixed 3×3 convolutions with a known receptive field."""

    def __init__(self, schema: Schema, *, layers: int = 4) -> None:
        super().__init__(schema, modality="aerial")
        torch.manual_seed(1)
        width = [len(self.inputs), *[8] * (layers - 1), self.num_classes]
        parts = []
        for n, m in pairwise(width):
            parts += [nn.Conv2d(n, m, 3, padding=1), nn.GELU()]
        self.layers = nn.Sequential(*parts[:-1])
        with torch.no_grad():
            self.layers[-1].weight *= 20

    def logits(self, values):
        return self.layers(self.inputs(values))


SERIES_SCHEMA = Schema(
    {"sentinel2": SCHEMA.modalities["sentinel2"]}, SCHEMA.classes, colors=SCHEMA.colors
)


class LatestExpert(Expert):
    """Says of every pixel which of its bands is the highest at the last date."""

    def logits(self, values):
        return self.inputs(values.values[:, -1]) * 20


class TinyTask(pl.LightningModule):
    """Answers with the expert, and tells what it saw."""

    def __init__(
        self, schema: Schema = SCHEMA, *, constant: bool = False, fail_at: int = -1
    ) -> None:
        super().__init__()
        self.schema = schema
        self.model = ConvExpert(schema)
        self.explain = False
        self.constant = constant
        self.fail_at = fail_at
        self.interrupt: BaseException = KeyboardInterrupt()
        self.seen: list = []

    def predict_step(self, batch, batch_idx):
        if batch_idx == self.fail_at:
            raise self.interrupt
        self.seen.append(
            (batch["placement"]["window"], {k: v.clone() for k, v in batch["available"].items()})
        )
        probabilities = self.model(batch).logits.float().softmax(dim=1)
        if self.constant:
            fixed = torch.tensor([0.2, 0.5, 0.3]).view(1, 3, 1, 1)
            probabilities = fixed.expand_as(probabilities)
        answer = {"probabilities": probabilities}
        if self.explain:
            s2 = batch["available"]["sentinel2"].float().view(-1, 1, 1) * 0.25
            s2 = s2.expand_as(probabilities[:, 0])
            answer["shares"] = {"aerial": 1 - s2, "sentinel2": s2}
        return answer


def trainer(*callbacks, **options) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    defaults = {"accelerator": "cpu", "devices": 1, **quiet}
    return Trainer(**{**defaults, **options}, callbacks=list(callbacks))


def windows(data: RasterDataModule, schema: Schema = SCHEMA):
    """The data set as it would be when predicting."""
    task = TinyTask(schema)
    data.trainer = trainer()
    data.trainer.strategy._lightning_module = task
    data.setup("predict")
    return data._datasets["predict"]

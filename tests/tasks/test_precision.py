"""Precisions that compute in half or double throughout would convert raw values and statistics."""

import math
from functools import partial

import pytest
import torch
from embedding_experts import PooledExpert
from lightning.pytorch import Trainer
from small_models import PixelExpert
from torch.utils.data import DataLoader, Dataset

from fusionlab.data.base import collate
from fusionlab.errors import InputError
from fusionlab.tasks import ClassificationTask, SegmentationTask
from fusionlab.types import Modality, Schema

S2 = Modality(("B04", "B08"), 10.0, mean=(1000.0, 3000.0), std=(1.0, 1.0))


class Samples(Dataset):
    """Reflectance whose last digits matter: half precision would round them away."""

    def __init__(self, target):
        self.target = target

    def __len__(self):
        return 4

    def __getitem__(self, i):
        image = torch.full((2, 4, 4), 3001, dtype=torch.uint16)
        return {
            "inputs": {"s2": image},
            "available": {"s2": torch.tensor(True)},
            "target": torch.zeros(4, 4).long() if self.target == "segmentation" else torch.ones(2),
            "sample_id": str(i),
        }


def make(target):
    schema = Schema({"s2": S2}, ("wood", "road"), gsd=10.0, target=target)
    kinds = {
        "segmentation": (SegmentationTask, PixelExpert),
        "multilabel": (ClassificationTask, PooledExpert),
    }
    task, expert = kinds[target]
    return task(schema, partial(expert, width=4)), DataLoader(
        Samples(target), 2, collate_fn=collate
    )


def trainer(folder, precision):
    return Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, max_epochs=1, precision=precision,
    )  # fmt: skip


@pytest.mark.parametrize("target", ["segmentation", "multilabel"])
@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_what_converts_everything_is_refused(tmp_path, target, precision):
    task, data = make(target)
    for run in ("fit", "validate", "test", "predict"):
        with pytest.raises(InputError, match=f"precision {precision} .*Say bf16-mixed"):
            getattr(trainer(tmp_path, precision), run)(task, data)


@pytest.mark.parametrize("target", ["segmentation", "multilabel"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_raw_values_and_statistics_keep_their_digits(tmp_path, target, precision):
    task, data = make(target)
    seen = []
    task.model.inputs.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    runner = trainer(tmp_path, precision)
    runner.fit(task, data)
    assert runner.global_step == 2
    raw, normalised = seen[0]
    assert raw.dtype == torch.uint16
    assert normalised.dtype == torch.float32
    assert normalised.mean(dim=(0, 2, 3)).tolist() == [2001.0, 1.0]
    assert math.isfinite(runner.test(task, data, verbose=False)[0]["test/loss"])

"""Images of colours with captions that name them, and a radar that sees their brightness.

Tiny, and learned in seconds: what a sample shows is one of `CLASSES`, and texts say which.
"""

from functools import partial

import torch
from lightning.pytorch import Trainer, seed_everything
from token_experts import PatchExpert, WordExpert
from torch.utils.data import Dataset

from fusionlab.data import DataModule
from fusionlab.models import ContrastiveModel
from fusionlab.tasks import ContrastiveTask
from fusionlab.types import Modality, Schema

CLASSES = ("red_field", "green_field", "blue_road", "dark_road")
COLORS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
MODALITIES = {
    "image": Modality(("red", "green", "blue"), 1.0, mean=(0.3,) * 3, std=(0.5,) * 3),
    "radar": Modality(("VV",), 1.0),
    "caption": Modality((), kind="text"),
}
ENCODERS = {"image": PatchExpert, "radar": PatchExpert, "caption": WordExpert}
TWO = {name: ENCODERS[name] for name in ("image", "caption")}


def schema(names=tuple(MODALITIES), classes=CLASSES, target="multiclass") -> Schema:
    return Schema({n: MODALITIES[n] for n in names}, classes, target=target)


class Scenes(Dataset):
    """Sample i shows class i % 4; every fifth caption and every seventh radar image is missing."""

    def __init__(self, n: int = 48, *, places: bool = False, names=tuple(MODALITIES), first=0):
        self.n, self.places, self.names, self.first = n, places, names, first

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int):
        i += self.first
        random = torch.Generator().manual_seed(i)
        kind = i % 4
        noise = 0.15 * torch.randn(3, 8, 8, generator=random)
        texts = {
            "image": COLORS[kind][:, None, None] + noise,
            "radar": COLORS[kind].mean() + kind + noise[:1],
            "caption": "" if i % 5 == 4 else CLASSES[kind].replace("_", " "),
        }
        there = {"image": True, "radar": i % 7 != 6, "caption": i % 5 != 4}
        texts["radar"] = texts["radar"] * there["radar"]
        sample = {
            "inputs": {name: texts[name] for name in self.names},
            "available": {name: torch.tensor(there[name]) for name in self.names},
            "target": torch.tensor(kind),
            "sample_id": f"scene_{i}",
        }
        return {**sample, "place": torch.tensor(kind)} if self.places else sample


class SceneDataModule(DataModule):
    """Named in YAML as ``contrastive_pairs.SceneDataModule``."""

    def __init__(self, n: int = 48, *, places: bool = True, modalities: list[str] | None = None,
                 labelled: bool = True, batch_size: int = 8, augment: bool = False,
                 **options) -> None:  # fmt: skip
        super().__init__(batch_size=batch_size, augment=augment, **options)
        self.names = tuple(modalities or MODALITIES)
        self.n, self.places = n, places
        self.schema = schema(self.names, CLASSES if labelled else ())

    def dataset(self, split: str) -> Dataset:
        first = {"train": 0, "val": 1000, "test": 2000, "predict": 2000}[split]
        return Scenes(self.n, places=self.places, names=self.names, first=first)


def model(experts=None, **options) -> partial:
    return partial(ContrastiveModel, **{"experts": experts or ENCODERS, "width": 6, **options})


def task(experts=None, *, seed=0, data=None, **options) -> ContrastiveTask:
    torch.manual_seed(seed)
    width = options.pop("width", 6)
    return ContrastiveTask(data or schema(), model(experts, width=width), **options)


def trainer(folder, **options) -> Trainer:
    defaults = {
        "accelerator": "cpu", "default_root_dir": folder, "logger": False,
        "enable_progress_bar": False, "enable_model_summary": False,
        "enable_checkpointing": False,
    }  # fmt: skip
    return Trainer(**{**defaults, **options})


def fitted(folder, experts=None, *, epochs=12, data=None, **options) -> ContrastiveTask:
    """Trained until it tells the classes apart."""
    seed_everything(1)
    made = task(experts, optimizer=partial(torch.optim.AdamW, lr=0.02), **options)
    trainer(folder, max_epochs=epochs).fit(made, data or SceneDataModule())
    return made

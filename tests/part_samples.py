"""Samples of an image, a text, a row of a table and a series of values, and small experts for them.

Named in YAML as ``part_samples.…``, as other small experts of tests are.
"""

from dataclasses import replace
from functools import partial

import torch
from embedding_experts import PooledExpert
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from fusionlab.data.base import DataModule, Split
from fusionlab.experts import SeriesExpert, TabularExpert, TextExpert
from fusionlab.types import Modality, Schema, TimeSeries

TEXTS = ["dense forest near a lake", "a road", "", "Lake, forest and road; a dry field!"]
CLASSES = ("forest", "water", "urban")


def word_tokenizer(texts=TEXTS, **options) -> str:
    """A vocabulary of whole words, as JSON."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        texts, trainers.WordLevelTrainer(special_tokens=["[UNK]"], show_progress=False, **options)
    )
    return tokenizer.to_str()


MODALITIES = {
    "image": Modality(("red", "nir"), 10.0, mean=(5, 5), std=(2, 2)),
    "caption": Modality((), kind="text", tokenizer=word_tokenizer()),
    "site": Modality(
        ("latitude", "season", "elevation", "soil"),
        kind="table",
        mean=(47, 0, 400, 0),
        std=(3, 1, 200, 1),
        categories={"season": ("winter", "spring", "summer"), "soil": ("clay", "sand")},
    ),
    "weather": Modality(
        ("ndvi", "rain"), kind="series", temporal=True, mean=(0.4, 3), std=(0.2, 2)
    ),
}
SCHEMA = Schema(MODALITIES, CLASSES, target="multiclass")
BARE = SCHEMA.without_outputs()

EXPERTS = {
    "caption": partial(TextExpert, modality="caption", width=8, depth=1, heads=2, max_length=16),
    "site": partial(TabularExpert, modality="site", width=8, depth=1, hidden=12),
    "weather": partial(SeriesExpert, modality="weather", width=8, depth=1, heads=2),
}
WITH_IMAGE = {"image": partial(PooledExpert, width=8), **EXPERTS}


def expert(name, schema=SCHEMA, **options):
    torch.manual_seed(0)
    return EXPERTS[name](schema, **options).eval()


def samples(size=4, seed=0):
    """Raw values of all modalities, with gaps."""
    random = torch.Generator().manual_seed(seed)
    nan = float("nan")
    site = torch.stack(
        [
            47 + 3 * torch.randn(size, generator=random),
            torch.randint(0, 3, (size,), generator=random).float(),
            400 + 200 * torch.randn(size, generator=random),
            torch.randint(0, 2, (size,), generator=random).float(),
        ],
        dim=1,
    )
    site[0, 2] = site[1, 1] = nan
    series = torch.rand(size, 5, 2, generator=random) * 5
    series[0, 1, 0] = nan
    dates = 18_000 + 7 * torch.arange(5).expand(size, 5)
    valid = torch.ones(size, 5, dtype=torch.bool)
    valid[1, 3:] = False
    return {
        "image": torch.randint(0, 10, (size, 2, 6, 6), generator=random).float(),
        "caption": [TEXTS[i % len(TEXTS)] for i in range(size)],
        "site": site,
        "weather": TimeSeries(series, dates.clone(), valid),
    }


def batch(size=4, seed=0, **available):
    there = {name: torch.ones(size, dtype=torch.bool) for name in MODALITIES}
    there |= {name: torch.tensor(flags) for name, flags in available.items()}
    return {
        "inputs": samples(size, seed),
        "available": there,
        "target": torch.arange(size) % len(CLASSES),
        "sample_id": [str(i) for i in range(size)],
    }


class PartSamples(DataModule):
    """Twelve of them for every split.

    Args:
        texts: those that the tokenizer is made of; there is none without.
        seasons: names of the seasons, in the order in which they are numbered.
        loader: options of `DataModule`.
    """

    def __init__(
        self,
        *,
        texts: tuple[str, ...] = (),
        seasons: tuple[str, ...] = ("winter", "spring", "summer"),
        **loader,
    ) -> None:
        super().__init__(**{"augment": False, "batch_size": 4, **loader})
        site, tokenizer = MODALITIES["site"], word_tokenizer(texts) if texts else ""
        modalities = {
            **MODALITIES,
            "caption": replace(MODALITIES["caption"], tokenizer=tokenizer),
            "site": replace(site, categories={**site.categories, "season": seasons}),
        }
        self.schema = Schema(modalities, CLASSES, target="multiclass")

    def dataset(self, split: Split) -> list:
        data = batch(12)
        season = data["inputs"]["site"][:, 1]
        known = season.isfinite()
        names = [MODALITIES["site"].categories["season"][int(i)] for i in season[known]]
        order = self.schema.modalities["site"].categories["season"]
        season[known] = torch.tensor([float(order.index(name)) for name in names])
        return [
            {
                "inputs": {
                    name: TimeSeries(*(part[i] for part in values))
                    if isinstance(values, TimeSeries)
                    else values[i]
                    for name, values in data["inputs"].items()
                },
                "available": {name: flags[i] for name, flags in data["available"].items()},
                "target": data["target"][i],
                "sample_id": str(i),
            }
            for i in range(12)
        ]


def pick(values, index):
    """Some of the samples, in this order."""
    if isinstance(values, list):
        return [values[i] for i in index]
    if isinstance(values, TimeSeries):
        return TimeSeries(*(part[index] for part in values))
    return values[index]

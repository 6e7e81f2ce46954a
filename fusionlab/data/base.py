"""The base of all data modules: loaders, collation, and exact sharding for evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from fusionlab.errors import InputError
from fusionlab.types import Batch, Schema, TimeSeries

Split = Literal["train", "val", "test", "predict"]
Sample = dict[str, Any]
"""One element of a `Batch`, without the batch axis."""


class DataModule(LightningDataModule):
    """Delivers the batch contract and nothing else.

    Subclasses set `schema` in `__init__` (it is handed to the model before any data are read) and
    implement `dataset`.

    Args:
        batch_size: samples per process and step.
        num_workers: processes that read samples; 0 reads in the main process.
        pin_memory: copy batches to page-locked memory first; pays with a GPU only.
        drop_last: drop the last, smaller batch of a training epoch. A batch of one sample cannot be
            normalised by BatchNorm on pooled features. A process with less than one batch keeps it.
        missing: modalities to deliver as missing in every sample, whatever is on disk: what does a
            model answer without them?

    Attributes:
        schema: modalities and classes that it delivers.
    """

    schema: Schema

    def __init__(
        self,
        *,
        batch_size: int = 8,
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = True,
        missing: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}.")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.drop_last = drop_last
        self.missing = tuple(missing)
        self._datasets: dict[Split, Dataset[Sample]] = {}

    def dataset(self, split: Split) -> Dataset[Sample]:
        """The samples of a split. Reads what it needs to refuse unusable data before training."""
        raise InputError(f"{type(self).__name__} has no data for {split!r}.")

    def setup(self, stage: str) -> None:
        """Builds the data sets that a stage needs."""
        splits: dict[str, tuple[Split, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
            "predict": ("predict",),
        }
        for split in splits[stage]:
            if split not in self._datasets:
                self._datasets[split] = self._without_missing(self.dataset(split))

    def _without_missing(self, dataset: Dataset[Sample]) -> Dataset[Sample]:
        if not self.missing:
            return dataset
        unknown = [name for name in self.missing if name not in self.schema.modalities]
        if unknown or len(set(self.missing)) == len(self.schema.modalities):
            raise InputError(
                f"data.missing: {list(self.missing)} must be some, but not all, of the modalities "
                f"{list(self.schema.modalities)}."
            )
        return Without(dataset, self.missing)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, each process its share; the same in every run of one seed."""
        dataset = self._datasets["train"]
        if not len(dataset):  # type: ignore[arg-type]
            raise InputError(
                f"{type(self).__name__} has no sample to train on: check its folders and which "
                "part of them is for training."
            )
        trainer = self.trainer
        sampler = EpochSampler(
            dataset,
            num_replicas=trainer.world_size if trainer is not None else 1,
            rank=trainer.global_rank if trainer is not None else 0,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
        )
        # A resumed run asks for its first batches before it tells samplers the epoch.
        sampler.set_epoch(trainer.current_epoch if trainer is not None else 0)
        # One short batch is better than none where a process has less than a batch.
        drop_last = self.drop_last and len(sampler) > self.batch_size
        return self._loader(
            dataset, sampler=sampler, generator=sampler.workers, drop_last=drop_last
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every sample counted once, over however many processes."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every sample counted once, over however many processes."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """In order; no sample twice."""
        return self._loader(self._datasets["predict"])

    def _evaluation_loader(self, split: Split) -> DataLoader[Batch]:
        dataset = self._datasets[split]
        trainer = self.trainer
        if trainer is not None and trainer.world_size > 1:
            shard = Shard(dataset, rank=trainer.global_rank, world_size=trainer.world_size)
            # A DistributedSampler over the shard alone keeps Lightning from adding its own, which
            # would repeat samples without saying so.
            sampler: DistributedSampler[Sample] = DistributedSampler(
                shard, num_replicas=1, rank=0, shuffle=False
            )
            return self._loader(shard, sampler=sampler)
        return self._loader(dataset)

    def _loader(self, dataset: Dataset[Sample], **options: Any) -> DataLoader[Batch]:  # noqa: ANN401
        # Workers are not persistent: they draw augmentations from the seed they start with, and a
        # resumed run repeats an uninterrupted one only if they start anew with every epoch's seed.
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory and torch.cuda.is_available(),
            collate_fn=collate,
            **options,
        )


class EpochSampler(DistributedSampler[Sample]):
    """Shuffles by seed and epoch alone, so that a resumed run sees what a whole one would have.

    Attributes:
        workers: seeds the worker processes of an epoch, and with them the augmentation.
    """

    def __init__(
        self, dataset: Dataset[Sample], *, num_replicas: int, rank: int, seed: int
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed)
        self.workers = torch.Generator()

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        super().set_epoch(epoch)
        self.workers.manual_seed(epoch_seed(self.seed, epoch, self.rank))


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """A seed of its own for every epoch and process."""
    return (seed * 1_000_003 + epoch) * 1_009 + rank


class Shard(Dataset[Sample]):
    """What one of several processes evaluates: every process the same number of samples.

    Where the samples do not divide evenly, some processes repeat one, because in a distributed run
    all must take the same number of steps. The repeated sample says so (``counted`` is False), and
    tasks leave it out of losses and metrics.
    """

    def __init__(self, dataset: Dataset[Sample], *, rank: int, world_size: int) -> None:
        self.dataset = dataset
        self.rank = rank
        self.world_size = world_size
        self.total = len(dataset)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return -(-self.total // self.world_size)

    def __getitem__(self, index: int) -> Sample:
        position = self.rank + index * self.world_size
        sample = dict(self.dataset[position % self.total])
        sample["counted"] = position < self.total
        return sample


class Without(Dataset[Sample]):
    """Samples from which some modalities are taken away.

    Args:
        dataset: the whole samples.
        modalities: names of what is taken away.
    """

    def __init__(self, dataset: Dataset[Sample], modalities: Sequence[str]) -> None:
        self.dataset = dataset
        self.modalities = tuple(modalities)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        return without(self.dataset[index], self.modalities)


def without(sample: Sample, modalities: Sequence[str]) -> Sample:
    """A new sample in which some modalities are zeros and not available.

    A series shrinks to one date that is not valid.
    """
    inputs, available = dict(sample["inputs"]), dict(sample["available"])
    for name in modalities:
        inputs[name] = blank(inputs[name])
        available[name] = torch.tensor(False)
    return {**sample, "inputs": inputs, "available": available}


def blank(value: Tensor | TimeSeries) -> Tensor | TimeSeries:
    """What stands for a missing input: zeros; of a series, one date that is not valid."""
    if isinstance(value, TimeSeries):
        return TimeSeries(*(torch.zeros_like(part[:1]) for part in value))
    return torch.zeros_like(value)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples into a batch; series of different lengths are padded and marked invalid.

    Works on nested dicts. Text stays a list. Tensors of one key must share their shape, except for
    the time axis of a `TimeSeries`.
    """
    return _collate(list(samples))  # type: ignore[no-any-return]


def _collate(values: list[Any]) -> Any:  # noqa: ANN401
    first = values[0]
    if isinstance(first, TimeSeries):
        return _collate_series(values)
    if isinstance(first, Mapping):
        return {key: _collate([value[key] for value in values]) for key in first}
    if isinstance(first, str):
        return values
    return default_collate(values)


def _collate_series(series: Sequence[TimeSeries]) -> TimeSeries:
    longest = max(len(s.dates) for s in series)
    shape = (len(series), longest)
    values = series[0].values.new_zeros((*shape, *series[0].values.shape[1:]))
    dates = series[0].dates.new_zeros(shape)
    valid = torch.zeros(shape, dtype=torch.bool)
    for row, item in enumerate(series):
        steps = len(item.dates)
        values[row, :steps] = item.values
        dates[row, :steps] = item.dates
        valid[row, :steps] = item.valid
    return TimeSeries(values, dates, valid)


Transform = Callable[[Sample], Sample]
"""Augmentation: takes and returns a sample; moves every image, series and mask in it together."""

__all__ = [
    "DataModule",
    "EpochSampler",
    "Sample",
    "Shard",
    "Split",
    "Transform",
    "Without",
    "blank",
    "collate",
    "epoch_seed",
    "without",
]

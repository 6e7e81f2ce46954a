"""The base of all data modules: loaders, choices they share, and exact sharding for evaluation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from fusionlab.data.choices import Part, fractions, limits, require_modalities, subset
from fusionlab.data.mixing import Mixing
from fusionlab.data.samples import Sample, Transform, Without, collate, without
from fusionlab.data.transforms import ModalityDropout, RandomD4, SampleTransform
from fusionlab.errors import InputError
from fusionlab.types import Batch, Schema

Split = Literal["train", "val", "test", "predict"]


class DataModule(LightningDataModule):
    """Delivers the batch contract and nothing else.

    Subclasses set `schema` in `__init__` (it is handed to the model before any data are read) and
    implement `dataset`. One that can be trained on draws the samples of a split by `kept` and
    applies `transforms` to them, and takes the options of both as ``**loader``.

    Args:
        batch_size: samples per process and step.
        num_workers: processes that read samples; 0 reads in the main process.
        pin_memory: copy batches to page-locked memory first; pays with a GPU only.
        drop_last: drop the last, smaller batch of a training epoch. A batch of one sample cannot be
            normalised by BatchNorm on pooled features. A process with less than one batch keeps it.
        missing: modalities to deliver as missing in every sample, whatever is on disk: what does a
            model answer without them?
        augment: whether to flip and turn training samples (`RandomD4`), or a transform; several in
            a `Chain`.
        mix: how to mix training samples with one another, inputs and targets: `MixUp`, `CutMix`;
            not at all if not given.
        modality_dropout: per modality, the probability that a training sample goes without it.
        fraction: share of the training split to keep, drawn at random; or one per split.
        max_samples: at most so many samples per split, drawn at random; a number or one per split.
        subset_seed: seed of these draws; a smaller subset is part of a larger one.

    Attributes:
        schema: modalities and classes that it delivers.

    Raises:
        InputError: for options that make no sense.
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
        augment: bool | SampleTransform | Transform = True,
        mix: Mixing | None = None,
        modality_dropout: dict[str, float] | None = None,
        fraction: float | dict[str, float] = 1.0,
        max_samples: int | dict[str, int] | None = None,
        subset_seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}.")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.drop_last = drop_last
        self.missing = tuple(missing)
        self.augment = augment
        self.mix = mix
        self.modality_dropout = ModalityDropout(modality_dropout or {})
        self.fraction = fractions(fraction)
        self.max_samples = limits(max_samples)
        self.subset_seed = subset_seed
        self._datasets: dict[Split, Dataset[Sample]] = {}

    def dataset(self, split: Split) -> Dataset[Sample]:
        """The samples of a split. Reads what it needs to refuse unusable data before training."""
        raise InputError(f"{type(self).__name__} has no data for {split!r}.")

    def kept(self, total: int, part: Part) -> NDArray[np.int64]:
        """Which of the samples of a split `fraction` and `max_samples` leave.

        Args:
            total: how many there are.
            part: the split.

        Returns:
            Their indices, ascending.
        """
        return subset(
            total,
            fraction=self.fraction.get(part, 1.0),
            limit=self.max_samples.get(part),
            seed=self.subset_seed,
        )

    def transforms(self, split: Split) -> list[Transform]:
        """What samples go through: those of training are augmented, then lose modalities."""
        if split != "train":
            return []
        transforms: list[Transform] = []
        if self.augment is True:
            transforms.append(RandomD4())
        elif isinstance(self.augment, SampleTransform):
            transforms.append(self.augment.bound(self.schema))
        elif self.augment is not False:
            transforms.append(self.augment)
        if self.modality_dropout.probabilities:
            if self.missing:  # known before one is drawn, or the last one there might go
                transforms.append(partial(without, modalities=self.missing))
            transforms.append(self.modality_dropout)
        return transforms

    def setup(self, stage: str) -> None:
        """Builds the data sets that a stage needs.

        Raises:
            InputError: for data that cannot be used, for options that name modalities which are
                not delivered, and if all that the trainer's model looks at is `missing`.
        """
        self.check_modalities()
        self._refuse_to_blind_the_model()
        if stage == "fit" and self.mix is not None:
            self.mix.require(self.schema)
        splits: dict[str, tuple[Split, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
            "predict": ("predict",),
        }
        for split in splits[stage]:
            if split not in self._datasets:
                dataset = self.dataset(split)
                self._datasets[split] = Without(dataset, self.missing) if self.missing else dataset

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Draws how a training batch is mixed; see `mix`."""
        batch = self._hook_of_model("on_before_batch_transfer", batch, dataloader_idx)
        if self.mix is None or self.trainer is None or not self.trainer.training:
            return batch
        return self.mix.plan(batch, self.schema)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Mixes a training batch on the device; a hook of the model's gets the mixed one."""
        if self.mix is not None:
            batch = self.mix.apply(batch, self.schema)
        return self._hook_of_model("on_after_batch_transfer", batch, dataloader_idx)

    def _hook_of_model(self, hook: str, batch: Batch, dataloader_idx: int) -> Batch:
        # Lightning asks only one of the two, and the data module is it.
        task = getattr(self.trainer, "lightning_module", None)
        if task is None or not is_overridden(hook, task):
            return batch
        changed: Batch = getattr(task, hook)(batch, dataloader_idx)
        return changed

    def check_modalities(self) -> None:
        """Refuses options for modalities that are not delivered.

        `setup` does so; at the end of a subclass's `__init__` it is known earlier.

        Raises:
            InputError: names them and the modalities.
        """
        known = list(self.schema.modalities)
        require_modalities(self.modality_dropout.probabilities, known, option="modality_dropout")
        if not self.missing:
            return
        if not set(self.missing) < set(known):
            raise InputError(
                f"data.missing: {list(self.missing)} must be some, but not all, of the modalities "
                f"{known}."
            )

    def _refuse_to_blind_the_model(self) -> None:
        task = getattr(self.trainer, "lightning_module", None)  # no trainer in plain Python
        used = getattr(getattr(task, "model", None), "modalities", ())
        if self.missing and used and set(used) <= set(self.missing):
            others = [name for name in self.schema.modalities if name not in self.missing]
            raise InputError(
                f"data.missing: {list(self.missing)} takes away all that the model looks at, "
                f"{list(used)}, and its answers would mean nothing. Leave it one of them, or use a "
                f"model that looks at {others} too."
            )

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

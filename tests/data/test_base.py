from types import SimpleNamespace

import pytest
import torch
from raster_scenes import trainer
from small_models import PixelExpert
from torch.utils.data import Dataset

from fusionlab.data.base import DataModule
from fusionlab.data.transforms import RandomD4
from fusionlab.errors import InputError
from fusionlab.tasks import SegmentationTask
from fusionlab.types import Modality, Schema, TimeSeries


class Numbers(Dataset):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return {"target": torch.tensor(index)}


class NumbersData(DataModule):
    schema = Schema({})

    def __init__(self, length: int, **options) -> None:
        super().__init__(**options)
        self.length = length

    def dataset(self, split) -> Numbers:
        return Numbers(self.length)


def epoch(length: int, *, world_size: int, rank: int = 0, **options) -> list[list[int]]:
    """The batches that one of several processes trains on."""
    data = NumbersData(length, **options)
    data.trainer = SimpleNamespace(world_size=world_size, global_rank=rank, current_epoch=0)
    data.setup("fit")
    return [batch["target"].tolist() for batch in data.train_dataloader()]


def test_the_last_short_batch_is_dropped():
    assert [len(batch) for batch in epoch(10, world_size=1, batch_size=4)] == [4, 4]
    assert [len(batch) for batch in epoch(10, world_size=1, batch_size=4, drop_last=False)] == [
        4, 4, 2,
    ]  # fmt: skip


def test_a_process_with_less_than_a_batch_trains_on_it():
    shares = [epoch(10, world_size=2, rank=rank, batch_size=8) for rank in range(2)]
    assert [[len(batch) for batch in share] for share in shares] == [[5], [5]]
    assert sorted(shares[0][0] + shares[1][0]) == list(range(10))


def test_nothing_to_train_on_is_refused():
    with pytest.raises(InputError, match="NumbersData has no sample to train on"):
        epoch(0, world_size=1)


class Pair(Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict:
        series = TimeSeries(torch.ones(4, 1, 2, 2), torch.arange(4), torch.ones(4).bool())
        return {
            "inputs": {"image": torch.ones(1, 2, 2), "series": series},
            "available": {"image": torch.tensor(True), "series": torch.tensor(True)},
            "target": torch.tensor([[0, 1], [1, 0]]),
        }


class PairData(DataModule):
    schema = Schema(
        {"image": Modality(("x",), 1.0), "series": Modality(("x",), 1.0, temporal=True)},
        ("a", "b"),
        gsd=1.0,
    )

    def dataset(self, split) -> Pair:
        return Pair()


def test_a_modality_can_be_taken_away_from_every_sample():
    data = PairData(batch_size=3, missing=["series"])
    data.trainer = None
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch["available"]["image"].tolist() == [True] * 3
    assert batch["available"]["series"].tolist() == [False] * 3
    assert batch["inputs"]["image"].eq(1).all()
    assert batch["inputs"]["series"].values.shape == (3, 1, 1, 2, 2)
    assert not batch["inputs"]["series"].valid.any()


@pytest.mark.parametrize("missing", [["radar"], ["image", "series"]])
def test_taking_away_what_is_not_there_or_everything_is_refused(missing):
    with pytest.raises(InputError, match=r"data.missing.*some, but not all"):
        PairData(missing=missing).setup("test")


@pytest.mark.parametrize("run", ["fit", "validate", "test"])
def test_taking_away_all_that_the_model_looks_at_is_refused(run):
    expert = SegmentationTask(PairData.schema, lambda schema: PixelExpert(schema, modality="image"))
    with pytest.raises(InputError, match=r"missing: \['image'\] takes away all.*use a model that "):
        getattr(trainer(max_epochs=1), run)(expert, datamodule=PairData(missing=["image"]))
    getattr(trainer(max_epochs=1), run)(expert, datamodule=PairData(missing=["series"]))


def test_dropout_leaves_one_of_the_modalities_that_are_not_missing():
    data = PairData(missing=["series"], modality_dropout={"image": 1.0, "series": 1.0})
    sample = Pair()[0]
    for transform in data.transforms("train"):
        sample = transform(sample)
    assert sample["available"]["image"]
    assert not sample["available"]["series"]


def test_training_samples_alone_are_transformed():
    def mine(sample):
        return sample

    kinds = [[type(t) for t in PairData(augment=a).transforms("train")] for a in (True, False)]
    assert kinds == [[RandomD4], []]
    data = PairData(augment=mine, modality_dropout={"image": 0.5})
    assert data.transforms("train") == [mine, data.modality_dropout]
    assert [data.transforms(split) for split in ("val", "test", "predict")] == [[], [], []]
    with pytest.raises(InputError, match=r"modality_dropout: there is no modality 'images'. Did"):
        PairData(modality_dropout={"images": 0.5}).setup("fit")


def test_a_part_of_each_split_is_kept():
    data = PairData(fraction=0.5, max_samples={"train": 3, "test": 4})
    assert [len(data.kept(10, part)) for part in ("train", "val", "test")] == [3, 10, 4]
    assert set(data.kept(10, "train")) <= set(PairData(fraction=0.5).kept(10, "train"))
    seeds = {tuple(PairData(max_samples=3, subset_seed=i).kept(10, "val")) for i in range(9)}
    assert len(seeds) > 1

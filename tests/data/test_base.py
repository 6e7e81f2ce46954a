from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Dataset

from fusionlab.data.base import DataModule
from fusionlab.errors import InputError
from fusionlab.types import Modality, Schema, TimeSeries


class Numbers(Dataset):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return {"target": torch.tensor(index)}


class NumbersData(DataModule):
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
        }


class PairData(DataModule):
    schema = Schema({"image": Modality(("x",), 1.0), "series": Modality(("x",), 1.0)}, ("a",))

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

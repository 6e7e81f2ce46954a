import pytest
import torch
from embedding_experts import PooledExpert
from hypothesis import given
from hypothesis import strategies as st

from fusionlab.models.missing import stand_ins, with_stand_ins
from fusionlab.types import Modality, Schema, TimeSeries


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_who_is_there_stays_and_takes_turns_for_the_others(flags):
    there = torch.tensor(flags)
    index = stand_ins(there)
    itself = torch.arange(len(flags))
    assert torch.equal(index[there], itself[there])
    if not there.any():
        assert torch.equal(index, itself)
        return
    assert there[index].all()
    turns = torch.bincount(index, minlength=len(flags))[there]
    assert turns.max() - turns.min() <= 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32])
def test_raw_types_are_kept(dtype):
    image = torch.tensor([1, 0, 60_000 if dtype == torch.uint16 else 3]).to(dtype).reshape(3, 1, 1)
    batch = {"inputs": {"a": image}, "available": {"a": torch.tensor([True, False, True])}}
    filled = with_stand_ins(batch, "a")["inputs"]["a"]
    assert filled.dtype == dtype
    assert filled.flatten().tolist() == [1, 1, image.flatten().tolist()[2]]
    assert batch["inputs"]["a"] is image


def test_series_keep_values_dates_and_validity_together():
    there = torch.tensor([False, True, True])
    series = TimeSeries(
        torch.rand(3, 2, 1, 4, 4) * there.reshape(3, 1, 1, 1, 1),
        torch.tensor([[0, 0], [5, 6], [7, 8]]),
        torch.tensor([[False, False], [True, True], [True, False]]),
    )
    other = torch.rand(3, 1, 4, 4)
    batch = {"inputs": {"s1": series, "s2": other}, "available": {"s1": there, "s2": ~there}}
    filled = with_stand_ins(batch, "s1")["inputs"]
    assert filled["s2"] is other
    for part, raw in zip(filled["s1"], series, strict=True):
        assert torch.equal(part, raw[[1, 1, 2]])


def test_statistics_and_gradients_are_those_of_the_samples_that_are_there():
    schema = Schema({"s1": Modality(("vv", "vh"), 10.0)}, ("a", "b"), target="multilabel")
    torch.manual_seed(0)
    experts = [PooledExpert(schema).train() for _ in range(3)]
    for expert in experts[1:]:
        expert.load_state_dict(experts[0].state_dict())
    images = 5 + torch.randn(4, 2, 6, 6)
    there = torch.tensor([True, False, True, False])
    batch = {"inputs": {"s1": images * there[:, None, None, None]}, "available": {"s1": there}}
    weight = torch.randn(4, 2)

    def learn(expert, values, kept):
        logits = expert.logits(values)[kept]
        (logits * weight[there]).sum().backward()
        return expert.body[1], [p.grad for p in expert.parameters()]

    norm, grads = learn(experts[0], with_stand_ins(batch, "s1")["inputs"]["s1"], there)
    alone_norm, alone_grads = learn(experts[1], images[there], slice(None))
    zeros_norm, zeros_grads = learn(experts[2], batch["inputs"]["s1"], there)
    torch.testing.assert_close(norm.running_mean, alone_norm.running_mean)
    # Unbiased over 144 instead of 72 pixels.
    torch.testing.assert_close(norm.running_var, alone_norm.running_var, rtol=1e-2, atol=0)
    for grad, alone in zip(grads, alone_grads, strict=True):
        torch.testing.assert_close(grad, alone, rtol=1e-3, atol=1e-4)
    # What the zeros would have done.
    assert not torch.allclose(zeros_norm.running_mean, alone_norm.running_mean, rtol=0.1)
    assert not torch.allclose(zeros_grads[0], alone_grads[0], rtol=0.1)

"""Operators over features that need one width, inside FeatureFusion: for samples and for pixels."""

from functools import partial

import pytest
import torch
from test_feature import EXPERTS, SCHEMA, THREE
from test_feature import batch as samples
from test_feature_maps import batch, model

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.fusion.features import (
    AFF,
    Add,
    FiLM,
    Hadamard,
    IterativeAFF,
    LowRankBilinear,
    MatMul,
)
from fusionlab.models import FeatureFusion
from fusionlab.tasks.base import ModelFactory

PIXELS = tuple(
    partial(cls, width=8) for cls in (Add, Hadamard, LowRankBilinear, FiLM, AFF, IterativeAFF)
)
SAMPLES = (*PIXELS, partial(MatMul, width=8))


def name(operator):
    return operator.func.__name__


@pytest.mark.parametrize("operator", PIXELS, ids=name)
def test_pixels(operator):
    fused = model(fusion=operator).eval()
    data = batch(missing=[("s2", 1)])
    answer, shares = fused.explain(data)
    assert answer.logits.shape == (2, 3, 80, 120)
    total = torch.stack([share.expand(2, 80, 120) for share in shares.values()]).sum(dim=0)
    torch.testing.assert_close(total, torch.ones(2, 80, 120))
    assert (shares["aerial"].expand(2, 80, 120)[1] == 1).all()
    fused.train()
    (fused(data).logits * torch.randn(2, 3, 80, 120)).sum().backward()
    assert [n for n, p in fused.named_parameters() if p.grad is None] == []


def test_matrix_products_are_for_samples():
    with pytest.raises(InputError, match=r"'segmentation'.*MatMul answers does not lie on the gri"):
        model(fusion=partial(MatMul, width=8))


@pytest.mark.parametrize("experts", [EXPERTS, THREE], ids=len)
@pytest.mark.parametrize("operator", SAMPLES, ids=name)
def test_samples(operator, experts):
    torch.manual_seed(0)
    fused = FeatureFusion(SCHEMA, experts=experts, fusion=operator).eval()
    data = samples(s1=[True, False, True, False], s2=[True, True, False, False])
    answer, shares = fused.explain(data)
    torch.testing.assert_close(torch.stack(list(shares.values())).sum(dim=0), torch.ones(4))
    assert shares["s1"][1] == 0
    assert shares["s1"][2] == 1
    again = build(fused.describe(), ModelFactory, SCHEMA, where="a test").eval()
    again.load_state_dict(fused.state_dict())
    assert torch.equal(again(data).logits, answer.logits)

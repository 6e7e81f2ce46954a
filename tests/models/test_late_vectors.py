"""Late fusion of answers per sample: an S1 and an S2 expert that classify patches."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from embedding_experts import PooledExpert, save_expert
from small_models import PixelExpert
from torch.nn import functional as F

from fusionlab.component import Model, build
from fusionlab.errors import InputError
from fusionlab.experts import FrozenExpert
from fusionlab.fusion import (
    Attentional,
    Average,
    ClassWeighted,
    Concat,
    FixedWeighted,
    Gated,
)
from fusionlab.models import LateFusion
from fusionlab.types import Modality, Schema

MODALITIES = {
    "s2": Modality(("B02", "B03", "B04"), 10.0),
    "s1": Modality(("VV", "VH"), 20.0),  # of another size and resolution
}
CLASSES = ("pasture", "forest", "water", "urban")
OPERATORS = {
    "average": Average,
    "fixed": partial(FixedWeighted, weights={"s1": 1, "s2": 3}),
    "class_weighted": ClassWeighted,
    "gated": Gated,
    "gated_cloud": partial(Gated, cloud_cover="s2"),
    "concat": Concat,
    "attentional": partial(Attentional, reduction=2),
}


def schema(target="multilabel"):
    return Schema(MODALITIES, CLASSES, target=target)


def batch(size=4, **available):
    random = torch.Generator().manual_seed(0)
    there = {name: torch.ones(size, dtype=torch.bool) for name in MODALITIES}
    there |= {name: torch.tensor(value) for name, value in available.items()}
    values = {
        "s2": torch.randn(size, 3, 8, 8, generator=random),
        "s1": 2 + torch.randn(size, 2, 4, 4, generator=random),
    }
    return {
        "inputs": {n: x * there[n][:, None, None, None] for n, x in values.items()},
        "available": there,
        "cloud_cover": {"s2": torch.rand(size, 1, 8, 8, generator=random)},
        "target": torch.randint(0, 2, (size, 4), generator=random).float(),
    }


def late(operator, target="multilabel", expert=PooledExpert, **options) -> LateFusion:
    torch.manual_seed(0)
    experts = dict.fromkeys(MODALITIES, expert)
    model = LateFusion(schema(target), experts=experts, fusion=OPERATORS[operator], **options)
    with torch.no_grad():
        for parameter in model.fusion.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_missing_modality_equals_the_model_without_it(operator):
    model = late(operator)
    answer = model(batch(s1=[True, False, True, False], s2=[True, True, False, False])).logits
    complete = model(batch()).logits
    assert answer.shape == (4, 4)
    alone = {name: model.expert(name)(batch()).logits for name in MODALITIES}
    torch.testing.assert_close(answer[0], complete[0])
    torch.testing.assert_close(answer[1], alone["s2"][1])
    torch.testing.assert_close(answer[2], alone["s1"][2])
    assert torch.equal(answer[3], torch.zeros(4))


@pytest.mark.parametrize("target", ["multilabel", "multiclass"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_shares_sum_to_one_and_fall_on_who_is_there(operator, target):
    model = late(operator, target)
    data = batch(s1=[True, False, True, False], s2=[True, True, False, False])
    output, shares = model.explain(data)
    torch.testing.assert_close(output.logits, model(data).logits)
    assert {name: tuple(share.shape) for name, share in shares.items()} == {
        "s2": (4,),
        "s1": (4,),
    }
    torch.testing.assert_close(shares["s1"] + shares["s2"], torch.ones(4))
    assert shares["s1"].tolist()[1:] == [0, 1, 0.5]
    if output.weights is not None:
        predicted = output.logits.argmax(dim=1)
        weights = output.weights["s1"].expand(4, 4)
        assert torch.equal(shares["s1"], weights[range(4), predicted])


def test_multilabel_shares_are_of_independent_probabilities():
    probability = {"multilabel": torch.sigmoid, "multiclass": partial(torch.softmax, dim=1)}
    for target, link in probability.items():
        model = late("concat", target)
        data = batch()
        logits = model(data).logits
        decided = logits.argmax(dim=1)
        drops = {}
        for name in MODALITIES:
            there = {**data["available"], name: torch.zeros(4, dtype=torch.bool)}
            left = link(model({**data, "available": there}).logits)[range(4), decided]
            drops[name] = (link(logits)[range(4), decided] - left).clamp(min=1e-6)
        shares = model.explain(data).shares
        for name, drop in drops.items():
            torch.testing.assert_close(
                shares[name], drop / sum(drops.values()), rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_parameter_has_a_gradient_whoever_is_missing(operator):
    for available in ({}, {"s1": [False] * 4}, {"s1": [False] * 4, "s2": [False] * 4}):
        model = late(operator).train()
        data = batch(**available)
        F.binary_cross_entropy_with_logits(model(data).logits, data["target"]).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_auxiliary_logits_teach_an_expert_only_what_it_saw():
    model = late("class_weighted", expert=partial(PooledExpert, auxiliary=True)).train()
    s1 = [True, False, True, False]
    output = model(batch(s1=s1))
    of_s2, of_s1 = (head.logits for head in output.auxiliary)
    assert of_s2.shape == of_s1.shape == (4, 4)
    missing = ~torch.tensor(s1)
    assert torch.equal(of_s1[missing], output.logits[missing])
    assert not torch.allclose(of_s1[~missing], output.logits[~missing])
    parameters = list(model.parameters())
    nothing = torch.autograd.grad(
        of_s1[missing].sum(), parameters, retain_graph=True, allow_unused=True
    )
    assert not any(grad is not None and grad.any() for grad in nothing)
    of_s1.sum().backward()
    assert model.expert("s1").head.weight.grad.any()
    assert model.eval()(batch()).auxiliary == ()


def test_zeros_of_missing_images_teach_batch_norm_nothing():
    half = [True, False, True, False]
    together, alone = late("average").train(), late("average").train()
    together(batch(s1=half))
    alone.expert("s1").logits(batch()["inputs"]["s1"][half])
    norm, expected = together.expert("s1").body[1], alone.expert("s1").body[1]
    torch.testing.assert_close(norm.running_mean, expected.running_mean)


def test_clouds_reach_the_gate_as_the_mean_of_a_scene():
    model = late("gated_cloud")
    data = batch()
    mean = data["cloud_cover"]["s2"].mean(dim=(-2, -1), keepdim=True)
    flat = {**data, "cloud_cover": {"s2": mean.expand(-1, -1, 8, 8)}}
    per_sample = {**data, "cloud_cover": {"s2": mean.flatten(1)}}
    torch.testing.assert_close(model(flat).logits, model(data).logits)
    torch.testing.assert_close(model(per_sample).logits, model(data).logits)
    clear = {**data, "cloud_cover": {"s2": torch.zeros(4, 1, 8, 8)}}
    assert not torch.allclose(model(clear).logits, model(data).logits)


@pytest.mark.parametrize("operator", OPERATORS)
def test_half_precision(operator):
    model = late(operator)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch())
    assert output.logits.dtype == torch.float32
    torch.testing.assert_close(output.logits, model(batch()).logits, atol=0.1, rtol=0.1)


def test_maps_and_answers_per_sample_do_not_mix():
    for experts in (
        {"s2": PixelExpert, "s1": PooledExpert},
        {"s2": PooledExpert, "s1": PixelExpert},
    ):
        model = LateFusion(schema("multilabel"), experts=experts)
        with pytest.raises(InputError, match=r"not both: the expert 's1'"):
            model(batch())


def test_frozen_experts_with_a_cache_and_back_from_a_description(tmp_path):
    torch.manual_seed(0)
    experts = {}
    for name in MODALITIES:
        own = schema().only(name)
        path = save_expert(PooledExpert(own).eval(), tmp_path / f"{name}.ckpt", own)
        experts[name] = partial(FrozenExpert, checkpoint=path)
    model = LateFusion(
        schema(), experts=experts, fusion=Gated, cache=str(tmp_path / "cache")
    ).eval()  # fmt: skip
    first, again = model(batch()).logits, model(batch()).logits
    assert torch.equal(first, again)
    restored = build(model.describe(), Callable[[Schema], Model], schema(), where="a test")
    restored.load_state_dict(model.state_dict())
    torch.testing.assert_close(restored.eval()(batch()).logits, first, atol=2e-3, rtol=2e-3)

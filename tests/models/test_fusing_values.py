"""Fusions of values: every operator, shares by leaving out, frozen experts, and the cache."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from embedding_experts import PooledExpert, save_expert
from height_maps import MODALITIES, Heights, schema
from small_models import ConstantExpert, PixelExpert

from fusionlab.component import Model, build
from fusionlab.data.base import collate
from fusionlab.errors import InputError
from fusionlab.experts import FrozenExpert, TimmExpert, UNetFormer
from fusionlab.fusion import Attentional, Average, ClassWeighted, Concat, FixedWeighted, Gated
from fusionlab.models import FeatureFusion, LateFusion
from fusionlab.models.contributions import leave_one_out_shares
from fusionlab.types import Schema

OPERATORS = {
    "average": Average,
    "fixed": partial(FixedWeighted, weights={"rgb": 3, "sar": 1}),
    "class_weighted": partial(ClassWeighted, init_class_weights={"height": [0.9, 0.1]}),
    "gated": partial(Gated, class_priors={"moisture": 0.2}),
    "concat": Concat,
    "attentional": Attentional,
}
TARGETS = {"regression": PixelExpert, "scalar_regression": PooledExpert}


def batch(target="regression", sar=None):
    data = collate([Heights(schema(target))[i] for i in range(4)])
    if sar is not None:
        data["available"]["sar"] = torch.tensor(sar)
    return data


def late(operator, target="regression", **options) -> LateFusion:
    torch.manual_seed(0)
    experts = dict.fromkeys(MODALITIES, TARGETS[target])
    return LateFusion(schema(target), experts=experts, fusion=OPERATORS[operator], **options).eval()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_missing_sensor_equals_the_model_without_it(operator, target):
    model = late(operator, target)
    data = batch(target, sar=[True, False, True, False])
    values = model(data).logits
    alone = model.expert("rgb")(data).logits
    torch.testing.assert_close(values[[1, 3]], alone[[1, 3]])
    output, shares = model.explain(data)
    torch.testing.assert_close(output.logits, values)
    assert shares["rgb"].shape == (4, *values.shape[2:])
    torch.testing.assert_close(sum(shares.values()), torch.ones_like(shares["rgb"]))
    assert not shares["sar"][[1, 3]].any()
    assert (shares["sar"][[0, 2]] > 0).any()


def test_weights_are_per_variable_and_averaged_in_shares():
    model = late("class_weighted")
    assert model.fusion.class_weights()["rgb"].tolist() == pytest.approx([0.9, 0.5])
    shares = model.explain(batch(sar=[True] * 4)).shares
    torch.testing.assert_close(shares["rgb"], torch.full((4, 32, 32), 0.7))


def test_shares_by_leaving_out_are_of_how_far_values_move():
    """Whatever the units: of the first variable a moves 3 and b 1, of the second both the same."""
    value = torch.tensor([[10.0, 1000.0]])
    without = {"a": torch.tensor([[13.0, 900.0]]), "b": torch.tensor([[9.0, 1100.0]])}
    there = {name: torch.tensor([True]) for name in "ab"}

    def answer(available):
        return next(without[name] for name in "ab" if not available[name].all())

    shares = leave_one_out_shares(value, answer, there, "scalar_regression")
    assert {n: s.item() for n, s in shares.items()} == pytest.approx({"a": 0.625, "b": 0.375})
    still = leave_one_out_shares(value, lambda _: value, there, "scalar_regression")
    assert {n: s.item() for n, s in still.items()} == pytest.approx({"a": 0.5, "b": 0.5})


def test_late_fusion_averages_values():
    experts = {"rgb": partial(ConstantExpert, value=10.0), "sar": partial(ConstantExpert, value=30)}
    values = LateFusion(schema(), experts=experts)(batch()).logits
    assert values[0].unique().tolist() == [20]
    assert values[1].unique().tolist() == [10]  # without radar


def test_experts_must_share_the_variables_of_the_data():
    other = partial(PixelExpert)

    class Age(PixelExpert):
        def __init__(self, given: Schema) -> None:
            super().__init__(schema(names=("age",)).only(next(iter(given.modalities))))

    with pytest.raises(InputError, match=r"'sar' answers 1 variables \['age'\].*share the variab"):
        LateFusion(schema(), experts={"rgb": other, "sar": Age})


def test_auxiliary_heads_of_experts_in_a_fusion():
    small = partial(
        UNetFormer, backbone="test_resnet", decode_channels=16, window_size=4, heads=4
    )  # fmt: skip
    model = LateFusion(schema(), experts={"rgb": small, "sar": PixelExpert}).train()
    (head,) = model(batch()).auxiliary
    assert (head.name, head.weight, tuple(head.logits.shape)) == ("", None, (4, 2, 32, 32))


class TestFeatureFusion:
    def test_a_head_over_embeddings(self):
        model = FeatureFusion(
            schema("scalar_regression"), experts=dict.fromkeys(MODALITIES, PooledExpert)
        ).eval()
        data = batch("scalar_regression")
        assert model(data).logits.shape == (4, 2)
        assert model.head.names == ("height", "moisture")
        assert all(expert.head is None for expert in model.experts.values())
        _, shares = model.explain(data)
        assert shares["sar"][1] == 0
        torch.testing.assert_close(sum(shares.values()), torch.ones(4))


def frozen(kind, target, folder, **options):
    """Experts as their checkpoints give them."""
    experts = {}
    for name in MODALITIES:
        own = schema(target).only(name)
        torch.manual_seed(len(name))
        path = save_expert(kind(own, **options).eval(), folder / f"{name}.ckpt", own)
        experts[name] = partial(FrozenExpert, checkpoint=path)
    return experts


def test_frozen_experts_answer_in_the_order_of_the_data(tmp_path):
    experts = frozen(PixelExpert, "regression", tmp_path)
    given, turned = schema(), schema(names=("moisture", "height"))
    one, two = (LateFusion(data, experts=experts).eval() for data in (given, turned))
    torch.testing.assert_close(one(batch()).logits, two(batch()).logits[:, [1, 0]])
    assert two.expert("rgb").names == ("moisture", "height")
    for data, message in (
        (schema(names=("height",)), r"trained on 2 variables.*\['moisture'\].*share the variables"),
        (schema(units=("km", "%")), "'height' in 'm', but the data give it in 'km'"),
        (schema("scalar_regression"), "trained on a target of the kind 'regression'"),
    ):
        with pytest.raises(InputError, match=message):
            LateFusion(data, experts=experts)
    rebuilt = build(two.describe(), Callable[[Schema], Model], turned, where="a test")
    rebuilt.load_state_dict(two.state_dict())
    assert torch.equal(rebuilt.eval()(batch()).logits, two(batch()).logits)


def test_experts_of_values_give_embeddings_for_classes(tmp_path):
    experts = frozen(PooledExpert, "scalar_regression", tmp_path)
    model = FeatureFusion(
        Schema(MODALITIES, ("dry", "wet"), target="multiclass"), experts=experts
    ).eval()  # fmt: skip
    assert model(batch("scalar_regression")).logits.shape == (4, 2)


@pytest.mark.parametrize("target", TARGETS)
def test_the_cache_keeps_values_as_they_were(tmp_path, target):
    """Elevations of some 1000 m, of which half precision would keep steps of 1 m, or nothing."""
    experts = frozen(TARGETS[target], target, tmp_path)
    model = LateFusion(schema(target), experts=experts, cache=str(tmp_path / "cache")).eval()
    with torch.no_grad():
        for expert in model.experts.values():
            last = expert.expert.layers[-1] if target == "regression" else expert.expert.head
            last.bias += 123_456.7
    cache, model.cache = model.cache, None
    expected = model(batch(target)).logits
    model.cache = cache
    first, again = model(batch(target)).logits, model(batch(target)).logits
    assert torch.equal(first, expected)
    assert torch.equal(again, expected)
    assert expected.min() > 120_000


def test_a_timm_expert_has_a_head_for_variables():
    expert = TimmExpert(schema("scalar_regression").only("rgb"), backbone="test_resnet").eval()
    assert expert.head.names == ("height", "moisture")
    assert (expert.num_outputs, expert.num_classes) == (2, 0)
    assert expert(batch("scalar_regression")).logits.shape == (4, 2)
    bare = TimmExpert(schema().only("rgb").without_outputs(), backbone="test_resnet")
    assert bare.head is None

"""Sums, products and modulations of features: formulas, parameters, mistakes."""

import pytest
import torch
from feature_operators import BATCH, channels, operator, random_features

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

EQUAL = {"rgb": 6, "lidar": 6, "dem": 6}
TWO = {"rgb": 6, "lidar": 6}
PLAIN = (Add, Hadamard, MatMul)
COMMON = (*PLAIN, FiLM, AFF, IterativeAFF)


@pytest.mark.parametrize("cls", PLAIN)
def test_equal_widths_need_no_parameters(cls):
    """As the published counts of parameters demand."""
    fusion = cls({"rgb": 128, "lidar": 128})
    assert not list(fusion.parameters())
    assert not fusion.state_dict()
    assert fusion.channels_out == 128


@pytest.mark.parametrize("cls", PLAIN)
def test_a_width_projects_every_expert(cls):
    fusion = cls({"s2": 8, "s1": 4}, width=8)
    assert sum(parameter.numel() for parameter in fusion.parameters()) == (8 + 1) * 8 + (4 + 1) * 8
    assert fusion.channels_out == 8
    features = random_features({"s2": 8, "s1": 4}, "maps")
    brought = {name: fusion.projections[name](x) for name, x in features.items()}
    expected = cls({"s2": 8, "s1": 8})(brought).features
    torch.testing.assert_close(fusion(features).features, expected)


def test_formulas():
    x, y, z = random_features(EQUAL, "maps").values()
    features = {"rgb": x, "lidar": y, "dem": z}
    torch.testing.assert_close(Add(EQUAL)(features).features, x + y + z)
    torch.testing.assert_close(Hadamard(EQUAL)(features).features, x * y * z)
    product = MatMul(EQUAL)(features).features
    torch.testing.assert_close(product, x @ y @ z)
    assert product[1, 4, 2, 0].isclose(x[1, 4, 2] @ y[1, 4] @ z[1, 4, :, 0])


def test_equal_features():
    x = torch.randn(BATCH, 6, 3, 3)
    features = dict.fromkeys(EQUAL, x)
    torch.testing.assert_close(Add(EQUAL)(features).features, 3 * x)
    torch.testing.assert_close(Hadamard(EQUAL)(features).features, x**3)
    torch.testing.assert_close(MatMul(EQUAL)(features).features, x @ x @ x)
    torch.testing.assert_close(FiLM(EQUAL)(features).features, x)
    bilinear = LowRankBilinear(EQUAL, rank=2)
    factors = [factor(x).unflatten(1, (2, 6)) for factor in bilinear.factors.values()]
    expected = (factors[0] * factors[1] * factors[2]).sum(dim=1)
    torch.testing.assert_close(bilinear(features).features, expected)


@pytest.mark.parametrize("grid", [(), (3, 3)])
@pytest.mark.parametrize("cls", COMMON)
@pytest.mark.parametrize("name", EQUAL)
def test_one_expert_alone_comes_out_untouched(cls, name, grid):
    features = random_features(EQUAL, grid=grid)
    alone = {n: torch.full((BATCH,), n == name) for n in EQUAL}
    for fusion in (cls(EQUAL), cls(EQUAL).eval()):
        assert torch.equal(fusion(features, alone).features, features[name])


@pytest.mark.parametrize("cls", PLAIN)
@pytest.mark.parametrize("name", EQUAL)
def test_two_of_three_are_as_two(cls, name):
    features = random_features(EQUAL, "maps")
    available = {n: torch.tensor([n != name, True, True, False]) for n in EQUAL}
    rest = {n: x for n, x in features.items() if n != name}
    fused = cls(EQUAL)(features, available).features
    assert torch.equal(fused[0], cls(dict.fromkeys(rest, 6))(rest).features[0])
    assert not fused[3].any()


def test_the_order_of_matrices_matters():
    x, y = random_features(TWO, "maps").values()
    fused = MatMul(TWO)({"lidar": y, "rgb": x}).features  # the order in which it was built counts
    torch.testing.assert_close(fused, x @ y)
    swapped = MatMul(dict(reversed(TWO.items())))({"rgb": x, "lidar": y}).features
    torch.testing.assert_close(swapped, y @ x)
    assert not torch.allclose(fused, swapped)


def test_products_of_vectors_are_hadamards():
    features = random_features(EQUAL)
    assert torch.equal(MatMul(EQUAL)(features).features, Hadamard(EQUAL)(features).features)


@pytest.mark.parametrize(("width", "rank"), [(10, 1), (10, 3), (None, 2)])
def test_low_rank_is_a_linear_layer_over_the_outer_product(width, rank):
    widths = channels(3)
    fusion = LowRankBilinear(widths, width=width, rank=rank)
    features = random_features(widths)
    out = width or 8
    weights = []  # of every expert, (rank, out, D + 1)
    appended = []
    for name, x in features.items():
        layer = fusion.factors[name]
        whole = torch.cat([layer.weight, layer.bias[:, None]], dim=1)
        weights.append(whole.reshape(rank, out, -1))
        appended.append(torch.cat([x, torch.ones(BATCH, 1)], dim=1))
    tensor = torch.einsum("roi,roj,rok->oijk", *weights)
    outer = torch.einsum("bi,bj,bk->bijk", *appended)
    expected = torch.einsum("oijk,bijk->bo", tensor, outer)
    torch.testing.assert_close(fusion(features).features, expected)
    count = sum(parameter.numel() for parameter in fusion.parameters())
    assert count == rank * out * sum(own + 1 for own in widths.values())


def test_film_is_the_published_layer():
    fusion = operator("film", channels(2))  # the condition is s2
    features = random_features(channels(2))
    condition, x = (fusion.projections[name](features[name]) for name in ("s2", "s1"))
    scale, shift = fusion.modulations["s1"](condition).chunk(2, dim=1)
    torch.testing.assert_close(fusion(features).features, (1 + scale) * x + shift)


def test_film_begins_without_modulation_and_learns_it():
    fusion = FiLM(EQUAL)
    assert fusion.condition == "dem"
    features = random_features(EQUAL, "maps")
    fused = fusion(features).features
    torch.testing.assert_close(fused, (features["rgb"] + features["lidar"]) / 2)
    fused.square().sum().backward()
    assert all(parameter.grad.any() for parameter in fusion.parameters())


def test_film_without_its_condition_or_with_nothing_else():
    fusion = operator("film", channels(3))
    features = random_features(channels(3), "maps")
    brought = {name: fusion.projections[name](x) for name, x in features.items()}
    available = {
        "s2": torch.tensor([False, True, True, False]),
        "s1": torch.tensor([True, False, True, False]),
        "aerial": torch.tensor([True, False, False, True]),
    }
    fused = fusion(features, available).features
    torch.testing.assert_close(fused[0], (brought["s1"][0] + brought["aerial"][0]) / 2)
    torch.testing.assert_close(fused[1], brought["s2"][1])
    scale, shift = fusion.modulations["s1"](brought["s2"]).chunk(2, dim=1)
    torch.testing.assert_close(fused[2], ((1 + scale) * brought["s1"] + shift)[2])
    torch.testing.assert_close(fused[3], brought["aerial"][3])


@pytest.mark.parametrize("cls", COMMON)
def test_unequal_widths_need_a_common_one(cls):
    with pytest.raises(InputError, match=rf"{cls.__name__} needs features of one width.*`width:`"):
        cls({"s2": 8, "s1": 4})
    with pytest.raises(InputError, match=rf"{cls.__name__} width must be 1 or more, got 0"):
        cls({"s2": 8, "s1": 4}, width=0)


def test_maps_that_cannot_be_multiplied():
    features = random_features(TWO, grid=(3, 2))
    with pytest.raises(InputError, match=r"as many rows as columns.*'rgb': \(4, 6, 3, 2\).*Hadam"):
        MatMul(TWO)(features)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowRankBilinear(TWO, rank=0), "rank must be 1 or more, got 0"),
        (lambda: LowRankBilinear(TWO, width=0), "LowRankBilinear width must be 1 or more"),
        (lambda: FiLM(TWO, condition="s2"), r"condition.*\['rgb', 'lidar'\], got 's2'"),
        (lambda: AFF(TWO, scale=3), "scale is 1.*or 2.*got 3"),
        (lambda: AFF(TWO, reduction=0), "AFF reduction must be 1 or more"),
        (lambda: IterativeAFF(TWO, reduction=0), "IterativeAFF reduction must be 1 or more"),
        (lambda: Add({"rgb": 6}), "two or more experts"),
    ],
)
def test_mistakes_in_options(make, message):
    with pytest.raises(InputError, match=message):
        make()

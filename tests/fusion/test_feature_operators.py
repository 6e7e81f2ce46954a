"""What holds for every operator over features, whatever the inputs; and the reference's numbers."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.fusion.features import (
    Attention,
    Concat,
    FeatureOperatorFactory,
    Projection,
    Weighted,
)

WIDTHS = {"s2": 8, "s1": 4, "aerial": 8, "dem": 6}
NAMES = tuple(WIDTHS)
BATCH = 4


def channels(m):
    return {name: WIDTHS[name] for name in NAMES[:m]}


def operator(kind, widths, seed=0):
    torch.manual_seed(seed)
    options = {
        "weighted": (Weighted, {}),
        "weighted_fixed": (Weighted, {"weights": {n: 1.0 + i for i, n in enumerate(widths)}}),
        "projection": (Projection, {"width": 10}),
        "attention": (Attention, {"heads": 2}),
        "concat": (Concat, {}),
        "concat_learned": (Concat, {"missing": "learned"}),
    }
    cls, arguments = options[kind]
    built = cls(widths, **arguments)
    with torch.no_grad():
        for parameter in built.parameters():  # away from where it begins, e.g. at equal weights
            parameter.add_(0.3 * torch.randn_like(parameter))
    return built


KINDS = ("weighted", "weighted_fixed", "projection", "attention", "concat", "concat_learned")
CONVEX = ("weighted", "weighted_fixed", "attention")
LAYOUTS = {"vectors": (), "maps": (3, 2)}

number = st.integers(2, 4)
layout = st.sampled_from(sorted(LAYOUTS))
seed = st.integers(0, 10_000)
flags = st.lists(st.booleans(), min_size=BATCH, max_size=BATCH)


def random_features(widths, layout="vectors", seed=0, batch=BATCH):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(batch, width, *LAYOUTS[layout], generator=generator)
        for name, width in widths.items()
    }


def like(there, values):
    return there.reshape(-1, *[1] * (values.ndim - 1))


@pytest.mark.parametrize("kind", KINDS)
@given(number, layout, seed, st.data())
@settings(max_examples=15, deadline=None)
def test_what_is_missing_is_not_read(kind, m, layout, seed, data):
    fusion = operator(kind, channels(m))
    features = random_features(channels(m), layout, seed)
    available = {name: torch.tensor(data.draw(flags)) for name in features}
    expected = fusion(features, available)
    junk = {
        name: torch.where(like(available[name], x), x, torch.full_like(x, float("nan")))
        for name, x in features.items()
    }
    fused = fusion(junk, available)
    assert fused.features.isfinite().all()
    assert torch.equal(fused.features, expected.features)
    assert fused.features.shape == (BATCH, fusion.channels_out, *LAYOUTS[layout])


@pytest.mark.parametrize("missing", ["s1", "aerial", "dem"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_expert_equals_the_model_without_it(kind, layout, missing):
    fusion = operator(kind, channels(4))
    features = random_features(channels(4), layout)
    available = {name: torch.tensor([name != missing, True, True, True]) for name in NAMES}
    fused = fusion(features, available).features

    rest = {name: width for name, width in channels(4).items() if name != missing}
    smaller = operator(kind, rest)
    if kind == "weighted_fixed":
        smaller = Weighted(rest, weights={name: 1.0 + NAMES.index(name) for name in rest})
    state = {k: v for k, v in fusion.state_dict().items() if f".{missing}" not in k}
    if "weight" in state:
        state["weight"] = state["weight"][[NAMES.index(name) for name in rest]]
    smaller.load_state_dict(state)
    expected = smaller({name: features[name] for name in rest}).features
    if kind == "projection":
        expected = expected * 4 / 3
    if kind.startswith("concat"):
        before = sum(WIDTHS[name] for name in NAMES[: NAMES.index(missing)])
        slot = fused[0, before : before + WIDTHS[missing]]
        stand_in = fusion.stand_ins[missing] if kind == "concat_learned" else torch.zeros(())
        assert torch.equal(slot, stand_in.reshape(-1, *[1] * (slot.ndim - 1)).expand_as(slot))
        fused = torch.cat([fused[:, :before], fused[:, before + WIDTHS[missing] :]], dim=1)
    torch.testing.assert_close(fused[0], expected[0])
    if not kind.startswith("concat"):
        assert not torch.allclose(fused[1], expected[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_none_available(kind, layout):
    """Zeros (or what stands in for each), finite gradients, and none of them absent."""
    fusion = operator(kind, channels(3))
    features = {n: x.requires_grad_() for n, x in random_features(channels(3), layout).items()}
    nothing = dict.fromkeys(features, torch.zeros(BATCH, dtype=torch.bool))
    fused = fusion(features, nothing)
    if kind == "concat_learned":
        expected = torch.cat([fusion.stand_ins[name] for name in features])
        expected = expected.reshape(1, -1, *[1] * len(LAYOUTS[layout]))
    else:
        expected = torch.zeros(1)
    assert torch.equal(fused.features, expected.expand_as(fused.features))
    (fused.features.square().sum() + fused.features.sum()).backward()
    for tensor in [*fusion.parameters(), *features.values()]:
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("kind", CONVEX)
@given(number, layout, seed, st.data())
@settings(max_examples=15, deadline=None)
def test_weights_are_shares(kind, m, layout, seed, data):
    fusion = operator(kind, channels(m))
    features = random_features(channels(m), layout, seed)
    available = {name: torch.tensor(data.draw(flags)) for name in features}
    weights = fusion(features, available).weights
    assert list(weights) == list(features)
    anyone = torch.stack(list(available.values())).any(dim=0)
    for name, weight in weights.items():
        assert weight.shape[:2] == (BATCH, 1)
        assert weight.ge(0).all()
        assert (weight[anyone & ~available[name]] == 0).all()
    total = sum(weights.values())
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("kind", ["projection", "concat", "concat_learned"])
def test_operators_without_weights_say_so(kind):
    assert operator(kind, channels(2))(random_features(channels(2))).weights is None


@pytest.mark.parametrize("kind", CONVEX)
def test_one_expert_alone_has_all_the_weight(kind):
    fusion = operator(kind, channels(3))
    features = random_features(channels(3))
    available = {
        n: torch.full((BATCH,), n == "s1", dtype=torch.bool) for n in features
    }  # fmt: skip
    fused = fusion(features, available)
    assert (fused.weights["s1"] == 1).all()
    if kind != "attention":
        torch.testing.assert_close(fused.features, fusion.projections["s1"](features["s1"]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_experts_does_not_matter(kind):
    widths = channels(3)
    features = random_features(widths)
    available = {name: torch.tensor([True, i == 0, i > 0, True]) for i, name in enumerate(widths)}
    fusion = operator(kind, widths)
    expected = fusion(features, available)
    parts = expected.features.split(list(widths.values()), 1) if "concat" in kind else None
    for order in permutations(widths):
        other = operator(kind, {name: widths[name] for name in order})
        if kind == "weighted_fixed":
            weights = {name: 1.0 + i for i, name in enumerate(widths)}
            other = Weighted({name: widths[name] for name in order}, weights=weights)
        state = fusion.state_dict()
        if "weight" in state:
            state["weight"] = state["weight"][[list(widths).index(name) for name in order]]
        other.load_state_dict(state)
        fused = other(dict(reversed(features.items())), available)
        if parts is None:
            torch.testing.assert_close(fused.features, expected.features)
        else:
            by_name = dict(zip(widths, parts, strict=True))
            assert torch.equal(fused.features, torch.cat([by_name[n] for n in order], dim=1))
        for name, weight in (expected.weights or {}).items():
            torch.testing.assert_close(fused.weights[name], weight)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_fused_pixel_by_pixel(kind):
    fusion = operator(kind, channels(3))
    maps = random_features(channels(3), "maps", seed=3)
    available = {name: torch.tensor([True, i == 0, i > 0, False]) for i, name in enumerate(maps)}
    fused = fusion(maps, available)
    for row in range(3):
        for column in range(2):
            pixel = fusion({n: x[:, :, row, column] for n, x in maps.items()}, available)
            torch.testing.assert_close(fused.features[:, :, row, column], pixel.features)
            for name, weight in (fused.weights or {}).items():
                weight = weight.expand(-1, -1, 3, 2)[:, :, row, column]
                torch.testing.assert_close(weight, pixel.weights[name])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter(kind, m, layout):
    fusion = operator(kind, channels(m))
    features = {n: x.requires_grad_() for n, x in random_features(channels(m), layout).items()}
    available = {
        name: torch.tensor([True, True, i != 0, i != 1]) for i, name in enumerate(features)
    }
    available["dem"] = torch.tensor([True, False, True, True])
    fused = fusion(features, available).features
    (fused * torch.randn_like(fused)).sum().backward()
    for name, parameter in [*fusion.named_parameters(), *features.items()]:
        if m == 3 and kind == "concat_learned" and name == "stand_ins.aerial":
            continue  # is always there
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_missing_everywhere_still_has_gradients(kind):
    """Distributed training waits for every parameter's gradient: zero, but not None."""
    fusion = operator(kind, channels(2))
    features = {n: x.requires_grad_() for n, x in random_features(channels(2)).items()}
    available = {"s2": torch.ones(BATCH).bool(), "s1": torch.zeros(BATCH).bool()}
    fusion(features, available).features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in fusion.parameters())
    assert not features["s1"].grad.any()
    assert features["s2"].grad.any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_and_single_samples(kind, layout):
    fusion = operator(kind, channels(3))
    features = random_features(channels(3), layout, batch=1)
    expected = fusion(features).features
    with torch.autocast("cpu", torch.bfloat16):
        half = fusion({name: x.bfloat16() for name, x in features.items()}).features
    torch.testing.assert_close(half.float(), expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_describe_and_build(kind):
    fusion = operator(kind, channels(3))
    again = build(fusion.describe(), FeatureOperatorFactory, channels(3), where="a test")
    twice = build(again.describe(), FeatureOperatorFactory, channels(3), where="a test")
    assert twice.describe() == again.describe()
    again.load_state_dict(fusion.state_dict())
    features = random_features(channels(3))
    assert torch.equal(again(features).features, fusion(features).features)


@pytest.mark.parametrize("name", ["Concat", "Weighted", "Projection", "Attention"])
def test_short_names(name):
    """Those of operators over decisions, as a configuration tells them apart by what is asked."""
    made = build({"class_path": name}, FeatureOperatorFactory, channels(2), where="a test")
    assert type(made).__module__.startswith("fusionlab.fusion.features.")


def test_equal_features_come_out_as_they_are():
    widths = {"s1": 8, "s2": 8}
    x = torch.randn(BATCH, 8)
    assert not list(Weighted(widths, weights=[1, 3]).parameters())
    torch.testing.assert_close(Weighted(widths)({"s1": x, "s2": x}).features, x)


def test_weighted_begins_equal_and_can_be_fixed():
    features = {"s1": torch.ones(1, 8), "s2": torch.zeros(1, 8)}
    widths = {"s1": 8, "s2": 8}
    torch.testing.assert_close(Weighted(widths)(features).features, torch.full((1, 8), 0.5))
    for weights in ([3, 1], {"s2": 1, "s1": 3}):
        fused = Weighted(widths, weights=weights)(features)
        torch.testing.assert_close(fused.features, torch.full((1, 8), 0.75))
    alone = {"s1": torch.tensor([False]), "s2": torch.tensor([True])}
    fused = Weighted(widths, weights={"s1": 1, "s2": 0})(features, alone)
    assert (fused.weights["s2"] == 1).all()


def test_only_attention_weighs_samples_apart():
    widths = channels(3)
    features = random_features(widths, seed=4)
    for kind, differ in (("weighted", False), ("attention", True)):
        weight = operator(kind, widths)(features).weights["s2"]
        assert bool(weight.std() > 1e-3) is differ


def test_learned_stand_ins_begin_at_zero():
    features = random_features(channels(2))
    available = {"s2": torch.tensor([True, False, True, False]), "s1": torch.ones(4).bool()}
    learned = Concat(channels(2), missing="learned")
    assert [tuple(p.shape) for p in learned.parameters()] == [(8,), (4,)]
    expected = Concat(channels(2))(features, available).features
    assert torch.equal(learned(features, available).features, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Concat({"s1": 4}), "two or more experts"),
        (lambda: Concat(channels(2), missing="mean"), r"zeros.*learned.*got mean"),
        (lambda: Weighted(channels(2), weights={"s1": 1.0}), "s2"),
        (lambda: Weighted(channels(2), weights={"s1": -1.0, "s2": 1.0}), "non-negative"),
        (lambda: Weighted(channels(2), weights=[0.0, 0.0]), "must be positive"),
        (lambda: Projection(channels(2), width=0), "Projection width must be 1 or more"),
        (lambda: Attention(channels(2), heads=3), r"width \(8\) must be divisible by heads \(3\)"),
        (lambda: Attention(channels(2), heads=0), "divisible"),
        (lambda: Attention(channels(2), width=-4), "Attention width"),
    ],
)
def test_mistakes_in_options(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_mistakes_in_features():
    fusion = Concat(channels(2))
    features = random_features(channels(2))
    with pytest.raises(InputError, match=r"available = False"):
        fusion({"s2": features["s2"]})
    with pytest.raises(InputError, match=r"widths.*got.*'s1': 5"):
        fusion({**features, "s1": torch.zeros(4, 5)})
    with pytest.raises(InputError, match="one grid"):
        fusion({"s2": torch.zeros(4, 8, 2, 2), "s1": torch.zeros(4, 4, 3, 3)})
    with pytest.raises(InputError, match="one grid"):
        fusion({"s2": torch.zeros(4, 8, 2, 2), "s1": torch.zeros(4, 4)})


# The reference numbers its experts; its weights hold one projection for each that needs one.
REFERENCE = {
    "concat": (Concat, {}),
    "weighted": (
        Weighted,
        {
            "weights": "weight",
            "projections.0.weight": "projections.first.weight",
            "projections.0.bias": "projections.first.bias",
        },
    ),
    "linear_projection": (
        Projection,
        {
            "projections.0.weight": "projections.first.weight",
            "projections.0.bias": "projections.first.bias",
            "projections.1.weight": "projections.second.weight",
            "projections.1.bias": "projections.second.bias",
        },
    ),
}
REFERENCE["linear_projection_16"] = REFERENCE["linear_projection"]


@pytest.mark.shared
@pytest.mark.parametrize("case", REFERENCE)
def test_reference_outputs(shared, case, record_property):
    golden = torch.load(shared / "golden" / "embedding_fusion.pt", weights_only=True)[case]
    cls, names = REFERENCE[case]
    features = dict(zip(("first", "second"), golden["inputs"], strict=True))
    options = {"width": golden["config"]["output_dim"]} if "output_dim" in golden["config"] else {}
    fusion = cls({name: x.shape[1] for name, x in features.items()}, **options)
    assert sum(p.numel() for p in fusion.parameters()) == golden["params"]
    fusion.load_state_dict({names[key]: value for key, value in golden["state_dict"].items()})
    fused = fusion(features).features
    assert fusion.channels_out == golden["outputs"].shape[1]
    record_property("largest_error", error := (fused - golden["outputs"]).abs().max().item())
    print(f"{case}: largest error {error:.2e}")
    torch.testing.assert_close(fused, golden["outputs"], rtol=1e-4, atol=1e-5)


@pytest.mark.shared
def test_every_reference_case_is_covered(shared):
    golden = torch.load(shared / "golden" / "embedding_fusion.pt", weights_only=True)
    assert set(golden) == {*REFERENCE, "linear_head", "mlp_head"}

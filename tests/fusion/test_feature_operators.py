"""What holds for every operator over features, whatever the inputs."""

import copy
import pickle
from itertools import permutations

import pytest
import torch
from feature_operators import (
    BATCH,
    CONVEX,
    KINDS,
    LAYOUTS,
    NAMES,
    NORMALISED,
    ORDERLESS,
    PIXELWISE,
    WIDTHS,
    channels,
    operator,
    random_features,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionlab.component import build
from fusionlab.fusion.features import FeatureOperatorFactory, Weighted

number = st.integers(2, 4)
layout = st.sampled_from(sorted(LAYOUTS))
seed = st.integers(0, 10_000)
flags = st.lists(st.booleans(), min_size=BATCH, max_size=BATCH)


def state_for(fusion, names):
    """The weights of an operator for some of its experts, in another order."""
    positions = [list(fusion.channels).index(name) for name in names]
    gone = [name for name in fusion.channels if name not in names]
    state = fusion.state_dict()
    state = {k: v for k, v in state.items() if not any(f".{name}" in k for name in gone)}
    if "weight" in state:
        state["weight"] = state["weight"][positions]
    if "gate.weight" in state:
        rows = state["gate.weight"].unflatten(0, (-1, fusion.channels_out))
        rows = torch.cat([rows, torch.zeros_like(rows[:1])])[positions]  # the last score is 0
        columns = rows.split(list(fusion.channels.values()), dim=2)
        rows = torch.cat([columns[i] for i in positions], dim=2)
        state["gate.weight"] = (rows[:-1] - rows[-1:]).flatten(0, 1)
    renumbered = {}
    for key, value in state.items():  # attention numbers the experts; the last has none
        before, numbered, after = key.partition("branches.")
        if numbered:
            number, rest = after.split(".", 1)
            if int(number) not in positions:
                continue
            key = f"{before}branches.{positions.index(int(number))}.{rest}"
        renumbered[key] = value
    return renumbered


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


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        (kind, missing)
        for kind in KINDS
        for missing in ("s1", "aerial", "dem")
        if kind not in NORMALISED or missing != "dem"  # in test_attentional_features.py
    ],
)
def test_a_missing_expert_equals_the_model_without_it(kind, layout, missing):
    fusion = operator(kind, channels(4))
    features = random_features(channels(4), layout)
    available = {name: torch.tensor([name != missing, True, True, True]) for name in NAMES}
    fused = fusion(features, available).features

    rest = {name: width for name, width in channels(4).items() if name != missing}
    smaller = operator(kind, rest)
    if kind == "weighted_fixed":
        smaller = Weighted(rest, weights={name: 1.0 + NAMES.index(name) for name in rest})
    smaller.load_state_dict(state_for(fusion, list(rest)))
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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in CONVEX])
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
        alone = fusion.projections["s1"](features["s1"])
        torch.testing.assert_close(fused.features, alone.tanh() if kind == "gated" else alone)


@pytest.mark.parametrize("kind", ORDERLESS)
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
        other.load_state_dict(state_for(fusion, order))
        fused = other(dict(reversed(features.items())), available)
        if parts is None:
            torch.testing.assert_close(fused.features, expected.features)
        else:
            by_name = dict(zip(widths, parts, strict=True))
            assert torch.equal(fused.features, torch.cat([by_name[n] for n in order], dim=1))
        for name, weight in (expected.weights or {}).items():
            torch.testing.assert_close(fused.weights[name], weight)


@pytest.mark.parametrize("kind", PIXELWISE)
def test_maps_are_fused_pixel_by_pixel(kind):
    fusion = operator(kind, channels(3))
    maps = random_features(channels(3), seed=3, grid=(3, 2))
    available = {name: torch.tensor([True, i == 0, i > 0, False]) for i, name in enumerate(maps)}
    fused = fusion(maps, available)
    for row in range(3):
        for column in range(2):
            pixel = fusion({n: x[:, :, row, column] for n, x in maps.items()}, available)
            torch.testing.assert_close(fused.features[:, :, row, column], pixel.features)
            for name, weight in (fused.weights or {}).items():
                weight = weight.expand(-1, -1, 3, 2)[:, :, row, column]
                torch.testing.assert_close(weight, pixel.weights[name])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_maps_of_a_single_cell(kind, training):
    fusion = operator(kind, channels(3)).train(training)
    vectors = random_features(channels(3))
    available = {name: torch.tensor([True, i > 0, True, i < 2]) for i, name in enumerate(vectors)}
    cells = fusion({name: x[:, :, None, None] for name, x in vectors.items()}, available)
    fused = fusion(vectors, available)
    torch.testing.assert_close(cells.features[:, :, 0, 0], fused.features)
    for name, weight in (fused.weights or {}).items():
        torch.testing.assert_close(cells.weights[name][:, :, 0, 0], weight)


def before_batch_norm(fusion):
    """Biases that the mean of a batch takes away again."""
    attention = [n for n, _ in fusion.named_parameters() if "branches" in n and "bias" in n]
    return {n for n in attention if fusion.get_parameter(n.replace("bias", "weight")).ndim == 4}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter(kind, m, layout, training):
    fusion = operator(kind, channels(m)).train(training)
    for name, module in fusion.named_modules():
        if name.endswith(("local_branch.1", "global_branch.2")):  # what passes the ReLU
            torch.nn.init.constant_(module.bias, 3.0)
    features = {n: x.requires_grad_() for n, x in random_features(channels(m), layout).items()}
    available = {
        name: torch.tensor([True, True, i != 0, i != 1]) for i, name in enumerate(features)
    }
    available["dem"] = torch.tensor([True, False, True, True])
    fused = fusion(features, available).features
    (fused * torch.randn_like(fused)).sum().backward()
    idle = before_batch_norm(fusion) if training else set()
    if m == 3 and kind == "concat_learned":
        idle = {"stand_ins.aerial"}  # is always there
    for name, parameter in [*fusion.named_parameters(), *features.items()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name in idle, name
    for name, x in features.items():
        assert not x.grad[~available[name]].any()


@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_missing_everywhere_still_has_gradients(kind):
    """Distributed training waits for every parameter's gradient: zero, but not None."""
    fusion = operator(kind, channels(2)).train()
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
    again.eval().load_state_dict(fusion.state_dict())
    features = random_features(channels(3))
    assert torch.equal(again(features).features, fusion(features).features)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_that_lack_an_expert_change_nothing_for_the_others(kind, training):
    """In training neither, where some operators normalise over the batch."""
    fusion = operator(kind, channels(2)).train(training)
    smaller = copy.deepcopy(fusion)
    features = random_features(channels(2), "maps")
    complete = torch.tensor([True, False, True, False])
    features["s1"][~complete] = float("nan")
    available = {"s2": torch.tensor([True, True, True, False]), "s1": complete}
    fused = fusion(features, available).features
    expected = smaller({name: x[complete] for name, x in features.items()}).features
    torch.testing.assert_close(fused[complete], expected)
    assert fused.isfinite().all()
    for (name, learned), alone in zip(fusion.named_buffers(), smaller.buffers(), strict=True):
        if name.endswith("running_mean"):
            torch.testing.assert_close(learned, alone)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one_trains(kind, layout):
    fusion = operator(kind, channels(3)).train()
    features = random_features(channels(3), layout, batch=1)
    fused = fusion({name: x.requires_grad_() for name, x in features.items()}).features
    assert fused.isfinite().all()
    (fused * torch.randn_like(fused)).sum().backward()
    for tensor in [*fusion.parameters(), *features.values()]:
        assert tensor.grad.isfinite().all()
    assert all(buffer.isfinite().all() for buffer in fusion.buffers())


@pytest.mark.parametrize("kind", KINDS)
def test_copies_answer_alike(kind):
    fusion = operator(kind, channels(3))
    features = random_features(channels(3))
    expected = fusion(features).features
    for copied in (copy.deepcopy(fusion), pickle.loads(pickle.dumps(fusion))):
        assert torch.equal(copied(features).features, expected)
        assert copied.describe() == fusion.describe()
        for own, original in zip(copied.parameters(), fusion.parameters(), strict=True):
            assert own is not original


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_depends_on_who_is_there(kind):
    """One graph serves all: what was recorded with all there answers for other subsets."""
    fusion = operator(kind, channels(3)).train(kind in NORMALISED)
    features = random_features(channels(3), "maps")
    everyone = {name: torch.ones(BATCH, dtype=torch.bool) for name in features}
    graph = torch.export.export(copy.deepcopy(fusion), (features, everyone)).module()
    available = {name: torch.tensor([True, True, i > 1, i < 1]) for i, name in enumerate(features)}
    expected = fusion(features, available)
    recorded = graph(features, available)
    torch.testing.assert_close(recorded.features, expected.features)
    assert (recorded.weights is None) == (expected.weights is None)

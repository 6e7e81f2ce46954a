"""What holds for every operator, whatever the inputs."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionlab.component import build
from fusionlab.fusion import (
    MSCAM,
    Attentional,
    Average,
    ClassWeighted,
    Concat,
    FixedWeighted,
    FusionFactory,
    Gated,
    ModalityWeighted,
)
from fusionlab.fusion.pointwise import BatchNorm2d

NAMES = ("aerial", "sentinel2", "sentinel1", "dem")
CLASSES = ("building", "water", "vineyard")


def operators(m):
    """One of each, for m modalities, with weights that differ."""
    names = NAMES[:m]
    torch.manual_seed(m)
    init = {"vineyard": [0.1 + i for i in range(m)]}
    built = {
        "average": Average(names, CLASSES),
        "fixed": FixedWeighted(names, CLASSES, weights=[1.0 + i for i in range(m)]),
        "modality_weighted": ModalityWeighted(names, CLASSES, init_weights=init["vineyard"]),
        "class_weighted": ClassWeighted(names, CLASSES, init_class_weights=init),
        "gated": Gated(names, CLASSES, class_priors={"water": 0.9}),
        "gated_cloud": Gated(names, CLASSES, cloud_cover=names[1]),
        "concat": Concat(names, CLASSES),
        "attentional": Attentional(names, CLASSES, reduction=2),
    }
    return built


KINDS = tuple(operators(2))
CONVEX = tuple(kind for kind in KINDS if kind != "concat")
STATIC = ("average", "fixed", "modality_weighted", "class_weighted")
SHAPES = {"maps": (4, 3, 5, 6), "vectors": (4, 3)}

number = st.integers(2, 4)
layout = st.sampled_from(sorted(SHAPES))
seed = st.integers(0, 10_000)


def random_logits(m, layout, seed, batch=4):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *SHAPES[layout][1:])
    return {name: 3 * torch.randn(shape, generator=generator) for name in NAMES[:m]}


def like(flags, values):
    return flags.reshape(-1, *[1] * (values.ndim - 1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", CONVEX)
@given(number, layout, seed)
@settings(max_examples=15, deadline=None)
def test_equal_inputs_come_out_as_they_are(kind, training, m, layout, seed):
    fusion = operators(m)[kind].train(training)
    x = random_logits(2, layout, seed)["aerial"]
    torch.testing.assert_close(fusion(dict.fromkeys(NAMES[:m], x)).logits, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@given(number, layout, seed, st.data())
@settings(max_examples=15, deadline=None)
def test_what_is_missing_takes_no_part(kind, training, m, layout, seed, data):
    """Alone: the expert's own logits, exactly. None: zeros. Values of a missing one are unread."""
    fusion = operators(m)[kind].train(training)
    logits = random_logits(m, layout, seed)
    alone = data.draw(st.integers(0, m - 1))
    available = {
        name: torch.tensor([i == alone, False, True, data.draw(st.booleans())])
        for i, name in enumerate(NAMES[:m])
    }
    fused = fusion(logits, available)
    assert torch.equal(fused.logits[0], logits[NAMES[alone]][0])
    assert torch.equal(fused.logits[1], torch.zeros_like(fused.logits[1]))
    assert fused.logits.isfinite().all()
    junk = {
        name: torch.where(like(available[name], x), x, torch.full_like(x, float("nan")))
        for name, x in logits.items()
    }
    fusion = operators(m)[kind].train(training)
    assert torch.equal(fusion(junk, available).logits, fused.logits)


@pytest.mark.parametrize("kind", CONVEX)
@given(number, layout, seed, st.data())
@settings(max_examples=15, deadline=None)
def test_weights_are_shares_and_make_the_result(kind, m, layout, seed, data):
    fusion = operators(m)[kind]
    logits = random_logits(m, layout, seed)
    flags = st.lists(st.booleans(), min_size=4, max_size=4)
    available = {name: torch.tensor(data.draw(flags)) for name in NAMES[:m]}
    fused = fusion(logits, available)
    torch.testing.assert_close(
        sum(fused.weights.values()).broadcast_to(fused.logits.shape),
        torch.ones_like(fused.logits),
    )
    anyone = torch.stack(list(available.values())).any(dim=0)
    for name, weight in fused.weights.items():
        missing = like(anyone & ~available[name], fused.logits)
        assert torch.all(
            weight.broadcast_to(fused.logits.shape)[missing.expand_as(fused.logits)] == 0
        )
    there = {name: torch.where(like(available[name], x), x, 0) for name, x in logits.items()}
    total = sum(fused.weights[name] * there[name] for name in there)
    torch.testing.assert_close(fused.logits, total)


@pytest.mark.parametrize("kind", STATIC)
def test_order_of_modalities_only_permutes_weights(kind):
    names = NAMES[:3]
    shares = dict(zip(names, (1.0, 2.0, 5.0), strict=True))
    options = {
        "average": {},
        "fixed": {"weights": shares},
        "modality_weighted": {"init_weights": shares},
        "class_weighted": {"init_class_weights": dict.fromkeys(CLASSES, shares)},
    }
    cls = {
        "average": Average,
        "fixed": FixedWeighted,
        "modality_weighted": ModalityWeighted,
        "class_weighted": ClassWeighted,
    }[kind]
    logits = random_logits(3, "maps", 0)
    expected = cls(names, CLASSES, **options[kind])
    for order in permutations(names):
        fusion = cls(order, CLASSES, **options[kind])
        torch.testing.assert_close(fusion(logits).logits, expected(logits).logits)
        for name, share in fusion.class_weights().items():
            torch.testing.assert_close(share, expected.class_weights()[name])


@pytest.mark.parametrize("kind", STATIC)
def test_class_weights_are_those_applied(kind):
    fusion = operators(3)[kind]
    weights = fusion(random_logits(3, "maps", 0)).weights
    for name, share in fusion.class_weights().items():
        assert share.shape == (3,)
        torch.testing.assert_close(
            share[:, None, None].expand(3, 5, 6), weights[name][0].broadcast_to(3, 5, 6)
        )


@pytest.mark.parametrize("kind", ["gated", "concat", "attentional"])
def test_no_static_weights(kind):
    assert operators(2)[kind].class_weights() is None


def test_two_modalities_are_a_sigmoid():
    logits = random_logits(2, "maps", 3)
    a, s = logits.values()
    gated = operators(2)["gated"].eval()
    gate = gated.gate(torch.cat([a, s], dim=1)).sigmoid()
    torch.testing.assert_close(gated(logits).logits, gate * a + (1 - gate) * s)
    attentional = operators(2)["attentional"].eval()
    m = attentional.attention[0](a + s)
    torch.testing.assert_close(attentional(logits).logits, m * a + (1 - m) * s)


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter(kind, m, layout):
    # Batch statistics would cancel the convolutions' biases.
    fusion = operators(m)[kind].eval()
    torch.manual_seed(1)
    for module in fusion.modules():
        if isinstance(module, BatchNorm2d):  # a bottleneck of one channel may be dead by chance
            torch.nn.init.constant_(module.bias, 5.0)
    logits = {name: x.requires_grad_() for name, x in random_logits(m, layout, 5).items()}
    (fusion(logits).logits * torch.randn(SHAPES[layout])).sum().backward()
    for name, parameter in [*fusion.named_parameters(), *logits.items()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_with_nothing_there(kind, layout):
    """And every parameter has one, as distributed training demands."""
    fusion = operators(3)[kind]
    logits = {name: x.requires_grad_() for name, x in random_logits(3, layout, 5).items()}
    nothing = dict.fromkeys(NAMES[:3], torch.zeros(4, dtype=torch.bool))
    result = fusion(logits, nothing).logits
    assert torch.equal(result, torch.zeros_like(result))
    (result.square().sum() + result.sum()).backward()
    for tensor in [*fusion.parameters(), *logits.values()]:
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_trains_with_batch_size_one(kind, layout):
    fusion = operators(2)[kind].train()
    logits = {n: x.requires_grad_() for n, x in random_logits(2, layout, 7, batch=1).items()}
    result = fusion(logits).logits
    result.square().sum().backward()
    assert result.isfinite().all()
    for tensor in [*fusion.parameters(), *logits.values()]:
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16(kind):
    logits = {name: x.bfloat16() for name, x in random_logits(3, "maps", 7).items()}
    with torch.autocast("cpu", torch.bfloat16):
        assert operators(3)[kind](logits).logits.isfinite().all()


def test_batch_norm_differs_only_for_single_values():
    ours, torchs = BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    x = torch.randn(2, 3, 1, 1)
    torch.testing.assert_close(ours(x), torchs(x))
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    single = ours(x[:1])
    torch.testing.assert_close(single, ours.eval()(x[:1]))
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def test_ms_cam_is_attention():
    attention = MSCAM(8)(torch.randn(2, 8, 4, 4))
    assert attention.shape == (2, 8, 4, 4)
    assert attention.gt(0).all()
    assert attention.lt(1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_describe_and_build(kind):
    fusion = operators(3)[kind].eval()
    again = build(fusion.describe(), FusionFactory, NAMES[:3], CLASSES, where="a test").eval()
    twice = build(again.describe(), FusionFactory, NAMES[:3], CLASSES, where="a test")
    assert twice.describe() == again.describe()
    again.load_state_dict(fusion.state_dict())
    logits = random_logits(3, "maps", 2)
    assert torch.equal(again(logits).logits, fusion(logits).logits)

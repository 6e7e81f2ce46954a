"""Attention between tokens: what holds whatever they are, and that it is torch's own."""

import copy
import pickle
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.fusion.features import CrossAttention, FeatureOperatorFactory
from fusionlab.fusion.features.cross_attention import grid_positions
from fusionlab.types import Tokens

WIDTHS = {"image": 8, "caption": 6, "site": 4}
COUNTS = {"image": 6, "caption": 5, "site": 3}
NAMES = tuple(WIDTHS)
BATCH, WIDTH = 4, 8
seed = st.integers(0, 10_000)


def operator(names=NAMES, **options) -> CrossAttention:
    torch.manual_seed(0)
    made = CrossAttention(
        {name: WIDTHS[name] for name in names}, **{"width": WIDTH, "heads": 2, **options}
    )
    with torch.no_grad():
        for parameter in made.parameters():  # away from biases of 0 and gains of 1
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made.eval()


def tokens(names=NAMES, seed=0, batch=BATCH) -> dict[str, Tokens]:
    """Of the caption only some are valid, in every sample at least one."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name in names:
        n = COUNTS[name]
        values = torch.randn(batch, n, WIDTHS[name], generator=generator)
        valid = torch.ones(batch, n, dtype=torch.bool)
        if name == "caption":
            valid = torch.rand(batch, n, generator=generator) < 0.6
            valid[:, 0] = True
        made[name] = Tokens(values, valid, (2, 3) if name == "image" else None)
    return made


def there(**missing) -> dict[str, torch.Tensor]:
    """Availability, with the samples named that miss an expert."""
    return {
        name: torch.tensor([i not in missing.get(name, ()) for i in range(BATCH)]) for name in NAMES
    }


def test_it_is_torchs_attention_with_residual_norm_and_mean():
    """Of two experts, written out with functions and the weights of the operator."""
    fusion = operator(("image", "caption"))
    given = tokens(("image", "caption"))
    parts = {}
    projected = {
        name: nn.functional.linear(x.values, p.weight, p.bias)
        for (name, x), p in zip(given.items(), fusion.projections.values(), strict=True)
    }
    projected["image"] = projected["image"] + grid_positions(2, 3, WIDTH, device="cpu")
    for asking, asked in (("image", "caption"), ("caption", "image")):
        own = fusion.attentions[asking]
        said, weights = nn.functional.multi_head_attention_forward(
            projected[asking].transpose(0, 1), projected[asked].transpose(0, 1),
            projected[asked].transpose(0, 1), WIDTH, 2, own.in_proj_weight, own.in_proj_bias,
            None, None, False, 0.0, own.out_proj.weight, own.out_proj.bias,
            training=False, key_padding_mask=~given[asked].valid,
        )  # fmt: skip
        mixed = fusion.norms[asking](projected[asking] + said.transpose(0, 1))
        valid = given[asking].valid[..., None]
        parts[asking] = (mixed * valid).sum(1) / valid.sum(1)
        found = fusion(given).attention[asking, asked]
        torch.testing.assert_close(found, weights * valid)
    expected = torch.cat([parts["image"], parts["caption"]], dim=1)
    torch.testing.assert_close(fusion(given).features, expected)


def test_heads_are_averaged_in_the_weights():
    fusion = operator(("image", "caption"), heads=4)
    given = tokens(("image", "caption"))
    one_by_one = []
    own = fusion.attentions["image"]
    queries = fusion._projected("image", given["image"])
    keys = fusion._projected("caption", given["caption"])
    weight, bias = own.in_proj_weight, own.in_proj_bias
    q = nn.functional.linear(queries, weight[:WIDTH], bias[:WIDTH])
    k = nn.functional.linear(keys, weight[WIDTH : 2 * WIDTH], bias[WIDTH : 2 * WIDTH])
    for part in range(4):
        rows = slice(2 * part, 2 * part + 2)
        scores = q[..., rows] @ k[..., rows].transpose(1, 2) / 2**0.5
        scores = scores.masked_fill(~given["caption"].valid[:, None], -torch.inf)
        one_by_one.append(scores.softmax(dim=-1))
    expected = torch.stack(one_by_one).mean(dim=0)
    torch.testing.assert_close(fusion(given).attention["image", "caption"], expected)


@given(seed, st.permutations(NAMES))
@settings(max_examples=10, deadline=None)
def test_the_order_of_experts_only_orders_the_parts_of_the_result(seed, order):
    fusion, other = operator(), operator(tuple(order))
    other.load_state_dict(fusion.state_dict())
    given = tokens(seed=seed)
    found, moved = fusion(given), other({name: given[name] for name in order})
    parts = dict(zip(NAMES, found.features.split(WIDTH, dim=1), strict=True))
    torch.testing.assert_close(moved.features, torch.cat([parts[name] for name in order], dim=1))
    for pair in permutations(NAMES, 2):
        torch.testing.assert_close(moved.attention[pair], found.attention[pair])


@given(seed, st.integers(1, 4), st.booleans())
@settings(max_examples=10, deadline=None)
def test_padding_changes_nothing(seed, more, in_front):
    fusion = operator()
    given = tokens(seed=seed)
    values, valid, _ = given["caption"]
    junk = torch.full((BATCH, more, WIDTHS["caption"]), torch.nan)
    none = torch.zeros(BATCH, more, dtype=torch.bool)
    order = slice(None, None, -1) if in_front else slice(None)
    longer = Tokens(torch.cat([values, junk][order], 1), torch.cat([valid, none][order], 1))
    found, padded = fusion(given), fusion({**given, "caption": longer})
    torch.testing.assert_close(padded.features, found.features)
    kept = slice(more, None) if in_front else slice(COUNTS["caption"])
    for pair in permutations(NAMES, 2):
        weights = padded.attention[pair]
        if pair[1] == "caption":
            weights = weights[:, :, kept]
        if pair[0] == "caption":
            weights = weights[:, kept]
        torch.testing.assert_close(weights, found.attention[pair])


@given(seed, st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=4, max_size=4))
@settings(max_examples=15, deadline=None)
def test_weights_are_shares_of_what_is_there(seed, flags):
    fusion = operator()
    available = dict(zip(NAMES, torch.tensor(flags).T, strict=True))
    given = tokens(seed=seed)
    found = fusion(given, available)
    assert found.weights is None
    assert found.features.isfinite().all()
    assert set(found.attention) == set(permutations(NAMES, 2))
    for (asking, asked), weights in found.attention.items():
        assert weights.shape == (BATCH, COUNTS[asking], COUNTS[asked])
        assert (weights >= 0).all()
        both = given[asking].valid & (available[asking] & available[asked])[:, None]
        torch.testing.assert_close(weights.sum(dim=2), both.float())
        assert (weights.transpose(1, 2)[~given[asked].valid] == 0).all()


def test_what_is_missing_is_not_read():
    fusion = operator()
    given, available = tokens(), there(caption=(0, 2), image=(1,), site=(0, 1))
    junk = {
        name: x._replace(values=torch.where(available[name][:, None, None], x.values, torch.nan))
        for name, x in given.items()
    }
    found, again = fusion(given, available), fusion(junk, available)
    assert torch.equal(found.features, again.features)
    parts = dict(zip(NAMES, found.features.split(WIDTH, dim=1), strict=True))
    for name, part in parts.items():
        assert (part[~available[name]] == 0).all()
        assert (part[available[name]] != 0).any(dim=1).all()


@pytest.mark.parametrize("gone", NAMES)
def test_a_missing_expert_equals_the_operator_without_it(gone):
    fusion = operator()
    rest = tuple(name for name in NAMES if name != gone)
    smaller = operator(rest)
    state = {k: v for k, v in fusion.state_dict().items() if f".{gone}." not in k}
    smaller.load_state_dict(state)
    given = tokens()
    found = fusion(given, there(**{gone: range(BATCH)}))
    parts = dict(zip(NAMES, found.features.split(WIDTH, dim=1), strict=True))
    expected = smaller({name: given[name] for name in rest})
    torch.testing.assert_close(torch.cat([parts[n] for n in rest], 1), expected.features)
    for pair, weights in expected.attention.items():
        torch.testing.assert_close(found.attention[pair], weights)


def test_one_expert_alone_answers_by_its_own_tokens():
    fusion = operator()
    given = tokens()
    alone = fusion(given, there(caption=range(BATCH), site=range(BATCH)))
    own = fusion.norms["image"](fusion._projected("image", given["image"])).mean(dim=1)
    torch.testing.assert_close(alone.features[:, :WIDTH], own)
    assert (alone.features[:, WIDTH:] == 0).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gone", [(), ("caption",), ("image", "site"), NAMES])
def test_gradients_reach_every_parameter_whoever_is_missing(gone, training):
    """None is absent, on which DDP would wait, and all are finite; junk has none."""
    fusion = operator(dropout=0.2).train(training)
    given = {n: x._replace(values=x.values.requires_grad_()) for n, x in tokens().items()}
    found = fusion(given, there(**{name: range(BATCH) for name in gone}))
    assert (found.attention is None) == training
    (found.features * torch.randn(found.features.shape)).sum().backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not gone:
            assert parameter.grad.abs().sum() > 0, name
    for name, x in given.items():
        assert bool((x.values.grad != 0).any()) == (name not in gone)
        assert (x.values.grad[~x.valid] == 0).all()


def test_training_and_evaluation_agree():
    fusion = operator()
    given, available = tokens(), there(caption=(0,), site=(0, 1))
    evaluated = fusion(given, available).features
    trained = fusion.train()(given, available).features
    torch.testing.assert_close(trained, evaluated)


def test_positions_tell_patches_apart():
    """Without them attention cannot: moved patches give moved weights and the same result."""
    given = tokens()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    image = given["image"]
    moved = {**given, "image": image._replace(values=image.values[:, order])}
    blind = operator(positions=False)
    torch.testing.assert_close(blind(moved).features, blind(given).features)
    found = blind(moved).attention["caption", "image"]
    torch.testing.assert_close(found, blind(given).attention["caption", "image"][:, :, order])
    assert not torch.allclose(operator()(moved).features, operator()(given).features)


@pytest.mark.parametrize("width", [8, 10, 3])
def test_positions_of_a_grid(width):
    positions = grid_positions(4, 5, width, device="cpu")
    assert positions.shape == (20, width)
    assert positions.abs().max() <= 1
    if width >= 4:
        assert len({tuple(row) for row in positions.tolist()}) == 20
        grid = positions.reshape(4, 5, width)
        half = 2 * (width // 4)
        assert (grid[:, :1, :half] == grid[:, :, :half]).all()  # the same along a row
        assert (grid[:1, :, half:] == grid[:, :, half:]).all()


def test_described_copied_and_pickled():
    fusion = operator(positions=False, dropout=0.1)
    again = build(fusion.describe(), FeatureOperatorFactory, fusion.channels, where="a test").eval()
    again.load_state_dict(fusion.state_dict())
    assert fusion.channels_out == again.channels_out == 3 * WIDTH
    for other in (again, copy.deepcopy(fusion), pickle.loads(pickle.dumps(fusion))):
        assert torch.equal(other(tokens()).features, fusion(tokens()).features)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"width": 10, "heads": 4}, r"\(10\) must be divisible by heads \(4\)"),
     ({"heads": 0}, "divisible by heads"), ({"dropout": 1.0}, r"share in \[0, 1\)")],
)  # fmt: skip
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        operator(**options)

"""Pooling the maps of several dates: what padding, order and missing dates may change."""

import copy
import pickle
from itertools import pairwise

import pytest
import torch
from torch import nn

from fusionlab.backbones.dates import PooledDates, encode_days, masked_softmax, put_back
from fusionlab.component import Backbone
from fusionlab.errors import InputError
from fusionlab.features import Feature

POOLINGS = ["mean", "max", "attention"]


class TinyMaps(Backbone):
    """Two maps, from convolutions with batch statistics."""

    features = (Feature(6, 2.0), Feature(10, 4.0))
    out_channels = (6, 10)
    multiple = 4

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.GELU())
            for a, b in pairwise((3, 6, 10))
        )

    def parameter_layers(self):
        return {name: int(name.split(".")[1]) for name, _ in self.named_parameters()}

    def forward(self, images):
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps


class TinyTokens(nn.Module):
    """One sequence of tokens, a class token in front."""

    features = (Feature(7, 4.0, "NLC"),)
    out_channels = (7,)

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 7, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 7))
        self.norm = nn.LayerNorm(7)
        self.mix = nn.MultiheadAttention(7, 1, batch_first=True)

    def forward(self, images):
        patches = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(patches), -1, -1), patches], dim=1)
        tokens = self.norm(tokens)
        return [self.mix(tokens, tokens, tokens)[0]]


class BareMaps(nn.Module):
    """As a third party's: it says the widths of its maps and nothing else."""

    def __init__(self):
        super().__init__()
        self.out_channels = [6]
        self.features = nn.Conv2d(3, 6, 3, padding=1)  # a layer, not a description

    def forward(self, images):
        return [self.features(images)]


def create(pooling, network=TinyMaps):
    """With queries that prefer something, unlike those of initialisation."""
    torch.manual_seed(0)
    model = PooledDates(network(), pooling)
    for query in model.queries.parameters():
        nn.init.normal_(query, std=3.0)
    return model


def series(batch=2, times=4, size=(8, 12)):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, times, 3, *size, generator=generator),
        torch.randint(18_000, 19_000, (batch, times), generator=generator),
        torch.ones(batch, times, dtype=torch.bool),
    )


def with_padding(given, frames, fill, *, in_front=False):
    batch, _, *image = given[0].shape
    padding = (
        torch.full((batch, frames, *image), fill),
        torch.randint(0, 20_000, (batch, frames)),
        torch.zeros(batch, frames, dtype=torch.bool),
    )
    parts = (padding, given) if in_front else (given, padding)
    return tuple(torch.cat(pair, 1) for pair in zip(*parts, strict=True))


def hiding(given, sample, dates):
    valid = given[2].clone()
    valid[sample, dates] = False
    return (*given[:2], valid)


@pytest.fixture(params=[TinyMaps, TinyTokens, BareMaps])
def network(request):
    return request.param


@pytest.mark.parametrize("pooling", POOLINGS)
def test_attributes_are_those_of_the_backbone(pooling):
    model = create(pooling)
    assert model.features == TinyMaps.features
    assert model.out_channels == [6, 10]
    assert model.multiple == 4
    layers = model.parameter_layers()
    assert layers["backbone.stages.1.0.weight"] == 1
    assert set(layers) <= {name for name, _ in model.named_parameters()}


def test_a_backbone_that_says_little_is_taken_as_giving_maps():
    model = create("attention", BareMaps)
    assert model.features == (Feature(6),)
    assert model.multiple == 1
    assert model.parameter_layers() == {}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("fill", [0.0, 1e30, float("nan"), float("inf")])
@pytest.mark.parametrize("in_front", [False, True])
def test_padding_changes_nothing(network, pooling, fill, in_front):
    # In training: batch statistics must not see padding either.
    plain, padded = (create(pooling, network).train() for _ in range(2))
    given = hiding(series(), 0, 1)
    expected = plain(*given)
    answers = padded(*with_padding(given, 5, fill, in_front=in_front))
    torch.testing.assert_close(answers, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        dict(padded.named_buffers()), dict(plain.named_buffers()), rtol=0, atol=1e-6
    )
    for maps in (expected, answers):
        sum(m.square().mean() for m in maps).backward()
    torch.testing.assert_close(
        [p.grad for p in padded.parameters()],
        [p.grad for p in plain.parameters()],
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_backbone_sees_the_valid_dates_and_nothing_else(pooling):
    model = create(pooling)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    model(*hiding(with_padding(series(), 9, 1.0), 0, 1))
    assert seen == [(7, 3, 8, 12)]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_masked_date_counts_as_absent(network, pooling):
    model = create(pooling, network).eval()
    given = series()
    with torch.no_grad():
        masked = model(*hiding(given, 0, 1))
        without = model(*(part[:1, [0, 2, 3]] for part in given))
    torch.testing.assert_close([m[:1] for m in masked], without, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_order_of_dates_does_not_matter(network, pooling):
    model = create(pooling, network).eval()
    given = series()
    shuffled = tuple(part[:, [2, 0, 3, 1]] for part in given)
    with torch.no_grad():
        torch.testing.assert_close(model(*shuffled), model(*given), rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_only_attention_looks_at_the_dates_and_only_at_the_day_of_the_year(network, pooling):
    model = create(pooling, network).eval()
    values, _, valid = series()
    dates = torch.tensor([[17_532, 17_600, 17_700, 17_800]] * 2)  # from 2018-01-01 on
    with torch.no_grad():
        expected = model(values, dates, valid)
        next_year = model(values, dates + 365, valid)
        unlike = model(values, dates * torch.tensor([1, 2, 1, 1]), valid)
    torch.testing.assert_close(next_year, expected, rtol=0, atol=0)
    changes = max((a - b).abs().max() for a, b in zip(unlike, expected, strict=True))
    assert (changes > 1e-3) == (pooling == "attention")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_equal_images_give_what_one_gives(network, pooling):
    model = create(pooling, network).eval()
    values, dates, valid = series()
    repeated = values[:, :1].expand(-1, 4, -1, -1, -1)
    with torch.no_grad():
        pooled = model(repeated, dates, valid)
        alone = model.backbone(values[:, 0])
        single = model(*(part[:, :1] for part in (values, dates, valid)))
    torch.testing.assert_close(pooled, alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(single, alone, rtol=0, atol=1e-6)


def test_pooling_is_what_it_says(network):
    given = hiding(series(), 0, 1)
    for pooling, combine in (("mean", lambda m: m.mean(0)), ("max", lambda m: m.amax(0))):
        model = create(pooling, network).eval()
        with torch.no_grad():
            for sample in range(2):
                maps = model.backbone(given[0][sample][given[2][sample]])
                expected = [combine(m) for m in maps]
                pooled = [m[sample] for m in model(*given)]
                torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-6)


def test_attention_begins_as_the_mean(network):
    torch.manual_seed(0)
    model = PooledDates(network(), "attention").eval()
    mean = PooledDates(model.backbone, "mean").eval()
    given = hiding(series(), 0, 1)
    with torch.no_grad():
        torch.testing.assert_close(model(*given), mean(*given), rtol=0, atol=1e-6)


def test_attention_weights_every_place_by_itself():
    model = create("attention", BareMaps).eval()
    values, dates, valid = series()
    changed = values.clone()
    changed[:, 1, :, :3, :3] += 5
    with torch.no_grad():
        difference = (model(changed, dates, valid)[0] - model(values, dates, valid)[0]).abs()
    assert difference[..., :4, :4].max() > 0.01
    assert not difference[..., 4:, :].any()
    assert not difference[..., :, 4:].any()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_sample_without_dates_gives_zeros(network, pooling):
    model = create(pooling, network).train()
    given = hiding(series(), 1, slice(None))
    given[0][1] = float("nan")
    maps = model(*given)
    assert all(not m[1].any() and m[0].any() for m in maps)
    sum((m - 1).square().mean() for m in maps).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("times", [0, 4])
def test_a_batch_without_dates_gives_zeros_and_trains_nothing(network, pooling, times):
    model = create(pooling, network).train()
    expected = [m.shape for m in model(*series())]
    before = copy.deepcopy(dict(model.named_buffers()))
    values, dates, valid = (part[:, :times] for part in series())
    maps = model(values, dates, torch.zeros_like(valid))
    assert [m.shape for m in maps] == expected
    assert not any(m.any() for m in maps)
    sum((m - 1).square().mean() for m in maps).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    torch.testing.assert_close(dict(model.named_buffers()), before, rtol=0, atol=0)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradient_reaches_every_parameter(network, pooling):
    model = create(pooling, network).train()
    weights = torch.Generator().manual_seed(2)
    maps = model(*series())
    sum((m * torch.randn(m.shape, generator=weights)).sum() for m in maps).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_queries_learn_from_their_beginning_at_zero():
    torch.manual_seed(0)
    model = PooledDates(TinyMaps(), "attention")
    maps = model(*series())
    sum((m * torch.randn_like(m)).sum() for m in maps).backward()
    assert all(p.grad.any() for p in model.queries.parameters())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_bf16_autocast(network, pooling):
    model = create(pooling, network).eval()
    given = with_padding(series(), 2, float("nan"))
    with torch.no_grad():
        expected = model(*given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            maps = model(*given)
    for m, e in zip(maps, expected, strict=True):
        torch.testing.assert_close(m.float(), e, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_copies_and_pickles_answer_the_same(pooling):
    model = create(pooling).eval()
    with torch.no_grad():
        expected = model(*series())
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(other(*series()), expected, rtol=0, atol=0)


@pytest.mark.slow
def test_compiles_in_parts():
    model = create("attention").eval()
    compiled = torch.compile(model, backend="aot_eager")
    given = hiding(with_padding(series(), 3, 1.0), 0, 1)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*given), model(*given), rtol=0, atol=1e-6)


def test_codes_are_those_of_the_paper():
    # Position p, number i of d: sin or cos of p / T ** (2 * floor(i / 2) / d).
    codes = encode_days(torch.tensor([[0, 100], [-3, 400]]), 4)
    assert codes.shape == (2, 2, 4)
    assert codes[0, 0].tolist() == [0.0, 1.0, 0.0, 1.0]
    slow = 100 / 1000**0.5
    expected = torch.tensor([100.0, 100.0, slow, slow])
    expected = torch.where(torch.tensor([True, False] * 2), expected.sin(), expected.cos())
    torch.testing.assert_close(codes[0, 1], expected)


def test_masked_softmax_and_its_gradient_without_valid_dates():
    scores = torch.randn(2, 3, 4, requires_grad=True)
    valid = torch.tensor([[True, False, True, True], [False] * 4])
    weights = masked_softmax(scores, valid, axis=2)
    torch.testing.assert_close(weights[0, :, valid[0]], scores[0, :, valid[0]].softmax(-1))
    assert not weights[1].any()
    weights.square().sum().backward()
    assert scores.grad.isfinite().all()
    assert not scores.grad[1].any()


def test_what_was_gathered_is_put_back():
    values = torch.randn(2, 3, 5)
    valid = torch.tensor([[True, False, True], [False, False, True]])
    expected = values.masked_fill(~valid[..., None], 0.0)
    assert torch.equal(put_back(values[valid], valid), expected)


def test_what_cannot_be_pooled_is_refused():
    with pytest.raises(InputError, match=r"\['mean', 'max', 'attention'\], got 'median'"):
        PooledDates(TinyMaps(), "median")
    with pytest.raises(InputError, match="no list `out_channels`"):
        PooledDates(nn.Conv2d(3, 3, 1), "mean")
    network = TinyMaps()
    network.features = (Feature(6, layout="LNC"),)
    with pytest.raises(InputError, match=r"first axis are the samples.*'LNC'"):
        PooledDates(network, "mean")

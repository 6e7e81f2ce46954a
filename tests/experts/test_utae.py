"""U-TAE against the reference's numbers, and what it promises beyond them."""

import copy
import pickle
import re

import pytest
import torch
from embedding_experts import save_expert
from torch import nn

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.experts import FrozenExpert
from fusionlab.experts.base import ExpertFactory
from fusionlab.experts.ltae import MaskedGroupNorm
from fusionlab.experts.utae import UTAE
from fusionlab.types import Modality, Schema, TimeSeries

CLASSES = [f"class {i}" for i in range(5)]
WIDTHS = {"encoder_widths": (8, 8, 16), "decoder_widths": (8, 8, 16), "head_widths": (8,)}
SMALL = {**WIDTHS, "heads": 4, "dim": 16}  # as the reference's
CERTAIN = {"dropout": 0.0, "attention_dropout": 0.0}
# From the start of a name to its end; a convolution, its norm and its ReLU follow an edge of ours.
REFERENCE_NAMES = [
    (r"^in_conv\.", "encoder.0."),
    (r"^out_conv\.", "head."),
    (r"^temporal_encoder\.(attention_heads\.)?", "temporal."),
    (r"^(up_blocks\.\d+)\.conv1\.", r"\1.join."),
    (r"^(down_blocks\.\d+)\.conv1\.", r"\1.change."),
    (r"^up_blocks\.", "decoder."),
    (r"^down_blocks\.(\d+)", lambda found: f"encoder.{int(found[1]) + 1}"),
    (r"\.down\.", ".shrink."),
    (r"\.up\.", ".enlarge."),
    (r"\.skip_conv\.", ".enter."),
    (r"\.conv2\.", ".refine."),
    (r"\.(conv\.)+(\d+)\.", lambda found: f".{int(found[2]) // 3 * 4 + int(found[2]) % 3 + 1}."),
    (r"\.Q$", ".queries"),
    (r"\.fc1_k\.", ".keys."),
    (r"\.inconv\.", ".embed."),
    (r"\.in_norm\.", ".norm."),
]


def renamed(key):
    for theirs, ours in REFERENCE_NAMES:
        key = re.sub(theirs, ours, key)
    return key


def schema(bands=3, classes=CLASSES):
    names = tuple(f"B{i}" for i in range(bands))
    return Schema({"sentinel2": Modality(names, gsd=10.0, temporal=True)}, classes)


def create(**options):
    torch.manual_seed(0)
    return UTAE(schema(), **SMALL | options)


def series(batch=2, times=4, size=(12, 20), bands=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TimeSeries(
        torch.randn(batch, times, bands, *size, generator=generator),
        torch.randint(17_500, 18_500, (batch, times), generator=generator),
        torch.ones(batch, times, dtype=torch.bool),
    )


def with_padding(given, frames, fill, *, in_front=False):
    """The same series with frames added that are not observations."""
    batch, _, *image = given.values.shape
    padding = TimeSeries(
        torch.full((batch, frames, *image), fill),
        torch.randint(0, 20_000, (batch, frames)),
        torch.zeros(batch, frames, dtype=torch.bool),
    )
    parts = (padding, given) if in_front else (given, padding)
    return TimeSeries(*(torch.cat(pair, 1) for pair in zip(*parts, strict=True)))


def hiding(given, sample, dates):
    valid = given.valid.clone()
    valid[sample, dates] = False
    return given._replace(valid=valid)


@pytest.fixture(scope="module")
def model():
    """A network whose statistics are not those of initialisation."""
    model = create(**CERTAIN).train()
    with torch.no_grad():
        for seed in range(20):
            model.logits(series(seed=seed + 1))
    return model.eval()


@pytest.fixture
def reference(shared):
    stored = torch.load(shared / "golden/utae.pt", weights_only=True)
    model = UTAE(schema(bands=4), **SMALL, reference_date="1970-01-01")
    weights = {renamed(key): value for key, value in stored["state_dict"].items()}
    # A convolution of width 1 there, a linear layer here.
    weights["temporal.embed.weight"] = weights["temporal.embed.weight"].squeeze(-1)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.startswith("inputs.") for name in missing)
    values, days = stored["inputs"]
    given = TimeSeries(values, days.long(), values.flatten(2).any(dim=2))
    return model.eval(), given, stored["outputs"]["eval"]


@pytest.mark.shared
def test_gives_the_reference_numbers(reference):
    model, given, expected = reference
    assert given.valid.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    with torch.no_grad():
        logits = model.logits(given)
        alone = model.logits(TimeSeries(*(part[1:, :3] for part in given)))
    torch.testing.assert_close(logits[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits[1:], alone, rtol=1e-4, atol=1e-5)
    assert (logits[1] - expected[1]).abs().mean() > 0.1  # the reference's padding leaks


@pytest.mark.shared
def test_nothing_but_the_mask_of_the_norm_differs_from_the_reference(reference, monkeypatch):
    # Given every date as valid, the normalisation leaks as the reference's does.
    model, given, expected = reference
    masked = MaskedGroupNorm.forward
    monkeypatch.setattr(
        MaskedGroupNorm, "forward", lambda self, x, valid: masked(self, x, torch.ones_like(valid))
    )
    with torch.no_grad():
        torch.testing.assert_close(model.logits(given), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("classes", "count"), [(13, 1_085_223), (19, 1_086_969), (20, 1_087_260)])
def test_parameter_count_is_the_published_one(classes, count):
    model = UTAE(schema(10, [f"class {i}" for i in range(classes)]))
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("fill", [0.0, 7.0, 1e30, float("nan"), float("inf")])
@pytest.mark.parametrize("in_front", [False, True])
def test_padding_changes_nothing(model, fill, in_front):
    given = series()
    with torch.no_grad():
        expected = model.logits(given)
        padded = model.logits(with_padding(given, 30, fill, in_front=in_front))
    assert expected.std() > 0.1
    torch.testing.assert_close(padded, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("aggregation", ["att_group", "att_mean", "mean"])
def test_padding_changes_nothing_in_training_either(aggregation):
    results, gradients, seen = [], [], []
    given = hiding(series(), 0, 2)
    for shown in (given, with_padding(given, 30, float("nan"))):
        model = create(aggregation=aggregation, **CERTAIN).train()
        model.encoder[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
        logits = model.logits(shown)
        logits.square().mean().backward()
        results.append({"logits": logits.detach(), **dict(model.named_buffers())})
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert seen == [(7, 3, 12, 20)] * 2  # convolutions see the valid dates and nothing else
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-6)
    # Small next to what they stand beside: a bias before a norm has none but rounding errors.
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("aggregation", ["att_group", "att_mean", "mean"])
def test_order_of_dates_does_not_matter_but_dates_do(aggregation):
    model = create(aggregation=aggregation).eval()
    given = series()
    shuffled = TimeSeries(*(part[:, [2, 0, 3, 1]] for part in given))
    with torch.no_grad():
        expected = model.logits(given)
        torch.testing.assert_close(model.logits(shuffled), expected, rtol=0, atol=1e-5)
        assert not torch.equal(model.logits(given._replace(dates=given.dates + 100)), expected)


def test_positions_count_from_the_reference_date():
    given = series()
    a_year_later = given._replace(dates=given.dates + 365)
    early, late = (create(reference_date=d).eval() for d in ("2018-09-01", "2019-09-01"))
    with torch.no_grad():
        assert torch.equal(early.logits(given), late.logits(a_year_later))
        assert not torch.equal(early.logits(given), early.logits(a_year_later))


@pytest.mark.parametrize("training", [True, False])
def test_a_sample_without_observations_is_left_out(training):
    given = hiding(series(), 1, slice(None))
    given.values[1] = float("nan")
    together, alone = (create(**CERTAIN).train(training) for _ in range(2))
    logits = together.logits(given)
    expected = alone.logits(TimeSeries(*(part[:1] for part in given)))
    assert not logits[1].any()
    torch.testing.assert_close(logits[:1], expected, rtol=0, atol=1e-6)
    statistics = (dict(model.named_buffers()) for model in (together, alone))
    torch.testing.assert_close(*statistics, rtol=0, atol=1e-6)
    logits.square().mean().backward()
    assert all(p.grad.isfinite().all() for p in together.parameters())
    assert not together.features(given)[1].any()


@pytest.mark.parametrize("times", [0, 4])
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_without_observations_trains_nothing_but_gives_gradients(training, times):
    model = create().train(training)
    before = copy.deepcopy(dict(model.named_buffers()))
    logits = model.logits(hiding(series(times=times), slice(None), slice(None)))
    (logits - 1).square().mean().backward()
    assert logits.shape == (2, 5, 12, 20)
    assert not logits.any()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    torch.testing.assert_close(dict(model.named_buffers()), before, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(10, 10), (24, 40), (40, 40), (1, 1), (7, 33)])
def test_default_widths_take_any_size(size):
    torch.manual_seed(0)
    model = UTAE(schema(), dropout=0.0).train()
    given = series(batch=1, times=2, size=size)
    logits = model.logits(given)
    logits.square().mean().backward()
    assert logits.shape == (1, 5, *size)
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    if size in {(24, 40), (40, 40)}:  # multiples of 8: nothing is padded
        assert model.attention(given).shape[-2:] == (size[0] // 8, size[1] // 8)


def test_small_images_are_padded_by_reflection_and_cropped_back(model):
    # Three stages: 5 x 6 pixels grow to 8 x 8, from below and from the right.
    given = series(size=(5, 6))
    rows, columns = [0, 1, 2, 3, 4, 3, 2, 1], [0, 1, 2, 3, 4, 5, 4, 3]
    grown = given._replace(values=given.values[..., rows, :][..., columns])
    with torch.no_grad():
        expected = model.logits(grown)[..., :5, :6]
        torch.testing.assert_close(model.logits(given), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_gradient_reaches_every_parameter_whatever_the_stages(stages):
    widths = (16, 16, 32)[:stages]
    model = create(encoder_widths=widths, decoder_widths=widths).train()
    logits = model.logits(series(size=(5, 9)))
    logits.square().mean().backward()
    assert logits.shape == (2, 5, 5, 9)
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_attention_sums_to_one_over_valid_dates(model):
    given = with_padding(hiding(series(size=(10, 18)), 0, 2), 2, float("nan"))
    valid = given.valid.clone()
    model = copy.deepcopy(model).train()  # where asking must not change statistics
    before = copy.deepcopy(dict(model.named_buffers()))
    with torch.no_grad():
        attention = model.attention(given)
        nothing = model.attention(hiding(given, 1, slice(None)))
    torch.testing.assert_close(dict(model.named_buffers()), before, rtol=0, atol=0)
    assert attention.shape == (4, 2, 6, 3, 5)
    assert not attention.movedim(0, -1)[~valid].any()
    torch.testing.assert_close(attention.sum(2), torch.ones(4, 2, 3, 5))
    assert attention[:, 1, :4].std(dim=1).max() > 0.01  # dates do not all count alike
    assert not nothing[:, 1].any()
    torch.testing.assert_close(nothing[:, 0], attention[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("aggregation", ["att_group", "att_mean", "mean"])
def test_skips_are_pooled_by_the_enlarged_attention_after_its_dropout(aggregation):
    model = create(aggregation=aggregation, attention_dropout=0.5).train()
    maps, attention, skips = [], [], []
    model.encoder[0].register_forward_hook(lambda *args: maps.append(args[2]))
    model.temporal.register_forward_hook(lambda *args: attention.append(args[2][1]))
    model.decoder[-1].register_forward_pre_hook(lambda _, args: skips.append(args[1]))
    given = hiding(series(batch=1), 0, 2)
    with torch.no_grad():
        model.logits(given)
    weights = attention[0][:, 0, given.valid[0]]  # heads, dates, h, w
    assert 0.3 < (weights == 0).float().mean() < 0.7
    enlarged = nn.functional.interpolate(weights, (12, 20), mode="bilinear")
    per_channel = {
        "att_group": enlarged.repeat_interleave(2, dim=0),  # 8 channels, 4 heads
        "att_mean": enlarged.mean(dim=0, keepdim=True),
        "mean": torch.full((1, 3, 1, 1), 1 / 3),
    }[aggregation]
    expected = (maps[0].transpose(0, 1) * per_channel).sum(dim=1)
    torch.testing.assert_close(skips[0][0], expected, rtol=0, atol=1e-6)


def test_features_are_the_map_before_the_head(model):
    given = series()
    with torch.no_grad():
        maps = model.features(given, pooled=False)
        assert maps.shape == (2, model.embedding_dim, 12, 20)
        torch.testing.assert_close(model.features(given), maps.mean((-2, -1)))
        torch.testing.assert_close(model.head(maps), model.logits(given))
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other.features(given, pooled=False), maps)


def test_without_classes_there_is_no_head(model):
    bare = UTAE(schema(classes=()), **SMALL).eval()
    dropped = copy.deepcopy(model)
    dropped.drop_head()
    bare.load_state_dict(dropped.state_dict())
    with torch.no_grad():
        assert torch.equal(bare.features(series()), model.features(series()))
    for without in (bare, dropped):
        with pytest.raises(InputError, match="gives features only"):
            without.logits(series())
    assert not bare.trained
    bare.train().features(series()).sum().backward()
    assert all(p.grad is not None for p in bare.parameters())


def test_frozen_it_gives_features_that_may_be_kept(model, tmp_path):
    path = save_expert(model, tmp_path / "utae.ckpt", schema())
    frozen = FrozenExpert(schema(classes=()), checkpoint=path).train()
    with torch.no_grad():
        assert torch.equal(frozen.features(series()), model.features(series()))
    assert frozen.fingerprint() == FrozenExpert(schema(classes=()), checkpoint=path).fingerprint()
    assert model.fingerprint() is None
    again = build(frozen.describe(), ExpertFactory, schema(classes=()), where="test")
    again.load_state_dict(frozen.state_dict())
    with torch.no_grad():
        assert torch.equal(again.features(series()), frozen.features(series()))


@pytest.mark.parametrize("training", [True, False])
def test_bf16_autocast(model, training):
    model = copy.deepcopy(model).train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.logits(with_padding(series(), 3, float("nan")))
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.float(), model.logits(series()), rtol=0.1, atol=0.2)


@pytest.mark.slow
def test_exports_whole_with_any_dates(model):
    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.expert = model

        def forward(self, values, dates, valid):
            return self.expert.logits(TimeSeries(values, dates, valid))

    times = torch.export.Dim("times", min=2, max=64)
    exported = torch.export.export(
        Logits(), tuple(hiding(series(), 0, 1)), dynamic_shapes=[{1: times}] * 3
    ).module()
    for given in (series(), with_padding(hiding(series(), 0, slice(None)), 3, 1.0)):
        with torch.no_grad():
            torch.testing.assert_close(exported(*given), model.logits(given), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_compiles(model, training):
    model = copy.deepcopy(model).train(training)
    compiled = torch.compile(model.logits, backend="aot_eager", fullgraph=not training)
    given = with_padding(hiding(series(), 0, 1), 3, 1.0)
    gathers = torch._dynamo.config.patch(capture_dynamic_output_shape_ops=not training)
    with torch.no_grad(), gathers:
        torch.testing.assert_close(compiled(given), model.logits(given), rtol=0, atol=1e-5)


def test_single_images_are_refused(model):
    images = Schema({"aerial": Modality(("red",), gsd=0.2)}, CLASSES)
    with pytest.raises(InputError, match="takes time series"):
        UTAE(images)
    for ask in (model.logits, model.features, model.attention):
        with pytest.raises(InputError, match="TimeSeries"):
            ask(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_widths": (8, 16)}, "name the same stages"),
        ({"encoder_widths": (8, 8, 32)}, "end in the same"),
        ({"encoder_widths": (6, 8, 16)}, r"multiples of 4, got \[6\]"),
        ({"decoder_widths": (0, 8, 16)}, "1 or more"),
        ({"heads": 16}, r"the encoder_widths \[8, 8\] do not divide by 16"),
        ({"heads": 16, "aggregation": "mean"}, "at least 32"),
        ({"heads": 0}, "0 heads"),
        ({"heads": 0, "aggregation": "mean"}, "at least one head"),
        ({"dim": 20}, r"twice the heads \(2 x 4\)"),
        ({"key_dim": 0}, "key_dim"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
        ({"aggregation": "sum"}, "att_group"),
        ({"reference_date": "September"}, "2018-09-01"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        create(**options)

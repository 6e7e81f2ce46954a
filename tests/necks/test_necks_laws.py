"""What holds for every neck, and what each of them computes."""

import copy
import pickle
from collections.abc import Sequence

import pytest
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from fusionlab.component import build
from fusionlab.features import Feature
from fusionlab.necks import (
    NECKS,
    AddBottleneckLayer,
    AggregateTokens,
    FeaturePyramid,
    Flatten,
    InterpolateToPyramidal,
    LearnedInterpolateToPyramidal,
    MaxpoolToPyramidal,
    NeckFactory,
    PermuteDims,
    ReshapeTokensToImage,
    SelectIndices,
)
from fusionlab.necks.base import Neck
from fusionlab.necks.tokens import token_grid

SIZE = (64, 128)  # not a square, a multiple of every stride
PATCHES = 8 * 16  # of stride 8
ONE_SCALE = [Feature(8, 8)] * 4
PYRAMID = [Feature(4, 4), Feature(6, 8), Feature(8, 16)]
TOKENS = [Feature(8, 8, "NLC")] * 2
CASES = {
    "SelectIndices": (SelectIndices, PYRAMID, {"indices": [-1, 0]}),
    "PermuteDims": (PermuteDims, [Feature(8, 8, "NHWC")], {"new_order": [0, 3, 1, 2]}),
    "InterpolateToPyramidal": (InterpolateToPyramidal, ONE_SCALE, {"mode": "bicubic"}),
    "interpolated by 3": (InterpolateToPyramidal, ONE_SCALE[:2], {"scale_factor": 3}),
    "MaxpoolToPyramidal": (MaxpoolToPyramidal, ONE_SCALE, {}),
    "ReshapeTokensToImage": (ReshapeTokensToImage, TOKENS, {"prefix_tokens": 5}),
    "without prefix": (ReshapeTokensToImage, TOKENS, {"remove_cls_token": False}),
    "dates": (ReshapeTokensToImage, TOKENS, {"effective_time_dim": 3}),
    "AddBottleneckLayer": (AddBottleneckLayer, PYRAMID, {}),
    "LearnedInterpolateToPyramidal": (LearnedInterpolateToPyramidal, ONE_SCALE, {}),
    "AggregateTokens": (AggregateTokens, TOKENS, {"pooling": "both", "indices": [-1]}),
    "pooled maps": (AggregateTokens, PYRAMID, {"pooling": "max"}),
    "Flatten": (Flatten, PYRAMID, {"size": [8, 16], "index": 1}),
    "FeaturePyramid": (FeaturePyramid, PYRAMID, {"channels": 8}),
    "simple pyramid": (FeaturePyramid, [Feature(8, 16)], {"channels": 8}),
}
TRAINED = (
    "AddBottleneckLayer",
    "LearnedInterpolateToPyramidal",
    "FeaturePyramid",
    "simple pyramid",
)


def tensors(features: Sequence[Feature], size=SIZE, prefix=0, dates=1, batch=2):
    """As a backbone gives them."""
    made = []
    for channels, stride, layout in features:
        rows, columns = (round(side / stride) for side in size)
        lengths = {"N": batch, "C": channels, "H": rows, "W": columns}
        lengths["L"] = prefix + dates * rows * columns
        made.append(torch.randn([lengths[axis] for axis in layout]))
    return made


def example(case):
    torch.manual_seed(0)
    cls, features, options = CASES[case]
    neck = cls(features, **options)
    prefix, dates = getattr(neck, "prefix", 0), getattr(neck, "dates", 1)
    return neck, tensors(features, prefix=prefix, dates=dates)


def test_every_neck_is_tested():
    assert {cls for cls, _, _ in CASES.values()} == set(NECKS.own.values())
    assert all(name == cls.__name__ for name, cls in NECKS.own.items())


@pytest.mark.parametrize("case", CASES)
def test_a_neck_gives_what_it_describes(case):
    neck, given = example(case)
    kept = [tensor.clone() for tensor in given]
    results = neck(given, SIZE)
    assert isinstance(results, list)
    assert len(results) == len(neck.features)
    for result, described in zip(results, neck.features, strict=True):
        assert result.ndim == len(described.layout)
        assert result.shape[described.layout.index("C")] == described.channels
        if described.layout == "NCHW":
            rows, columns = result.shape[-2:]
            assert (rows * described.stride, columns * described.stride) == SIZE
    widths = [feature.channels for feature in neck.received]
    assert neck.process_channel_list(widths) == [feature.channels for feature in neck.features]
    assert len(given) == len(kept)
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_copies_and_descriptions_give_the_same(case):
    neck, given = example(case)
    expected = neck.eval()(given, SIZE)
    twins = [copy.deepcopy(neck), pickle.loads(pickle.dumps(neck))]
    twins.append(build(neck.describe(), NeckFactory, neck.received, where="a test"))
    for twin in twins:
        twin.load_state_dict(neck.state_dict())
        assert twin.features == neck.features
        results = twin.eval()(given, SIZE)
        assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_samples_do_not_see_each_other(case):
    neck, given = example(case)
    together = neck.eval()(given, SIZE)
    alone = neck([tensor[1:] for tensor in given], SIZE)
    for both, one in zip(together, alone, strict=True):
        torch.testing.assert_close(both[1:], one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_exported_it_gives_the_same(case):
    class Fixed(torch.nn.Module):
        def __init__(self, neck):
            super().__init__()
            self.neck = neck

        def forward(self, *features):
            return self.neck(list(features), SIZE)

    neck, given = example(case)
    exported = torch.export.export(Fixed(neck.eval()), tuple(given), strict=False).module()
    for result, expected in zip(exported(*given), neck(given, SIZE), strict=True):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("case", TRAINED)
def test_gradient_reaches_every_parameter(case):
    neck, given = example(case)
    sum((result * torch.randn_like(result)).sum() for result in neck(given, SIZE)).backward()
    assert list(neck.parameters())
    for name, parameter in neck.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("case", TRAINED)
def test_a_single_small_sample_trains(case):
    cls, features, options = CASES[case]
    side = 2 * max(feature.stride for feature in features)
    results = cls(features, **options)(tensors(features, (side, side), batch=1), (side, side))
    assert all(result.isfinite().all() for result in results)


def test_a_neck_keeps_nothing_of_what_it_saw():
    neck, given = example("ReshapeTokensToImage")
    before = {key: value for key, value in vars(neck).items() if not key.startswith("_")}
    neck(given, SIZE)
    neck(tensors(TOKENS, (32, 16), prefix=5), (32, 16))
    assert before == {key: value for key, value in vars(neck).items() if not key.startswith("_")}


# Tokens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [None, 8])
@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("dates", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (64, 96), (8, 40), (120, 56)])
def test_tokens_become_the_maps_they_came_from(stride, prefix, dates, size):
    rows, columns = size[0] // 8, size[1] // 8
    maps = torch.randn(2, dates * 5, rows, columns)  # the first date's channels first
    tokens = rearrange(maps, "b (t e) h w -> b (t h w) e", t=dates)
    tokens = torch.cat([torch.randn(2, prefix, 5), tokens], dim=1)
    options = {"prefix_tokens": prefix, "effective_time_dim": dates}
    neck = ReshapeTokensToImage([Feature(5, stride, "NLC")], **options)
    (result,) = neck([tokens], size)
    assert torch.equal(result, maps)
    assert neck.features == (Feature(5 * dates, stride),)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    stride=st.sampled_from([1, 3.5, 7, 14, 16]),
    prefix=st.integers(0, 9),
    dates=st.integers(1, 4),
)
def test_the_grid_is_found_without_the_stride(rows, columns, stride, prefix, dates):
    size = [round(2 * rows * stride), round(2 * columns * stride)]
    told = {"prefix": prefix, "dates": dates, "image_size": size, "where": "a test"}
    tokens = prefix + dates * 4 * rows * columns
    for known in (stride, None):
        assert token_grid(tokens, stride=known, **told) == (2 * rows, 2 * columns)


def test_remove_cls_token_is_the_reference_s_name_for_one_prefix_token():
    tokens = [torch.randn(2, 1 + PATCHES, 8)] * 2
    by_name = ReshapeTokensToImage(TOKENS, remove_cls_token=True)(tokens, SIZE)
    by_number = ReshapeTokensToImage(TOKENS, prefix_tokens=1)(tokens, SIZE)
    by_default = ReshapeTokensToImage(TOKENS)(tokens, SIZE)
    assert torch.equal(by_name[0], by_number[0])
    assert torch.equal(by_name[0], by_default[0])


def test_aggregated_tokens():
    tokens = torch.randn(2, 5 + PATCHES, 8)
    for pooling, expected in {
        "token": tokens[:, 0],
        "mean": tokens[:, 5:].mean(1),
        "max": tokens[:, 5:].max(1).values,
        "both": torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], 1),
    }.items():
        neck = AggregateTokens(TOKENS, pooling=pooling, prefix_tokens=5)
        first, second = neck([tokens, 2 * tokens], SIZE)
        torch.testing.assert_close(first, expected)
        torch.testing.assert_close(second, 2 * expected)
        assert neck.features == (Feature(expected.shape[1], None, "NC"),) * 2
    last = AggregateTokens(TOKENS, indices=[-1], prefix_tokens=5)
    assert len(last.features) == 1
    torch.testing.assert_close(last([tokens, -tokens], SIZE)[0], -tokens[:, 5:].mean(1))


def test_aggregated_tokens_do_not_depend_on_the_order_of_patches():
    tokens = torch.randn(2, 1 + PATCHES, 8)
    shuffled = torch.cat([tokens[:, :1], tokens[:, 1:][:, torch.randperm(PATCHES)]], 1)
    neck = AggregateTokens(TOKENS[:1], pooling="both")
    torch.testing.assert_close(neck([tokens], SIZE), neck([shuffled], SIZE))


def test_aggregated_maps_equal_aggregated_tokens_without_prefix():
    maps = torch.randn(2, 8, 8, 16)
    for pooling in ("mean", "max"):
        of_maps = AggregateTokens(ONE_SCALE[:1], pooling=pooling)([maps], SIZE)
        neck = AggregateTokens(TOKENS[:1], pooling=pooling, prefix_tokens=0)
        torch.testing.assert_close(of_maps, neck([rearrange(maps, "b c h w -> b (h w) c")], SIZE))


def test_a_flattened_map_can_be_folded_again():
    neck, given = example("Flatten")
    (vectors,) = neck(given, SIZE)
    assert torch.equal(rearrange(vectors, "b (c h w) -> b c h w", c=6, h=8), given[1])
    assert neck.image_size == SIZE
    assert Flatten([Feature(4)], size=8).image_size is None  # of an unknown stride


# Pyramids -----------------------------------------------------------------------------------------


def test_learned_interpolation_leaves_the_third_map_and_pools_the_fourth():
    neck, given = example("LearnedInterpolateToPyramidal")
    results = neck(given, SIZE)
    assert torch.equal(results[2], given[2])
    squares = rearrange(given[3], "b c (h i) (w j) -> b c h w (i j)", i=2, j=2)
    assert torch.equal(results[3], squares.amax(-1))


def test_the_top_down_pyramid_sums_what_is_coarser():
    neck = FeaturePyramid([Feature(4, 4), Feature(4, 8), Feature(4, 16)], channels=4)
    assert neck.top_down
    with torch.no_grad():
        for conv in [*neck.pyramid.laterals, *neck.pyramid.smooth]:
            torch.nn.init.dirac_(conv.weight)
            conv.bias.zero_()
    fine, middle, coarse = given = tensors(neck.received)
    results = neck(given, SIZE)

    def repeated(maps, times):
        return maps.repeat_interleave(times, -1).repeat_interleave(times, -2)

    torch.testing.assert_close(results[2], coarse)
    torch.testing.assert_close(results[1], middle + repeated(coarse, 2))
    torch.testing.assert_close(results[0], fine + repeated(middle, 2) + repeated(coarse, 4))


def test_information_flows_from_coarse_to_fine_only():
    neck, given = example("FeaturePyramid")
    before = neck(given, SIZE)
    for changed in range(3):
        altered = [maps + (i == changed) for i, maps in enumerate(given)]
        after = neck(altered, SIZE)
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [i > changed for i in range(3)]


def test_the_simple_pyramid_by_the_paper_s_formula():
    neck, (maps,) = example("simple pyramid")
    assert not neck.top_down
    part = neck.pyramid

    def norm(values, layer):
        mean, variance = values.mean(1, keepdim=True), values.var(1, correction=0, keepdim=True)
        scaled = (values - mean) / (variance + 1e-6).sqrt()
        return scaled * layer.weight[:, None, None] + layer.bias[:, None, None]

    up1, first_norm, _, up2 = part.enlarge_by_4
    torch.nn.init.normal_(first_norm.weight)
    hidden = F.conv_transpose2d(maps, up1.weight, up1.bias, stride=2)
    hidden = F.gelu(norm(hidden, first_norm))
    double = part.enlarge_by_2
    scales = [
        F.conv_transpose2d(hidden, up2.weight, up2.bias, stride=2),
        F.conv_transpose2d(maps, double.weight, double.bias, stride=2),
        maps,
        F.max_pool2d(maps, 2),
    ]
    results = neck([maps], SIZE)
    assert [feature.stride for feature in neck.features] == [4, 8, 16, 32]
    for scale, (conv1, norm1, conv3, norm3), result in zip(
        scales, part.project, results, strict=True
    ):
        narrow = norm(F.conv2d(scale, conv1.weight), norm1)
        expected = norm(F.conv2d(narrow, conv3.weight, padding=1), norm3)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_of_maps_of_one_scale_the_feature_pyramid_takes_the_last():
    neck = FeaturePyramid(ONE_SCALE, channels=8)
    assert not neck.top_down
    given = tensors(ONE_SCALE)
    before = neck(given, SIZE)
    after = neck([torch.zeros_like(maps) for maps in given[:3]] + given[3:], SIZE)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert [feature.stride for feature in neck.features] == [2, 4, 8, 16]


def test_maps_of_unknown_strides_make_a_top_down_pyramid():
    known = FeaturePyramid(PYRAMID, channels=8)
    unknown = FeaturePyramid([Feature(f.channels) for f in PYRAMID], channels=8)
    unknown.load_state_dict(known.state_dict())
    given = tensors(PYRAMID)
    for a, b in zip(known(given, SIZE), unknown(given, SIZE), strict=True):
        assert torch.equal(a, b)
    assert [feature.stride for feature in unknown.features] == [None] * 3


def test_necks_follow_each_other():
    """Tokens of a plain transformer to a pyramid that every decoder takes."""
    tokens = [Feature(8, 16, "NLC")] * 5
    necks: list[Neck] = [SelectIndices(tokens, indices=[1, 2, 3, 4])]
    necks.append(ReshapeTokensToImage(necks[-1].features))
    necks.append(LearnedInterpolateToPyramidal(necks[-1].features))
    given = tensors(tokens, prefix=1)
    for neck in necks:
        given = neck(given, SIZE)
    assert necks[-1].features == (Feature(2, 4), Feature(4, 8), Feature(8, 16), Feature(8, 32))
    assert [maps.shape[-2:] for maps in given] == [(16, 32), (8, 16), (4, 8), (2, 4)]

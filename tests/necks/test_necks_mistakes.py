"""Features that do not fit are refused when a neck is built, with the remedy."""

import pytest
import torch

from fusionlab.errors import InputError
from fusionlab.features import Feature
from fusionlab.necks import (
    AddBottleneckLayer,
    AggregateTokens,
    FeaturePyramid,
    Flatten,
    InterpolateToPyramidal,
    LearnedInterpolateToPyramidal,
    MaxpoolToPyramidal,
    PermuteDims,
    ReshapeTokensToImage,
    SelectIndices,
)

MAPS = [Feature(8, 16)] * 4
TOKENS = [Feature(8, 16, "NLC")] * 4
PYRAMID = [Feature(8, 4), Feature(8, 8), Feature(8, 16), Feature(8, 32)]
TAKE_MAPS = (
    InterpolateToPyramidal,
    MaxpoolToPyramidal,
    LearnedInterpolateToPyramidal,
    AddBottleneckLayer,
    FeaturePyramid,
)
TO_PYRAMID = TAKE_MAPS[:3]


@pytest.mark.parametrize("cls", TAKE_MAPS)
@pytest.mark.parametrize(
    ("layout", "remedy"),
    [
        ("NLC", "ReshapeTokensToImage before it"),
        ("NHWC", r"PermuteDims\(new_order=\[0, 3, 1, 2\]\) before it"),
        ("NC", "leave out the neck that pooled"),
        ("NTCHW", "Add necks before it"),
    ],
)
def test_what_is_no_map_is_refused(cls, layout, remedy):
    features = [*MAPS[:3], Feature(8, 16, layout)]
    message = rf"{cls.__name__} takes maps \(NCHW\), but feature 3 of 4 is laid out as .*{layout}"
    with pytest.raises(InputError, match=f"(?s){message}.*{remedy}"):
        cls(features)


def test_the_proposed_permutation_is_the_right_one():
    neck = PermuteDims([Feature(8, 16, "NHWC")], new_order=[0, 3, 1, 2])
    InterpolateToPyramidal(neck.features)
    with pytest.raises(InputError, match=r"new_order=\[1, 0, 2\]"):
        ReshapeTokensToImage([Feature(8, 16, "LNC")])


@pytest.mark.parametrize("cls", TO_PYRAMID)
def test_a_pyramid_needs_not_be_made_again(cls):
    with pytest.raises(InputError, match=r"strides \[4, 8, 16, 32\].*leave this neck out"):
        cls(PYRAMID)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelectIndices([], indices=[0]), "SelectIndices gets no features"),
        (lambda: SelectIndices([Feature(0)], indices=[0]), "feature 0 has 0"),
        (lambda: SelectIndices(MAPS, indices=[4]), r"0 to 3, or -1 to -4.*Got \[4\]"),
        (lambda: SelectIndices(MAPS, indices=[-5]), "-1 to -4"),
        (lambda: SelectIndices(MAPS, indices=[]), r"Got \[\]"),
        (lambda: SelectIndices(MAPS, indices=2), "list of positions.*Got 2"),
        (lambda: SelectIndices(MAPS, indices=["0"]), r"Got \['0'\]"),
        (lambda: PermuteDims(MAPS, new_order=[0, 1, 2]), r"feature 0 \(NCHW\) once.*\[0, 1, 2\]"),
        (lambda: PermuteDims(MAPS, new_order=[0, 1, 2, 2]), "once"),
        (lambda: PermuteDims(MAPS, new_order=[0, 1, 2, 4]), "0 to 3 in some order"),
        (lambda: PermuteDims(MAPS, new_order=[0, 1, 2, 3, 3]), "once"),
        (lambda: PermuteDims(MAPS, new_order=3), "got 3"),
        (lambda: PermuteDims([*MAPS, *TOKENS], new_order=[0, 2, 3, 1]), "feature 4"),
        (lambda: InterpolateToPyramidal(MAPS, scale_factor=1), "scale_factor.* 2 or more, got 1"),
        (lambda: InterpolateToPyramidal(MAPS, scale_factor=1.5), "integer.*1.5"),
        (lambda: InterpolateToPyramidal(MAPS, mode="linear"), "mode is one of.*'linear'"),
        (lambda: MaxpoolToPyramidal(MAPS, kernel_size=1), "kernel_size.* 2 or more"),
        (lambda: ReshapeTokensToImage(MAPS), "maps already: leave ReshapeTokensToImage out"),
        (lambda: ReshapeTokensToImage(TOKENS, prefix_tokens=-1), "prefix_tokens.* 0 or more"),
        (lambda: ReshapeTokensToImage(TOKENS, effective_time_dim=0), "effective_time_dim.* 1 or"),
        (
            lambda: ReshapeTokensToImage(TOKENS, prefix_tokens=5, remove_cls_token=False),
            "contradict",
        ),
        (
            lambda: ReshapeTokensToImage(TOKENS, prefix_tokens=0, remove_cls_token=True),
            "contradict",
        ),
        (lambda: AddBottleneckLayer([Feature(1)]), "half of the last one's channels.*has 1"),
        (lambda: LearnedInterpolateToPyramidal(MAPS[:3]), "exactly four.*gets 3.*FeaturePyramid"),
        (lambda: LearnedInterpolateToPyramidal(MAPS + MAPS), "gets 8.*SelectIndices"),
        (lambda: LearnedInterpolateToPyramidal([Feature(3)] * 4), "only 3 and 3"),
        (lambda: AggregateTokens(TOKENS, pooling="sum"), "pooling is one of.*'sum'"),
        (lambda: AggregateTokens(TOKENS, indices=[4]), "0 to 3"),
        (lambda: AggregateTokens(TOKENS, pooling="token", prefix_tokens=0), "class token.*0 pref"),
        (lambda: AggregateTokens(MAPS, pooling="both"), r"class token.*feature 0 \(NCHW"),
        (lambda: AggregateTokens([Feature(8, None, "NC")]), r"tokens \(NLC\) or maps.*\(NC\)"),
        (lambda: FeaturePyramid(PYRAMID[::-1]), r"strides \[32, 16, 8, 4\].*SelectIndices"),
        (lambda: FeaturePyramid([*PYRAMID, PYRAMID[-1]]), "get coarser"),
        (lambda: FeaturePyramid([Feature(3, 16)]), "only 3.*InterpolateToPyramidal"),
        (lambda: FeaturePyramid(PYRAMID, channels=0), "channels must be an integer of 1"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        make()


def test_other_widths_than_it_was_built_for_are_refused():
    neck = AddBottleneckLayer(PYRAMID)
    with pytest.raises(InputError, match=r"built for .*\[8, 8, 8, 8\], got \[8, 8\]"):
        neck.process_channel_list([8, 8])


@pytest.mark.parametrize(
    "shapes", [[(2, 8, 4, 4)] * 3, [(2, 4, 4, 8)] * 4, [(2, 16, 8)] * 4, [(2, 8, 4, 4, 1)] * 4]
)
def test_tensors_other_than_described_are_refused(shapes):
    neck = SelectIndices(MAPS, indices=[0])
    with pytest.raises(InputError, match=r"(?s)NCHW with C=8.*of the shapes"):
        neck([torch.zeros(shape) for shape in shapes], (64, 64))


@pytest.mark.parametrize(
    ("cls", "least"),
    [(MaxpoolToPyramidal, 8), (LearnedInterpolateToPyramidal, 2), (FeaturePyramid, 2)],
)
def test_images_so_small_that_a_map_vanishes_are_refused(cls, least):
    neck = cls(MAPS)
    enough = [torch.randn(2, 8, least, least + 1)] * 4
    assert all(maps.numel() for maps in neck(enough, (16 * least, 16 * least + 16)))
    small = [torch.randn(2, 8, least - 1, least)] * 4
    message = f"at least {least} cells a side, i.e. {16 * least} pixels"
    with pytest.raises(InputError, match=rf"{cls.__name__}.*{message}"):
        neck(small, (16 * least - 16, 16 * least))


def test_a_feature_pyramid_of_unknown_strides_refuses_maps_of_one_scale():
    neck = FeaturePyramid([Feature(8)] * 2)
    with pytest.raises(InputError, match=r"\[\(4, 4\), \(4, 4\)\].*SelectIndices"):
        neck([torch.randn(1, 8, 4, 4)] * 2, (64, 64))


@pytest.mark.parametrize(
    ("stride", "tokens", "size", "options", "message"),
    [
        (16, 196 + 5, (224, 224), {}, "`prefix_tokens: 5` would fit"),
        (None, 196 + 5, (224, 224), {}, "`prefix_tokens: 5` would fit"),
        (16, 196, (224, 224), {}, "`prefix_tokens: 0` would fit"),
        (None, 197, (224, 224), {"remove_cls_token": False}, "`prefix_tokens: 1` would fit"),
        (16, 3 * 36 + 1, (96, 96), {}, "`effective_time_dim: 3` would fit"),
        # Six by six patches of an image that is no square: the reference makes a square of them.
        (None, 37, (96, 192), {}, "fill no grid of square patches on an image of 96 x 192"),
        (16, 37, (96, 192), {}, "square patches of 16 pixels"),
        (16, 37, (100, 96), {}, "not filled by patches of 16 pixels. Pad"),
        (None, 1, (96, 96), {}, "fill no grid"),
        (None, 0, (96, 96), {}, "fill no grid"),
        (16, 37, (96, 96), {"effective_time_dim": 3}, "over 3 date"),
    ],
)
def test_tokens_that_fill_no_grid_are_refused(stride, tokens, size, options, message):
    neck = ReshapeTokensToImage([Feature(8, stride, "NLC")], **options)
    with pytest.raises(InputError, match=message):
        neck([torch.randn(1, tokens, 8)], size)


def test_numbers_of_patches_that_fill_no_image_are_not_averaged():
    neck = AggregateTokens(TOKENS[:1])
    neck([torch.randn(1, 1 + 2 * 36, 8)], (96, 96))  # two dates
    for tokens in (36 + 5, 36, 1):
        with pytest.raises(InputError, match="prefix_tokens"):
            neck([torch.randn(1, tokens, 8)], (96, 96))


@pytest.mark.parametrize("size", [0, [8], [8, 8, 8], "8", [8, 0], [8.0, 8], True, None])
def test_flatten_needs_a_size(size):
    with pytest.raises(InputError, match=r"Flatten size is the number of rows and columns.*got"):
        Flatten(MAPS, size=size)


def test_flatten_takes_one_map_of_one_size():
    with pytest.raises(InputError, match=r"Flatten takes maps .*ReshapeTokensToImage before it"):
        Flatten(TOKENS, size=8)
    with pytest.raises(InputError, match=r"Flatten index .* 4 feature"):
        Flatten(MAPS, size=8, index=4)
    neck = Flatten(MAPS[:1], size=[8, 12])
    message = r"\(B, 8, 8, 12\), got \(2, 8, 4, 6\).*`size: \[4, 6\]`.*AggregateTokens"
    with pytest.raises(InputError, match=message):
        neck([torch.zeros(2, 8, 4, 6)], (64, 96))

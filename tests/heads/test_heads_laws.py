"""What holds for every head, what each computes, and how mistakes are explained."""

import copy
import pickle

import pytest
import torch
from torch import nn

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.heads import (
    HEADS,
    ClassificationHead,
    FlattenHead,
    Head,
    HeadFactory,
    LinearHead,
    MLPHead,
    RegressionHead,
    SegmentationHead,
)

NAMES = ("wood", "road", "water")
CASES = {
    "linear": (LinearHead, {"dropout": 0.5}),
    "mlp": (MLPHead, {"dropout": 0.5, "hidden": 16}),
    "segmentation": (SegmentationHead, {"dropout": 0.5}),
    "deep segmentation": (SegmentationHead, {"channel_list": [16, 12], "dropout": 0.5}),
    "regression": (RegressionHead, {"dropout": 0.5}),
    "deep regression": (
        RegressionHead,
        {
            "channel_list": [16, 12],
            "learned_upscale_layers": 2,
            "final_act": "softplus",
            "dropout": 0.5,
        },
    ),
    "unnormalised regression": (
        RegressionHead,
        {"channel_list": [16], "batch_norm": False, "dropout": 0.5},
    ),
    "classification": (ClassificationHead, {"dropout": 0.5}),
    "deep classification": (ClassificationHead, {"dim_list": [16, 12], "dropout": 0.5}),
    "pooled classification": (
        ClassificationHead,
        {"dim_list": [16], "linear_after_pool": True, "dropout": 0.5},
    ),
    "flattened": (FlattenHead, {"size": [5, 7], "dim_list": [16, 12], "dropout": 0.5}),
}
PIXEL = [case for case, (cls, _) in CASES.items() if cls.kind == "pixel"]
SAMPLE = [case for case in CASES if case not in (*PIXEL, "flattened")]  # maps of any size, and more
NEEDED = {FlattenHead: {"size": 2}}


@pytest.fixture(params=CASES)
def head(request):
    return made(request.param)


def made(case):
    torch.manual_seed(0)
    cls, options = CASES[case]
    return cls(8, NAMES, **options)


def test_every_head_is_tested():
    assert {cls for cls, _ in CASES.values()} == set(HEADS.own.values())
    assert all(name == cls.__name__ for name, cls in HEADS.own.items())


def test_kinds():
    pixel = {name for name, cls in HEADS.own.items() if cls.kind == "pixel"}
    assert pixel == {"SegmentationHead", "RegressionHead"}
    assert {cls.kind for cls in HEADS.own.values()} == {"pixel", "sample"}
    assert Head.kind == "sample"  # third parties' heads of embeddings need not say it


def test_gradient_reaches_every_parameter(head):
    answer = head(torch.randn(6, 8, 5, 7))
    (answer * torch.randn_like(answer)).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.any(), name


def test_one_answer_per_name(head):
    features = torch.randn(2, 8, 5, 7)
    expected = (2, 3)
    if head.kind == "pixel":
        finer = getattr(head, "upscale_factor", 1)
        expected += (5 * finer, 7 * finer)
    assert head(features).shape == expected


def test_dropout_is_for_training_only(head):
    features = torch.randn(2, 8, 5, 7)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


def test_samples_do_not_see_each_other(head):
    features = torch.randn(3, 8, 5, 7)
    torch.testing.assert_close(head.eval()(features)[1:], head(features[1:]))


def test_copies_and_descriptions_give_the_same(head):
    twins = [copy.deepcopy(head), pickle.loads(pickle.dumps(head))]
    twins.append(build(head.describe(), HeadFactory, 8, NAMES, where="a test"))
    features = torch.randn(2, 8, 5, 7)
    expected = head.eval()(features)
    for twin in twins:
        twin.load_state_dict(head.state_dict())
        assert twin.names == NAMES
        assert torch.equal(twin.eval()(features), expected)


def test_exported_it_gives_the_same(head):
    features = torch.randn(2, 8, 5, 7)
    exported = torch.export.export(head.eval(), (features,), strict=False).module()
    torch.testing.assert_close(exported(features), head(features))


# Heads of samples ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SAMPLE)
def test_maps_tokens_and_embeddings(case):
    head, maps = made(case).eval(), torch.randn(2, 8, 5, 7)
    tokens = maps.flatten(2).transpose(1, 2)
    expected = head(maps)
    torch.testing.assert_close(head(tokens), expected)
    torch.testing.assert_close(head(tokens[:, torch.randperm(35)]), expected)
    torch.testing.assert_close(head(maps[:, :, :1, :1]), head(maps[:, :, 0, 0]))


def test_the_mean_comes_before_or_after_the_layers():
    features = torch.randn(2, 8, 5, 7)
    before = ClassificationHead(8, NAMES, dim_list=[16], linear_after_pool=True).eval()
    after = ClassificationHead(8, NAMES, dim_list=[16]).eval()
    after.load_state_dict(before.state_dict())
    torch.testing.assert_close(before(features), after(features.mean((2, 3))))
    each = torch.stack([after(position) for position in features.flatten(2).unbind(2)])
    torch.testing.assert_close(after(features), each.mean(0))
    assert (before(features) - after(features)).abs().max() > 1e-3
    flat = ClassificationHead(8, NAMES, linear_after_pool=True)
    torch.testing.assert_close(flat(features), flat(features.mean((2, 3))))


def test_a_flattening_head_sees_every_cell_by_itself():
    head, maps = made("flattened").eval(), torch.randn(2, 8, 5, 7)
    torch.testing.assert_close(head(maps), head.layers(maps.flatten(1)))
    assert (head(maps) - head(maps.flip(-1))).abs().max() > 1e-3
    assert head.map_size == (5, 7)
    assert FlattenHead(8, NAMES, size=5).map_size == (5, 5)


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((2, 8, 10, 14), r"Say `size: \[10, 14\]`.*ClassificationHead, which takes any"),
        ((2, 8, 5), "Take it from a part that gives such maps"),
        ((2, 8), "Take it from a part that gives such maps"),
    ],
)
def test_a_flattening_head_refuses_other_sizes(shape, remedy):
    with pytest.raises(InputError, match=rf"FlattenHead flattens .*\(B, 8, 5, 7\).*{remedy}"):
        made("flattened")(torch.randn(shape))


# Heads of pixels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["segmentation", "regression"])
def test_without_hidden_layers_a_pixel_s_answer_depends_on_that_pixel_only(case):
    head, features = made(case).eval(), torch.randn(2, 8, 5, 7)
    altered = features.clone()
    altered[:, :, 2, 3] += 1
    changed = (head(altered) != head(features)).any(1)
    assert changed[:, 2, 3].all()
    assert changed.sum() == 2


def test_upscaling_starts_without_a_checkerboard():
    upscale = RegressionHead(8, NAMES, learned_upscale_layers=1).eval().upscale
    features = torch.randn(2, 8, 5, 7)
    enlarged = upscale(features)
    coarse = enlarged[..., ::2, ::2]
    repeated = coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.equal(enlarged, repeated)
    assert coarse.std() > 0.05


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        (None, nn.Identity),
        ("relu", nn.ReLU),
        ("ReLU", nn.ReLU),
        ("torch.nn.Sigmoid", nn.Sigmoid),
        ("nn.Tanh", nn.Tanh),
        ("softplus", nn.Softplus),
    ],
)
def test_last_activations(name, cls):
    head, features = RegressionHead(8, NAMES, final_act=name), torch.randn(2, 8, 5, 7)
    torch.testing.assert_close(head(features), cls()(head.conv(features)))


def test_dropout_of_regression_leaves_out_whole_channels():
    head = RegressionHead(8, ["height"], dropout=0.5)
    nn.init.ones_(head.conv.weight)
    nn.init.zeros_(head.conv.bias)
    answer = head(torch.ones(20, 8, 5, 7))
    assert (answer == answer[:, :, :1, :1]).all()
    assert answer[:, 0, 0, 0].unique().numel() > 2


@pytest.mark.parametrize("options", [{}, {"learned_upscale_layers": 1, "channel_list": [4]}])
def test_a_single_sample_of_a_single_cell_trains(options):
    RegressionHead(8, NAMES, **options)(torch.randn(1, 8, 1, 1)).sum().backward()


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", HEADS.own.values())
@pytest.mark.parametrize(
    ("channels", "names", "options", "message"),
    [
        (8, (), {}, "needs at least one class, or one variable"),
        (0, NAMES, {}, "one or more channels, got 0"),
        (8, NAMES, {"dropout": 1.0}, r"dropout is a probability in \[0, 1\), got 1\.0"),
        (8, NAMES, {"dropout": -0.1}, "dropout is a probability"),
    ],
)
def test_mistakes_of_every_head(cls, channels, names, options, message):
    with pytest.raises(InputError, match=f"{cls.__name__}.*{message}"):
        cls(channels, names, **NEEDED.get(cls, {}), **options)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (SegmentationHead, {"channel_list": [0]}, r"SegmentationHead channel_list.*got \[0\]"),
        (SegmentationHead, {"channel_list": 16}, "list of widths.*got 16"),
        (RegressionHead, {"channel_list": ["16"]}, "RegressionHead channel_list"),
        (RegressionHead, {"learned_upscale_layers": -1}, "0 or more, got -1"),
        (RegressionHead, {"learned_upscale_layers": 0.5}, "0 or more, got 0.5"),
        (RegressionHead, {"final_act": "os.system"}, "final_act is one of.*'os.system'"),
        (ClassificationHead, {"dim_list": [-1]}, "ClassificationHead dim_list"),
        (FlattenHead, {"size": 2, "dim_list": [0]}, r"FlattenHead dim_list.*got \[0\]"),
        (FlattenHead, {"size": [8]}, r"FlattenHead size .*rows and columns.*got \[8\]"),
        (MLPHead, {"hidden": 0}, "hidden must be 1 or more"),
    ],
)
def test_mistakes(cls, options, message):
    with pytest.raises(InputError, match=message):
        cls(8, NAMES, **options)


@pytest.mark.parametrize("case", PIXEL)
@pytest.mark.parametrize("shape", [(2, 8), (2, 5, 8), (2, 4, 5, 7), (2, 8, 5, 7, 1)])
def test_pixel_heads_refuse_what_is_no_map(case, shape):
    with pytest.raises(InputError, match=r"maps \(B, 8, H, W\).*ClassificationHead"):
        made(case)(torch.randn(shape))


@pytest.mark.parametrize("case", SAMPLE)
@pytest.mark.parametrize("shape", [(2, 4), (2, 8, 5), (2, 4, 5, 7), (8,), (2, 0, 8)])
def test_sample_heads_refuse_other_widths(case, shape):
    with pytest.raises(InputError, match=r"embeddings \(B, 8\), tokens.*maps"):
        made(case)(torch.randn(shape))


def test_a_single_value_cannot_be_normalised_over_a_batch():
    head = RegressionHead(8, NAMES, channel_list=[4])
    with pytest.raises(InputError, match="batch_norm: false"):
        head(torch.randn(1, 8, 1, 1))
    assert head.eval()(torch.randn(1, 8, 1, 1)).isfinite().all()
    RegressionHead(8, NAMES, channel_list=[4], batch_norm=False)(torch.randn(1, 8, 1, 1))

"""What each operator over features is by itself: options, published numbers, mistakes."""

from pathlib import Path

import pytest
import torch
import yaml
from feature_operators import BATCH, channels, operator, random_features

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.fusion import features as all_features
from fusionlab.fusion.features import (
    Attention,
    Concat,
    FeatureOperatorFactory,
    Gated,
    Projection,
    Weighted,
)

OPERATORS = [n for n in all_features.__all__ if not n.startswith(("Feature", "Fused", "TokenOp"))]


@pytest.mark.parametrize("name", OPERATORS)
def test_short_names(name):
    """Those of operators over decisions, as a configuration tells them apart by what is asked."""
    widths = {"s2": 8, "s1": 8}
    made = build({"class_path": name}, FeatureOperatorFactory, widths, where="a test")
    assert type(made).__module__.startswith("fusionlab.fusion.features.")
    assert type(made).__name__ == name


def test_there_is_an_overlay_for_every_operator():
    folder = Path(__file__).parents[2] / "configs" / "feature_fusion"
    named = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))]
    named = [m["model"]["init_args"]["model"]["init_args"]["fusion"]["class_path"] for m in named]
    assert sorted(named) == sorted(OPERATORS)


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


def test_gated_is_the_published_unit():
    """``z * tanh(W_1 x_1) + (1 - z) * tanh(W_2 x_2)`` with ``z = sigmoid(W_z [x_1; x_2])``."""
    fusion = operator("gated", channels(2))
    features = random_features(channels(2))
    first, second = (features[n] @ fusion.projections[n].weight.T for n in ("s2", "s1"))
    z = (torch.cat([features["s2"], features["s1"]], dim=1) @ fusion.gate.weight.T).sigmoid()
    fused = fusion(features)
    torch.testing.assert_close(fused.features, z * first.tanh() + (1 - z) * second.tanh())
    torch.testing.assert_close(fused.weights["s2"], z.mean(dim=1, keepdim=True))
    count = sum(parameter.numel() for parameter in fusion.parameters())
    assert count == 8 * 10 + 4 * 10 + 12 * 10  # of W_1, W_2 and W_z, no more


def test_gates_begin_equal_and_depend_on_all_experts():
    features = random_features(channels(3))
    for weight in Gated(channels(3))(features).weights.values():
        torch.testing.assert_close(weight, torch.full_like(weight, 1 / 3))
    fusion = operator("gated", channels(3))
    before = fusion(features).weights["s2"]
    for name in features:
        other = {**features, name: features[name].roll(1, dims=0)}
        assert not torch.allclose(fusion(other).weights["s2"], before)


def test_some_operators_weigh_samples_apart():
    widths = channels(3)
    features = random_features(widths, seed=4)
    for kind, differ in (("weighted", False), ("attention", True), ("gated", True)):
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
        (lambda: Gated(channels(2), width=0), "Gated width must be 1 or more"),
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

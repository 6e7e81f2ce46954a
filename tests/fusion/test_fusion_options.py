"""Options of the operators: what they mean, and what a mistake is answered with."""

import pytest
import torch

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.fusion import (
    Attentional,
    Average,
    ClassWeighted,
    FixedWeighted,
    FusionFactory,
    Gated,
    ModalityWeighted,
)

TWO = ("aerial", "sentinel2")
THREE = ("aerial", "sentinel2", "dem")
CLASSES = ("building", "water", "vineyard")


def test_fixed_weights_by_name_and_position():
    logits = {"aerial": torch.ones(1, 3), "sentinel2": torch.zeros(1, 3)}
    for weights in ([3, 1], {"sentinel2": 1, "aerial": 3}):
        fused = FixedWeighted(TWO, CLASSES, weights=weights)(logits)
        torch.testing.assert_close(fused.logits, torch.full((1, 3), 0.75))


def test_a_modality_of_weight_zero_answers_when_alone():
    fusion = FixedWeighted(TWO, CLASSES, weights=[1, 0])
    logits = {"aerial": torch.zeros(1, 3), "sentinel2": torch.ones(1, 3)}
    assert fusion(logits).logits.abs().max() < 1e-30
    alone = {"aerial": torch.tensor([False]), "sentinel2": torch.tensor([True])}
    assert torch.equal(fusion(logits, alone).logits, torch.ones(1, 3))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"one non-negative number per modality \['aerial', 'sentinel2'\], got 1"),
        ([1.0, 1.0, 1.0], "got 3"),
        ([0.0, 0.0], "must be positive"),
        ([2.0, -1.0], "non-negative"),
        ([1.0, float("nan")], "non-negative"),
        ({"aerial": 1.0}, "per modality"),
        ({"aerial": 1.0, "lidar": 1.0}, "lidar"),
    ],
)
def test_fixed_weights_errors(weights, message):
    with pytest.raises(InputError, match=message):
        FixedWeighted(TWO, CLASSES, weights=weights)


@pytest.mark.parametrize(
    ("given", "aerial"),
    [(None, 0.5), ([3, 1], 0.75), ({"sentinel2": 9, "aerial": 1}, 0.1), ([0, 1], 1e-6)],
)
def test_initial_modality_weights(given, aerial):
    fusion = ModalityWeighted(TWO, CLASSES, init_weights=given)
    assert [tuple(p.shape) for p in fusion.parameters()] == [(2,)]
    shares = fusion.class_weights()
    torch.testing.assert_close(shares["aerial"], torch.full((3,), aerial), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(shares["aerial"] + shares["sentinel2"], torch.ones(3))


def test_modality_weights_learn_whom_to_trust():
    fusion = ModalityWeighted(TWO, CLASSES)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    right = 3 * torch.nn.functional.one_hot(labels, 3).float()
    logits = {"aerial": right, "sentinel2": right.roll(1, dims=1)}
    optimizer = torch.optim.SGD(fusion.parameters(), lr=1.0)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(fusion(logits).logits, labels).backward()
        optimizer.step()
    assert fusion.class_weights()["aerial"].min() > 0.9


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "per modality.*got 1"),
        ([0.0, 0.0], "must be positive"),
        ({"aerial": 1.0, "lidar": 1.0}, r"--model\.model\.fusion\.init_weights '\{aerial: 0\.5"),
    ],
)
def test_modality_weights_errors(weights, message):
    with pytest.raises(InputError, match=message):
        ModalityWeighted(TWO, CLASSES, init_weights=weights)


@pytest.mark.parametrize(
    ("given", "aerial"),
    [
        (None, [0.5, 0.5, 0.5]),
        ([3, 1], [0.75, 0.75, 0.75]),
        ([[3, 1], None, [0, 1]], [0.75, 0.5, 1e-6]),
        ([{"sentinel2": 3, "aerial": 1}, None, [1, 1]], [0.25, 0.5, 0.5]),
        ({"vineyard": [0.2, 0.8]}, [0.5, 0.5, 0.2]),
        ({"vineyard": {"sentinel2": 8, "aerial": 2}}, [0.5, 0.5, 0.2]),
        ({0: [9, 1], "1": [1, 9]}, [0.9, 0.1, 0.5]),
    ],
)
def test_initial_class_weights(given, aerial):
    shares = ClassWeighted(TWO, CLASSES, init_class_weights=given).class_weights()
    torch.testing.assert_close(shares["aerial"], torch.tensor(aerial), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(shares["aerial"] + shares["sentinel2"], torch.ones(3))


def test_initial_class_weights_raw_are_logs():
    raw = ClassWeighted(TWO, CLASSES, init_class_weights=[1, 3]).raw_class_weights()
    torch.testing.assert_close(raw["sentinel2"], torch.full((3,), 0.75).log())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 1.0, 1.0], "per modality"),
        ([], "per modality"),
        ([[1, 1], [1, 1]], "2 rows for 3 classes"),
        ([[1, 1], [1, 1], [1]], "'vineyard'.*got 1"),
        ({"water": [-1, 2]}, "'water'.*non-negative"),
        ({"water": [0, 0]}, "'water'.*must be positive"),
        ({"water": 0.5}, "'water'.*got 0.5"),
        ({"lake": [1, 1]}, r"Unknown class 'lake'.*building.*water.*vineyard"),
        ({3: [1, 1]}, "Unknown class 3"),
        ({-1: [1, 1]}, "Unknown class -1"),
        ({"water": [1, 1], 1: [1, 2]}, r"\['water'\] twice"),
    ],
)
def test_initial_class_weights_errors(given, message):
    with pytest.raises(InputError, match=message):
        ClassWeighted(TWO, CLASSES, init_class_weights=given)


@pytest.mark.parametrize(
    ("given", "first"),
    [(0.8, [0.8] * 3), ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]), ({"water": 0.3}, [None, 0.3, None])],
)
@pytest.mark.parametrize("modalities", [TWO, THREE])
def test_gate_priors(modalities, given, first):
    """With the weights of the last convolution at zero, the gate is its prior."""
    gated = Gated(modalities, CLASSES, class_priors=given)
    torch.nn.init.zeros_(gated.gate[-1].weight)
    weights = gated({name: torch.randn(2, 3) for name in modalities}).weights
    expected = torch.tensor([1 / len(modalities) if p is None else p for p in first])
    torch.testing.assert_close(weights["aerial"][0], expected)
    torch.testing.assert_close(weights["sentinel2"][0], (1 - expected) / (len(modalities) - 1))


def test_gate_priors_of_0_and_1_are_finite():
    bias = Gated(TWO, CLASSES, class_priors=[0.0, 0.5, 1.0]).gate[-1].bias
    torch.testing.assert_close(
        bias.detach(), torch.tensor([-13.8155, 0.0, 13.8155]), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_priors": 1.5}, r"'building' is 1.5.*'aerial'.*\[0, 1\]"),
        ({"class_priors": -0.1}, "must lie"),
        ({"class_priors": [0.5]}, "1 numbers for 3 classes"),
        ({"class_priors": {"lake": 0.5}}, "Unknown class 'lake'"),
        ({"class_priors": {"water": 2}}, "'water' is 2"),
        ({"cloud_cover": "lidar"}, r"'lidar'.*\['aerial', 'sentinel2'\]"),
    ],
)
def test_gated_errors(options, message):
    with pytest.raises(InputError, match=message):
        Gated(TWO, CLASSES, **options)


def test_unknown_clouds_are_one_half():
    """Not given at all, or of a sample where the modality is missing."""
    gated = Gated(THREE, CLASSES, cloud_cover="sentinel2").eval()
    logits = {name: torch.randn(2, 3, 4, 4) for name in THREE}
    half = {"sentinel2": torch.full((2, 1, 4, 4), 0.5)}
    clear = {"sentinel2": torch.zeros(2, 1, 4, 4)}
    torch.testing.assert_close(gated(logits).logits, gated(logits, cloud_cover=half).logits)
    assert not torch.equal(gated(logits).logits, gated(logits, cloud_cover=clear).logits)
    missing = {name: torch.ones(2, dtype=torch.bool) for name in THREE}
    missing["sentinel2"] = torch.zeros(2, dtype=torch.bool)
    torch.testing.assert_close(
        gated(logits, missing, half).logits, gated(logits, missing, clear).logits
    )


def test_clouds_on_another_grid_are_refused():
    gated = Gated(TWO, CLASSES, cloud_cover="sentinel2")
    logits = {name: torch.randn(2, 3, 4, 4) for name in TWO}
    with pytest.raises(InputError, match="align"):
        gated(logits, cloud_cover={"sentinel2": torch.zeros(2, 1, 2, 2)})


def test_clouds_of_image_level_logits():
    gated = Gated(TWO, CLASSES, cloud_cover="sentinel2").eval()
    logits = {name: torch.randn(2, 3) for name in TWO}
    cloud = {"sentinel2": torch.rand(2, 1)}
    assert gated(logits, cloud_cover=cloud).logits.shape == (2, 3)


def test_attentional_errors():
    with pytest.raises(InputError, match="reduction"):
        Attentional(TWO, CLASSES, reduction=0)


@pytest.mark.parametrize(
    ("modalities", "classes", "message"),
    [(("aerial",), CLASSES, "two or more"), (TWO, (), "at least one class")],
)
def test_too_few(modalities, classes, message):
    with pytest.raises(InputError, match=message):
        Average(modalities, classes)


@pytest.mark.parametrize(
    ("name", "init_args"),
    [
        ("ClassWeighted", {"init_class_weights": [0.3, 0.7]}),
        ("ClassWeighted", {"init_class_weights": [[0.3, 0.7], None, [1, 2]]}),
        ("ClassWeighted", {"init_class_weights": {"water": [0.3, 0.7]}}),
        ("ClassWeighted", {"init_class_weights": {"water": {"aerial": 0.3, "sentinel2": 0.7}}}),
        ("ClassWeighted", {"init_class_weights": {1: [0.3, 0.7]}}),
        ("FixedWeighted", {"weights": [1, 3]}),
        ("FixedWeighted", {"weights": {"aerial": 1, "sentinel2": 3}}),
        ("ModalityWeighted", {}),
        ("ModalityWeighted", {"init_weights": {"aerial": 1, "sentinel2": 3}}),
        ("Gated", {"cloud_cover": "sentinel2", "class_priors": 0.3}),
        ("Gated", {"class_priors": [0.3, 0.4, 0.5]}),
        ("Gated", {"class_priors": {"water": 0.3}}),
        ("Gated", {"class_priors": {1: 0.3}}),
        ("Attentional", {"reduction": 4}),
    ],
)
def test_options_as_in_a_configuration(name, init_args):
    given = {"class_path": f"fusionlab.fusion.{name}", "init_args": init_args}
    fusion = build(given, FusionFactory, TWO, CLASSES, where="a test")
    again = build(fusion.describe(), FusionFactory, TWO, CLASSES, where="a test")
    assert again.describe() == fusion.describe()
    if fusion.class_weights():
        for modality, share in fusion.class_weights().items():
            torch.testing.assert_close(again.class_weights()[modality], share)

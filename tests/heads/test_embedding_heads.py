"""Heads on embeddings: linear probing and a small network."""

import pytest
import torch

from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.heads import HeadFactory, LinearHead, MLPHead

CLASSES = ("wood", "road", "water")
HEADS = {
    "linear": lambda: LinearHead(6, CLASSES, dropout=0.5),
    "bare": lambda: LinearHead(6, CLASSES, norm=False, dropout=0.0),
    "mlp": lambda: MLPHead(6, CLASSES, hidden=16, dropout=0.5),
}


@pytest.fixture(params=HEADS)
def head(request):
    torch.manual_seed(0)
    return HEADS[request.param]()


def test_gradient_reaches_every_parameter(head):
    (head(torch.randn(5, 6)) * torch.randn(5, 3)).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.any(), name


def test_describe_and_build(head):
    again = build(head.describe(), HeadFactory, 6, CLASSES, where="a test")
    assert build(again.describe(), HeadFactory, 6, CLASSES, where="here").describe() == (
        again.describe()
    )
    again.load_state_dict(head.state_dict())
    x = torch.randn(5, 6)
    assert torch.equal(again.eval()(x), head.eval()(x))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_normalised_heads_do_not_see_scale_and_offset(kind):
    head = HEADS[kind]().eval()
    x = 10 * torch.randn(5, 6)
    torch.testing.assert_close(head(3 * x + 7), head(x), atol=1e-4, rtol=1e-4)


def test_without_normalisation_the_linear_head_is_linear():
    head = HEADS["bare"]()
    a, b = torch.randn(2, 5, 6)
    torch.testing.assert_close(head(a + b) + head.linear.bias, head(a) + head(b))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_dropout_is_for_training_only(kind):
    head, x = HEADS[kind](), torch.randn(5, 6)
    assert not torch.equal(head(x), head(x))
    head.eval()
    assert torch.equal(head(x), head(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearHead(6, ()), "at least one class"),
        (lambda: MLPHead(6, ()), "at least one class"),
        (lambda: LinearHead(6, CLASSES, dropout=1.5), r"LinearHead dropout.*got 1\.5"),
        (lambda: MLPHead(6, CLASSES, dropout=-0.1), "MLPHead dropout"),
        (lambda: MLPHead(6, CLASSES, hidden=0), "hidden must be 1 or more"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(InputError, match=message):
        make()


# The reference's heads are sequences, numbered through the layers without weights.
REFERENCE = {
    "linear_head": (LinearHead, {}, {"0": "norm", "2": "linear"}),
    "mlp_head": (MLPHead, {"hidden_dim": "hidden"}, {"0": "norm", "1": "hidden", "4": "linear"}),
}


@pytest.mark.shared
@pytest.mark.parametrize("case", REFERENCE)
def test_reference_outputs(shared, case, record_property):
    golden = torch.load(shared / "golden" / "embedding_fusion.pt", weights_only=True)[case]
    cls, options, names = REFERENCE[case]
    config = golden["config"]
    given = {ours: config[theirs] for theirs, ours in options.items()}
    head = cls(config["input_dim"], [f"class {i}" for i in range(config["num_classes"])], **given)
    assert sum(p.numel() for p in head.parameters()) == golden["params"]
    state = {}
    for key, value in golden["state_dict"].items():
        _, layer, kind = key.split(".")
        state[f"{names[layer]}.{kind}"] = value
    head.load_state_dict(state)
    inputs = golden["inputs"]
    logits = head.eval()(inputs if isinstance(inputs, torch.Tensor) else inputs[0])
    record_property("largest_error", error := (logits - golden["outputs"]).abs().max().item())
    print(f"{case}: largest error {error:.2e}")
    torch.testing.assert_close(logits, golden["outputs"], rtol=1e-4, atol=1e-5)

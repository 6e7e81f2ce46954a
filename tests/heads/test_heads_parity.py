"""Heads for pixels and for pooled features give the numbers of the reference implementation."""

import pytest
import torch

from fusionlab.heads import HEADS

pytestmark = pytest.mark.shared

CASES = {
    "segmentation_head": ("SegmentationHead", {}),
    "segmentation_head_channels": ("SegmentationHead", {"channel_list": [12, 8]}),
    "regression_head": ("RegressionHead", {"channel_list": [12]}),
    # The file does not state its options; the sigmoid follows from its outputs, all in (0, 1).
    "regression_head_upscale": (
        "RegressionHead",
        {"learned_upscale_layers": 1, "final_act": "sigmoid"},
    ),
    "scalar_head_linear_after_pool_False": ("ClassificationHead", {"dim_list": [12]}),
    "scalar_head_linear_after_pool_True": (
        "ClassificationHead",
        {"dim_list": [12], "linear_after_pool": True},
    ),
}
NECKS = {
    "select_indices",
    "permute_dims",
    "interpolate_to_pyramidal",
    "interpolate_to_pyramidal_bilinear",
    "maxpool_to_pyramidal",
    "reshape_tokens",
    "reshape_tokens_no_cls",
    "reshape_tokens_temporal",
    "add_bottleneck",
    "learned_interpolate_to_pyramidal",
}
"""Tested with the necks."""


@pytest.fixture(scope="module")
def golden(shared):
    return torch.load(shared / "golden" / "necks_and_heads.pt", weights_only=True)


def renamed(state, cls):
    """The reference's heads are sequences: what comes first, dropout (1), the last layer (2)."""
    last = "linear" if cls == "ClassificationHead" else "conv"
    out = {}
    for key, value in state.items():
        _, part, *rest = key.split(".")
        if part == "2":
            name = last
        else:
            assert part == "0"
            name = "upscale" if rest[1] in ("conv", "bn") else "blocks"
            rest = ["norm" if step == "bn" else step for step in rest]
        out[".".join([name, *rest])] = value
    return out


def test_every_case_is_tested(golden):
    assert set(golden) == CASES.keys() | NECKS


@pytest.mark.parametrize("case", CASES)
def test_reference_outputs(golden, case, record_property):
    expected = golden[case]
    assert set(expected) == {"inputs", "state_dict", "outputs", "params"}
    name, options = CASES[case]
    inputs, outputs = expected["inputs"], expected["outputs"]
    names = [f"name {i}" for i in range(outputs.shape[1])]
    head = HEADS.own[name](inputs.shape[1], names, **options)
    assert sum(parameter.numel() for parameter in head.parameters()) == expected["params"]
    head.load_state_dict(renamed(expected["state_dict"], name))  # strict: none missing, none left
    answer = head.eval()(inputs)
    record_property("largest_error", error := (answer - outputs).abs().max().item())
    print(f"{case}: largest error {error:.2e}")
    torch.testing.assert_close(answer, outputs, rtol=1e-4, atol=1e-5)

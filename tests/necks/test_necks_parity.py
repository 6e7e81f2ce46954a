"""The necks give the numbers of the reference implementation."""

import pytest
import torch

from fusionlab.features import Feature
from fusionlab.necks import NECKS

pytestmark = pytest.mark.shared

CASES = {
    "select_indices": "SelectIndices",
    "permute_dims": "PermuteDims",
    "interpolate_to_pyramidal": "InterpolateToPyramidal",
    "interpolate_to_pyramidal_bilinear": "InterpolateToPyramidal",
    "maxpool_to_pyramidal": "MaxpoolToPyramidal",
    "reshape_tokens": "ReshapeTokensToImage",
    "reshape_tokens_no_cls": "ReshapeTokensToImage",
    "reshape_tokens_temporal": "ReshapeTokensToImage",
    "add_bottleneck": "AddBottleneckLayer",
    "learned_interpolate_to_pyramidal": "LearnedInterpolateToPyramidal",
}
HEADS = {
    "segmentation_head",
    "segmentation_head_channels",
    "regression_head",
    "regression_head_upscale",
    "scalar_head_linear_after_pool_False",
    "scalar_head_linear_after_pool_True",
}
"""Tested with the heads."""
PREFIXES = {"bottleneck.": "bottleneck.", "fpn1.": "enlarge_by_4.", "fpn2.0.": "enlarge_by_2."}
KEYS = {"kwargs", "channels_in", "channels_out", "inputs", "state_dict", "outputs"}


@pytest.fixture(scope="module")
def golden(shared):
    return torch.load(shared / "golden" / "necks_and_heads.pt", weights_only=True)


def renamed(state):
    out = {}
    for key, value in state.items():
        old = next(prefix for prefix in PREFIXES if key.startswith(prefix))
        out[PREFIXES[old] + key.removeprefix(old)] = value
    return out


def test_every_case_is_tested(golden):
    assert set(golden) == CASES.keys() | HEADS


@pytest.mark.parametrize("case", CASES)
def test_reference_outputs(golden, case, record_property):
    expected = golden[case]
    assert set(expected) == KEYS
    inputs = expected["inputs"]
    layout = "NLC" if inputs[0].ndim == 3 else "NCHW"
    features = [Feature(width, None, layout) for width in expected["channels_in"]]
    neck = NECKS.own[CASES[case]](features, **expected["kwargs"])
    neck.load_state_dict(renamed(expected["state_dict"]))  # strict: none missing, none left
    outputs = neck.eval()(inputs, (96, 96))
    assert len(outputs) == len(expected["outputs"])
    pairs = list(zip(outputs, expected["outputs"], strict=True))
    assert all(ours.shape == theirs.shape for ours, theirs in pairs)
    error = max((ours - theirs).abs().max().item() for ours, theirs in pairs)
    record_property("largest_error", error)
    print(f"{case}: largest error {error:.2e}")
    for ours, theirs in pairs:
        if expected["state_dict"] or "mode" in expected["kwargs"]:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        else:  # nothing is calculated: the same values at other places
            assert torch.equal(ours, theirs)
    widths = neck.process_channel_list(expected["channels_in"])
    for output, feature in zip(outputs, neck.features, strict=True):
        assert output.shape[feature.layout.index("C")] == feature.channels
    if case == "reshape_tokens_temporal":
        # The reference states 20 channels; the tensors have three dates of 20.
        assert expected["channels_out"] == [20, 20]
        assert widths == [60, 60] == [output.shape[1] for output in outputs]
    else:
        assert widths == expected["channels_out"]

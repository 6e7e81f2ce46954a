"""The operators give the numbers of the reference implementations."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.fusion import (
    MSCAM,
    Attentional,
    Average,
    ClassWeighted,
    Concat,
    FixedWeighted,
    Fusion,
    Gated,
)

pytestmark = pytest.mark.shared

MODALITIES = ("aerial", "sentinel2")
OPERATORS: dict[str, type[Fusion]] = {
    "weighted": ClassWeighted,
    "fixed_weighted": FixedWeighted,
    "gated": Gated,
    "concat": Concat,
    "average": Average,
    "attentional": Attentional,
}
CASES = (
    "weighted",
    "weighted_init_global",
    "weighted_init_dict",
    "weighted_init_list",
    "fixed_weighted",
    "gated",
    "gated_priors",
    "gated_cloud",
    "concat",
    "average",
    "attentional",
)
PREFIXES = {
    "class_weights": "weight",
    "gate_network.": "gate.",
    "fusion_head.": "head.",
    "ms_cam.local_path.": "attention.0.local_branch.",
    "ms_cam.global_path.": "attention.0.global_branch.",
    "local_att.": "local_branch.",
    "global_att.": "global_branch.",
}


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for key, value in state.items():
        old = next(prefix for prefix in PREFIXES if key.startswith(prefix))
        out[PREFIXES[old] + key.removeprefix(old)] = value
    return out


def operator(config: dict[str, Any]) -> Fusion:
    options: dict[str, Any] = {}
    if "init_class_weights" in config:
        options["init_class_weights"] = config["init_class_weights"]
    if "modality_weights" in config:
        options["weights"] = config["modality_weights"]
    if "gate_class_priors" in config:
        options["class_priors"] = config["gate_class_priors"]
    if config.get("use_cloud_uncertainty"):
        options["cloud_cover"] = "sentinel2"
    classes = [f"class {i}" for i in range(7)]
    return OPERATORS[config["fusion_mode"]](MODALITIES, classes, **options)


@pytest.fixture(scope="module")
def golden(shared):
    return torch.load(shared / "golden" / "late_fusion.pt", weights_only=True)


def aligned(maps: Tensor) -> Tensor:
    """The middle 10 of 20 pixels, on the aerial grid of 48 by 48."""
    return F.interpolate(maps[..., 5:15, 5:15], (48, 48), mode="bilinear", align_corners=False)


def test_every_case_is_covered(golden):
    assert set(golden["cases"]) == set(CASES)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("output", ["eval", "train", "eval_no_cloud"])
def test_reference_outputs(golden, case, output):
    inputs, reference = golden["inputs"], golden["cases"][case]
    fusion = operator(reference["config"])
    fusion.load_state_dict(renamed(reference["state_dict"]))
    fusion.train(output == "train")
    cloud = {} if output.endswith("no_cloud") else {"sentinel2": aligned(inputs["cloud_coverage"])}
    logits = {
        "aerial": inputs["aerial_logits"],
        "sentinel2": aligned(inputs["sentinel_logits"]),
    }
    fused = fusion(logits, cloud_cover=cloud)
    torch.testing.assert_close(fused.logits, reference["outputs"][output], rtol=1e-4, atol=1e-5)
    assert [tuple(p.shape) for p in fusion.parameters()] == [
        tuple(s) for s in reference["trainable"]
    ]


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("weighted_init")])
def test_reference_initial_weights(golden, case):
    """What is read off the options, before any weights are loaded."""
    reference = golden["cases"][case]
    raw = operator(reference["config"]).raw_class_weights()
    expected = reference["state_dict"]["class_weights"]
    given = reference["config"]["init_class_weights"]
    rows = sorted(given) if isinstance(given, dict) else range(7)
    torch.testing.assert_close(torch.stack([raw[m] for m in MODALITIES], 1)[rows], expected[rows])


def test_reference_initial_gate_bias(golden):
    reference = golden["cases"]["gated_priors"]
    bias = operator(reference["config"]).state_dict()["gate.3.bias"]
    torch.testing.assert_close(bias, reference["state_dict"]["gate_network.3.bias"])


@pytest.mark.parametrize("output", ["eval", "train"])
def test_ms_cam(shared, output):
    golden = torch.load(shared / "golden" / "ms_cam.pt", weights_only=True)
    attention = MSCAM(golden["config"]["channels"], reduction=golden["config"]["r"])
    attention.load_state_dict(renamed(golden["state_dict"]))
    attention.train(output == "train")
    (x,) = golden["inputs"]
    torch.testing.assert_close(x * attention(x), golden["outputs"][output], rtol=1e-4, atol=1e-5)

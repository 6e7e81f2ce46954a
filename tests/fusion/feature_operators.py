"""Operators over features to test, away from where they begin, and features for them."""

import torch

from fusionlab.fusion.features import (
    AFF,
    Add,
    Attention,
    Concat,
    FiLM,
    Gated,
    Hadamard,
    IterativeAFF,
    LowRankBilinear,
    MatMul,
    Projection,
    Weighted,
)

WIDTHS = {"s2": 8, "s1": 4, "aerial": 8, "dem": 6}
NAMES = tuple(WIDTHS)
BATCH = 4


def channels(m):
    return {name: WIDTHS[name] for name in NAMES[:m]}


def operator(kind, widths, seed=0):
    torch.manual_seed(seed)
    options = {
        "weighted": (Weighted, {}),
        "weighted_fixed": (Weighted, {"weights": {n: 1.0 + i for i, n in enumerate(widths)}}),
        "projection": (Projection, {"width": 10}),
        "attention": (Attention, {"heads": 2}),
        "gated": (Gated, {"width": 10}),
        "concat": (Concat, {}),
        "concat_learned": (Concat, {"missing": "learned"}),
        "add": (Add, {"width": 10}),
        "hadamard": (Hadamard, {"width": 10}),
        "matmul": (MatMul, {"width": 10}),
        "bilinear": (LowRankBilinear, {"width": 10, "rank": 3}),
        "film": (FiLM, {"width": 10, "condition": "s2"}),
        "aff": (AFF, {"width": 10, "reduction": 2}),
        "aff_released": (AFF, {"width": 10, "reduction": 2, "scale": 2}),
        "iaff": (IterativeAFF, {"width": 10, "reduction": 2}),
    }
    cls, arguments = options[kind]
    built = cls(widths, **arguments)
    with torch.no_grad():
        for parameter in built.parameters():  # away from where it begins, e.g. at equal weights
            parameter.add_(0.3 * torch.randn_like(parameter))
        for name, statistic in built.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                statistic.add_(0.3 * torch.rand_like(statistic))
    return built.eval()


KINDS = (
    "weighted", "weighted_fixed", "projection", "attention", "gated", "concat", "concat_learned",
    "add", "hadamard", "matmul", "bilinear", "film", "aff", "aff_released", "iaff",
)  # fmt: skip
CONVEX = ("weighted", "weighted_fixed", "attention", "gated", "aff", "aff_released", "iaff")
NORMALISED = ("aff", "aff_released", "iaff")  # over the batch, while training
PIXELWISE = tuple(kind for kind in KINDS if kind not in ("matmul", *NORMALISED))
ORDERLESS = tuple(kind for kind in KINDS if kind not in ("matmul", *NORMALISED))
LAYOUTS = {"vectors": (), "maps": (3, 3)}


def random_features(widths, layout="vectors", seed=0, batch=BATCH, grid=None):
    generator = torch.Generator().manual_seed(seed)
    grid = LAYOUTS[layout] if grid is None else grid
    return {
        name: torch.randn(batch, width, *grid, generator=generator)
        for name, width in widths.items()
    }

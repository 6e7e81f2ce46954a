"""Operators over features to test, away from where they begin, and features for them."""

import torch

from fusionlab.fusion.features import Attention, Concat, Gated, Projection, Weighted

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
    }
    cls, arguments = options[kind]
    built = cls(widths, **arguments)
    with torch.no_grad():
        for parameter in built.parameters():  # away from where it begins, e.g. at equal weights
            parameter.add_(0.3 * torch.randn_like(parameter))
    return built


KINDS = (
    "weighted", "weighted_fixed", "projection", "attention", "gated", "concat", "concat_learned",
)  # fmt: skip
CONVEX = ("weighted", "weighted_fixed", "attention", "gated")
LAYOUTS = {"vectors": (), "maps": (3, 2)}


def random_features(widths, layout="vectors", seed=0, batch=BATCH):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(batch, width, *LAYOUTS[layout], generator=generator)
        for name, width in widths.items()
    }

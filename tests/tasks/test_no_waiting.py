"""No step makes the host wait for the device, or sends it what it could have kept there.

Tensors on the meta device have no values: whoever asks for one is refused by torch.
"""

from contextlib import nullcontext
from functools import partial
from typing import get_args

import pytest
import torch
from embedding_experts import PooledExpert
from small_models import PixelExpert
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from fusionlab.experts import PretrainedExpert
from fusionlab.fusion import Gated
from fusionlab.fusion.features import Weighted
from fusionlab.models import FeatureFusion, LateFusion
from fusionlab.tasks import ClassificationTask, RegressionTask, SegmentationTask
from fusionlab.types import PIXELWISE, REGRESSION, Modality, Schema, Target

BATCH, SIDE = 4, 8


class FromHost(TorchFunctionMode):
    """Notes what is made of Python numbers on the host, to be copied to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        listed = any(isinstance(a, list) for a in tree_leaves(args[1:], is_leaf=is_list))
        if name in ("tensor", "as_tensor") or (name in ("__getitem__", "__setitem__") and listed):
            self.seen.append(f"{name}{args[1:]}")
        return func(*args, **(kwargs or {}))


def is_list(value):
    return isinstance(value, list)


def schema(target, classes):
    modalities = {"a": Modality(("r", "g", "x"), 1.0), "b": Modality(("x",), 1.0)}
    scores = {"some": classes[:2]} if target == "segmentation" else {}
    names = {"variables" if "regression" in target else "classes": classes}
    return Schema(modalities, gsd=1.0, scores=scores, target=target, **names)


def batch(target):
    values = {"a": torch.zeros(BATCH, 3, SIDE, SIDE), "b": torch.zeros(BATCH, 1, SIDE, SIDE)}
    shape = {
        "segmentation": (BATCH, SIDE, SIDE), "multiclass": (BATCH,), "multilabel": (BATCH, 3),
        "regression": (BATCH, 3, SIDE, SIDE), "scalar_regression": (BATCH, 3),
    }  # fmt: skip
    kind = torch.int64 if target in ("segmentation", "multiclass") else torch.float32
    there = torch.ones(BATCH, dtype=torch.bool)
    return {
        "inputs": {name: value.to("meta") for name, value in values.items()},
        "available": {name: there.to("meta") for name in values},
        "target": torch.zeros(shape[target], dtype=kind, device="meta"),
        "counted": there.to("meta"),
    }


@pytest.mark.parametrize("target", get_args(Target))
def test_steps(target, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no meta
    network = PixelExpert if target in PIXELWISE else PooledExpert
    trained = schema(target, ("water", "wood", "road"))
    data = schema(target, ("wood", "road", "water"))
    inside = partial(network, bands=["x", "r"])  # two of three, in another order
    experts = {
        "a": partial(PretrainedExpert, expert=inside, trained_on=data.only("a").to_dict()),
        "b": network,
    }
    if target in ("multilabel", "scalar_regression"):
        model = partial(FeatureFusion, experts=experts, fusion=Weighted)
    else:
        model = partial(LateFusion, experts=experts, fusion=Gated)
    kind = {"segmentation": SegmentationTask, **dict.fromkeys(REGRESSION, RegressionTask)}.get(
        target, ClassificationTask
    )
    task = kind(data, model, trained_on=trained.to_dict()).to("meta")
    task.log = lambda *_, **__: None
    given = batch(target)
    with FromHost() as copied:
        task.training_step(given, 0).backward()
        task.eval()
        task.validation_step(given, 0)
        task.explain = True
        task.predict_step(given, 0)
    assert copied.seen == []

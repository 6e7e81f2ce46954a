"""How many floating-point operations a model needs for one sample, counted while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fusionlab.models.cache import AnswerCache
from fusionlab.tasks import Task
from fusionlab.types import TimeSeries


def flops_per_sample(task: Task, batch: Any) -> int | None:  # noqa: ANN401
    """Floating-point operations of a forward pass in evaluation mode, for one sample.

    Counted are convolutions and matrix products, in attention too, a multiplication and an addition
    as two; not counted are normalisation, activations and resampling. Frozen experts are asked even
    where a cache knows their answers. Weights, buffers, modes and random states are left untouched.

    Args:
        task: on its device.
        batch: real data on the same device; its first sample is answered.

    Returns:
        None where the model cannot run outside training's own surroundings, or does nothing that is
        counted.
    """
    counter = FlopCounterMode(display=False)
    # Else attention disappears in operators that no counter knows.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            isolate_rng(),
            evaluating(task),
            torch.inference_mode(False),
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            counter,
        ):
            task(_first(batch))
    except Exception:  # whatever a user's model does not like; the training itself will say so
        return None
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() or None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without caches; afterwards every module is as it was."""
    modes = [(part, part.training) for part in module.modules()]
    caches = [part for part in module.modules() if isinstance(vars(part).get("cache"), AnswerCache)]
    stores = [vars(part)["cache"] for part in caches]
    module.eval()
    for part in caches:
        part.cache = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for part, store in zip(caches, stores, strict=True):
            part.cache = store
        # Not by train(), which frozen experts answer in their own way.
        for part, mode in modes:
            part.training = mode


def _first(value: Any) -> Any:  # noqa: ANN401
    """The first sample of a batch, as a batch."""
    if isinstance(value, Tensor):
        return value[:1] if value.ndim else value
    if isinstance(value, TimeSeries):
        return TimeSeries(*(part[:1] for part in value))
    if isinstance(value, Mapping):
        return {name: _first(inner) for name, inner in value.items()}
    return value[:1] if isinstance(value, list | tuple) else value

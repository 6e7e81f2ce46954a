"""Targets of mixed samples."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionlab.data.mixing.plan import Plan
from fusionlab.data.mixing.values import pasted, per_sample
from fusionlab.types import Schema, known_shares, soft_target


def mixed_target(target: Tensor, plan: Plan, schema: Schema) -> Tensor:
    """The target of a mixed batch.

    Args:
        target: of the batch before it was mixed.
        plan: how it is mixed.
        schema: says what kind of target it is.

    Returns:
        A target that is a map and pasted: of its own shape and type. Else float32: shares of
        exclusive classes, ``(B, K)`` or ``(B, K, H, W)``, which sum to 1, and to 0 where one of the
        two is unknown; or values of the target's shape, NaN where one of the two is unknown.
    """
    if plan.target_window is not None:
        return pasted(target, target.index_select(0, plan.partner), plan.target_window)
    exclusive = schema.target in ("segmentation", "multiclass")
    own = soft_target(target, schema.num_classes) if exclusive else target.float()
    other = own.index_select(0, plan.partner)
    share = per_sample(plan.share, own)
    mixed = share * own + (1 - share) * other
    mixed = torch.where(share == 1, own, torch.where(share == 0, other, mixed))
    if not exclusive:
        return mixed
    part = plan.share.reshape(-1, *[1] * (own.ndim - 2))
    known = (known_shares(own) | (part == 0)) & (known_shares(other) | (part == 1))
    return mixed * known[:, None]

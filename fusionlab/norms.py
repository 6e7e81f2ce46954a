"""Normalisation layers that also train where there is a single value to learn statistics from.

After global pooling, or on the coarsest map of a small image, a batch of one sample holds one value
per channel, for which PyTorch's layers raise while training. These have the same parameters and
give the same numbers everywhere else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that uses its running statistics where a channel has one value.

    Such a batch does not change the statistics. Where all batches are such, they stay at mean 0 and
    variance 1, and only the affine part acts.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        if not (self.training or self.running_mean is None) or _cells(input) * len(input) > 1:
            return super().forward(input)
        mean, variance = self.running_mean, self.running_var
        if mean is None or variance is None:
            mean, variance = input.new_zeros(input.shape[1]), input.new_ones(input.shape[1])
        return F.batch_norm(input, mean, variance, self.weight, self.bias, eps=self.eps)


class InstanceNorm2d(nn.InstanceNorm2d):
    """Instance normalisation of which only the affine part acts on maps of a single cell."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        if _cells(input) > 1:
            return super().forward(input)
        if self.weight is None:
            return input
        return input * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


class GroupNorm(nn.GroupNorm):
    """Group normalisation that answers its bias for a group of one value, for any batch size."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def accept_single_values(module: nn.Module) -> None:
    """Replaces, anywhere in a fresh module, the layers that single values make raise."""
    for name, child in module.named_children():
        replacement: nn.Module
        if type(child) is nn.BatchNorm2d:
            replacement = BatchNorm2d(
                child.num_features,
                eps=child.eps,
                momentum=child.momentum,
                affine=child.affine,
                track_running_stats=child.track_running_stats,
            )
        elif type(child) is nn.InstanceNorm2d:
            replacement = InstanceNorm2d(
                child.num_features,
                eps=child.eps,
                momentum=child.momentum or 0.0,
                affine=child.affine,
                track_running_stats=child.track_running_stats,
            )
        elif type(child) is nn.GroupNorm:
            replacement = GroupNorm(
                child.num_groups, child.num_channels, eps=child.eps, affine=child.affine
            )
        else:
            accept_single_values(child)
            continue
        replacement.load_state_dict(child.state_dict())
        setattr(module, name, replacement)


def _cells(maps: Tensor) -> int:
    return maps.shape[-2] * maps.shape[-1]

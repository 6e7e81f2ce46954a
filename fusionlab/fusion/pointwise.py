"""The 1x1 convolutions that the learned operators share, and the normalisation inside them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that also trains where a batch has one value per channel.

    Statistics over a single value are meaningless, and torch raises: a globally pooled
    ``(1, C, 1, 1)`` map, or image-level logits with batch size 1. Here such a batch is normalised
    with the running statistics, which it leaves as they are; any other batch is handled as usual.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalises ``(B, C, H, W)``."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def bottleneck(channels: int, hidden: int, out: int) -> nn.Sequential:
    """Conv1x1, batch normalisation, ReLU, Conv1x1: ``(B, channels, …)`` to ``(B, out, …)``."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1), BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, out, 1)
    )


def as_maps(logits: Tensor) -> Tensor:
    """``(M, B, K)`` as ``(M, B, K, 1, 1)``; maps stay as they are."""
    return logits[..., None, None] if logits.ndim == 3 else logits

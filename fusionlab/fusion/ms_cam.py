"""Multi-scale channel attention (MS-CAM).

Dai et al., "Attentional Feature Fusion", WACV 2021, arXiv 2009.14082, section 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from fusionlab.fusion.pointwise import BatchNorm2d, bottleneck


class MSCAM(nn.Module):
    """Attention per pixel and channel from a local and a global context.

    Both contexts are a bottleneck of two 1x1 convolutions with batch normalisation, the local one
    on every pixel, the global one on the mean over all pixels. The global branch has one value per
    channel and sample; with batch size 1 it is trained on its running statistics
    (`BatchNorm2d`), where torch would raise.

    Args:
        channels: C of the input and of the attention.
        reduction: the bottleneck has ``max(C // reduction, 1)`` channels; 4 in the paper.
    """

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.local_branch = nn.Sequential(
            *bottleneck(channels, hidden, channels), BatchNorm2d(channels)
        )
        self.global_branch = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), *bottleneck(channels, hidden, channels), BatchNorm2d(channels)
        )

    def scores(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the attention before its sigmoid, of the same shape."""
        scores: Tensor = self.local_branch(x) + self.global_branch(x)
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to attention in (0, 1) of the same shape; the paper refines x by it."""
        return self.scores(x).sigmoid()

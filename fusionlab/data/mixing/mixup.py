"""MixUp: samples interpolated with one another.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv 1710.09412.
"""

from __future__ import annotations

from torch import Tensor

from fusionlab.data.mixing.base import Mixing, Placed
from fusionlab.types import Batch, Schema, Target


class MixUp(Mixing):
    """Interpolates every sample of a training batch with another one, and their targets.

    Images are interpolated pixel by pixel, at each modality's own resolution; a class per pixel
    becomes shares per pixel, ``(B, K, H, W)``. For all else see `Mixing`. (The paper draws one
    share for a whole batch; here each sample has its own.)

    Args:
        alpha: of the Beta distribution of shares; above 0.
        probability: of a batch to be mixed.

    Raises:
        InputError: for numbers outside these ranges.
    """

    def __init__(self, alpha: float = 0.4, *, probability: float = 1.0) -> None:
        super().__init__(alpha, probability=probability)

    def softens(self, target: Target) -> bool:
        """All targets that are classes which exclude each other."""
        return target in ("segmentation", "multiclass")

    def place(self, share: Tensor, batch: Batch, schema: Schema) -> Placed:
        """Nothing is pasted anywhere."""
        return share, {}, None

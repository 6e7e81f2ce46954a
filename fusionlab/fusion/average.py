"""The plain mean of the experts' logits: the linear combination rule every other must beat."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusionlab.fusion.base import Fused, Fusion


class Average(Fusion):
    """The mean of the logits of the modalities that are there. Has no parameters.

    On logits, the mean is the geometric mean of the experts' probabilities, up to normalisation; on
    regressed values it is their mean.
    """

    def fuse(self, logits: Tensor, available: Tensor, cloud_cover: Mapping[str, Tensor]) -> Fused:
        """See `Fusion.fuse`."""
        scores = logits.new_zeros(len(logits), *[1] * (logits.ndim - 1))
        return self.weighted_sum(logits, scores, available)

    def class_weights(self) -> dict[str, Tensor]:
        """Per modality ``(K,)``, its share when all modalities are there."""
        share = 1 / len(self.modalities)
        return {name: torch.full((len(self.classes),), share) for name in self.modalities}

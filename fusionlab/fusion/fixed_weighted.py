"""A weighted mean of logits with given weights, one per modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusionlab.fusion.base import Fused, Fusion
from fusionlab.fusion.options import modality_shares


class FixedWeighted(Fusion):
    """A weighted mean of the logits with given weights. Has no parameters.

    On logits it is a weighted geometric mean of the experts' probabilities only up to
    normalisation. Where a modality is missing, the weights of the others are renormalised; one with
    weight 0 still answers where it is the only one there.

    Args:
        modalities: names.
        classes: class names.
        weights: non-negative, one per modality, in their order or by name; normalised to sum 1.

    Raises:
        InputError: if there is not exactly one weight per modality, one is negative, or their sum
            is 0.
    """

    log_weights: Tensor

    def __init__(
        self,
        modalities: Sequence[str],
        classes: Sequence[str],
        *,
        weights: list[float] | dict[str, float],
    ) -> None:
        super().__init__(modalities, classes)
        shares = torch.tensor(
            modality_shares(weights, self.modalities, where="FixedWeighted weights")
        )
        # Not log(0) = -inf: a modality of weight 0 that is alone must get all of the weight.
        log_weights = shares.clamp_min(torch.finfo(shares.dtype).tiny).log()
        self.register_buffer("log_weights", log_weights, persistent=False)

    def fuse(self, logits: Tensor, available: Tensor, cloud_cover: Mapping[str, Tensor]) -> Fused:
        """See `Fusion.fuse`."""
        scores = self.log_weights.reshape(-1, *[1] * (logits.ndim - 1))
        return self.weighted_sum(logits, scores, available)

    def class_weights(self) -> dict[str, Tensor]:
        """Per modality ``(K,)``, its share when all modalities are there."""
        shares = self.log_weights.softmax(dim=0)
        return {
            name: share.expand(len(self.classes))
            for name, share in zip(self.modalities, shares, strict=True)
        }

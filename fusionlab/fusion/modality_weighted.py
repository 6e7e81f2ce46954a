"""A weighted mean of logits with one learned weight per modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fusionlab.fusion.base import Fused, Fusion
from fusionlab.fusion.options import modality_shares


class ModalityWeighted(Fusion):
    """A convex combination of the modalities' logits; its weights are learned, one per modality.

    The weights are the softmax of the parameter ``weight (M,)``. For one per class as well, use
    `ClassWeighted`.

    Args:
        modalities: names.
        classes: class names.
        init_weights: where the weights begin; equal if not given. Non-negative, one per modality,
            in their order or by name; normalised to sum 1.

    Raises:
        InputError: if there is not exactly one weight per modality, one is negative, or their sum
            is 0.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        classes: Sequence[str],
        *,
        init_weights: list[float] | dict[str, float] | None = None,
    ) -> None:
        super().__init__(modalities, classes)
        weight = torch.zeros(len(self.modalities))
        if init_weights is not None:
            shares = modality_shares(
                init_weights,
                self.modalities,
                where="ModalityWeighted init_weights",
                option="init_weights",
            )
            weight = torch.tensor(shares).clamp_min(1e-6).log()
        self.weight = nn.Parameter(weight)

    def fuse(self, logits: Tensor, available: Tensor, cloud_cover: Mapping[str, Tensor]) -> Fused:
        """See `Fusion.fuse`."""
        scores = self.weight.reshape(-1, *[1] * (logits.ndim - 1))
        return self.weighted_sum(logits, scores, available)

    def class_weights(self) -> dict[str, Tensor]:
        """Per modality ``(K,)``, its share when all modalities are there; sums to 1 over them."""
        shares = self.weight.detach().softmax(dim=0)
        return {
            name: share.expand(len(self.classes))
            for name, share in zip(self.modalities, shares, strict=True)
        }

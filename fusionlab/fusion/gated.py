"""A gate per pixel and class that decides between the experts.

The gate of Arevalo et al., "Gated Multimodal Units for Information Fusion", 2017, arXiv 1702.01992,
applied to decisions instead of features; a softmax over modalities takes the place of the sigmoid
where there are more than two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, log
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.fusion.base import Fused, Fusion
from fusionlab.fusion.options import by_class
from fusionlab.fusion.pointwise import as_maps, bottleneck


class Gated(Fusion):
    """A convex combination of the logits with weights predicted for each pixel and class.

    The weights are a softmax over modalities of scores that two 1x1 convolutions read off all
    logits together; the last modality's score is fixed at 0. With two modalities that is
    ``sigmoid(gate) * first + (1 - sigmoid(gate)) * second``.

    Args:
        modalities: names.
        classes: class names.
        cloud_cover: the modality whose cloud cover the gate may see as one more input channel,
            in [0, 1]; 0.5 stands for unknown, where none is given or the modality is missing.
        class_priors: where the gate begins: the share of the first modality, in [0, 1], the rest
            being split evenly among the others. One number for all classes, one per class, or by
            class name or index. It sets the bias of the last convolution, so the gate begins near
            it, not on it.

    Raises:
        InputError: for an unknown modality or class, a wrong number of priors, or one outside
            [0, 1].
    """

    def __init__(
        self,
        modalities: Sequence[str],
        classes: Sequence[str],
        *,
        cloud_cover: str | None = None,
        class_priors: float | list[float] | dict[str, float] | None = None,
    ) -> None:
        super().__init__(modalities, classes)
        if cloud_cover is not None and cloud_cover not in self.modalities:
            raise InputError(
                f"Gated cloud_cover names the modality {cloud_cover!r}, but the modalities are "
                f"{list(self.modalities)}."
            )
        self.cloud_cover = cloud_cover
        m, k = len(self.modalities), len(self.classes)
        self.gate = bottleneck(m * k + (cloud_cover is not None), k, (m - 1) * k)
        if class_priors is not None:
            bias = torch.zeros(m - 1, k)
            for index, prior in self._priors(class_priors).items():
                share = min(max(prior, 1e-6), 1 - 1e-6)
                # Softmax over (score, 0, …, 0) gives the first modality exactly this share.
                bias[0, index] = log(share / (1 - share)) + log(m - 1)
            last = cast(nn.Conv2d, self.gate[-1])
            last.bias = nn.Parameter(bias.flatten())

    def _priors(self, given: float | Sequence[float] | Mapping[str, float]) -> dict[int, float]:
        k = len(self.classes)
        if isinstance(given, Mapping):
            priors = by_class(given, self.classes, where="Gated class_priors")
        elif isinstance(given, Sequence):
            if len(given) != k:
                raise InputError(
                    f"Gated class_priors has {len(given)} numbers for {k} classes "
                    f"{list(self.classes)}: give one per class, or name classes in a dict."
                )
            priors = dict(enumerate(given))
        else:
            priors = dict.fromkeys(range(k), given)
        for index, prior in priors.items():
            if not (isinstance(prior, int | float) and isfinite(prior) and 0 <= prior <= 1):
                raise InputError(
                    f"Gated class_priors of class {self.classes[index]!r} is {prior!r}: it is the "
                    f"share of {self.modalities[0]!r} and must lie in [0, 1]."
                )
        return priors

    def fuse(self, logits: Tensor, available: Tensor, cloud_cover: Mapping[str, Tensor]) -> Fused:
        """See `Fusion.fuse`."""
        maps = as_maps(logits)
        gate_input = rearrange(maps, "m b k h w -> b (m k) h w")
        if self.cloud_cover is not None:
            cloud = self._cloud(gate_input, available, cloud_cover.get(self.cloud_cover))
            gate_input = torch.cat([gate_input, cloud], dim=1)
        scores = rearrange(self.gate(gate_input), "b (m k) h w -> m b k h w", k=len(self.classes))
        scores = torch.cat([scores, torch.zeros_like(scores[:1])])
        return self.weighted_sum(logits, scores.reshape(logits.shape), available)

    def _cloud(self, maps: Tensor, available: Tensor, given: Tensor | None) -> Tensor:
        """``(B, 1, H, W)`` on the grid of ``maps (B, C, H, W)``, 0.5 where unknown."""
        unknown = maps.new_full((len(maps), 1, *maps.shape[2:]), 0.5)
        if given is None:
            return unknown
        cloud = given.reshape(len(maps), 1, 1, 1) if given.ndim == 2 else given
        if cloud.shape != unknown.shape:
            raise InputError(
                f"The cloud cover of {self.cloud_cover!r} has the shape {tuple(given.shape)}, the "
                f"logits need {tuple(unknown.shape)}: align both to one grid first."
            )
        there = available[self.modalities.index(str(self.cloud_cover))]
        return torch.where(there[:, None, None, None], cloud.to(maps.dtype), unknown)

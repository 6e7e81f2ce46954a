"""A weighted mean of logits with weights learned per class and modality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.fusion.base import Fused, Fusion
from fusionlab.fusion.options import by_class, modality_shares

ClassShares = (
    list[float]
    | list[list[float] | dict[str, float] | None]
    | dict[str, list[float] | dict[str, float]]
)
"""Shares for all classes; or for each class, None keeping it equal; or by class name or index."""


class ClassWeighted(Fusion):
    """For each class, a convex combination of the modalities' logits; the weights are learned.

    The weights are the softmax over modalities of the parameter ``weight (K, M)``, so that for each
    class one can read which sensor the decision rests on.

    Args:
        modalities: names.
        classes: class names.
        init_class_weights: where the weights begin; equal if not given. Shares of one class are
            non-negative numbers, one per modality in their order (or by name), and are normalised.
            Either one list for all classes; or a list of one such per class, with None for equal
            weights; or a dict of such by class name or index, the others beginning equal.

    Raises:
        InputError: for a list of the wrong length, an unknown class, negative shares, or shares
            whose sum is 0; says which.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        classes: Sequence[str],
        *,
        init_class_weights: ClassShares | None = None,
    ) -> None:
        super().__init__(modalities, classes)
        weight = torch.zeros(len(self.classes), len(self.modalities))
        for index, values in self._rows(init_class_weights):
            where = f"init_class_weights of class {self.classes[index]!r}"
            shares = torch.tensor(modality_shares(values, self.modalities, where=where))
            weight[index] = shares.clamp_min(1e-6).log()
        self.weight = nn.Parameter(weight)

    def _rows(
        self, given: ClassShares | None
    ) -> Iterable[tuple[int, list[float] | dict[str, float]]]:
        if given is None:
            return []
        if isinstance(given, Mapping):
            return by_class(given, self.classes, where="init_class_weights").items()
        if all(isinstance(value, int | float) for value in given):
            return ((index, cast(list[float], given)) for index in range(len(self.classes)))
        if len(given) != len(self.classes):
            raise InputError(
                f"init_class_weights has {len(given)} rows for {len(self.classes)} classes "
                f"{list(self.classes)}: give one per class, or name classes in a dict."
            )
        rows = cast("list[list[float] | dict[str, float] | None]", given)
        return ((index, row) for index, row in enumerate(rows) if row is not None)

    def fuse(self, logits: Tensor, available: Tensor, cloud_cover: Mapping[str, Tensor]) -> Fused:
        """See `Fusion.fuse`."""
        scores = rearrange(self.weight, "k m -> m 1 k")
        return self.weighted_sum(
            logits, scores.reshape(*scores.shape, *[1] * (logits.ndim - 3)), available
        )

    def class_weights(self) -> dict[str, Tensor]:
        """Per modality ``(K,)``, its share when all modalities are there; sums to 1 over them."""
        shares = self.weight.detach().softmax(dim=1)
        return dict(zip(self.modalities, shares.unbind(dim=1), strict=True))

    def raw_class_weights(self) -> dict[str, Tensor]:
        """Per modality ``(K,)``, the learned scores before the softmax."""
        return dict(zip(self.modalities, self.weight.detach().unbind(dim=1), strict=True))

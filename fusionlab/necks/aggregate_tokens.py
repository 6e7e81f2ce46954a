"""A neck that pools each feature to one embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from fusionlab.errors import InputError
from fusionlab.features import Feature
from fusionlab.necks.base import Neck, checked_indices
from fusionlab.necks.tokens import exact_grid, prefix_length

Aggregation = Literal["token", "mean", "max", "both"]
"""What becomes the embedding: the first (class) token, the mean or the maximum over the patches,
or the class token followed by the mean."""


class AggregateTokens(Neck):
    """Pools the positions of each feature, giving embeddings ``(B, C)`` for classes of images.

    Prefix tokens take no part in the mean and the maximum. Maps are pooled over all their
    positions; they have no prefix tokens.

    Args:
        features: descriptions of tokens or maps.
        pooling: ``token``, the first prefix token, which is the class token; ``mean`` or ``max``
            over the patches; ``both``, the class token and the mean, one after the other, twice
            as wide.
        indices: positions of the features to pool, from 0 or from -1 backwards; the others are
            left out. All if not given.
        prefix_tokens: how many tokens (class, registers) come before those of the patches; 1 if
            not given.
        remove_cls_token: another way to say it: True for one prefix token, False for none.

    Raises:
        InputError: for other layouts, an unknown pooling, positions that do not exist, or a class
            token where there is none; when applied, where the stride of tokens is known, for
            numbers of patches that do not fill the image.
    """

    layouts: ClassVar[tuple[str, ...]] = ("NLC", "NCHW")

    def __init__(
        self,
        features: Sequence[Feature],
        *,
        pooling: Aggregation = "mean",
        indices: Sequence[int] | None = None,
        prefix_tokens: int | None = None,
        remove_cls_token: bool | None = None,
    ) -> None:
        super().__init__(features)
        if pooling not in get_args(Aggregation):
            raise InputError(
                f"AggregateTokens pooling is one of {list(get_args(Aggregation))}, got {pooling!r}."
            )
        self.pooling = pooling
        self.prefix = prefix_length(prefix_tokens, remove_cls_token, where="AggregateTokens")
        number = len(self.received)
        self.indices = (
            tuple(range(number))
            if indices is None
            else checked_indices(indices, number, where="AggregateTokens indices")
        )
        for i in self.indices:
            tokens = self.received[i].layout == "NLC" and self.prefix > 0
            if pooling in ("token", "both") and not tokens:
                raise InputError(
                    f"AggregateTokens: pooling {pooling!r} takes the class token, but feature {i} "
                    f"({self.received[i].layout}, {self.prefix} prefix tokens) has none. Say "
                    "`pooling: mean`, or prefix_tokens if there are any."
                )
        width = 2 if pooling == "both" else 1
        self.features = tuple(
            Feature(width * self.received[i].channels, None, "NC") for i in self.indices
        )

    def convert(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Tokens ``(B, L, C_i)`` or maps ``(B, C_i, h, w)`` to embeddings ``(B, C_i or 2 C_i)``.

        Raises:
            InputError: if there are no patches, or not as many as fill the image.
        """
        return [self._pool(i, features[i], image_size) for i in self.indices]

    def _pool(self, i: int, feature: Tensor, image_size: tuple[int, int]) -> Tensor:
        described = self.received[i]
        if described.layout == "NCHW":
            patches = feature.flatten(2).transpose(1, 2)  # (B, L, C)
        else:
            self._check_number(i, feature.shape[1], image_size)
            patches = feature[:, self.prefix :]
        if self.pooling == "token":
            return feature[:, 0]
        if self.pooling == "max":
            return patches.amax(dim=1)
        mean = patches.mean(dim=1)
        return torch.cat([feature[:, 0], mean], dim=1) if self.pooling == "both" else mean

    def _check_number(self, i: int, tokens: int, image_size: tuple[int, int]) -> None:
        patches = tokens - self.prefix
        stride = self.received[i].stride
        grid = None if stride is None else exact_grid(stride, image_size)
        cells = 1 if grid is None else grid[0] * grid[1]  # of each date
        if patches < 1 or patches % cells:
            expected = "at least one" if cells == 1 else f"{cells} (of each date)"
            raise InputError(
                f"AggregateTokens (feature {i}): {tokens} tokens without {self.prefix} prefix "
                f"token(s) are {patches} patches, but an image of {image_size[0]} x "
                f"{image_size[1]} pixels has {expected}. Say how many tokens come first with "
                "prefix_tokens."
            )

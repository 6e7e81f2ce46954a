"""What every fusion of features has in common: named experts, their widths and who is available."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from fusionlab.component import Component
from fusionlab.errors import InputError
from fusionlab.types import Tokens


class FusedFeatures(NamedTuple):
    """The result of a fusion of features.

    Attributes:
        features: ``(B, D)`` or ``(B, D, H, W)``.
        weights: per expert its share in [0, 1], ``(B, 1)`` or ``(B, 1, H or 1, W or 1)``, summing
            to 1 over the experts; None where the operator has no such weights.
        attention: of operators that compare tokens, see `Output`.
    """

    features: Tensor
    weights: dict[str, Tensor] | None = None
    attention: dict[tuple[str, str], Tensor] | None = None


class FeatureOperator(Component):
    """Turns the features of several experts into one tensor.

    An expert whose modality is missing for a sample takes no part in that sample's result: whatever
    stands in its place is not read, and weights are renormalised over the experts that are there.

    Args:
        channels: per expert, the width of its features, in the order in which operators number
            them.

    Attributes:
        channels: as given.
        channels_out: width of the result; set by every operator.
        takes: what it fuses: embeddings and maps, or tokens (`TokenOperator`).
        keeps_grid: whether a pixel of the result says what is at that pixel of the maps.

    Raises:
        InputError: for fewer than two experts.
    """

    supplied: ClassVar[tuple[str, ...]] = ("channels",)
    channels_out: int
    takes: ClassVar[Literal["features", "tokens"]] = "features"
    keeps_grid: ClassVar[bool] = True

    def __init__(self, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.channels = dict(channels)
        if len(self.channels) < 2:
            raise InputError(
                f"{type(self).__name__} fuses the features of two or more experts, got "
                f"{list(self.channels)}. For one expert, use it as the model."
            )

    def fuse(self, features: Mapping[str, Tensor], available: Tensor) -> FusedFeatures:
        """The operator itself.

        Args:
            features: per expert ``(B, D)`` or ``(B, D, H, W)``; zeros where it is missing.
            available: ``(M, B)`` bool, experts in the order of `channels`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define fuse().")

    def forward(
        self, features: Mapping[str, Tensor], available: Mapping[str, Tensor] | None = None
    ) -> FusedFeatures:
        """Fuses features.

        Args:
            features: per expert ``(B, D)``, or ``(B, D, H, W)`` on one grid.
            available: per expert ``(B,)`` bool; all there if not given.

        Raises:
            InputError: if an expert's features are absent, have another width than announced, or
                lie on another grid than the others'.
        """
        widths = {name: value.shape[1] for name, value in features.items()}
        if widths != self.channels:
            raise InputError(
                f"{type(self).__name__} was built for features of the widths {self.channels}, got "
                f"{widths}. A missing modality is zeros with available = False."
            )
        if len({(len(value), *value.shape[2:]) for value in features.values()}) > 1:
            shapes = {name: tuple(value.shape) for name, value in features.items()}
            raise InputError(
                f"{type(self).__name__} fuses features of the same samples on one grid, got "
                f"{shapes}: pool or align them first."
            )
        first = next(iter(features.values()))
        if available is None:
            there = first.new_ones(len(self.channels), len(first), dtype=torch.bool)
        else:
            there = torch.stack([available[name] for name in self.channels])
        masked = {
            name: keep_available(features[name], there[i]) for i, name in enumerate(self.channels)
        }
        return self.fuse(masked, there)


class TokenOperator(FeatureOperator):
    """Turns the tokens of several experts into one embedding: patches, words, dates, columns.

    As `FeatureOperator`, but experts may have different numbers of tokens, of which some only pad.
    """

    takes = "tokens"
    keeps_grid = False

    def fuse_tokens(self, tokens: Mapping[str, Tokens]) -> FusedFeatures:
        """The operator itself.

        Args:
            tokens: per expert ``(B, N, D)``; where it is missing, zeros of which none is valid.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define fuse_tokens().")

    def forward(
        self, features: Mapping[str, Any], available: Mapping[str, Tensor] | None = None
    ) -> FusedFeatures:
        """Fuses tokens.

        Args:
            features: per expert its `Tokens`, ``(B, N, D)``.
            available: per expert ``(B,)`` bool; all there if not given.

        Raises:
            InputError: if an expert's tokens are absent or have another width than announced.
        """
        widths = {name: tokens.values.shape[-1] for name, tokens in features.items()}
        if widths != self.channels:
            raise InputError(
                f"{type(self).__name__} was built for tokens of the widths {self.channels}, got "
                f"{widths}. A missing modality is zeros with available = False."
            )
        masked = {}
        for name in self.channels:
            tokens: Tokens = features[name]
            valid = tokens.valid
            if available is not None:
                valid = valid & available[name][:, None]
            masked[name] = tokens._replace(values=keep_available(tokens.values, valid), valid=valid)
        return self.fuse_tokens(masked)


def keep_available(features: Tensor, available: Tensor) -> Tensor:
    """Zeros where a sample is missing, whatever stood there, and no gradient to it.

    Args:
        features: ``(..., B, D)`` or ``(..., B, D, H, W)``.
        available: ``(..., B)`` bool; or per token, with features ``(B, N, D)``, ``(B, N)``.
    """
    axes = features.ndim - available.ndim
    there = available.reshape(*available.shape, *[1] * axes)
    return torch.where(there, features, torch.zeros_like(features))


def softmax_over_available(scores: Tensor, available: Tensor) -> Tensor:
    """Shares of the experts: a softmax over those that are there, 0 for the others.

    Where none is there the shares are equal, so that they sum to 1 and nothing is NaN.

    Args:
        scores: ``(M, B, ...)``, or ``(M, 1, ...)`` where they do not depend on the sample.
        available: ``(M, B)`` bool.

    Returns:
        ``(M, B, ...)``.
    """
    there = available.reshape(*available.shape, *[1] * (scores.ndim - 2))
    masked = torch.where(there, scores, torch.full_like(scores[:1], float("-inf")))
    masked = torch.where(there.any(dim=0, keepdim=True), masked, torch.zeros_like(masked))
    return masked.softmax(dim=0)


FeatureOperatorFactory = Callable[[Mapping[str, int]], FeatureOperator]
"""In YAML: ``class_path`` and ``init_args``; names and widths are supplied when built."""

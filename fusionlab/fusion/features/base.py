"""What every fusion of features has in common: named experts, their widths and who is available."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from fusionlab.component import Component
from fusionlab.errors import InputError


class FusedFeatures(NamedTuple):
    """The result of a fusion of features.

    Attributes:
        features: ``(B, D)`` or ``(B, D, H, W)``.
        weights: per expert its share, ``(B or 1, 1, …)``, summing to 1 over the experts; None where
            the operator has no such weights.
    """

    features: Tensor
    weights: dict[str, Tensor] | None = None


class FeatureOperator(Component):
    """Turns the features of several experts into one tensor.

    An expert whose modality is missing for a sample takes no part in that sample's result.

    Args:
        channels: per expert, the width of its features, in the order in which operators number
            them.

    Attributes:
        channels: as given.
        channels_out: width of the result; set by every operator.

    Raises:
        InputError: for fewer than two experts.
    """

    supplied: ClassVar[tuple[str, ...]] = ("channels",)
    channels_out: int

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
            available: ``(M, B)`` bool.
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
            InputError: if an expert's features are absent or have another width than announced.
        """
        widths = {name: value.shape[1] for name, value in features.items()}
        if widths != self.channels:
            raise InputError(
                f"{type(self).__name__} was built for features of the widths {self.channels}, got "
                f"{widths}. A missing modality is zeros with available = False."
            )
        first = next(iter(features.values()))
        if available is None:
            there = torch.ones(len(self.channels), len(first), dtype=torch.bool).to(first.device)
        else:
            there = torch.stack([available[name] for name in self.channels])
        masked = {
            name: torch.where(_like(there[i], features[name]), features[name], 0)
            for i, name in enumerate(self.channels)
        }
        return self.fuse(masked, there)


def _like(available: Tensor, features: Tensor) -> Tensor:
    """``(B,)`` reshaped to broadcast over ``(B, D, …)``."""
    return available.reshape(-1, *[1] * (features.ndim - 1))


FeatureOperatorFactory = Callable[[Mapping[str, int]], FeatureOperator]
"""In YAML: ``class_path`` and ``init_args``; names and widths are supplied when built."""

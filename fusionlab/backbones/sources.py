"""Backbones that other libraries have, for the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import timm
from segmentation_models_pytorch import encoders as smp
from torch import nn

from fusionlab.backbones.smp_backbone import SmpBackbone
from fusionlab.backbones.timm_backbone import TimmBackbone

_SHOWN = 4  # names of weights in a description


class TimmSource:
    """All models of timm, with or without a suffix that names particular weights."""

    prefix = "timm"

    def names(self) -> Sequence[str]:
        """Names of all models, without suffixes."""
        models: Sequence[str] = timm.list_models()
        return models

    def find(self, name: str) -> Callable[..., nn.Module] | None:
        """The backbone of this name."""
        return partial(TimmBackbone, name=name) if timm.is_model(name) else None

    def describe(self, name: str) -> str:
        """Which weights there are."""
        return _weights(_timm_weights().get(name, []))


class SmpSource:
    """The encoders of segmentation-models-pytorch, but for those that it has from timm."""

    prefix = "smp"

    def names(self) -> Sequence[str]:
        """Names of all encoders."""
        encoders: Sequence[str] = smp.get_encoder_names()
        return encoders

    def find(self, name: str) -> Callable[..., nn.Module] | None:
        """The backbone of this name."""
        return partial(SmpBackbone, name=name) if name in self.names() else None

    def describe(self, name: str) -> str:
        """Which weights there are."""
        return _weights(list(smp.encoders[name].get("pretrained_settings") or {}))


@cache
def _timm_weights() -> dict[str, list[str]]:
    """Per model, the suffixes of its weights."""
    weights: dict[str, list[str]] = {}
    for full_name in timm.list_pretrained():
        model, _, suffix = full_name.partition(".")
        weights.setdefault(model, []).append(suffix or "yes")
    return weights


def _weights(names: Sequence[str]) -> str:
    if not names:
        return "no weights"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"weights: {', '.join(names[:_SHOWN])}{more}"

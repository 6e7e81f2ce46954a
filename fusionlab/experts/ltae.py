"""L-TAE: lightweight temporal attention at every place of a series of feature maps.

Garnot & Landrieu, "Lightweight Temporal Self-Attention for Classifying Satellite Images Time
Series", 2020, arXiv:2007.00586.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from fusionlab.backbones.dates import encode_days, masked_softmax
from fusionlab.errors import InputError


class LTAE(nn.Module):
    """Pools feature maps over dates, at every place by itself.

    Each head has a learned master query, the same for every input, and attends to its own share of
    the embedded features (they are the values themselves). Since the queries do not depend on the
    input, keys are not made: query and key layer act as one linear layer from features to a score
    per head. Dates that only pad have no weight and no part in the statistics of the normalisation.

    Args:
        channels: of the maps, at least two per head.
        heads: attention heads.
        dim: width of the embedded features, an even number per head.
        key_dim: width of a key.
        out_channels: of the pooled map, at least two per head.
        dropout: of the pooled features.
        attention_dropout: of the attention.

    Raises:
        InputError: if the widths do not divide by the heads.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 16,
        dim: int = 256,
        key_dim: int = 4,
        out_channels: int = 128,
        dropout: float = 0.2,
        attention_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        _check_heads(heads, channels=channels, dim=dim, out_channels=out_channels)
        if key_dim < 1:
            raise InputError(f"L-TAE's key_dim must be 1 or more, got {key_dim}.")
        self.heads = heads
        self.code_width = dim // heads
        self.norm = MaskedGroupNorm(heads, channels)
        self.embed = nn.Linear(channels, dim)
        self.queries = nn.Parameter(torch.empty(heads, key_dim))
        self.keys = nn.Linear(dim, heads * key_dim)
        nn.init.normal_(self.queries, std=(2 / key_dim) ** 0.5)
        nn.init.normal_(self.keys.weight, std=(2 / key_dim) ** 0.5)
        self.attention_dropout = nn.Dropout(attention_dropout)
        self.mlp = nn.Sequential(
            nn.Linear(dim, out_channels), nn.BatchNorm1d(out_channels), nn.ReLU()
        )
        self.dropout = nn.Dropout(dropout)
        self.out_norm = nn.GroupNorm(heads, out_channels)

    def forward(self, maps: Tensor, days: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Pools over dates.

        Args:
            maps: ``(B, T, channels, h, w)``, finite also where a date only pads.
            days: since a date that all samples share, ``(B, T)``.
            valid: ``(B, T)`` bool.

        Returns:
            The pooled map ``(B, out_channels, h, w)`` and the attention ``(heads, B, T, h, w)``,
            whose sum over valid dates is 1 (but for dropout, while training) and which is 0 at all
            other dates. A sample without any valid date has attention 0 everywhere.
        """
        embedded, attention = self._embed(maps, days, valid)
        height, width = maps.shape[-2:]
        values = rearrange(embedded, "b n t (heads d) -> b n t heads d", heads=self.heads)
        pooled = torch.einsum("bnth,bnthd->bnhd", attention.to(values.dtype), values)
        pooled = rearrange(pooled, "b n heads d -> (b n) (heads d)")
        pooled = self.out_norm(self.dropout(self.mlp(pooled)))
        pooled = rearrange(pooled, "(b h w) c -> b c h w", h=height, w=width)
        return pooled, _on_grid(attention, height)

    def attend(self, maps: Tensor, days: Tensor, valid: Tensor) -> Tensor:
        """The attention alone, as `forward` gives it; no statistics change."""
        _, attention = self._embed(maps, days, valid)
        return _on_grid(attention, maps.shape[-2])

    def _embed(self, maps: Tensor, days: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded features ``(B, places, T, dim)`` and attention ``(B, places, T, heads)``."""
        places = rearrange(maps, "b t c h w -> b (h w) t c")
        codes = encode_days(days, self.code_width).repeat(1, 1, self.heads)
        embedded = self.embed(self.norm(places, valid)) + codes[:, None]
        attention = masked_softmax(self._scores(embedded), valid, axis=2)
        return embedded, self.attention_dropout(attention)

    def _scores(self, embedded: Tensor) -> Tensor:
        """``(B, places, T, dim)`` to ``(B, places, T, heads)`` float32."""
        weight = rearrange(self.keys.weight, "(heads k) d -> heads k d", heads=self.heads)
        bias = rearrange(self.keys.bias, "(heads k) -> heads k", heads=self.heads)
        queries = self.queries / self.queries.shape[-1] ** 0.5
        joint_weight = (queries[..., None] * weight).sum(dim=1)
        joint_bias = (queries * bias).sum(dim=1)
        return nn.functional.linear(embedded, joint_weight, joint_bias).float()


class MaskedGroupNorm(nn.Module):
    """Group normalisation over channels and valid dates, at every place by itself.

    `torch.nn.GroupNorm` over padded series takes the padding into its mean and variance; where
    nothing is padded, both give the same.

    Args:
        groups: number of groups of channels.
        channels: number of channels.
        eps: added to the variance.
    """

    def __init__(self, groups: int, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups = groups
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, places: Tensor, valid: Tensor) -> Tensor:
        """Normalises in float32.

        Args:
            places: ``(B, places, T, channels)``, finite.
            valid: ``(B, T)`` bool.

        Returns:
            The same shape, with the bias at dates that only pad.
        """
        grouped = rearrange(places.float(), "b n t (g c) -> b n t g c", g=self.groups)
        there = valid[:, None, :, None, None].to(grouped.dtype)
        count = (there.sum(dim=2, keepdim=True) * grouped.shape[-1]).clamp(min=1)
        mean = (grouped * there).sum(dim=(2, 4), keepdim=True) / count
        centred = (grouped - mean) * there
        variance = centred.square().sum(dim=(2, 4), keepdim=True) / count
        normed = rearrange(centred * (variance + self.eps).rsqrt(), "b n t g c -> b n t (g c)")
        scaled: Tensor = normed * self.weight + self.bias
        return scaled


def _on_grid(attention: Tensor, height: int) -> Tensor:
    return rearrange(attention, "b (h w) t heads -> heads b t h w", h=height)


def _check_heads(heads: int, *, channels: int, dim: int, out_channels: int) -> None:
    if heads < 1:
        raise InputError(f"L-TAE needs at least one head, got {heads}.")
    for name, width in (("channels", channels), ("out_channels", out_channels)):
        if width % heads or width < 2 * heads:
            raise InputError(
                f"L-TAE normalises its {name} in {heads} groups, one per head, so they must be a "
                f"multiple of {heads} and at least {2 * heads}, got {width}. Change that width or "
                "the number of heads."
            )
    if dim < 2 * heads or dim % (2 * heads):
        raise InputError(
            f"L-TAE's dim ({dim}) must be a multiple of twice the heads (2 x {heads}), because "
            "dates become sines and cosines in every head. Change dim or the number of heads."
        )

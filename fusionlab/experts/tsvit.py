"""TSViT: a temporo-spatial vision transformer for satellite image time series.

Tarasiou et al., "ViTs for SITS: Vision Transformers for Satellite Image Time Series", 2023,
arXiv:2301.04944.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fusionlab.dates import day_of_year
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert
from fusionlab.padding import pad_to_multiple
from fusionlab.types import Raw, Schema, TimeSeries, kind_of

DAYS = 366
"""Rows of the day-of-year table."""


class TSViT(Expert):
    """TSViT for series of any length and images of any size.

    First each patch looks over its own dates, once per class (or regressed variable); then each
    class looks over the patches. Other than the authors' implementation (where it is right, the
    numbers are equal):

    - dates that only pad are masked out: they change nothing, whatever they hold. A sample without
      any observation gets finite logits, from what the class tokens know alone;
    - the day of year is computed in integers, not truncated from a fraction;
    - the pixels of a patch return to their places (there, rows of patches were interleaved);
    - images may have another size than `image_size`: they are padded to a multiple of the patch,
      and the position embedding is stretched bilinearly over their grid of patches.

    Days of the year index their table directly, so rows 1 to 365 are those of published weights.
    31 December of a leap year, day 366, shares the row of day 365 (as the authors' truncation had
    it); row 0, their padding, is not used.

    Args:
        schema: what the data deliver.
        image_size: side of the images that the position embedding is made for, pixels.
        patch_size: side of a patch, pixels.
        dim: width of the tokens.
        temporal_depth: number of blocks over dates.
        spatial_depth: number of blocks over patches.
        heads: attention heads.
        head_dim: width of a head.
        mlp_ratio: width of a block's inner layer over `dim`.
        dropout: after attention and within the MLP of each block.
        embedding_dropout: after the position embedding.
        modality: see `Expert`, as for the arguments that follow.
        bands: the bands it looks at.
        scale: raw to physical units.
        mean: in physical units.
        std: in physical units.

    Raises:
        InputError: if the modality is not a time series.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        image_size: int = 40,
        patch_size: int = 2,
        dim: int = 128,
        temporal_depth: int = 4,
        spatial_depth: int = 4,
        heads: int = 4,
        head_dim: int = 32,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        modality: str | None = None,
        bands: Sequence[str] | None = None,
        scale: Sequence[float] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(schema, modality=modality, bands=bands, scale=scale, mean=mean, std=std)
        if not self.schema.modalities[self.modality].temporal:
            raise InputError(
                f"TSViT takes time series, but {self.modality!r} is delivered as single images. "
                "Use an expert for images, such as UNetFormer, or name another `modality:`."
            )
        self.patch_size = patch_size
        self.grid_size = -(-image_size // patch_size)
        self.patch_embedding = nn.Linear(patch_size**2 * len(self.inputs), dim)
        self.day_embedding = nn.Linear(DAYS, dim)
        self.class_tokens = nn.Parameter(torch.randn(1, self.num_outputs, dim))
        self.position_embedding = nn.Parameter(torch.randn(1, self.grid_size**2, dim))
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.over_dates = Transformer(dim, temporal_depth, heads, head_dim, mlp_ratio, dropout)
        self.over_patches = Transformer(dim, spatial_depth, heads, head_dim, mlp_ratio, dropout)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, patch_size**2))

    def logits(self, values: Raw) -> Tensor:
        """Logits of raw series, values ``(B, T, C, H, W)`` to ``(B, K, H, W)``.

        Raises:
            InputError: if given an image instead of a series.
        """
        if not isinstance(values, TimeSeries):
            raise InputError(
                f"TSViT takes a TimeSeries of values (B, T, C, H, W), dates and validity, but got "
                f"{kind_of(values)} for {self.modality!r}."
            )
        valid = values.valid
        images = self.inputs(values.values)
        # Padding must be finite, too: a masked key still multiplies its value by zero.
        images = images.masked_fill(~valid[:, :, None, None, None], 0.0)
        height, width = images.shape[-2:]
        images = pad_to_multiple(images, self.patch_size)
        rows, columns = (side // self.patch_size for side in images.shape[-2:])

        patches = rearrange(
            images,
            "b t c (h p1) (w p2) -> b (h w) t (p1 p2 c)",
            p1=self.patch_size,
            p2=self.patch_size,
        )
        days = self._embed_days(values.dates.masked_fill(~valid, 0))
        tokens = self.patch_embedding(patches) + days[:, None]  # (b, n, t, dim)
        classes = self.class_tokens.expand(*tokens.shape[:2], -1, -1)
        # Class tokens may always be looked at, so no token is ever left without a key.
        keys = F.pad(valid, (self.num_outputs, 0), value=True)
        tokens = self.over_dates(
            torch.cat([classes, tokens], 2), keys[:, None, None], keep=self.num_outputs
        )

        tokens = rearrange(tokens, "b n k d -> b k n d") + self._positions(rows, columns)
        tokens = self.over_patches(self.embedding_dropout(tokens))
        logits: Tensor = rearrange(
            self.head(tokens),
            "b k (h w) (p1 p2) -> b k (h p1) (w p2)",
            h=rows,
            p1=self.patch_size,
        )
        return logits[..., :height, :width]

    def _embed_days(self, dates: Tensor) -> Tensor:
        """``(B, T)`` dates to ``(B, T, dim)``: a linear layer over one-hot days, by look-up."""
        day = day_of_year(dates).clamp(max=DAYS - 1)
        return F.embedding(day, self.day_embedding.weight.T) + self.day_embedding.bias

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Position embedding of a grid of patches, ``(1, rows * columns, dim)``."""
        if rows == columns == self.grid_size:
            return self.position_embedding
        grid: Tensor = rearrange(self.position_embedding, "1 (h w) d -> 1 d h w", h=self.grid_size)
        grid = F.interpolate(grid, size=(rows, columns), mode="bilinear", align_corners=False)
        return rearrange(grid, "1 d h w -> 1 (h w) d")


class Transformer(nn.Module):
    """Pre-norm transformer encoder over many sequences per sample.

    Args:
        dim: width of the tokens.
        depth: number of blocks.
        heads: attention heads.
        head_dim: width of a head.
        mlp_ratio: width of the inner layer over `dim`.
        dropout: after attention and within the MLP.
    """

    def __init__(
        self, dim: int, depth: int, heads: int, head_dim: int, mlp_ratio: int, dropout: float
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, heads, head_dim, mlp_ratio, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, tokens: Tensor, keys: Tensor | None = None, *, keep: int | None = None
    ) -> Tensor:
        """``(B, sequences, N, dim)`` to ``(B, sequences, keep, dim)``.

        Args:
            tokens: the sequences.
            keys: which tokens may be looked at, ``(B, 1, 1, N)`` bool; all if None.
            keep: how many tokens, from the first on, are wanted; all if None.
        """
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, keys, keep=keep if i == last else None)
        normed: Tensor = self.norm(tokens[:, :, :keep])
        return normed


class Block(nn.Module):
    """Self-attention and an MLP, each on normalised tokens and added to them."""

    def __init__(self, dim: int, heads: int, head_dim: int, mlp_ratio: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.project = nn.Sequential(nn.Linear(heads * head_dim, dim), nn.Dropout(dropout))
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, dim * mlp_ratio),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(dim * mlp_ratio, dim),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor, keys: Tensor | None, *, keep: int | None) -> Tensor:
        """As `Transformer.forward`; only the tokens kept are worth a query."""
        # Sequences stand beside the heads, not beside the samples: the mask needs no copies, and
        # CUDA kernels take at most 65535 samples.
        query, key, value = rearrange(
            self.qkv(self.attention_norm(tokens)),
            "b sequences n (qkv heads d) -> qkv b (sequences heads) n d",
            qkv=3,
            heads=self.heads,
        ).unbind(0)
        attended = F.scaled_dot_product_attention(query[:, :, :keep], key, value, attn_mask=keys)
        attended = rearrange(
            attended, "b (sequences heads) n d -> b sequences n (heads d)", heads=self.heads
        )
        tokens = tokens[:, :, :keep] + self.project(attended)
        refined: Tensor = tokens + self.mlp(self.mlp_norm(tokens))
        return refined

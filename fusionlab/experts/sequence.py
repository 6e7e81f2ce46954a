"""A small transformer encoder over the parts of samples, of which some only pad.

Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762; with the normalisation before
each block, and a learned token before all others, as in BERT (Devlin et al., 2018,
arXiv:1810.04805).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionlab.errors import InputError
from fusionlab.experts.tsvit import Transformer
from fusionlab.heads.base import checked_rate

Pooling = Literal["average", "first"]
"""What becomes the embedding: the mean over valid tokens, or the learned token before them."""


class SequenceEncoder(nn.Module):
    """A transformer encoder over sequences, each with a learned token before it.

    That token is always valid. A sequence without any valid part is therefore it alone, which gives
    a learned answer and nothing that is not finite.

    Args:
        width: of the tokens.
        depth: number of blocks.
        heads: attention heads; they must divide the width.
        mlp_ratio: width of a block's inner layer over `width`.
        dropout: after attention and within the inner layer, in [0, 1).
        pooling: what `pool` gives.
        where: what is asking, for error messages.

    Raises:
        InputError: for numbers below 1, heads that do not divide the width, a dropout outside
            [0, 1), or an unknown pooling.
    """

    def __init__(
        self,
        width: int,
        *,
        depth: int,
        heads: int,
        mlp_ratio: int,
        dropout: float,
        pooling: Pooling,
        where: str,
    ) -> None:
        super().__init__()
        sizes = {"width": width, "depth": depth, "heads": heads, "mlp_ratio": mlp_ratio}
        for name, size in sizes.items():
            if size < 1:
                raise InputError(f"{where}: {name} must be 1 or more, got {size}.")
        if width % heads or width % 2:
            raise InputError(
                f"{where}: width ({width}) must be even and a multiple of heads ({heads}). Change "
                "one of them."
            )
        if pooling not in get_args(Pooling):
            raise InputError(f"{where} pools by one of {list(get_args(Pooling))}, got {pooling!r}.")
        rate = checked_rate(dropout, where=where)
        self.pooling = pooling
        self.first = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.first, std=0.02)
        self.dropout = nn.Dropout(rate)
        self.transformer = Transformer(width, depth, heads, width // heads, mlp_ratio, rate)

    def forward(self, parts: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes sequences.

        Args:
            parts: ``(B, N, width)``, finite also where they only pad; N may be 0.
            valid: ``(B, N)`` bool.

        Returns:
            Tokens ``(B, 1 + N, width)``, the learned one first and zeros where they only pad, and
            which are valid, ``(B, 1 + N)``.
        """
        first = self.first.to(parts.dtype).expand(len(parts), 1, -1)
        valid = F.pad(valid, (1, 0), value=True)
        tokens = self.dropout(torch.cat([first, parts], dim=1))
        # One sequence per sample, in a layout with many.
        encoded: Tensor = self.transformer(tokens[:, None], valid[:, None, None])[:, 0]
        return encoded.masked_fill(~valid[..., None], 0.0), valid

    def pool(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Embeddings ``(B, width)`` of what `forward` gives."""
        if self.pooling == "first":
            return tokens[:, 0]
        return tokens.sum(dim=1) / valid.sum(dim=1, keepdim=True)

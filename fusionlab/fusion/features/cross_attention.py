"""Every expert's tokens look at those of the others: patches at words, words at patches.

Attention between modalities as in Lu et al., "ViLBERT: Pretraining Task-Agnostic Visiolinguistic
Representations for Vision-and-Language Tasks", NeurIPS 2019, arXiv 1908.02265, section 3.1, in one
layer and without its feed-forward part.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.fusion.features.base import FusedFeatures, TokenOperator, keep_available
from fusionlab.types import Tokens


class CrossAttention(TokenOperator):
    """Multihead attention from each expert's tokens to those of each other expert.

    Tokens pass a linear layer of their own to a common width; those that lie on a grid are also
    told where (`grid_positions`). Then every expert asks every other one: ``n`` tokens that ask and
    ``m`` that are asked cost ``n m`` comparisons. What an expert hears from the others is averaged,
    added to its own tokens and normalised (LayerNorm), and the mean over its tokens is its part of
    the result, in which the experts' parts stand side by side.

    An expert that asks has one attention layer, whomever it asks. So weights sum to 1 for each pair
    and can be read pair by pair, and a missing expert leaves those of the other pairs as they are.
    An expert whose modality is missing hears and says nothing, and its part of the result is zeros;
    one that is alone passes its own tokens on. Padding tokens take no part.

    Weights of attention are given in evaluation mode only: training does without them, which lets
    torch choose a faster attention.

    Args:
        channels: per expert, the width of its tokens.
        width: common width, divisible by `heads`; the result has it once per expert.
        heads: attention heads; the weights given are their mean.
        dropout: share in [0, 1) of the attention weights that is left out while training.
        positions: whether to add the positions of tokens on a grid.

    Raises:
        InputError: if `width` is less than 1 or does not divide by `heads`, or `dropout` is no
            share.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        width: int = 512,
        heads: int = 8,
        dropout: float = 0.0,
        positions: bool = True,
    ) -> None:
        super().__init__(channels)
        if width < 1 or heads < 1 or width % heads:
            raise InputError(
                f"CrossAttention width ({width}) must be divisible by heads ({heads})."
            )
        if not 0 <= dropout < 1:
            raise InputError(f"CrossAttention dropout is a share in [0, 1), got {dropout}.")
        self.width = width
        self.positions = positions
        self.channels_out = width * len(self.channels)
        self.projections = nn.ModuleDict(
            {name: nn.Linear(own, width) for name, own in self.channels.items()}
        )
        self.attentions = nn.ModuleDict(
            {
                name: nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
                for name in self.channels
            }
        )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in self.channels})

    def fuse_tokens(self, tokens: Mapping[str, Tokens]) -> FusedFeatures:
        """See `TokenOperator.fuse_tokens`."""
        given = {name: self._projected(name, tokens[name]) for name in self.channels}
        valid = {name: tokens[name].valid for name in self.channels}
        there = {name: rows.any(dim=1) for name, rows in valid.items()}
        attention, parts = {}, []
        for asking in self.channels:
            others = [name for name in self.channels if name != asking]
            heard = torch.zeros_like(given[asking])
            for asked in others:
                said, weights = self._ask(asking, given[asking], given[asked], valid[asked])
                heard = heard + keep_available(said, there[asked])
                if weights is not None:
                    both = valid[asking] & there[asked][:, None]
                    attention[asking, asked] = keep_available(weights, both)
            speaking = torch.stack([there[name] for name in others]).sum(dim=0).clamp(min=1)
            mixed = self.norms[asking](given[asking] + heard / speaking[:, None, None])
            parts.append(_mean(mixed, valid[asking]))
        return FusedFeatures(torch.cat(parts, dim=1), attention=attention or None)

    def _projected(self, name: str, tokens: Tokens) -> Tensor:
        projected: Tensor = self.projections[name](tokens.values)
        if self.positions and tokens.grid is not None:
            projected = projected + grid_positions(
                *tokens.grid, self.width, device=projected.device
            ).to(projected.dtype)
        return projected

    def _ask(
        self, asking: str, queries: Tensor, keys: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """What is heard ``(B, N, width)``, and the weights ``(B, N, M)`` in evaluation mode."""
        # Where nothing can be asked, a softmax over nothing would be NaN; it is masked later.
        padding = ~valid & valid.any(dim=1, keepdim=True)
        said: Tensor
        weights: Tensor | None
        said, weights = self.attentions[asking](
            queries, keys, keys, key_padding_mask=padding, need_weights=not self.training
        )
        return said, weights


def grid_positions(rows: int, columns: int, width: int, *, device: torch.device) -> Tensor:
    """Where the cells of a grid lie, as sines and cosines of their row and column.

    Half of the channels tell the row and half the column, at wavelengths from 2 pi to 10,000 times
    that, as in Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762, section 3.5.

    Args:
        rows: of the grid.
        columns: of the grid.
        width: channels; what is left of a multiple of four is zeros.
        device: of the result.

    Returns:
        ``(rows * columns, width)`` float32, row by row.
    """
    quarter = width // 4
    steps = torch.arange(quarter, device=device, dtype=torch.float32)
    frequencies = 10_000.0 ** (-steps / max(quarter, 1))
    waves = []
    for count in (rows, columns):
        phase = torch.arange(count, device=device, dtype=torch.float32)[:, None] * frequencies
        waves.append(torch.cat([phase.sin(), phase.cos()], dim=1))
    down = waves[0][:, None].expand(rows, columns, 2 * quarter)
    along = waves[1][None].expand(rows, columns, 2 * quarter)
    rest = torch.zeros(rows, columns, width - 4 * quarter, device=device)
    return torch.cat([down, along, rest], dim=2).flatten(0, 1)


def _mean(tokens: Tensor, valid: Tensor) -> Tensor:
    """The mean over valid tokens ``(B, D)``; zeros where there are none."""
    total = keep_available(tokens, valid).sum(dim=1)
    return total / valid.sum(dim=1, keepdim=True).clamp(min=1)

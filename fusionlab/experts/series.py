"""A small transformer encoder for series of plain values: weather, vegetation indices, gauges.

Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762, over dates with gaps. The code
of elapsed days is that of L-TAE (Garnot & Landrieu, 2020, arXiv:2007.00586).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionlab.backbones.dates import encode_days
from fusionlab.dates import day_of_year
from fusionlab.errors import InputError
from fusionlab.experts.embedding import TokenExpert
from fusionlab.experts.sequence import Pooling, SequenceEncoder
from fusionlab.heads import HeadFactory
from fusionlab.types import Raw, Schema, TimeSeries, Tokens, kind_of

_DAYS_PER_YEAR = 366  # so that the last day of a leap year is not beyond the circle
_LATEST = 1 << 40  # days; later than any date


class SeriesExpert(TokenExpert):
    """A transformer encoder over the dates of a series of values, however far apart they lie.

    Each date is a token: a linear layer over the values (0, the mean, where one is missing), over
    which of them are missing, and over the season as sine and cosine of the day of the year. Added
    to it is the code of the days since the first valid date of that sample. Dates that only pad
    change nothing, whatever they hold, and neither does the order in which dates are listed.

    A learned token stands before each series, so one without any valid date has a learned
    embedding. Tokens are one per date, without that one.

    Args:
        schema: what the data deliver.
        width: of embeddings and tokens; even, and a multiple of `heads`.
        depth: number of transformer blocks.
        heads: attention heads.
        mlp_ratio: width of a block's inner layer over `width`.
        pooling: what becomes the embedding: ``average``, the mean over all tokens, or ``first``,
            the learned token before the series.
        dropout: of embedded dates, after attention and within the inner layers, in [0, 1).
        head: from embedding to logits, or values; one linear layer if not given.
        modality: see `Expert`, as for the arguments that follow.
        bands: the variables it looks at.
        scale: raw to physical units.
        mean: in physical units.
        std: in physical units.

    Raises:
        InputError: if an option is out of its range; if the modality is no series of values, or the
            target of the data is one per pixel.
    """

    kinds = ("series",)

    def __init__(
        self,
        schema: Schema,
        *,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        mlp_ratio: int = 2,
        pooling: Pooling = "average",
        dropout: float = 0.1,
        head: HeadFactory | None = None,
        modality: str | None = None,
        bands: Sequence[str] | None = None,
        scale: Sequence[float] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(schema, modality=modality, bands=bands, scale=scale, mean=mean, std=std)
        self.encoder = SequenceEncoder(
            width,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            pooling=pooling,
            where=type(self).__name__,
        )
        self.steps = nn.Linear(2 * len(self.inputs) + 2, width)
        self.add_head(head)

    @property
    def embedding_dim(self) -> int:
        """Width of the embedding."""
        return self.steps.out_features

    def embed(self, values: Raw) -> Tensor:
        """Embeddings ``(B, D)`` of series of values ``(B, T, C)``.

        Raises:
            InputError: if given anything else.
        """
        return self.encoder.pool(*self._encode(values))

    def tokens(self, values: Raw) -> Tokens:
        """One token per date, ``(B, T, D)``.

        Args:
            values: a series of values ``(B, T, C)``.

        Raises:
            InputError: if given anything else.
        """
        encoded, valid = self._encode(values)
        return Tokens(encoded[:, 1:], valid[:, 1:])

    def token_names(self, values: Raw) -> list[list[str]]:
        """The dates, as ``2024-05-31``; empty for those that only pad."""
        assert isinstance(values, TimeSeries)
        dates = values.dates.cpu().numpy().astype("datetime64[D]").astype(str)
        return np.where(values.valid.cpu().numpy(), dates, "").tolist()  # type: ignore[no-any-return]

    def _encode(self, values: Raw) -> tuple[Tensor, Tensor]:
        if not isinstance(values, TimeSeries) or values.values.ndim != 3:
            raise InputError(
                f"{type(self).__name__} takes a TimeSeries of values (B, T, C), dates and "
                f"validity, but got {kind_of(values)} for {self.modality!r}."
            )
        valid = values.valid
        normalised, there = self.inputs.plain(values.values)
        days = values.dates.long()
        first = F.pad(days.masked_fill(~valid, _LATEST), (1, 0), value=_LATEST).amin(dim=1)
        elapsed = (days - first[:, None]).masked_fill(~valid, 0)
        season = 2 * pi / _DAYS_PER_YEAR * day_of_year(days.masked_fill(~valid, 0)).float()
        seen = [normalised, (~there).float(), season.sin()[..., None], season.cos()[..., None]]
        # What only pads must be finite and the same, since attention multiplies it by zero.
        steps = torch.cat(seen, dim=-1).masked_fill(~valid[..., None], 0.0)
        encoded: tuple[Tensor, Tensor] = self.encoder(
            self.steps(steps) + encode_days(elapsed, self.embedding_dim), valid
        )
        return encoded

"""U-TAE: a U-Net over the images of a series, with temporal attention at its bottom.

Garnot & Landrieu, "Panoptic Segmentation of Satellite Image Time Series with Convolutional Temporal
Attention Networks", 2021, arXiv:2107.07933.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from typing import Literal, get_args

from einops import rearrange
from torch import Tensor, nn

from fusionlab.backbones.dates import put_back, zero_of
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert
from fusionlab.experts.ltae import LTAE
from fusionlab.experts.utae_blocks import ENCODER_GROUPS, Down, Up, conv_block, pool_dates
from fusionlab.padding import pad_bottom_right
from fusionlab.types import Raw, Schema, TimeSeries, kind_of

Aggregation = Literal["att_group", "att_mean", "mean"]
"""How the maps that the decoder takes from the encoder are pooled over dates."""


class UTAE(Expert):
    """U-TAE for series of any length and images of any size.

    All dates pass through one convolutional encoder. L-TAE pools the coarsest maps over dates, and
    its attention, enlarged, pools the finer ones on their way to the decoder. While training, these
    see the attention after its dropout. The last layer ends in a ReLU, as the authors' does: no
    logit is negative; where values are regressed, which may be, one more layer follows, a linear
    one. Other than their implementation (where nothing is padded, the numbers are
    equal):

    - which dates only pad is said by `TimeSeries.valid`, not guessed from values. Padding runs
      through no convolution and enters no normalisation, whatever it holds, so it changes nothing
      (there, it leaks through the group normalisation of L-TAE);
    - a sample without any valid date is left out, from the statistics of training too, and gets
      logits and features of zero;
    - images are padded at the bottom and the right (by reflection, or by repeating the edge where
      there is too little) to a multiple of ``2 ** (stages - 1)``, and to at least twice that,
      without which the coarsest map had nothing to reflect: 16 x 16 for four stages. So images of
      10 x 10 pixels need no other network, though `encoder_widths` and `decoder_widths` of fewer
      stages make a lighter one.

    L-TAE gives a date a code of its days since `reference_date`: sines whose cycles last from 6
    days to some 7 years at the default widths (see `encode_days`). Dates before it count backwards.
    Nothing wraps around at the end of a year, so the network knows only the span of dates that it
    was trained on: for other years, move `reference_date` by as many.

    In evaluation mode all of it can be exported by `torch.export`, with its gathering of valid
    dates, and `torch.compile` makes one graph of it where
    ``torch._dynamo.config.capture_dynamic_output_shape_ops`` is set. Otherwise, and while training,
    it compiles in parts, because graphs break where what is valid decides.

    Args:
        schema: what the data deliver. Built for data without classes, it has no head and gives
            features only.
        encoder_widths: channels of the stages, finest first, each half as fine as the one before;
            multiples of 4.
        decoder_widths: likewise; the last is that of the encoder.
        head_widths: channels of the layers between the decoder and the logits.
        heads: attention heads; a divisor of all encoder widths for ``att_group``.
        dim: width of the features that L-TAE looks at, an even number per head.
        key_dim: width of a key.
        dropout: of what L-TAE pools.
        attention_dropout: of the attention.
        aggregation: of the finer maps over dates: ``att_group`` weights as many groups of channels
            as there are heads, each by one head's attention; ``att_mean`` weights all channels by
            the mean attention; ``mean`` weights all valid dates alike.
        reference_date: that positions count from, as ``YYYY-MM-DD``; by default that of PASTIS,
            the authors' data set.
        modality: see `Expert`, as for the arguments that follow.
        bands: the bands it looks at.
        scale: raw to physical units.
        mean: in physical units.
        std: in physical units.

    Raises:
        InputError: if the modality is not a time series, widths do not fit each other or the heads,
            or an option is out of its range.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        encoder_widths: Sequence[int] = (64, 64, 64, 128),
        decoder_widths: Sequence[int] = (32, 32, 64, 128),
        head_widths: Sequence[int] = (32,),
        heads: int = 16,
        dim: int = 256,
        key_dim: int = 4,
        dropout: float = 0.2,
        attention_dropout: float = 0.1,
        aggregation: Aggregation = "att_group",
        reference_date: str = "2018-09-01",
        modality: str | None = None,
        bands: Sequence[str] | None = None,
        scale: Sequence[float] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(schema, modality=modality, bands=bands, scale=scale, mean=mean, std=std)
        if not self.schema.modalities[self.modality].temporal:
            raise InputError(
                f"UTAE takes time series, but {self.modality!r} is delivered as single images. "
                "Use an expert for images, such as UNetFormer, or name another `modality:`."
            )
        _check_widths(encoder_widths, decoder_widths, head_widths)
        _check_options(encoder_widths[:-1], heads, aggregation, dropout, attention_dropout)
        self.reference_day = _days_since_1970(reference_date)
        self.aggregation = aggregation
        self.coarsest: int = 2 ** (len(encoder_widths) - 1)
        """Pixels per step of the coarsest map."""
        finest = encoder_widths[0]
        self.encoder = nn.ModuleList([
            conv_block([len(self.inputs), finest, finest], norm="group"),
            *(Down(*pair) for pair in pairwise(encoder_widths)),
        ])  # fmt: skip
        self.temporal = LTAE(
            encoder_widths[-1],
            heads=heads,
            dim=dim,
            key_dim=key_dim,
            out_channels=encoder_widths[-1],
            dropout=dropout,
            attention_dropout=attention_dropout,
        )
        self.decoder = nn.ModuleList(
            Up(decoder_widths[i], skip=encoder_widths[i - 1], outputs=decoder_widths[i - 1])
            for i in range(len(encoder_widths) - 1, 0, -1)
        )
        self.width = decoder_widths[0]
        self.head = self._head(head_widths) if self.names else None

    def _head(self, widths: Sequence[int]) -> nn.Sequential:
        if not self.schema.regresses:
            return conv_block([self.width, *widths, self.num_outputs], norm="batch")
        last = nn.Conv2d([self.width, *widths][-1], self.num_outputs, 1)
        return nn.Sequential(*conv_block([self.width, *widths], norm="batch"), last)

    @property
    def embedding_dim(self) -> int:
        """Channels of the decoder's last map."""
        return self.width

    def drop_head(self) -> None:
        """Gives embeddings and feature maps only from now on."""
        self.head = None

    def logits(self, values: Raw) -> Tensor:
        """Logits of raw series, values ``(B, T, C, H, W)`` to ``(B, K, H, W)``.

        Raises:
            InputError: if given an image instead of a series, or built for data without classes.
        """
        if self.head is None:
            raise InputError(
                "This UTAE was built for data without classes and gives features only. Use it "
                "where features are fused, or give it data with classes."
            )
        return self._answer(values, self.head, self.num_outputs)

    def features(self, values: Raw, *, pooled: bool = True) -> Tensor:
        """The decoder's last map, before the head.

        Args:
            values: raw series, values ``(B, T, C, H, W)``.
            pooled: its mean over the image, ``(B, D)``; otherwise the map ``(B, D, H, W)``.

        Raises:
            InputError: if given an image instead of a series.
        """
        maps = self._answer(values, nn.Identity(), self.width)
        return maps.mean(dim=(-2, -1)) if pooled else maps

    def attention(self, values: Raw) -> Tensor:
        """How much each date counts at each place, for pictures; with dropout while training.

        Args:
            values: raw series, values ``(B, T, C, H, W)``.

        Returns:
            ``(heads, B, T, h, w)`` on the grid of the coarsest map, whose first cell begins at the
            image's first pixel; the last row and column may reach beyond the image. Sums to 1 over
            the valid dates of a sample, and is 0 at all other dates.

        Raises:
            InputError: if given an image instead of a series.
        """
        series = self._series(values)
        *_, coarse = self._encode(series)
        attention = self.temporal.attend(put_back(coarse, series.valid), *series[1:])
        rows, columns = (-(-side // self.coarsest) for side in series.values.shape[-2:])
        return attention[..., :rows, :columns]

    def _answer(self, values: Raw, head: nn.Module, width: int) -> Tensor:
        """What the head makes of the decoder's last map, ``(B, width, H, W)``."""
        series = self._series(values)
        observed = series.valid.any(dim=1)
        height, columns = series.values.shape[-2:]
        maps: Tensor
        if not self.training:
            maps = head(self._decode(series)).masked_fill(~observed[:, None, None, None], 0.0)
        elif observed.any():  # statistics must learn from samples with a date only
            maps = head(self._decode(TimeSeries(*(part[observed] for part in series))))
            maps = put_back(maps, observed)
        else:
            maps = zero_of(self).expand(len(observed), width, height, columns)
        return maps[..., :height, :columns]

    def _series(self, values: Raw) -> TimeSeries:
        """Normalised images, with days since the reference date."""
        if not isinstance(values, TimeSeries):
            raise InputError(
                f"UTAE takes a TimeSeries of values (B, T, C, H, W), dates and validity, but got "
                f"{kind_of(values)} for {self.modality!r}."
            )
        days = (values.dates.long() - self.reference_day).masked_fill(~values.valid, 0)
        return TimeSeries(self.inputs(values.values), days, values.valid)

    def _encode(self, series: TimeSeries) -> list[Tensor]:
        """Maps of the N valid dates of all samples, ``(N, channels, h, w)``, finest first."""
        height, width = series.values.shape[-2:]
        bottom, right = (self._grown(side) - side for side in (height, width))
        state = pad_bottom_right(series.values[series.valid], bottom, right)
        maps = []
        for block in self.encoder:
            state = block(state)
            maps.append(state)
        return maps

    def _grown(self, side: int) -> int:
        """The side that an image is padded to."""
        return max(-(-side // self.coarsest), 2) * self.coarsest

    def _decode(self, series: TimeSeries) -> Tensor:
        """The decoder's last map, of the padded images."""
        *skips, coarse = self._encode(series)
        state: Tensor
        state, attention = self.temporal(put_back(coarse, series.valid), *series[1:])
        weights = rearrange(attention, "heads b t h w -> b t heads h w")[series.valid]
        if self.aggregation == "att_mean":
            weights = weights.mean(dim=1, keepdim=True)
        elif self.aggregation == "mean":
            share = series.valid / series.valid.sum(dim=1, keepdim=True).clamp(min=1)
            weights = share[series.valid][:, None, None, None].expand_as(weights[:, :1])
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            state = block(state, pool_dates(skip, weights, series.valid))
        return state


def _days_since_1970(text: str) -> int:
    try:
        return (date.fromisoformat(text) - date(1970, 1, 1)).days
    except (TypeError, ValueError) as error:
        raise InputError(
            f"UTAE's reference_date is a date such as '2018-09-01', got {text!r}."
        ) from error


def _check_widths(encoder: Sequence[int], decoder: Sequence[int], head: Sequence[int]) -> None:
    if not encoder or len(encoder) != len(decoder) or encoder[-1] != decoder[-1]:
        raise InputError(
            f"UTAE's encoder_widths and decoder_widths name the same stages and end in the same "
            f"width, got {list(encoder)} and {list(decoder)}."
        )
    if min((*encoder, *decoder, *head)) < 1:
        raise InputError(
            f"UTAE's widths must be 1 or more, got {list(encoder)}, {list(decoder)} and "
            f"{list(head)}."
        )
    unfit = [width for width in encoder if width % ENCODER_GROUPS]
    if unfit:
        raise InputError(
            f"UTAE normalises in {ENCODER_GROUPS} groups of channels, so encoder_widths must be "
            f"multiples of {ENCODER_GROUPS}, got {unfit}."
        )


def _check_options(
    skips: Sequence[int], heads: int, aggregation: str, *probabilities: float
) -> None:
    if aggregation not in get_args(Aggregation):
        raise InputError(
            f"UTAE's aggregation is one of {list(get_args(Aggregation))}, got {aggregation!r}."
        )
    unfit = [width for width in skips if heads < 1 or width % heads]
    if aggregation == "att_group" and unfit:
        raise InputError(
            f"UTAE weights a group of channels per head, but the encoder_widths {unfit} do not "
            f"divide by {heads} heads. Change them or the heads, or say `aggregation: att_mean`."
        )
    for probability in probabilities:
        if not 0 <= probability < 1:
            raise InputError(f"UTAE's dropouts are probabilities in [0, 1), got {probability}.")

"""A neck that lays the tokens of a transformer out as maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from einops import rearrange
from torch import Tensor

from fusionlab.features import Feature
from fusionlab.necks.base import Neck, at_least
from fusionlab.necks.tokens import prefix_length, token_grid


class ReshapeTokensToImage(Neck):
    """Tokens to maps: ``(B, prefix + t·h·w, E)`` to ``(B, t·E, h, w)``.

    The grid follows from the image's size and the feature's stride. Where the stride is unknown,
    patches are taken to be squares that fill the image exactly, so images need not be square. A
    number of tokens that fills no such grid is refused. The reference implementation takes any
    square number of tokens for a square grid, whatever the image's shape, and states E channels
    for several dates where there are t·E.

    Args:
        features: descriptions of the tokens.
        prefix_tokens: how many tokens (class, registers) come before those of the patches and are
            left out; 1 if not given.
        remove_cls_token: another way to say it: True for one prefix token, False for none.
        effective_time_dim: t, number of dates of the tokens, first date first; dates become
            channels, those of the first date first.

    Raises:
        InputError: for features that are no tokens, numbers out of range, or contradictory ones;
            when applied, for tokens that fill no grid.
    """

    layouts: ClassVar[tuple[str, ...]] = ("NLC",)

    def __init__(
        self,
        features: Sequence[Feature],
        *,
        prefix_tokens: int | None = None,
        remove_cls_token: bool | None = None,
        effective_time_dim: int = 1,
    ) -> None:
        super().__init__(features)
        where = "ReshapeTokensToImage"
        self.prefix = prefix_length(prefix_tokens, remove_cls_token, where=where)
        self.dates = at_least(effective_time_dim, 1, where=f"{where} effective_time_dim")
        self.features = tuple(Feature(self.dates * f.channels, f.stride) for f in self.received)

    def convert(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Tokens ``(B, prefix + t·h·w, E_i)`` to maps ``(B, t·E_i, h, w)``.

        Raises:
            InputError: if the tokens fill no grid of patches on the image; says what would fit.
        """
        maps = []
        for i, (tokens, described) in enumerate(zip(features, self.received, strict=True)):
            rows, columns = token_grid(
                tokens.shape[1],
                prefix=self.prefix,
                dates=self.dates,
                stride=described.stride,
                image_size=image_size,
                where=f"ReshapeTokensToImage (feature {i})",
            )
            maps.append(
                rearrange(
                    tokens[:, self.prefix :],
                    "b (t h w) e -> b (t e) h w",
                    t=self.dates,
                    h=rows,
                    w=columns,
                )
            )
        return maps

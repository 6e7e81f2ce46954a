"""Images of several modalities on one grid, as the bands of one stacked image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionlab.models.align import Alignment
from fusionlab.types import Grid, Modality, TimeSeries

OverDates = Literal["mean", "median"]
"""What becomes of a time series: at every pixel the mean, or the median, of its valid dates."""

AVAILABLE = "available"
"""Band that says of every sample whether a modality is there: 1, or 0."""


def stacked_modality(
    modalities: Mapping[str, Modality], *, gsd: float, mask_channels: bool
) -> Modality:
    """What one modality must be called to hold the bands of several.

    Args:
        modalities: by name.
        gsd: of the common grid, metres.
        mask_channels: whether a band per modality that says whether it is there follows the others.

    Returns:
        Bands named ``aerial.red`` and ``aerial.available``, with the scale and the statistics of
        their own modality: raw values, stacked, are normalised by them once.

    Raises:
        InputError: if two bands would have the same name.
    """
    bands: list[str] = []
    scale: list[float] = []
    mean: list[float] = []
    std: list[float] = []
    preparation: dict[str, Any] = {}
    for name, modality in modalities.items():
        bands += [f"{name}.{band}" for band in modality.bands]
        scale += modality.scale
        mean += modality.mean
        std += modality.std
        preparation |= {f"{name}.{key}": value for key, value in modality.preparation.items()}
    masks = [f"{name}.{AVAILABLE}" for name in modalities] if mask_channels else []
    return Modality(
        (*bands, *masks),
        gsd,
        scale=(*scale, *[1.0] * len(masks)),
        mean=(*mean, *[0.0] * len(masks)),
        std=(*std, *[1.0] * len(masks)),
        preparation=preparation,
    )


def over_dates(series: TimeSeries, how: OverDates) -> Tensor:
    """One image of a series: at every pixel, what is known of the valid dates.

    Returns:
        ``(B, C, H, W)`` float32 raw values; NaN where no valid date knows one.
    """
    values = series.values.float()
    known = values.isfinite() & series.valid[:, :, None, None, None]
    count = known.sum(dim=1)
    if how == "mean":
        return torch.where(known, values, 0.0).sum(dim=1) / count  # 0 / 0 is NaN
    ordered = torch.where(known, values, torch.inf).sort(dim=1).values
    middle = torch.stack([(count - 1).clamp(min=0) // 2, count // 2], dim=1)
    middle = middle.clamp(max=values.shape[1] - 1)
    median = ordered.gather(1, middle).mean(dim=1)
    return torch.where(count > 0, median, torch.nan)


def on_grid(
    images: Tensor,
    grid: Grid,
    *,
    gsd: float,
    name: str,
    offset: Tensor | None,
    alignment: Alignment,
) -> Tensor:
    """Images on a grid, from the values that are known only.

    Images that are finer by a whole factor or more are averaged down to about the grid's resolution
    first, so that every pixel counts and none is skipped.

    Args:
        images: ``(B, C, h, w)`` float; not finite where unknown.
        grid: the grid.
        gsd: of the images, metres.
        name: of their modality.
        offset: ``(B, 2)``, how far the grid's centre lies from theirs, in their pixels; or None.
        alignment: resamples.

    Returns:
        ``(B, C, grid.rows, grid.columns)``, NaN where most of what a pixel is made of is unknown.
    """
    if tuple(images.shape[-2:]) == grid[:2] and math.isclose(gsd, grid.gsd, rel_tol=1e-3):
        return images
    known = images.isfinite()
    parts = torch.cat([torch.where(known, images, 0.0), known.to(images.dtype)], dim=1)
    factor = int(grid.gsd / gsd + 1e-3)
    if factor > 1:
        parts, offset = _averaged(parts, factor, offset)
    aligned = alignment(parts, grid, gsd=gsd * max(factor, 1), name=name, offset=offset)
    values, weight = aligned.chunk(2, dim=1)
    return torch.where(weight > 0.5, values / weight, torch.nan)


def _averaged(parts: Tensor, factor: int, offset: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Means of squares of pixels, and the offset of their centre.

    What is missing of the last squares is added as unknown, which moves the centre.
    """
    rows, columns = (-side % factor for side in parts.shape[-2:])
    padded = F.pad(parts, (0, columns, 0, rows))
    if offset is not None or rows or columns:
        moved = parts.new_tensor([rows / 2, columns / 2])
        start = parts.new_zeros(len(parts), 2) if offset is None else offset.float()
        offset = (start - moved) / factor
    return F.avg_pool2d(padded, factor), offset

"""Bands of different resolutions on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fusionlab.data.bigearthnet.options import Upsampling


def stack(
    bands: Sequence[NDArray[Any]],
    size: int,
    dtype: np.dtype[Any],
    *,
    upsampling: Upsampling = "nearest",
) -> NDArray[Any]:
    """Bands as channels of one image.

    `nearest` repeats pixels and keeps every value. `bilinear` takes pixels for areas, as they are:
    the corners of the image, not the centres of its corner pixels, stay where they were. (ConfigILM
    aligns the centres, which moves a band of 60 m by up to 25 m against those of 10 m, and computed
    the published statistics of bilinear upsampling so.)

    Args:
        bands: each ``(n, n)``, where n divides the size.
        size: rows and columns of the image.
        dtype: of the image.
        upsampling: how bands of fewer pixels are brought to its size.

    Returns:
        ``(bands, size, size)``, new memory.
    """
    image = np.empty((len(bands), size, size), dtype)
    for channel, band in zip(image, bands, strict=True):
        if band.shape[0] == size:
            channel[...] = band
        elif upsampling == "nearest":
            repeat(band, channel)
    if upsampling == "bilinear":
        _interpolate(bands, image)
    return image


def repeat(band: NDArray[Any], out: NDArray[Any]) -> None:
    """Writes each pixel of a band as a square of equal pixels, as ``np.kron`` with ones would.

    Args:
        band: ``(n, n)``.
        out: ``(k n, k n)`` contiguous, is filled.
    """
    n = len(band)
    factor = len(out) // n
    blocks = out.reshape(n, factor, n, factor)
    # Column by column, then row by row, in few long copies: thrice as fast as np.repeat.
    for column in range(factor):
        blocks[:, 0, :, column] = band
    for row in range(1, factor):
        blocks[:, row] = blocks[:, 0]


def _interpolate(bands: Sequence[NDArray[Any]], image: NDArray[Any]) -> None:
    size = image.shape[-1]
    for n in {len(band) for band in bands} - {size}:
        channels = [i for i, band in enumerate(bands) if len(band) == n]
        coarse = torch.from_numpy(np.stack([bands[i] for i in channels]).astype(np.float32))
        fine = functional.interpolate(
            coarse[None], size=(size, size), mode="bilinear", align_corners=False
        )
        image[channels] = fine[0].numpy()

"""A window of a sample in the place of the whole, the same on the ground in all its images."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionlab.data.choices import require_known
from fusionlab.data.ground import Ground, ground
from fusionlab.data.samples import Sample
from fusionlab.data.transforms.base import SampleTransform, is_map
from fusionlab.errors import InputError
from fusionlab.types import Schema, TimeSeries

_TOLERANCE = 0.05  # of the scale, to have whole pixels


class Zoom(NamedTuple):
    """A window of a sample, and how it is shown at the sample's size.

    Attributes:
        scale: side of the window as a share of the side of the whole, in (0, 1].
        shift: how far down and to the right its centre lies from that of the sample, in the units
            of `Ground`.
    """

    scale: float
    shift: tuple[float, float]

    def positions(self, size: int, pixel: float, axis: int) -> NDArray[np.float64]:
        """Where the centres of the new pixels lie, in the old ones, whose first spans 0 to 1.

        Args:
            size: number of pixels, old and new.
            pixel: size of one, in the units of `Ground`.
            axis: 0 for rows, 1 for columns.
        """
        start = (1 - self.scale) / 2 * size + self.shift[axis] / pixel
        # Rounded, so that what lies on an edge falls to the same side at every resolution.
        return np.round(start + (np.arange(size) + 0.5) * self.scale, 9)


class SpatialCrop(SampleTransform):
    """Shows a random window of a sample at the size of the whole.

    The window is the same on the ground for all images, series, cloud cover and masks, each at its
    own resolution, and all are enlarged by the same factor. An image that shows more than the
    sample, as context, shows less context. Where the window can lie on whole pixels of the coarsest
    image it does, which may change its scale by 0.05 at most or, within a range, as it fits. Pixels
    of others are resampled at their true place.

    Images are resampled bilinearly in their own type; what is missing (NaN) has no part in its
    neighbours. Masks, and images of codes, take the nearest pixel. Texts, tables and targets of
    whole samples stay.

    Args:
        scale: side of the window as a share of the side of the whole, in (0, 1], or a range from
            which it is drawn.
        codes: modalities whose numbers are codes, such as a land cover; those of int64 and bool
            always are.

    Raises:
        InputError: for a scale that is no such share, or no range.
    """

    def __init__(
        self, scale: float | tuple[float, float] = 0.8, *, codes: Sequence[str] = ()
    ) -> None:
        low, high = (scale, scale) if isinstance(scale, int | float) else scale
        if not 0 < low <= high <= 1:
            raise InputError(
                f"The scale of a SpatialCrop is a share in (0, 1], or a range [low, high] of such, "
                f"got {scale}."
            )
        self.range = (float(low), float(high))
        self.codes = tuple(codes)
        self._schema: Schema | None = None

    def bound(self, schema: Schema) -> Self:
        """Learns the pixel sizes; without them, all images are taken to show the same ground.

        Raises:
            InputError: if `codes` names what is not delivered.
        """
        require_known(
            self.codes, list(schema.modalities), option="SpatialCrop.codes", what="modality"
        )
        bound = copy.copy(self)
        bound._schema = schema
        return bound

    def __call__(self, sample: Sample) -> Sample:
        """A new sample; the one given is not changed."""
        images = {n: _size(value) for n, value in sample["inputs"].items() if is_map(value)}
        target = sample.get("target")
        grid = _size(target) if target is not None and is_map(target) else None
        laid = ground(images, grid, schema=self._schema)
        zoom = None if laid is None else self.draw(laid)
        if laid is None or zoom is None or zoom.scale == 1:
            return sample
        return self._zoomed(sample, laid, zoom)

    def draw(self, laid: Ground) -> Zoom:
        """Draws a window of a sample."""
        low, high = self.range
        coarse = laid.coarsest()
        scale = low + (high - low) * float(torch.rand(()))
        whole = round(scale * coarse.size[0]) / coarse.size[0]
        near = low <= whole <= high if low < high else abs(whole - scale) <= _TOLERANCE
        if near and 0 < whole < 1:
            scale = whole
        shift = [0.0, 0.0]
        for axis in range(2):
            size, pixel = coarse.size[axis], coarse.pixel[axis]
            room = (1 - scale) / 2 * min(raster.extent[axis] for raster in laid.rasters) / pixel
            middle = (1 - scale) / 2 * size  # first pixel of a window in the middle
            first, last = math.ceil(middle - room - 1e-6), math.floor(middle + room + 1e-6)
            if abs(scale * size - round(scale * size)) < 1e-6 and first <= last:
                start = float(torch.randint(first, last + 1, ()))
            else:
                start = middle + room * (2 * float(torch.rand(())) - 1)
            shift[axis] = (start - middle) * pixel
        return Zoom(scale, (shift[0], shift[1]))

    def _zoomed(self, sample: Sample, laid: Ground, zoom: Zoom) -> Sample:
        moved = dict(sample)
        at = {
            name: [zoom.positions(raster.size[i], raster.pixel[i], i) for i in range(2)]
            for name, raster in laid.images.items()
        }
        moved["inputs"] = {
            name: _resampled(value, at[name], nearest=name in self.codes) if name in at else value
            for name, value in sample["inputs"].items()
        }
        if "cloud_cover" in sample:
            moved["cloud_cover"] = {
                name: _tensor(cover, at[name]) for name, cover in sample["cloud_cover"].items()
            }
        if "offset" in sample:  # as far on the ground, in pixels that are smaller now
            moved["offset"] = {n: offset / zoom.scale for n, offset in sample["offset"].items()}
        if laid.target is not None:
            size, pixel = laid.target
            where = [zoom.positions(size[i], pixel[i], i) for i in range(2)]
            nearest = not sample["target"].is_floating_point()
            moved["target"] = _tensor(sample["target"], where, nearest=nearest)
        return moved


Positions = list[NDArray[np.float64]]


def _size(value: Tensor | TimeSeries) -> tuple[int, int]:
    values = value.values if isinstance(value, TimeSeries) else value
    return values.shape[-2], values.shape[-1]


def _resampled(value: Tensor | TimeSeries, at: Positions, *, nearest: bool) -> Tensor | TimeSeries:
    if isinstance(value, TimeSeries):
        return value._replace(values=_tensor(value.values, at, nearest=nearest))
    return _tensor(value, at, nearest=nearest)


def _tensor(values: Tensor, at: Positions, *, nearest: bool = False) -> Tensor:
    """Reads ``(..., H, W)`` at the positions of rows and columns, on one thread; see `D4.image`."""
    array = values.numpy()
    if nearest or values.dtype in (torch.bool, torch.int64):
        rows, columns = (
            np.clip(np.floor(where).astype(np.intp), 0, n - 1)
            for where, n in zip(at, array.shape[-2:], strict=True)
        )
        return torch.from_numpy(array[..., rows[:, None], columns])
    wide = np.float64 if array.dtype.itemsize > 4 or array.dtype == np.int32 else np.float32
    known = np.isfinite(array) if array.dtype.kind == "f" else None
    if known is None or known.all():
        read = _bilinear(array.astype(wide), at)
    else:
        share = _bilinear(known.astype(wide), at)
        total = _bilinear(np.where(known, array, 0).astype(wide), at)
        there = _tensor(torch.from_numpy(known), at).numpy()
        read = np.where(there, total / np.where(there, share, 1), np.nan)
    if array.dtype.kind != "f":
        read = np.rint(read)
    return torch.from_numpy(read.astype(array.dtype))


def _bilinear(array: NDArray[Any], at: Positions) -> NDArray[Any]:
    """Along rows, then along columns; beyond the border, the border."""
    for axis, where in ((-2, at[0]), (-1, at[1])):
        last = array.shape[axis] - 1
        centre = np.clip(where - 0.5, 0, last)
        below = np.minimum(np.floor(centre).astype(np.intp), max(last - 1, 0))
        share = (centre - below).astype(array.dtype).reshape((-1, 1) if axis == -2 else (-1,))
        low = np.take(array, below, axis=axis)
        high = np.take(array, np.minimum(below + 1, last), axis=axis)
        array = low + share * (high - low)
    return array

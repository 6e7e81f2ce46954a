"""Bands that are a little brighter or darker than they were."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionlab.data.choices import require_known
from fusionlab.data.samples import Sample
from fusionlab.data.transforms.base import SampleTransform, is_map
from fusionlab.errors import InputError
from fusionlab.types import Modality, Schema, TimeSeries


class SpectralShift(SampleTransform):
    """Adds to every band of every image a number of its own, as another sensor or haze would.

    The numbers are drawn from a normal distribution whose standard deviation is `std` times that of
    the band: over the data set, where the data module says so, else over the image itself. All
    dates of a series are shifted alike. Integers are rounded and stay in the range of their type,
    other values in that of the image. What is missing (NaN) stays missing; codes (int64, bool) and
    modalities that are not available stay as they are.

    Args:
        std: of the shifts, in standard deviations of the band; at least 0.
        modalities: those to shift; all that are images if not given.

    Raises:
        InputError: for a negative `std`.
    """

    def __init__(self, std: float = 0.1, *, modalities: Sequence[str] | None = None) -> None:
        if not 0 <= std < math.inf:
            raise InputError(f"The std of a SpectralShift must be 0 or more, got {std}.")
        self.std = std
        self.modalities = tuple(modalities) if modalities is not None else None
        self._published: dict[str, NDArray[np.float32]] = {}

    def bound(self, schema: Schema) -> Self:
        """Learns the standard deviations of the bands.

        Raises:
            InputError: if `modalities` names what is not delivered, or is no image.
        """
        images = [name for name, modality in schema.modalities.items() if modality.kind == "image"]
        require_known(
            self.modalities or (), images, option="SpectralShift.modalities", what="image modality"
        )
        bound = copy.copy(self)
        bound._published = {
            name: _raw_std(schema.modalities[name])
            for name in images
            if _has_statistics(schema.modalities[name])
        }
        return bound

    def __call__(self, sample: Sample) -> Sample:
        """A new sample; the one given is not changed."""
        inputs = dict(sample["inputs"])
        for name, value in inputs.items():
            chosen = self.modalities is None or name in self.modalities
            if chosen and is_map(value) and sample["available"][name]:
                inputs[name] = self._shifted(value, self._published.get(name))
        return {**sample, "inputs": inputs}

    def _shifted(
        self, value: Tensor | TimeSeries, std: NDArray[np.float32] | None
    ) -> Tensor | TimeSeries:
        if not isinstance(value, TimeSeries):
            return self._values(value, std)
        seen = value.valid.nonzero()[:, 0].numpy()
        if not len(seen):
            return value
        images = value.values.numpy().copy()  # NumPy indexes uint16 in every release of PyTorch
        images[seen] = self._values(torch.from_numpy(images[seen]), std).numpy()
        return value._replace(values=torch.from_numpy(images))

    def _values(self, values: Tensor, std: NDArray[np.float32] | None) -> Tensor:
        """Shifts ``(..., C, H, W)``."""
        if values.dtype in (torch.bool, torch.int64):
            return values
        if values.ndim == 2:  # of a single band
            return self._values(values[None], std)[0]
        array = values.numpy()
        known = np.isfinite(array)
        if not known.any():
            return values
        spread = std if std is not None else _std(array, known)
        shift = (torch.randn(len(spread)).numpy() * self.std * spread)[:, None, None]
        if array.dtype.kind == "f":
            low, high = array[known].min(), array[known].max()
            moved = np.clip(array + shift.astype(array.dtype), low, high)
            return torch.from_numpy(np.where(known, moved, array))
        limits = np.iinfo(array.dtype)
        wide = np.float32 if array.dtype.itemsize < 4 else np.float64
        moved = np.rint(array + shift.astype(wide))
        return torch.from_numpy(np.clip(moved, limits.min, limits.max).astype(array.dtype))


def _std(array: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Per band of ``(..., C, H, W)``, of the values that are known; 0 where none is."""
    others = tuple(axis for axis in range(array.ndim) if axis != array.ndim - 3)
    number = np.maximum(known.sum(axis=others, keepdims=True), 1)
    mean = np.sum(array, axis=others, keepdims=True, where=known, dtype=np.float64) / number
    square = np.square(array - mean)
    variance = np.sum(square, axis=others, keepdims=True, where=known) / number
    return np.asarray(np.sqrt(variance).reshape(-1), dtype=np.float64)


def _has_statistics(modality: Modality) -> bool:
    """Whether mean and standard deviation were given; without, they are 0 and 1."""
    return any(modality.mean) or any(std != 1 for std in modality.std)


def _raw_std(modality: Modality) -> NDArray[np.float32]:
    """In raw values, not in physical units."""
    pairs = zip(modality.std, modality.scale, strict=True)
    return np.array([std / abs(scale) if scale else 0 for std, scale in pairs], dtype=np.float32)

"""Sentinel-2 super-areas of FLAIR #2: one series per zone, from which the patches are cropped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionlab.data import time_series
from fusionlab.data.damage import reason
from fusionlab.data.flair2.constants import SENTINEL2
from fusionlab.errors import InputError
from fusionlab.types import TimeSeries

MAX_OPEN_FILES = 256
"""Memory maps that a process keeps open; each holds a file descriptor, of which 1024 are usual."""


@dataclass(frozen=True)
class SeriesOptions:
    """How a patch's series is made from its super-area.

    Attributes:
        crop_size: height and width of the crop, pixels of 10 m, even.
        cloud_probability: from which probability of cloud or of snow on, in percent, a pixel
            counts as hidden.
        cloud_area: a date is kept if the hidden share of the crop is below it; None keeps all.
        monthly_means: whether to average the dates of each calendar month.
        max_dates: how many of the kept dates to give at most, spread evenly; None gives all.
        cloud_cover: whether to give the cloud-cover map too.
        channels: positions of the bands to read; None reads all.
    """

    crop_size: int = 40
    cloud_probability: float = 60
    cloud_area: float | None = 0.5
    monthly_means: bool = False
    max_dates: int | None = None
    cloud_cover: bool = False
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.crop_size < 2 or self.crop_size % 2:
            raise InputError(
                f"sen_crop_size must be even and at least 2, got {self.crop_size}: the patch's "
                "centre lies between the two middle pixels."
            )
        if self.max_dates is not None and self.max_dates < 1:
            raise InputError(f"max_dates must be at least 1, got {self.max_dates}.")
        if not 0 <= self.cloud_probability <= 100:
            raise InputError(
                f"cloud_probability is in percent, 0 to 100, got {self.cloud_probability}."
            )

    @property
    def preparation(self) -> dict[str, Any]:
        """What new series must go through to be like these; see `Modality.preparation`."""
        return {
            "crop_size": self.crop_size,
            "monthly_means": self.monthly_means,
            "max_dates": self.max_dates,
            "cloud_probability": self.cloud_probability,
            "cloud_area": self.cloud_area,
        }

    @property
    def needs_masks(self) -> bool:
        """Whether cloud and snow masks are read at all."""
        return self.cloud_area is not None or self.cloud_cover


@dataclass(frozen=True)
class SuperArea:
    """What is known of a super-area without reading its pixels.

    Attributes:
        data: ``(T, 10, H, W)`` file of reflectances times 10,000.
        masks: ``(T, 2, H, W)`` file of probabilities of snow and of cloud, 0 to 100; None where
            they are not needed.
        dates: ``(T,)`` days since 1970-01-01, in the order of the file.
        size: H and W.
        dtype: of the reflectances.
    """

    data: Path
    masks: Path | None
    dates: NDArray[np.int64]
    size: tuple[int, int]
    dtype: np.dtype[Any]

    @classmethod
    def open(cls, folder: Path, *, masks: bool) -> SuperArea:
        """Finds the files of a super-area and checks that they belong together.

        Args:
            folder: holds ``*data.npy``, ``*masks.npy`` and ``*products.txt``.
            masks: whether the masks are needed.

        Raises:
            InputError: if a file is missing or damaged, or their numbers of dates differ.
        """
        data_path, products_path = _only(folder, "*data.npy"), _only(folder, "*products.txt")
        data = open_array(data_path)
        bands = len(SENTINEL2.bands)
        if data.ndim != 4 or data.shape[1] != bands or data.dtype.kind not in "iuf":
            raise InputError(
                f"{data_path}: expected numbers of shape (dates, {bands}, height, width), found "
                f"{data.dtype} of shape {data.shape}."
            )
        dates = time_series.read_product_dates(products_path)
        if len(dates) != len(data):
            raise InputError(
                f"{data_path.name} holds {len(data)} dates, but {products_path} lists "
                f"{len(dates)} products: there must be one per date."
            )
        masks_path = None
        if masks:
            masks_path = _only(folder, "*masks.npy")
            found = open_array(masks_path).shape
            expected = (len(data), 2, *data.shape[2:])
            if found != expected:
                raise InputError(
                    f"{masks_path}: expected masks of shape {expected} to go with the {len(data)} "
                    f"dates of {data_path.name}, found {found}."
                )
        return cls(data_path, masks_path, dates, (data.shape[2], data.shape[3]), data.dtype)

    def series(
        self, centre: tuple[int, int], options: SeriesOptions, dtype: np.dtype[Any]
    ) -> tuple[TimeSeries | None, Tensor | None]:
        """The series of one patch, in the order of time, and its cloud-cover map.

        Args:
            centre: row and column of the patch's centre.
            options: how to crop, filter and average.
            dtype: of the values to give.

        Returns:
            The series with values ``(T, C, s, s)``, None if no date is usable (cloudy, or without
            any measured value); and the fraction of
            all dates that cloud or snow hides, ``(1, s, s)`` float32, None unless wanted.
        """
        order = np.argsort(self.dates, kind="stable")
        cover = None
        if self.masks is not None:
            masks = time_series.padded_crop(open_array(self.masks), centre, options.crop_size)
            if options.cloud_cover:
                cover = torch.from_numpy(
                    time_series.cloud_cover(masks, threshold=options.cloud_probability)
                )
            if options.cloud_area is not None:
                clear = time_series.clear_dates(
                    masks, threshold=options.cloud_probability, area_threshold=options.cloud_area
                )
                order = order[np.isin(order, clear)]
        values = time_series.padded_crop(
            open_array(self.data), centre, options.crop_size, steps=order
        )
        # Dates on which the swath missed the crop must not take the place of others.
        kept = time_series.evenly_spaced(time_series.seen_dates(values), options.max_dates)
        if len(kept) == 0:
            return None, cover
        values, dates = values[kept], self.dates[order[kept]]
        if options.channels is not None:
            values = values[:, list(options.channels)]
        if options.monthly_means:
            values, dates = time_series.monthly_means(values, dates)
        series = TimeSeries(
            torch.from_numpy(np.ascontiguousarray(values, dtype=dtype)),
            torch.from_numpy(dates),
            torch.ones(len(dates), dtype=torch.bool),
        )
        return series, cover


@lru_cache(maxsize=MAX_OPEN_FILES)
def open_array(path: Path) -> NDArray[Any]:
    """An array on disk, mapped to memory once per process and read only where it is needed.

    Raises:
        InputError: if the file is no array or is shorter than it says.
    """
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"Cannot read the array {path} ({reason(error)}): it is damaged or incomplete. Copy or "
            "download it again."
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"Cannot read the array {path}: it is an archive (.npz), not one array.")
    return array


def series_dtype(areas: list[SuperArea], options: SeriesOptions) -> np.dtype[Any]:
    """The one type in which the series of a data set are given.

    As on disk (uint16 as published), float32 for means and for wider floats, int32 for wider
    integers.
    """
    if options.monthly_means:
        return np.dtype(np.float32)
    common = np.result_type(*(area.dtype for area in areas)) if areas else np.dtype(np.uint16)
    if common.kind == "f":
        return np.dtype(np.float32)
    return np.dtype(np.int32) if common.itemsize > 2 else common.newbyteorder("=")


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = [path.name for path in found]
        raise InputError(f"Expected one file {pattern} in the super-area {folder}, found {names}.")
    return found[0]

"""Windows of rasters as samples: where each lies, and what every modality shows there."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fusionlab.data import time_series
from fusionlab.data.base import Sample
from fusionlab.data.raster.files import Handles, Mask, RasterFile, Values, metres
from fusionlab.data.raster.fill import fill, neutral_values
from fusionlab.data.raster.layers import Layers
from fusionlab.data.raster.windows import starts
from fusionlab.errors import InputError
from fusionlab.types import Schema, TimeSeries

CLOUD_PROBABILITY = 60
CLOUD_AREA = 0.5
SERIES_CROP = 40
"""Pixels of a series around a window, as in FLAIR #2: its context is wider than the window."""


class RasterWindows(Dataset[Sample]):
    """The windows of all rasters of the grid: row by row, raster by raster.

    Args:
        schema: what the model was trained with.
        grid: the rasters to map, all of one pixel size; they need not be an input.
        layers: the files per modality; a modality of the schema without any is missing everywhere.
        clouds: probabilities of snow and cloud per series, where given.
        window: rows and columns of a window.
        overlap: pixels that neighbouring windows share.
        crop: rows and columns of a modality's crop, where given.
        monthly_means: whether to average the dates of each calendar month.
        max_dates: how many dates to read at most.
        min_cover: share of a window that a modality or date must cover to count as present. Of
            the modality whose files lay the grid any pixel counts, and a date must cover this share
            of what its dates cover together.

    Attributes:
        lengths: number of windows per raster.

    Raises:
        InputError: if a window is larger than the crop of a modality, given or, where there are
            series only, by default.
    """

    def __init__(
        self,
        schema: Schema,
        grid: Sequence[RasterFile],
        layers: Mapping[str, Layers],
        clouds: Mapping[str, Layers],
        *,
        window: int,
        overlap: int,
        crop: Mapping[str, int],
        monthly_means: bool,
        max_dates: int | None,
        min_cover: float,
    ) -> None:
        self.modalities = schema.modalities
        self.sources = list(grid)
        self.layers = dict(layers)
        self.own = {
            name
            for name, own in layers.items()
            if {file.path for file in grid} & {file.path for file in own.all_files}
        }
        self.clouds = dict(clouds)
        self.window = window
        self.min_cover = min_cover
        self.monthly_means = monthly_means
        self.max_dates = max_dates
        self.crop = {name: self._crop(name, crop) for name in schema.modalities}
        stride = window - overlap
        self.starts = [
            (
                starts(file.height, window=window, stride=stride),
                starts(file.width, window=window, stride=stride),
            )
            for file in self.sources
        ]
        self.lengths = [len(rows) * len(columns) for rows, columns in self.starts]
        self._ends = list(accumulate(self.lengths))
        self._handles = Handles()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        source = bisect_right(self._ends, index)
        file, (rows, columns) = self.sources[source], self.starts[source]
        step = index - (self._ends[source] - self.lengths[source])
        row, column = rows[step // len(columns)], columns[step % len(columns)]
        height, width = min(self.window, file.height), min(self.window, file.width)
        sample: Sample = {
            "inputs": {},
            "available": {},
            "offset": {},
            "sample_id": f"{Path(file.path).stem}_{row}_{column}",
            "placement": {
                "source": file.path,
                "window": torch.tensor([row, column, height, width]),
                "shape": torch.tensor([self.window, self.window]),
                "gsd": torch.tensor(file.gsd * metres(file.crs)),
            },
        }
        if self.clouds:
            sample["cloud_cover"] = {}
        # Of the window as the network sees it, which is larger than a small raster.
        centre = (
            file.transform.c + (column + self.window / 2) * file.transform.a,
            file.transform.f + (row + self.window / 2) * file.transform.e,
        )
        share = (height / self.window, width / self.window)
        for name in self.modalities:
            if name not in self.layers:
                sample["inputs"][name], available = self._missing(name, np.dtype(np.float32)), False
                sample["offset"][name] = torch.zeros(2)
            else:
                available = self._around(name, centre, share, file, sample)
            sample["available"][name] = torch.tensor(available)
        return sample

    def _crop(self, name: str, given: Mapping[str, int]) -> int:
        modality, grid = self.modalities[name], self.sources[0]
        gsd = grid.gsd * metres(grid.crs)
        footprint = self.window * (1 if name in self.own else gsd / modality.gsd)
        if name not in given and not modality.temporal:
            return max(round(footprint), 1)
        crop = given.get(name, SERIES_CROP)
        beside_image = not all(self.modalities[other].temporal for other in self.layers)
        if name not in given and beside_image:
            return max(crop, 8 * math.ceil(footprint / 8))
        if int(footprint + 1e-3) > crop:
            window = max(round(crop / 4 * modality.gsd / gsd), 1)
            raise InputError(
                f"A window of {self.window} pixels of {gsd:g} m is {int(footprint)} pixels of "
                f"{name}, more than its crop of {crop}. Networks for series are trained to answer "
                "in the middle of a crop, with context around it (FLAIR #2: 10 pixels of 40): set "
                f"`--data.window {window} --data.overlap {window // 2}`, or crop as in training "
                f"with `--data.crop.{name}`."
            )
        return crop

    def _around(
        self,
        name: str,
        centre: tuple[float, float],
        share: tuple[float, float],
        file: RasterFile,
        sample: Sample,
    ) -> bool:
        modality, layers, size = self.modalities[name], self.layers[name], self.crop[name]
        gsd = modality.gsd / metres(file.crs)
        where = f"data.rasters.{name}"
        values, mask, offset = layers.read(
            self._handles, centre, size=size, gsd=gsd, where=where, first=file.path
        )
        sample["offset"][name] = torch.tensor(offset)
        extent = self.window * file.gsd / gsd
        rows, columns = (_footprint(size, offset[i], extent, share[i]) for i in range(2))
        seen = mask[:, :, rows, columns].any(axis=1)
        cover = seen.mean(axis=(1, 2))
        least = self.min_cover * (seen.any(axis=0).mean() if name in self.own else 1)
        kept = np.flatnonzero((cover > 0) & (cover >= least))
        if name in self.clouds:
            probabilities, known, _ = self.clouds[name].read(
                self._handles, centre, size=size, gsd=gsd, where=f"data.cloud_masks.{name}"
            )
            probabilities[~known] = 0
            cloudy = time_series.cloud_cover(probabilities[kept], threshold=CLOUD_PROBABILITY)
            sample["cloud_cover"][name] = torch.from_numpy(cloudy)
            clear = time_series.clear_dates(
                probabilities, threshold=CLOUD_PROBABILITY, area_threshold=CLOUD_AREA
            )
            kept = kept[np.isin(kept, clear)]
        if modality.temporal:
            kept = time_series.evenly_spaced(kept, self.max_dates)
        if not len(kept):
            sample["inputs"][name] = self._missing(name, self._delivered_dtype(name))
            return False
        values, mask = values[kept], mask[kept]
        neutral = self._neutral(name)
        for image, observed in zip(values, mask, strict=True):
            fill(image, observed, neutral, border="edge" if modality.temporal else "reflect")
        if layers.dates is None:
            sample["inputs"][name] = torch.from_numpy(values[0])
        else:
            sample["inputs"][name] = self._series(values, mask, layers.dates[kept])
        return True

    def _series(self, values: Values, mask: Mask, dates: NDArray[np.int64]) -> TimeSeries:
        if self.monthly_means:
            values, dates = time_series.monthly_means(values, dates)
        return TimeSeries(
            torch.from_numpy(values),
            torch.from_numpy(dates),
            torch.ones(len(dates), dtype=torch.bool),
        )

    def _missing(self, name: str, dtype: np.dtype[Any]) -> Tensor | TimeSeries:
        modality, size = self.modalities[name], self.crop[name]
        zeros = torch.from_numpy(np.zeros((len(modality.bands), size, size), dtype))
        if not modality.temporal:
            return zeros
        none = torch.zeros(1, dtype=torch.bool)
        return TimeSeries(zeros[None], torch.zeros(1, dtype=torch.int64), none)

    def _delivered_dtype(self, name: str) -> np.dtype[Any]:
        averaged = self.monthly_means and self.modalities[name].temporal
        return np.dtype(np.float32) if averaged else self.layers[name].dtype

    def _neutral(self, name: str) -> Values:
        modality = self.modalities[name]
        return neutral_values(self.layers[name].dtype, modality.mean, modality.scale)


def _footprint(size: int, offset: float, extent: float, share: float) -> slice:
    """Pixels of a crop that lie under the window, on one axis.

    Args:
        size: of the crop.
        offset: of the window's centre from that of the crop, pixels.
        extent: of the window, pixels of the crop.
        share: of the window, from its start, that lies on the raster.
    """
    start = size / 2 + offset - extent / 2
    first = min(max(math.floor(start + 0.5), 0), size - 1)
    last = min(max(math.floor(start + extent * share + 0.5), first + 1), size)
    return slice(first, last)

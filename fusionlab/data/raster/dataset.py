"""Windows of rasters as samples: where each lies, and what every modality shows there."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fusionlab.data import time_series
from fusionlab.data.raster.crops import Handles, Upsampling
from fusionlab.data.raster.files import Mask, RasterFile, Values, metres
from fusionlab.data.raster.fill import fill, neutral_values
from fusionlab.data.raster.layers import Layers
from fusionlab.data.raster.windows import grid_starts, starts
from fusionlab.data.samples import Sample
from fusionlab.errors import InputError
from fusionlab.types import Modality, Schema, TimeSeries

SERIES_CROP = 40
"""Pixels of a series around a window, as in FLAIR #2: its context is wider than the window."""


@dataclass(frozen=True)
class Recipe:
    """How samples of one modality are made.

    Attributes:
        crop: rows and columns of a crop if the user says so; None for what suits the window.
        series_crop: rows and columns of a series' crop otherwise; larger beside an image if the
            window needs it.
        monthly_means: whether to average the dates of each calendar month.
        max_dates: how many dates to deliver at most, spread evenly; None delivers all.
        cloud_probability: percent from which on snow or cloud hides a pixel.
        cloud_area: a date is left out if so large a share of the crop is hidden.
        scale: per band, what values are multiplied by when read; None leaves them, and the offset.
        offset: per band, what is added then.
        upsampling: how files of coarser pixels are brought to the modality's.
    """

    crop: int | None = None
    series_crop: int = SERIES_CROP
    monthly_means: bool = False
    max_dates: int | None = None
    cloud_probability: float = 60
    cloud_area: float = 0.5
    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] = ()
    upsampling: Upsampling = "bilinear"

    @classmethod
    def of(
        cls,
        modality: Modality,
        *,
        crop: int | None = None,
        monthly_means: bool | None = None,
        max_dates: int | None = None,
        scale: float | Sequence[float] | None = None,
        offset: float | Sequence[float] | None = None,
        where: str,
    ) -> Recipe:
        """As in training, except for what is given.

        Raises:
            InputError: if scale or offset have not one value per band.
        """
        trained = modality.preparation
        bands = len(modality.bands)
        own = scale is not None or offset is not None
        factors = _per_band(1.0 if scale is None else scale, bands, where=f"data.scale.{where}")
        added = _per_band(0.0 if offset is None else offset, bands, where=f"data.offset.{where}")
        if monthly_means is None:
            monthly_means = bool(trained.get("monthly_means", cls.monthly_means))
        return cls(
            crop=crop,
            series_crop=trained.get("crop_size", cls.series_crop),
            monthly_means=monthly_means and modality.temporal,
            max_dates=max_dates or trained.get("max_dates"),
            cloud_probability=trained.get("cloud_probability", cls.cloud_probability),
            cloud_area=trained.get("cloud_area") or cls.cloud_area,
            scale=factors if own else None,
            offset=added,
            upsampling=trained.get("upsampling", cls.upsampling),
        )

    def rescale(self, values: Values, mask: Mask) -> Values:
        """Values ``(T, bands, height, width)`` in the unit of training, where observed."""
        if self.scale is None:
            return values
        factors, added = (
            np.asarray(v, np.float32)[:, None, None] for v in (self.scale, self.offset)
        )
        rescaled = np.zeros(values.shape, np.float32)
        np.multiply(values, factors, out=rescaled, where=mask, casting="unsafe")
        np.add(rescaled, added, out=rescaled, where=mask)
        return rescaled


class RasterWindows(Dataset[Sample]):
    """The windows of all rasters of the grid: row by row, raster by raster.

    Args:
        schema: what the model was trained with.
        grid: the rasters to map, all of one pixel size; they need not be an input.
        layers: the files per modality; a modality of the schema without any is missing everywhere.
        clouds: probabilities of snow and cloud per series, where given.
        window: rows and columns of a window.
        overlap: pixels that neighbouring windows share.
        patches: whether windows lie on a regular grid, the last ones sticking out of the raster;
            otherwise they lie inside it, the last ones nearer to their neighbours.
        recipes: how samples are made, per modality of the schema.
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
        patches: bool = False,
        recipes: Mapping[str, Recipe],
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
        self.recipes = dict(recipes)
        self.crop = {name: self._crop(name) for name in schema.modalities}
        self.stride = window - overlap
        laid = grid_starts if patches else starts
        self.starts = [
            (
                laid(file.height, window=window, stride=self.stride),
                laid(file.width, window=window, stride=self.stride),
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
        height, width = min(self.window, file.height - row), min(self.window, file.width - column)
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
                "stride": torch.tensor([self.stride, self.stride]),
            },
        }
        if self.clouds:
            sample["cloud_cover"] = {}
        # Of the window as the network sees it, which may stick out of the raster.
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

    def _crop(self, name: str) -> int:
        given = self.recipes[name].crop
        modality, grid = self.modalities[name], self.sources[0]
        gsd = grid.gsd * metres(grid.crs)
        footprint = self.window * (1 if name in self.own else gsd / modality.gsd)
        if given is None and not modality.temporal:
            return max(round(footprint), 1)
        crop = given or self.recipes[name].series_crop
        beside_image = not all(self.modalities[other].temporal for other in self.layers)
        if given is None and beside_image:
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
        recipe = self.recipes[name]
        gsd = modality.gsd / metres(file.crs)
        where = f"data.rasters.{name}"
        values, mask, offset = layers.read(
            self._handles,
            centre,
            size=size,
            gsd=gsd,
            where=where,
            first=file.path,
            upsampling=recipe.upsampling,
        )
        sample["offset"][name] = torch.tensor(offset)
        extent = self.window * file.gsd / gsd
        rows, columns = (_footprint(size, offset[i], extent, share[i]) for i in range(2))
        seen = layers.seen(mask[:, :, rows, columns])
        cover = seen.mean(axis=(1, 2))
        least = self.min_cover * (seen.any(axis=0).mean() if name in self.own else 1)
        kept = np.flatnonzero((cover > 0) & (cover >= least))
        if name in self.clouds:
            probabilities, known, _ = self.clouds[name].read(
                self._handles, centre, size=size, gsd=gsd, where=f"data.cloud_masks.{name}"
            )
            probabilities[~known] = 0
            threshold = recipe.cloud_probability
            cloudy = time_series.cloud_cover(probabilities[kept], threshold=threshold)
            sample["cloud_cover"][name] = torch.from_numpy(cloudy)
            clear = time_series.clear_dates(
                probabilities, threshold=threshold, area_threshold=recipe.cloud_area
            )
            kept = kept[np.isin(kept, clear)]
        if modality.temporal:
            kept = kept[np.isin(kept, time_series.seen_dates(values, mask))]
            kept = time_series.evenly_spaced(kept, recipe.max_dates)
        if not len(kept):
            sample["inputs"][name] = self._missing(name, self._delivered_dtype(name))
            return False
        values, mask = recipe.rescale(values[kept], mask[kept]), mask[kept]
        dates = None if layers.dates is None else layers.dates[kept]
        if dates is not None and recipe.monthly_means:
            values, dates = time_series.monthly_means(values, dates, observed=mask)
            mask = np.isfinite(values)
        neutral = neutral_values(values.dtype, modality.mean, modality.scale)
        for image, observed in zip(values, mask, strict=True):
            fill(image, observed, neutral, border="edge" if modality.temporal else "reflect")
        if dates is None:
            sample["inputs"][name] = torch.from_numpy(values[0])
        else:
            valid = torch.ones(len(dates), dtype=torch.bool)
            sample["inputs"][name] = TimeSeries(
                torch.from_numpy(values), torch.from_numpy(dates), valid
            )
        return True

    def _missing(self, name: str, dtype: np.dtype[Any]) -> Tensor | TimeSeries:
        modality, size = self.modalities[name], self.crop[name]
        zeros = torch.from_numpy(np.zeros((len(modality.bands), size, size), dtype))
        if not modality.temporal:
            return zeros
        none = torch.zeros(1, dtype=torch.bool)
        return TimeSeries(zeros[None], torch.zeros(1, dtype=torch.int64), none)

    def _delivered_dtype(self, name: str) -> np.dtype[Any]:
        recipe = self.recipes[name]
        computed = recipe.monthly_means or recipe.scale is not None
        return np.dtype(np.float32) if computed else self.layers[name].dtype


def _per_band(value: float | Sequence[float], bands: int, *, where: str) -> tuple[float, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * bands
    if len(values) != bands or not all(math.isfinite(v) for v in values):
        raise InputError(
            f"{where}: expected one number, or one for each of the model's {bands} bands, got "
            f"{list(values)}."
        )
    return values


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

"""New tiles: rasters of any extent and pixel size, delivered as overlapping windows to predict on.

One modality, the reference, lays the output grid; a window of it is a sample, and of every other
modality the crop around the window's centre belongs to it. Where a modality does not cover a
window, or all its dates are cloudy, it is missing there and prediction goes on without it.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fusionlab.data import time_series
from fusionlab.data.base import DataModule, Sample, Split
from fusionlab.data.raster_io import (
    Handles,
    Mask,
    RasterFile,
    Values,
    expand,
    fill,
    intersects,
    metres,
    neutral_values,
    read_window,
    same_gsd,
)
from fusionlab.data.raster_layers import Layers, check_crs, image_layers, series_layers
from fusionlab.data.windows import WholeSources, starts
from fusionlab.errors import InputError
from fusionlab.types import Batch, Modality, Schema, TimeSeries

log = logging.getLogger(__name__)

CLOUD_BANDS = ("snow", "cloud")
CLOUD_PROBABILITY = 60
CLOUD_AREA = 0.5
SERIES_CROP = 40
"""Pixels of a series around a window, as in FLAIR #2: its context is wider than the window."""


class RasterDataModule(DataModule):
    """Delivers windows of new rasters for prediction.

    It knows no classes and no bands of its own: which bands in which order, pixel sizes and class
    names come with the checkpoint, through the trainer's task.

    Args:
        rasters: per modality a file, a folder, a pattern or a list of them. An image may come in
            several files side by side. A series is one multi-band file per date with the date in
            its name (YYYYMMDD or YYYY-MM-DD), or a stack, see `dates`. All in one projected CRS.
        reference: the modality whose rasters are mapped, an image; by default the one with the
            finest pixels in the model among those given.
        window: rows and columns of a window, in pixels of the reference.
        overlap: pixels that neighbouring windows share. The default stride of 256 keeps windows
            aligned with the partitions of windowed attention (UNetFormer: 32 × 8 pixels).
        crop: rows and columns of a modality's crop, in its own pixels, e.g. ``{sentinel2: 40}``; by
            default 40 for a series (more if the window is larger), the window's footprint for an
            image. Use what the expert was trained with.
        bands: names of the bands of a modality's files, in the files' order, where their
            descriptions do not tell. Otherwise bands are taken by description, or by position if
            their number is the model's.
        dates: text file with one YYYYMMDD per line; the modality's file is then a stack, all bands
            of the first date first.
        cloud_masks: per series a raster of the same layout with two bands, probability of snow and
            of cloud in percent. Dates are then dropped by the FLAIR #2 rule (pixels of at least 60
            over at least half of the crop).
        monthly_means: average the dates of each calendar month, if the expert was trained so.
        max_dates: read at most so many dates, spread evenly.
        min_cover: share of a window that a modality, or a date, must cover to count as present.
        batch_size: windows per process and step.
        num_workers: processes that read; 0 reads in the main process.
        pin_memory: copy batches to page-locked memory first; pays with a GPU only.
    """

    def __init__(
        self,
        rasters: dict[str, str | list[str]],
        *,
        reference: str | None = None,
        window: int = 512,
        overlap: int = 256,
        crop: dict[str, int] | None = None,
        bands: dict[str, list[str]] | None = None,
        dates: dict[str, str] | None = None,
        cloud_masks: dict[str, str | list[str]] | None = None,
        monthly_means: bool = False,
        max_dates: int | None = None,
        min_cover: float = 0.75,
        batch_size: int = 8,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, pin_memory=pin_memory)
        if not rasters:
            raise InputError("No rasters: name them with --data.rasters.MODALITY FILE_OR_FOLDER.")
        if window < 1 or not 0 <= overlap < window:
            raise InputError(
                f"overlap must be at least 0 and smaller than window, got overlap {overlap} and "
                f"window {window}."
            )
        if not 0 < min_cover <= 1:
            raise InputError(f"min_cover is a share above 0 and up to 1, got {min_cover}.")
        if max_dates is not None and max_dates < 1:
            raise InputError(f"max_dates must be at least 1, got {max_dates}.")
        for name, size in (crop or {}).items():
            if size < 1:
                raise InputError(f"crop of {name} must be at least 1 pixel, got {size}.")
        self.schema = Schema({})
        # One rank may have no raster at all when there are fewer rasters than processes.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.rasters = dict(rasters)
        self.reference = reference
        self.window = window
        self.overlap = overlap
        self.crop = dict(crop or {})
        self.bands = dict(bands or {})
        self.dates = dict(dates or {})
        self.cloud_masks = dict(cloud_masks or {})
        self.monthly_means = monthly_means
        self.max_dates = max_dates
        self.min_cover = min_cover

    def dataset(self, split: Split) -> Dataset[Sample]:
        """The windows of all reference rasters; checks every file first.

        Raises:
            InputError: for any raster that cannot be used, and if asked to train.
        """
        if split != "predict":
            raise InputError(
                f"RasterDataModule has no labels, so it cannot serve {split!r}: it is for "
                "`fusionlab predict`. Use the data module of a data set to train or test."
            )
        if self.trainer is None:
            raise InputError("RasterDataModule needs a trainer, whose task says which bands to read.")
        schema: Schema = self.trainer.lightning_module.schema
        self._check_names(schema)
        layers = {}
        clouds = {}
        for name, given in self.rasters.items():
            modality = schema.modalities[name]
            where = f"data.rasters.{name}"
            paths = expand(given, where=where)
            names = self.bands.get(name)
            if modality.temporal:
                layers[name] = series_layers(
                    paths,
                    modality.bands,
                    names=names,
                    dates_file=self.dates.get(name),
                    where=where,
                )
                if name in self.cloud_masks:
                    clouds[name] = self._cloud_layers(name, layers[name])
            else:
                layers[name] = image_layers(paths, modality.bands, names=names, where=where)
        reference = self._reference(schema)
        self._check_reference(layers[reference], reference, schema.modalities[reference])
        sources = layers[reference].all_files
        for name in layers.keys() - {reference}:
            self._check_overlap(name, layers[name].all_files, sources)
            if name in clouds:
                self._check_overlap(name, clouds[name].all_files, sources)
        for name in schema.modalities.keys() - layers.keys():
            log.info("No raster of %r was given: predicting without it.", name)
        return RasterWindows(self, schema, reference, layers, clouds)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Windows row by row, raster by raster; every process maps whole rasters."""
        dataset = self._datasets["predict"]
        assert isinstance(dataset, RasterWindows)
        trainer = self.trainer
        assert trainer is not None
        sampler = WholeSources(
            dataset, dataset.lengths, rank=trainer.global_rank, world_size=trainer.world_size
        )
        return self._loader(dataset, sampler=sampler)

    def _check_names(self, schema: Schema) -> None:
        known = list(schema.modalities)
        for argument in ("rasters", "crop", "bands", "dates", "cloud_masks"):
            unknown = [name for name in getattr(self, argument) if name not in known]
            if unknown:
                raise InputError(
                    f"data.{argument} names {unknown}, but the model was trained with {known}."
                )
        for argument in ("dates", "cloud_masks"):
            for name in getattr(self, argument):
                if name not in self.rasters or not schema.modalities[name].temporal:
                    raise InputError(
                        f"data.{argument}.{name} belongs to a series of which data.rasters names "
                        f"the files; series of the model: "
                        f"{[n for n, m in schema.modalities.items() if m.temporal]}."
                    )

    def _reference(self, schema: Schema) -> str:
        images = {n: schema.modalities[n] for n in self.rasters if not schema.modalities[n].temporal}
        if self.reference is None:
            if not images:
                raise InputError(
                    f"No image among data.rasters ({list(self.rasters)}) to define the output's "
                    "grid: give the raster of a modality that is no series, of "
                    f"{[n for n, m in schema.modalities.items() if not m.temporal]}."
                )
            return min(images, key=lambda name: images[name].gsd)
        if self.reference not in images:
            raise InputError(
                f"data.reference is {self.reference!r}, which is no image among data.rasters: "
                f"{list(images)}."
            )
        return self.reference

    def _check_reference(self, layers: Layers, name: str, modality: Modality) -> None:
        stems: dict[str, str] = {}
        for file in layers.all_files:
            gsd = file.gsd * metres(file.crs)
            if not same_gsd(gsd, modality.gsd) or not same_gsd(-file.transform.e, file.gsd):
                raise InputError(
                    f"data.rasters.{name}: {file.path} has pixels of {gsd:g} × "
                    f"{-file.transform.e * metres(file.crs):g} m, the model was trained with "
                    f"{modality.gsd:g} m. Resample it first, e.g. `gdalwarp -r average -tr "
                    f"{modality.gsd / metres(file.crs):g} {modality.gsd / metres(file.crs):g} "
                    "IN OUT`."
                )
            stem = Path(file.path).stem
            if stem in stems:
                raise InputError(
                    f"data.rasters.{name}: {stems[stem]} and {file.path} have the same name, and "
                    "so would their maps. Rename one, or predict them in two runs."
                )
            stems[stem] = file.path

    def _check_overlap(self, name: str, files: list[RasterFile], sources: list[RasterFile]) -> None:
        for file in files:
            check_crs(file, sources[0], where=f"data.rasters.{name}")
        if not any(intersects(file, source) for file in files for source in sources):
            raise InputError(
                f"data.rasters.{name}: none of its rasters overlaps the rasters to map: "
                f"{files[0].path} covers (left, bottom, right, top) {files[0].bounds}, "
                f"{sources[0].path} covers {sources[0].bounds}. Give rasters of the same place, or "
                f"leave {name} out to predict without it."
            )
        for source in sources:
            if not any(intersects(file, source) for file in files):
                log.info("No raster of %r covers %s: predicting without it.", name, source.path)

    def _cloud_layers(self, name: str, series: Layers) -> Layers:
        where = f"data.cloud_masks.{name}"
        masks = series_layers(
            expand(self.cloud_masks[name], where=where),
            CLOUD_BANDS,
            names=CLOUD_BANDS,
            dates_file=self.dates.get(name),
            where=where,
        )
        assert series.dates is not None
        assert masks.dates is not None
        position = {int(day): i for i, day in enumerate(masks.dates)}
        missing = [str(np.datetime64(int(d), "D")) for d in series.dates if int(d) not in position]
        if missing:
            raise InputError(
                f"{where}: no mask for {len(missing)} of {len(series.dates)} dates, the first "
                f"{missing[:3]}. Give a mask for every date, or none."
            )
        if len(masks.files) == 1:  # a stack shares the series' dates file, hence its order
            return masks
        files = tuple(masks.files[position[int(day)]] for day in series.dates)
        return Layers(files, masks.bands, series.dates, masks.dtype)


class RasterWindows(Dataset[Sample]):
    """The windows of all reference rasters: row by row, raster by raster.

    Args:
        options: the data module, for its arguments.
        schema: what the model was trained with.
        reference: the modality that lays the grid.
        layers: the files per modality; a modality of the schema without any is missing everywhere.
        clouds: probabilities of snow and cloud per series, where given.

    Attributes:
        lengths: number of windows per raster.
    """

    def __init__(
        self,
        options: RasterDataModule,
        schema: Schema,
        reference: str,
        layers: Mapping[str, Layers],
        clouds: Mapping[str, Layers],
    ) -> None:
        self.modalities = schema.modalities
        self.reference = reference
        self.layers = dict(layers)
        self.clouds = dict(clouds)
        self.window = options.window
        self.min_cover = options.min_cover
        self.monthly_means = options.monthly_means
        self.max_dates = options.max_dates
        self.crop = {name: self._crop(name, options.crop) for name in schema.modalities}
        self.sources = self.layers[reference].all_files
        stride = options.window - options.overlap
        self.starts = [
            (
                starts(file.height, window=options.window, stride=stride),
                starts(file.width, window=options.window, stride=stride),
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
            if name == self.reference:
                window = Window(column, row, width, height)
                sample["inputs"][name], available = self._reference_image(file, window)
            elif name not in self.layers:
                sample["inputs"][name], available = self._missing(name, np.dtype(np.float32)), False
                sample["offset"][name] = torch.zeros(2)
            else:
                available = self._around(name, centre, share, file, sample)
            sample["available"][name] = torch.tensor(available)
        return sample

    def _crop(self, name: str, given: Mapping[str, int]) -> int:
        if name in given:
            return given[name]
        footprint = self.window * self.modalities[self.reference].gsd / self.modalities[name].gsd
        if not self.modalities[name].temporal:
            return max(round(footprint), 1)
        return SERIES_CROP if footprint <= SERIES_CROP else 8 * math.ceil(footprint / 8)

    def _reference_image(self, file: RasterFile, window: Window) -> tuple[Tensor, bool]:
        layers = self.layers[self.reference]
        patch = read_window(
            self._handles, file, window, where=f"data.rasters.{self.reference}"
        )
        shape = (layers.bands, self.window, self.window)
        values, mask = np.zeros(shape, layers.dtype), np.zeros(shape, bool)
        values[:, : window.height, : window.width] = patch.values
        mask[:, : window.height, : window.width] = patch.observed
        fill(values, mask, self._neutral(self.reference), border="reflect")
        return torch.from_numpy(values), bool(mask.any())

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
        values, mask, offset = layers.read(self._handles, centre, size=size, gsd=gsd, where=where)
        sample["offset"][name] = torch.tensor(offset)
        extent = self.window * file.gsd / gsd
        rows, columns = (_footprint(size, offset[i], extent, share[i]) for i in range(2))
        seen = mask[:, :, rows, columns].any(axis=1)
        kept = np.flatnonzero(seen.mean(axis=(1, 2)) >= self.min_cover)
        if name in self.clouds:
            probabilities, known, _ = self.clouds[name].read(
                self._handles, centre, size=size, gsd=gsd, where=f"data.cloud_masks.{name}"
            )
            probabilities[~known] = 0
            cover = time_series.cloud_cover(probabilities[kept], threshold=CLOUD_PROBABILITY)
            sample["cloud_cover"][name] = torch.from_numpy(cover)
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

"""New tiles: rasters of any extent and pixel size, delivered as overlapping windows to predict on.

Some rasters lay the output grid: those of one modality, or any others. A window of them is a
sample, and of every modality the crop around the window's centre belongs to it. Where a modality
does not cover a window, or all its dates are cloudy, it is missing there and prediction goes on
without it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset

from fusionlab.data.base import DataModule, Split
from fusionlab.data.raster.dataset import RasterWindows, Recipe
from fusionlab.data.raster.files import (
    RasterFile,
    expand,
    inspect,
    intersects,
    largest,
    metres,
    same_gsd,
)
from fusionlab.data.raster.layers import Layers, check_crs, image_layers, series_layers
from fusionlab.data.raster.units import warn_of_other_units
from fusionlab.data.raster.windows import WholeSources
from fusionlab.data.samples import Sample
from fusionlab.errors import InputError
from fusionlab.types import PIXELWISE, Batch, Modality, Schema

log = logging.getLogger(__name__)

CLOUD_BANDS = ("snow", "cloud")
MAP_WINDOW = 512
"""Rows and columns of a window for a model that answers per pixel, unless the user says so."""


class RasterDataModule(DataModule):
    """Delivers windows of new rasters for prediction.

    It knows no classes and no bands of its own: which bands in which order, pixel sizes, class
    names, and how series were cropped and averaged come with the checkpoint, through the trainer's
    task.

    A model that answers once per sample, a classifier of patches, is served patches: by default
    windows as large as those of training (`Modality.preparation`: ``image_size``), side by side
    from the upper left corner. The last of a row or column may stick out of the raster; what lies
    beyond its edge is mirrored. With `overlap` patches follow more densely, still on a regular grid
    of ``window - overlap`` pixels.

    Values must be in the unit of training, or be brought to it with `scale` and `offset`. What is
    impossible by the statistics of training is warned of:

    * Sentinel-2 in FLAIR #2 and BigEarthNet is reflectance times 10,000. Products since processing
      baseline 04.00 (January 2022) hold 1,000 more: ``--data.offset.sentinel2 -1000``, or whatever
      the model calls the modality; with one value per band where others share it.
    * Sentinel-1 in BigEarthNet is backscatter in dB. Linear power is 10 log10 away from it, which
      no scale makes up for: convert the raster first.
    * FLAIR #2 holds heights in units of 0.2 m; heights in metres as the fifth band of an aerial
      image become such with ``--data.scale.aerial "[1, 1, 1, 1, 5]"``.

    Args:
        rasters: per modality a file, a folder, a pattern or a list of them. An image may come in
            several files side by side, or its bands in files of their own, whatever their pixel
            sizes: a file of one band says which by its description or its name (``…_B02_10m.jp2``),
            and of several with the same band the finest count; coarser ones are resampled as in
            training, by the nearest pixel or bilinearly. A series is one multi-band file per
            date with the date in its name (YYYYMMDD or YYYY-MM-DD), or a stack, see `dates`. All in
            one projected CRS.
        grid: rasters to map: each gives its map its reference system, extent, pixels and nodata.
            They need not be an input: a Sentinel-2 expert alone may be mapped on an aerial image
            (best with ``--model.alignment Footprint``, exact to parts of a pixel). By default the
            files of the modality on whose grid the model answers, or else of the finest image
            given, or else of the finest series: of its first date, whose nodata the map then has.
        window: rows and columns of a window, in pixels of the grid; no more than the labels of a
            training sample covered. By default 512, or the patch of training for a model that
            answers per patch. For a Sentinel-2 grid and experts of FLAIR #2: 10, overlap 5.
        overlap: pixels that neighbouring windows share; by default half of the window, and none
            for patches. The stride of 256 keeps windows aligned with the partitions of windowed
            attention (UNetFormer: 32 × 8 pixels).
        crop: rows and columns of a modality's crop, in its own pixels, e.g. ``{sentinel2: 40}``; by
            default the window's footprint for an image, and as in training for a series (40 if the
            checkpoint does not say; beside an image more if the window is larger).
        bands: names of the bands of a modality's files, in the files' order, where their
            descriptions do not tell. Otherwise bands are taken by description, or by position if
            their number is the model's.
        dates: text file with one YYYYMMDD per line; the modality's file is then a stack, all bands
            of the first date first.
        cloud_masks: per series a raster of the same layout with two bands, probability of snow and
            of cloud in percent. Dates are then dropped as in training (FLAIR #2: pixels of at least
            60 over at least half of the crop).
        scale: per modality, what observed values are multiplied by as they are read, one number or
            one per band of the model; values become float32.
        offset: likewise, what is added after that.
        monthly_means: average the observed values of each calendar month; as in training if null.
        max_dates: deliver at most so many dates, spread evenly; as in training if null.
        min_cover: share of a window that a modality, or a date, must cover to count as present. Of
            the modality that is mapped itself any pixel counts. Where nothing is present the map
            has no data.
        batch_size: windows per process and step.
        num_workers: processes that read; 0 reads in the main process.
        pin_memory: copy batches to page-locked memory first; pays with a GPU only.
    """

    def __init__(
        self,
        rasters: dict[str, str | list[str]],
        *,
        grid: str | list[str] | None = None,
        window: int | None = None,
        overlap: int | None = None,
        crop: dict[str, int] | None = None,
        bands: dict[str, list[str]] | None = None,
        dates: dict[str, str] | None = None,
        cloud_masks: dict[str, str | list[str]] | None = None,
        scale: dict[str, float | list[float]] | None = None,
        offset: dict[str, float | list[float]] | None = None,
        monthly_means: bool | None = None,
        max_dates: int | None = None,
        min_cover: float = 0.75,
        batch_size: int = 8,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, pin_memory=pin_memory)
        if not rasters:
            raise InputError("No rasters: name them with --data.rasters.MODALITY FILE_OR_FOLDER.")
        if window is not None:
            _check_window(window, overlap or 0)
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
        self.grid = grid
        self.window = window
        self.overlap = overlap
        self.crop = dict(crop or {})
        self.bands = dict(bands or {})
        self.dates = dict(dates or {})
        self.cloud_masks = dict(cloud_masks or {})
        self.scale = dict(scale or {})
        self.offset = dict(offset or {})
        self.monthly_means = monthly_means
        self.max_dates = max_dates
        self.min_cover = min_cover

    def dataset(self, split: Split) -> Dataset[Sample]:
        """The windows of all rasters of the grid; checks every file first.

        Raises:
            InputError: for any raster that cannot be used, and if asked to train.
        """
        if split != "predict":
            raise InputError(
                f"RasterDataModule has no labels, so it cannot serve {split!r}: it is for "
                "`fusionlab predict`. Use the data module of a data set to train or test."
            )
        if self.trainer is None:
            raise InputError("RasterDataModule needs a trainer: its task says which bands to read.")
        schema = self.trainer.lightning_module.schema
        assert isinstance(schema, Schema)
        self._check_names(schema)
        recipes = {name: self._recipe(name, of) for name, of in schema.modalities.items()}
        layers = {name: self._layers(name, schema.modalities[name]) for name in self.rasters}
        clouds = {name: self._cloud_layers(name, layers[name]) for name in self.cloud_masks}
        grid = self._grid(schema, layers)
        patches = schema.target not in PIXELWISE
        window, overlap = self._windows(schema, grid[0], patches=patches)
        for name in layers:
            _check_overlap(name, layers[name].all_files, grid)
            if name in clouds:
                _check_overlap(name, clouds[name].all_files, grid)
            warn_of_other_units(name, layers[name], schema.modalities[name], recipes[name])
        for name in schema.modalities.keys() - layers.keys():
            log.info("No raster of %r was given: predicting without it.", name)
        return RasterWindows(
            schema,
            grid,
            layers,
            clouds,
            window=window,
            overlap=overlap,
            patches=patches,
            recipes=recipes,
            min_cover=self.min_cover,
        )

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
        for argument in ("rasters", "crop", "bands", "dates", "cloud_masks", "scale", "offset"):
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

    def _windows(self, schema: Schema, grid: RasterFile, *, patches: bool) -> tuple[int, int]:
        """Window and overlap in pixels of the grid: as the user says, or what suits the model."""
        window, overlap = self.window, self.overlap
        trained = _trained_patch(schema, grid) if patches else None
        if window is None:
            window = trained if patches else MAP_WINDOW
        elif trained is not None and window != trained:
            log.warning(
                "data.window is %d pixels, but the model was trained on patches of %d pixels of "
                "this grid: it may see less, or more, than it learned to judge.",
                window,
                trained,
            )
        if window is None:
            raise InputError(
                "The checkpoint does not say how large the patches of training were. Set "
                "--data.window to their rows and columns, in pixels of the raster that is mapped."
            )
        if overlap is None:
            overlap = 0 if patches else window // 2
        _check_window(window, overlap)
        return window, overlap

    def _recipe(self, name: str, modality: Modality) -> Recipe:
        return Recipe.of(
            modality,
            crop=self.crop.get(name),
            monthly_means=self.monthly_means,
            max_dates=self.max_dates,
            scale=self.scale.get(name),
            offset=self.offset.get(name),
            where=name,
        )

    def _layers(self, name: str, modality: Modality) -> Layers:
        where = f"data.rasters.{name}"
        paths = expand(self.rasters[name], where=where)
        names = self.bands.get(name)
        if not modality.temporal:
            return image_layers(paths, modality.bands, names=names, where=where)
        if name not in self.cloud_masks and modality.preparation.get("cloud_area") is not None:
            log.warning(
                "The model was trained on %r without its cloudy dates, but data.cloud_masks names "
                "no masks for it: leave cloudy dates out yourself, or give masks.",
                name,
            )
        return series_layers(
            paths, modality.bands, names=names, dates_file=self.dates.get(name), where=where
        )

    def _grid(self, schema: Schema, layers: Mapping[str, Layers]) -> list[RasterFile]:
        """The rasters to map, all of one pixel size and with names of their own."""
        if self.grid is None:
            name = self._mapped(schema)
            where, grid = f"data.rasters.{name}", list(layers[name].grid)
            gsd, who = schema.modalities[name].gsd, "the model was trained with"
            if len(layers) > 1:
                log.info("Mapping the rasters of %r; others can be named with --data.grid.", name)
        else:
            where = "data.grid"
            grid = [inspect(path, where=where) for path in expand(self.grid, where=where)]
            gsd, who = grid[0].gsd * metres(grid[0].crs), f"{grid[0].path} has"
        _check_gsd(grid, gsd, who, where=where)
        _check_grid(grid, where=where)
        return grid

    def _mapped(self, schema: Schema) -> str:
        """The modality whose files lay the grid where none is given."""
        task = self.trainer.lightning_module if self.trainer is not None else None
        answers = getattr(getattr(task, "model", None), "reference", None)
        if answers in self.rasters:
            return str(answers)
        given = {name: schema.modalities[name] for name in self.rasters}
        return min(given, key=lambda name: (given[name].temporal, given[name].gsd))

    def _cloud_layers(self, name: str, series: Layers) -> Layers:
        where = f"data.cloud_masks.{name}"
        masks = series_layers(
            expand(self.cloud_masks[name], where=where),
            CLOUD_BANDS,
            names=CLOUD_BANDS,
            dates_file=self.dates.get(name),
            where=where,
        )
        if masks.dtype.kind == "f" and 0 < largest(masks.all_files, above=1, where=where) <= 1:
            raise InputError(
                f"{where}: no value in {masks.all_files[0].path} or beside it is above 1, but masks"
                " hold probabilities in percent, 0 to 100. Multiply them by 100, e.g. "
                '`gdal_calc.py -A IN --allBands=A --calc="A*100" --outfile=OUT`.'
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


def _trained_patch(schema: Schema, grid: RasterFile) -> int | None:
    """Pixels of the grid along a patch of training, if the checkpoint says."""
    gsd = grid.gsd * metres(grid.crs)
    for modality in sorted(schema.modalities.values(), key=lambda modality: modality.gsd):
        size = modality.preparation.get("image_size")
        if size is not None:
            return max(round(int(size) * modality.gsd / gsd), 1)
    return None


def _check_window(window: int, overlap: int) -> None:
    if window < 1 or not 0 <= overlap < window:
        raise InputError(
            f"overlap must be at least 0 and smaller than window, got overlap {overlap} and "
            f"window {window}."
        )


def _check_gsd(files: list[RasterFile], gsd: float, who: str, *, where: str) -> None:
    for file in files:
        unit = metres(file.crs)
        columns, rows = file.gsd * unit, -file.transform.e * unit
        if not same_gsd(columns, gsd) or not same_gsd(rows, gsd):
            raise InputError(
                f"{where}: {file.path} has pixels of {columns:g} × {rows:g} m, {who} {gsd:g} m. "
                f"Resample it first, e.g. `gdalwarp -r average -tr {gsd / unit:g} {gsd / unit:g} "
                "IN OUT`."
            )


def _check_grid(files: list[RasterFile], *, where: str) -> None:
    stems: dict[str, str] = {}
    for file in files:
        check_crs(file, files[0], where=where)
        stem = Path(file.path).stem
        if stem in stems:
            raise InputError(
                f"{where}: {stems[stem]} and {file.path} have the same name, and so would their "
                "maps. Rename one, or predict them in two runs."
            )
        stems[stem] = file.path


def _check_overlap(name: str, files: list[RasterFile], grid: list[RasterFile]) -> None:
    for file in files:
        check_crs(file, grid[0], where=f"data.rasters.{name}")
    if not any(intersects(file, source) for file in files for source in grid):
        raise InputError(
            f"data.rasters.{name}: none of its rasters overlaps the rasters to map: "
            f"{files[0].path} covers (left, bottom, right, top) {files[0].bounds}, "
            f"{grid[0].path} covers {grid[0].bounds}. Give rasters of the same place, or "
            f"leave {name} out to predict without it."
        )
    for source in grid:
        if not any(intersects(file, source) for file in files):
            log.info("No raster of %r covers %s: predicting without it.", name, source.path)

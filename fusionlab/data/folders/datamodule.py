"""Any data set laid out as one folder per modality, with files of the same names in each."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import DataLoader

from fusionlab.data.base import DataModule, Split
from fusionlab.data.choices import PathLike, path_or_none, require_known
from fusionlab.data.folders.dataset import FolderDataset
from fusionlab.data.folders.files import read_header
from fusionlab.data.folders.layers import image_layer, ratio_of, target_layer
from fusionlab.data.folders.options import (
    ImageFolder,
    TargetFolder,
    check_images,
    check_target,
    class_values,
)
from fusionlab.data.folders.reading import (
    ClassReader,
    ImageReader,
    MeanReader,
    TargetReader,
    ValueReader,
)
from fusionlab.data.folders.splits import Splits, block_of, check_splits, split
from fusionlab.data.folders.statistics import band_statistics, default_folder
from fusionlab.data.folders.tiles import Tile, open_tiles
from fusionlab.data.raster.windows import WholeSources
from fusionlab.errors import InputError
from fusionlab.types import Batch, Modality, Schema

log = logging.getLogger(__name__)

DEFAULT_SPLITS: Splits = {"val": 0.1, "test": 0.1}


class FolderDataModule(DataModule):
    """Delivers images, and classes or values per pixel or per sample, from folders of rasters.

    Files of one name, such as ``S2/a.tif``, ``S1/a.tif`` and ``labels/a.tif``, show one place: the
    same ground in the same reference system, where they have one. Their pixel sizes may differ, if
    they divide each other. All this is checked before a run starts. Subfolders belong to the name.

    * An image is ``(bands, h, w)`` in the type it has on disk (float64 becomes float32, uint32
      int64). Pixels without an observation are NaN, of integers the mean. A modality without any
      observation in a sample is missing there.
    * A target of classes is ``(H, W)`` int64 with 255 where unknown, one of values ``(V, H, W)``
      float32 with NaN where unknown. With ``per_sample`` it is the mean of the known values of the
      sample's window, ``(V,)`` float32.

    Args:
        root: folder that the paths of folders are below.
        modalities: per name the folder of its files.
        target: the folder of what is to be learned. None for folders to predict only.
        use: modalities to deliver; all by default.
        bands: per modality, names of the bands to deliver; all by default.
        splits: which places are for ``train``, ``val`` and ``test``: a share to draw, a name or a
            pattern such as ``"north/*"``, a list of them, or a text file (``….txt``, below the
            root) with one name per line. What no other split takes is for training. By default a
            tenth is drawn for validation and a tenth for the test.
        split_seed: seed of the draw.
        split_blocks: draw blocks of so many metres with all that lies in them instead of single
            places, since neighbours are too much alike to be trained on and tested on.
        predict_split: which places to predict: those of a split, or ``all`` that there are, with or
            without a target.
        crop: rows and columns of a sample, in pixels of the target: in training anywhere in a file,
            otherwise on a regular grid. By default a sample is a whole file, and all files must
            have one size unless the batch size is 1.
        overlap: pixels that neighbouring windows of a prediction share; maps are blended there. A
            model that answers per sample gives every window a row of a table.
        allow_missing: mark a modality as missing in places that have no file of it instead of
            refusing them.
        statistics: folder in which computed means and standard deviations are kept; by default the
            user's cache folder. They are of all observed pixels of the training split, and computed
            anew when its files or bands change.
        **loader: options of `DataModule`: how batches are made, `augment`, `modality_dropout`,
            `missing`, and `fraction`, `max_samples` and `subset_seed`, which draw whole files.

    Raises:
        InputError: for options that make no sense or folders that are not there; unusable files are
            refused in `setup`.
    """

    def __init__(
        self,
        root: PathLike,
        modalities: dict[str, ImageFolder],
        *,
        target: TargetFolder | None = None,
        use: list[str] | None = None,
        bands: dict[str, list[str]] | None = None,
        splits: dict[str, float | str | list[str]] | None = None,
        split_seed: int = 0,
        split_blocks: float | None = None,
        predict_split: Literal["test", "val", "train", "all"] = "test",
        crop: int | None = None,
        overlap: int = 0,
        allow_missing: bool = False,
        statistics: PathLike | None = None,
        **loader: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**loader)
        self.root = path_or_none(root) or Path()
        self.target = target
        self.splits: Splits = dict(DEFAULT_SPLITS if splits is None else splits)
        self.split_seed = split_seed
        self.split_blocks = split_blocks
        self.predict_split = predict_split
        self.crop = crop
        self.overlap = overlap
        self.allow_missing = allow_missing
        self.statistics = path_or_none(statistics) or default_folder()
        # One rank may have no file at all when there are fewer files than processes.
        self.allow_zero_length_dataloader_with_multiple_devices = True

        self._lengths: list[int] = []
        self._parts: dict[str, list[str]] | None = None

        self.folders = self._chosen(modalities, use)
        if target is not None:
            check_target(target)
        check_splits(self.splits)
        require_known(
            [predict_split],
            ["test", "val", "train", "all"],
            option="predict_split",
            what="split",
        )
        if split_blocks is not None and not split_blocks > 0:
            raise InputError(f"split_blocks is a size in metres above 0, got {split_blocks}.")
        self._images = {
            name: image_layer(name, folder, self.root) for name, folder in self.folders.items()
        }
        self._target = None
        if target is not None:
            self._target = target_layer(
                target, self.root, self._images.values(), needed=predict_split != "all"
            )
        grid = self._target or min(self._images.values(), key=lambda layer: layer.gsd)
        self._images = {
            name: replace(layer, ratio=ratio_of(layer.gsd, grid.gsd, where=layer.where))
            for name, layer in self._images.items()
        }
        self.step = math.lcm(*(layer.ratio.numerator for layer in self._images.values()))
        self._check_crop()
        self.schema = self._schema(grid.gsd, bands or {})
        self.check_modalities()

    def dataset(self, split: Split) -> FolderDataset:
        """The samples of a split; checks the headers of all its files.

        Raises:
            InputError: if a file cannot be used; says which and why.
        """
        predicting = split == "predict"
        if not predicting and self.target is None:
            raise InputError(
                f"data.target names no folder, so there is nothing to compare with in {split!r}: "
                "say what is to be learned, or predict."
            )
        part = self.predict_split if predicting else split
        names = self._names() if part == "all" else self._split(part)
        if part != "all":
            names = [names[i] for i in self.kept(len(names), part)]  # type: ignore[arg-type]
        wanted = None if predicting else self._target
        tiles, dtypes = open_tiles(names, self._images, wanted, allow_missing=self.allow_missing)
        self._check_sizes(tiles)
        tiles = [self._delivered(tile) for tile in tiles]
        readers = {
            name: ImageReader(
                self.schema.modalities[name], layer.ratio, dtypes[name], layer.nodata, layer.where
            )
            for name, layer in self._images.items()
        }
        dataset = FolderDataset(
            tiles,
            readers,
            None if predicting else self._target_reader(),
            crop=self.crop,
            overlap=self.overlap if predicting else 0,
            step=self.step,
            at="random" if split == "train" else "grid",
            placed=predicting,
            maps=self._answers().pixelwise,
            transforms=self.transforms(split),
        )
        if predicting:
            self._lengths = dataset.lengths
        return dataset

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Window by window, file by file; every process maps whole files."""
        dataset = self._datasets["predict"]
        trainer = self.trainer
        sampler = WholeSources(
            dataset,
            self._lengths,
            rank=trainer.global_rank if trainer is not None else 0,
            world_size=trainer.world_size if trainer is not None else 1,
        )
        return self._loader(dataset, sampler=sampler)

    def _chosen(
        self, modalities: Mapping[str, ImageFolder], use: Sequence[str] | None
    ) -> dict[str, ImageFolder]:
        require_known(use or [], modalities, option="use", what="modality")
        chosen = {n: folder for n, folder in modalities.items() if use is None or n in use}
        if not chosen:
            raise InputError("modalities: name at least one folder of images to use.")
        for name, folder in chosen.items():
            check_images(name, folder)
        return chosen

    def _check_crop(self) -> None:
        if self.crop is None:
            if self.overlap:
                raise InputError("overlap is of windows: set crop, their size, too.")
            return
        if self.crop < 1 or not 0 <= self.overlap < self.crop:
            raise InputError(
                f"overlap must be at least 0 and smaller than crop, got overlap {self.overlap} and "
                f"crop {self.crop}."
            )
        if self.crop % self.step or self.overlap % self.step:
            raise InputError(
                f"crop {self.crop} and overlap {self.overlap} must be multiples of {self.step}: so "
                "many pixels of the target are a pixel of the coarsest modality."
            )

    def _schema(self, gsd: float, bands: Mapping[str, Sequence[str]]) -> Schema:
        require_known(list(bands), self._images, option="bands", what="modality")
        modalities = {name: self._modality(name) for name in self._images}
        for name, wanted in bands.items():
            modalities[name] = modalities[name].select(wanted, where=f"data.bands.{name}")
        target = self.target
        if target is None:
            return Schema(modalities, gsd=gsd)
        if target.variables is not None:
            return Schema(
                modalities,
                gsd=None if target.per_sample else gsd,
                target="scalar_regression" if target.per_sample else "regression",
                variables=target.variables,
                units=target.units or [""] * len(target.variables),
            )
        return Schema(modalities, class_values(target)[0], colors=target.colors or (), gsd=gsd)

    def _modality(self, name: str) -> Modality:
        folder, layer = self.folders[name], self._images[name]
        count = len(layer.bands)
        scale = tuple(folder.scale) if isinstance(folder.scale, list) else (folder.scale,) * count
        mean, std = folder.mean, folder.std
        if mean is None or std is None:
            names = self._training_names()
            if names:
                raw = band_statistics(name, layer, names, folder=self.statistics)
                mean = [m * s for m, s in zip(raw.mean, scale, strict=True)]
                std = [d * abs(s) for d, s in zip(raw.std, scale, strict=True)]
        return Modality(layer.bands, layer.gsd, scale, tuple(mean or ()), tuple(std or ()))

    def _training_names(self) -> list[str]:
        try:
            return self._split("train")
        except InputError:
            # A folder to predict need not have a training split: statistics are the checkpoint's.
            if self.predict_split == "all" or self.target is None:
                return []
            raise

    def _names(self) -> list[str]:
        """All places that have a file of any modality."""
        return sorted({name for layer in self._images.values() for name in layer.files})

    def _split(self, part: str) -> list[str]:
        if self._parts is None:
            names = sorted({*self._names(), *(self._target.files if self._target else ())})
            blocks = {n: self._block(n) for n in names} if self.split_blocks else None
            self._parts = split(
                names, self.splits, root=self.root, seed=self.split_seed, blocks=blocks
            )
        if not self._parts.get(part):
            raise InputError(
                f"The split {part!r} is empty: splits names {list(self.splits)} only. Say which "
                f"places are for it, e.g. `splits.{part}: 0.1`."
            )
        return self._parts[part]

    def _block(self, name: str) -> str:
        layers = [*self._images.values(), *([self._target] if self._target else [])]
        layer = next(layer for layer in layers if name in layer.files)
        return block_of(read_header(layer.files[name], where=layer.where), self.split_blocks or 1.0)

    def _check_sizes(self, tiles: Sequence[Tile]) -> None:
        smallest = min(tiles, key=lambda tile: min(tile.height, tile.width), default=None)
        if smallest is None:
            return
        if self.crop is not None:
            if min(smallest.height, smallest.width) < self.crop:
                raise InputError(
                    f"crop: {smallest.name!r} has {smallest.height} × {smallest.width} pixels of "
                    f"the target, fewer than the {self.crop} × {self.crop} of a sample. Choose a "
                    "smaller crop, or leave that place out of `splits`."
                )
            return
        sizes = {(tile.height, tile.width): tile.name for tile in tiles}
        if len(sizes) > 1 and self.batch_size > 1:
            listed = [f"{name!r}: {h} × {w}" for (h, w), name in list(sizes.items())[:3]]
            raise InputError(
                f"Files of different sizes ({', '.join(listed)}) make no batch: set crop to the "
                "rows and columns of a sample, or batch_size: 1."
            )

    def _delivered(self, tile: Tile) -> Tile:
        """The tile with those bands alone that are delivered."""
        images = {}
        for name, file in tile.images.items():
            wanted = self.schema.modalities[name].bands
            index = [self._images[name].bands.index(band) for band in wanted]
            images[name] = replace(file, indexes=tuple(file.indexes[i] for i in index))
        return replace(tile, images=images)

    def _answers(self) -> Schema:
        """What the model answers; folders to predict only need not say it themselves."""
        task = getattr(self.trainer, "lightning_module", None)
        schema = getattr(task, "schema", self.schema)
        assert isinstance(schema, Schema)
        return schema

    def _target_reader(self) -> TargetReader | None:
        target = self.target
        if target is None:
            return None
        if target.regression:
            reader = MeanReader if target.per_sample else ValueReader
            return reader(scale=target.scale, nodata=target.nodata)
        return ClassReader(class_values(target)[1], ignore=target.ignore, nodata=target.nodata)

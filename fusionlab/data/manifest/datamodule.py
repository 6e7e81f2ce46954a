"""Any data set listed in a table: one row per sample, with files, texts, numbers and labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch.utils.data import DataLoader

from fusionlab.data.base import DataModule, Split
from fusionlab.data.choices import PathLike, path_or_none, require_known, require_modalities
from fusionlab.data.folders.statistics import default_folder
from fusionlab.data.manifest.dataset import ManifestDataset, WindowDataset
from fusionlab.data.manifest.images import ImageSource, RasterSource
from fusionlab.data.manifest.maps import Ground, MaskTarget
from fusionlab.data.manifest.options import (
    ImageColumn,
    ManifestSplits,
    SeriesColumns,
    TableColumns,
    TargetColumn,
    TextColumn,
    check_target_column,
)
from fusionlab.data.manifest.problems import Problems
from fusionlab.data.manifest.rows import divide, sample_names
from fusionlab.data.manifest.source import Rows
from fusionlab.data.manifest.sources import check_modalities, chosen, file_columns, make_source
from fusionlab.data.manifest.splits import check_manifest_splits
from fusionlab.data.manifest.table import Manifest
from fusionlab.data.manifest.targets import SampleTarget, sample_target
from fusionlab.data.raster.windows import WholeSources
from fusionlab.errors import InputError
from fusionlab.types import Batch, Schema

log = logging.getLogger(__name__)

PredictSplit = Literal["test", "val", "train", "all"]


class ManifestDataModule(DataModule):
    """Delivers what a table lists: images, series of images, texts, tables and series of values.

    The manifest is a CSV or Parquet file with one row per sample. Its cells hold paths of files,
    texts, numbers, categories and labels; modalities say which. An empty cell is a missing
    modality; ``nan`` is one, too, and of texts, numbers and paths ``NA`` and ``NULL``. Everything
    that is wrong with its rows is said in one message before a run starts.

    * An image is ``(C, h, w)``, a series of images ``(T, C, h, w)`` with dates, in the type they
      have on disk (float64 becomes float32, uint32 int64). Pixels without an observation are NaN,
      of integers the mean. Modalities may differ in size; images of one have one size.
    * A text is a ``str``. The schema carries a tokenizer that was made from the training texts.
    * A table is ``(F,)`` float32: numbers, and categories as their index, NaN where a cell is
      empty. Categories that the training split has not have the indices that follow on
      (`Modality.others`): a model that was trained on another table may know them by name.
    * A series of values is ``(T, C)`` float32 with dates, NaN where one is missing.
    * The target is a class index, ``(K,)`` floats of 0 and 1, ``(V,)`` values, or, of masks, as
      `FolderDataModule` delivers it.

    Means, standard deviations, categories and vocabularies are those of the training split. Where
    the target is a mask, or the model answers per pixel, images of a row must lie on the same
    ground, and predictions are maps; otherwise they are rows of a table.

    Args:
        manifest: the table.
        images: per name the column of its files.
        texts: per name the column that holds it.
        tables: per name its columns.
        series: per name the column of its files, or its columns.
        target: what is to be learned. None for data without labels, to predict or to contrast.
        root: folder that relative paths are below; by default that of the manifest.
        splits: which rows are for training, validation and test. By default a tenth is drawn for
            validation and a tenth for the test: by place if that is given, or else by name, or by
            the first file of a row, so that sorting or adding rows moves none. Rows of a table
            without any of these are drawn by number: there, order matters.
        place: column that says which samples show the same place (`Batch.place`). Where rows are
            drawn for splits, those of one place stay together; where a column says them, a place
            in several is warned of.
        name: column of the names of samples in predictions; by default the name of the first file,
            if all differ, or the number of the row.
        use: modalities to deliver; all by default.
        allow_missing: which modalities may be missing in a row: all, none, or those named. A row
            without any is refused.
        predict_split: which rows to predict: those of a split, or ``all`` that there are, with or
            without labels, places and splits.
        crop: of masks, rows and columns of a sample in pixels of the mask: in training anywhere in
            a file, otherwise on a regular grid. By default a sample is a whole file.
        overlap: pixels that neighbouring windows of a prediction share; maps are blended there.
        statistics: folder in which means, standard deviations and vocabularies are kept; by default
            the user's cache folder. They are computed anew when the training files change.
        **loader: options of `DataModule`: how batches are made, `augment`, `modality_dropout`,
            `missing`, and `fraction`, `max_samples` and `subset_seed`.

    Raises:
        InputError: for options that make no sense, columns that are not there, and rows that cannot
            be used; other files are checked in `setup`.
    """

    def __init__(
        self,
        manifest: PathLike,
        *,
        images: dict[str, ImageColumn] | None = None,
        texts: dict[str, TextColumn] | None = None,
        tables: dict[str, TableColumns] | None = None,
        series: dict[str, SeriesColumns] | None = None,
        target: TargetColumn | None = None,
        root: PathLike | None = None,
        splits: ManifestSplits | None = None,
        place: str | None = None,
        name: str | None = None,
        use: list[str] | None = None,
        allow_missing: bool | list[str] = True,
        predict_split: PredictSplit = "test",
        crop: int | None = None,
        overlap: int = 0,
        statistics: PathLike | None = None,
        **loader: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**loader)
        self.target = target
        self.splits = splits or ManifestSplits()
        self.allow_missing = allow_missing
        self.predict_split = predict_split
        self.crop = crop
        self.overlap = overlap
        self.statistics = path_or_none(statistics) or default_folder()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        options = chosen(
            {"images": images, "texts": texts, "tables": tables, "series": series}, use
        )
        self._check_options(options)

        path = path_or_none(manifest) or Path()
        self.root = path_or_none(root) or path.parent
        self.manifest = Manifest(path)
        self._problems = Problems(path)
        self.sources = {
            name: make_source(name, given, self.manifest, self.root, self._problems)
            for name, given in options.items()
        }
        self._division = divide(
            self.manifest,
            self.splits,
            place=place,
            name=name,
            files=file_columns({**(images or {}), **(series or {})}, target),
            sources=self.sources,
            problems=self._problems,
            needed=predict_split != "all",
        )
        self._parts, self._places = self._division.parts, self._division.places
        self._used = self._used_rows()
        self.names = sample_names(self.manifest, name, self.sources, self._problems)
        self._labels, self._mask = self._find_target()
        self._check_cells()
        self._problems.refuse()

        for source in self.sources.values():
            source.prepare()
        self._ground = self._find_ground() if self._mask is not None else None
        for source in self.sources.values():
            source.describe(self._parts["train"], store=self.statistics, verify=self._verify)
        self._problems.refuse()
        self._lengths: list[int] | None = None
        self.schema = self._schema()
        self.check_modalities()

    def setup(self, stage: str) -> None:
        """Checks the files of all splits that a stage needs at once, then builds their data sets.

        Raises:
            InputError: lists what is wrong with them; see also `DataModule.setup`.
        """
        splits: dict[str, tuple[Split, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
            "predict": ("predict",),
        }
        for split in splits[stage]:
            self._check_files(self._rows(split), labelled=split != "predict")
        self._problems.refuse()
        super().setup(stage)

    def dataset(self, split: Split) -> ManifestDataset:
        """The samples of a split.

        Raises:
            InputError: if a file cannot be used; lists all that cannot.
        """
        predicting = split == "predict"
        rows = self._rows(split)
        self._check_files(rows, labelled=not predicting)
        self._problems.refuse()
        if not self._maps(predicting):
            if self.crop is not None:
                raise self._needless_crop()
            return ManifestDataset(
                rows,
                self.sources,
                self.names,
                target=None if predicting else self._labels,
                place=self._places,
                transforms=self.transforms(split),
            )
        ground = self._find_ground()
        windows = ground.dataset(
            rows,
            masks=not predicting,
            random=split == "train",
            placed=predicting,
            maps=True,
        )
        if predicting:
            self._lengths = windows.lengths
        return WindowDataset(
            rows,
            self.sources,
            self.names,
            windows=windows,
            ratios=ground.ratios,
            place=self._places,
            transforms=self.transforms(split),
        )

    def predict_dataloader(self) -> DataLoader[Batch]:
        """In order; no sample twice. Of maps, every process makes whole ones."""
        if self._lengths is None:
            return super().predict_dataloader()
        dataset, trainer = self._datasets["predict"], self.trainer
        sampler = WholeSources(
            dataset,
            self._lengths,
            rank=trainer.global_rank if trainer is not None else 0,
            world_size=trainer.world_size if trainer is not None else 1,
        )
        return self._loader(dataset, sampler=sampler)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        check_modalities(options)
        if self.target is not None:
            check_target_column(self.target)
        check_manifest_splits(self.splits)
        require_known(
            [self.predict_split], get_args(PredictSplit), option="predict_split", what="split"
        )
        if isinstance(self.allow_missing, list):
            require_modalities(dict.fromkeys(self.allow_missing), options, option="allow_missing")
        if self.crop is not None and self.target is not None and self.target.kind != "mask":
            raise self._needless_crop()
        if self.crop is None and self.overlap:
            raise InputError("overlap is of windows: set crop, their size, too.")
        if self.crop is not None and not 0 <= self.overlap < self.crop:
            raise InputError(
                f"overlap must be at least 0 and smaller than crop, got overlap {self.overlap} and "
                f"crop {self.crop}."
            )

    def _lacks(self, columns: Sequence[str | None]) -> bool:
        return any(column not in self.manifest.columns for column in columns if column is not None)

    def _needless_crop(self) -> InputError:
        return InputError(
            f"crop: {self.crop} is of windows of images with a mask, or of a model that answers "
            "per pixel; here samples are whole rows. Leave it out, or set `size` of the images."
        )

    def _used_rows(self) -> Rows:
        if self.predict_split == "all":
            return np.arange(len(self.manifest))
        return np.sort(np.concatenate(list(self._parts.values())))

    def _find_target(self) -> tuple[SampleTarget | None, MaskTarget | None]:
        target = self.target
        if target is None:
            return None, None
        columns = target.columns or [str(target.column)]
        if self.predict_split == "all" and self._lacks(columns):
            return None, None
        if target.kind == "mask":
            return None, MaskTarget(target, self.manifest, self.root)
        labelled = np.sort(np.concatenate(list(self._parts.values())))
        if not len(labelled):
            labelled = self._used
        return sample_target(target, self.manifest, labelled, self._problems), None

    def _check_cells(self) -> None:
        """All that can be told of the rows without opening files."""
        problems = self._problems
        nothing = np.ones(len(self.manifest), bool)
        for name, source in self.sources.items():
            source.find(self._used, problems)
            nothing &= ~source.there
            allowed = self.allow_missing
            if not (allowed if isinstance(allowed, bool) else name in allowed):
                for row in self._used[~source.there[self._used]].tolist():
                    problems.add(
                        row, f"no {name}. Fill it in, or allow it to be missing (allow_missing)."
                    )
        for row in self._used[nothing[self._used]].tolist():
            problems.add(row, f"none of {list(self.sources)} is there.")
        for target in (self._labels, self._mask):
            if target is not None:
                target.check(self._labelled, problems)

    @property
    def _labelled(self) -> Rows:
        """Rows that must have a target for training; those to predict need none."""
        if self.predict_split == "all":
            return np.zeros(0, np.int64)
        parts = [self._parts[p] for p in ("train", "val") if p != self.predict_split]
        return np.sort(np.concatenate(parts))

    def _find_ground(self) -> Ground:
        if getattr(self, "_ground", None) is None:
            images = {n: s for n, s in self.sources.items() if isinstance(s, ImageSource)}
            self._ground = Ground(
                images, self._mask, self.names, crop=self.crop, overlap=self.overlap
            )
        assert self._ground is not None
        return self._ground

    def _verify(self) -> None:
        """Checks all files, before the first is read for statistics."""
        self._check_files(self._labelled, labelled=True)
        self._check_files(np.setdiff1d(self._used, self._labelled), labelled=False)
        self._problems.refuse()

    def _check_files(self, rows: Rows, *, labelled: bool) -> None:
        problems = self._problems
        if labelled:
            for target in (self._labels, self._mask):
                if target is not None:
                    target.check(rows, problems)
        ground = self._find_ground() if self._maps(not labelled) else None
        if ground is not None:
            masks = labelled and self._mask is not None
            ground.check(rows, problems, masks=masks)
            if self.crop is None and self.batch_size > 1:
                ground.require_one_size(rows, problems, masks=masks)
        for source in self.sources.values():
            if ground is None or not isinstance(source, RasterSource):
                source.check(rows, problems)

    def _rows(self, split: Split) -> Rows:
        predicting = split == "predict"
        if not predicting and self.target is not None and not (self._labels or self._mask):
            raise InputError(
                f"data.manifest: {self.manifest.path} has no target, so there is nothing to "
                f"compare with in {split!r}: predict."
            )
        part = self.predict_split if predicting else split
        if part == "all":
            return self._used
        rows = self._parts[part]
        if not len(rows):
            if self._division.refusal is not None:
                raise self._division.refusal
            raise InputError(
                f"The split {part!r} has no row of {self.manifest.path}. Say which are for it with "
                f"`splits.{part}`."
            )
        return rows[self.kept(len(rows), part)]  # type: ignore[arg-type]

    def _maps(self, predicting: bool) -> bool:
        """Whether answers are maps: what the model gives, or what it is to learn."""
        if self._mask is not None:
            return True
        if not predicting or not hasattr(self, "schema"):
            return False
        task = getattr(self.trainer, "lightning_module", None)
        schema = getattr(task, "schema", None)
        answers = isinstance(schema, Schema) and bool(schema.outputs)
        return answers and schema.pixelwise  # type: ignore[union-attr]

    def _schema(self) -> Schema:
        modalities = {name: source.modality for name, source in self.sources.items()}
        if self._mask is not None:
            return self._mask.schema(modalities, self._find_ground().gsd)
        if self._labels is not None:
            return self._labels.schema(modalities)
        # Of whole samples, whatever is to be said of them.
        return Schema(modalities, target="multiclass")

"""Writes predictions of samples as a table, and those of a raster's patches as a map, too."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rasterio.errors import RasterioError

import fusionlab
from fusionlab.callbacks.patch_maps import PatchMaps
from fusionlab.callbacks.patch_polygons import require_pyogrio
from fusionlab.callbacks.prediction_table import Floats, Mask, Predictions, TableFile, TableFormat
from fusionlab.component import Model
from fusionlab.errors import InputError
from fusionlab.tasks import Task
from fusionlab.types import Batch, Schema

log = logging.getLogger(__name__)

NAME = "predictions"
GridFormat = Literal["geotiff", "geopackage"]
_ENDINGS = ("parquet", "csv")


class TableWriter(Callback):
    """Writes what a model says of every sample: a table, and of the patches of a raster a map.

    ``predictions.parquet`` (or ``.csv``) has a row per sample, in the order of the data:

    * ``sample``: its name. Of patches of rasters also ``source`` (the raster's path) and ``row``,
      ``column``, ``height``, ``width``: the pixels there, as far as they lie on the raster.
    * ``labels``: names of the classes at or over the task's threshold, a list (in CSV joined by
      ``; ``); of a model with one class per sample ``label``, the most probable.
    * ``available_<modality>``: whether it was there to look at.
    * ``probability_<class>`` for every class: in pandas ``df.filter(regex="^probability_")``, in
      DuckDB ``SELECT COLUMNS('^probability_') FROM 'predictions.parquet'``. Of a model that gives
      values ``value_<variable>`` for every variable instead, and no labels.
    * ``share_<expert>`` and ``embedding_<expert>`` (a list of numbers) on request. Of a model that
      gives embeddings only (`ContrastiveTask`) these are always there, and no labels or numbers.

    A sample of which no modality was available has a row, too: its labels are empty, and its
    probabilities or values, shares and embeddings null. The embedding of an expert whose own
    modality was not available is null. A Parquet file says under the key ``fusionlab`` of its
    metadata, as JSON, the classes and the threshold, or the variables and their units, the
    checkpoint and the model. The field of a variable has its ``unit`` as metadata, too.

    For every raster ``zone.tif`` that the data cut into patches it writes, as `grid` says,

    * ``zone_patches.tif``: one pixel per patch, one band of probabilities per class, or of values
      per variable, NaN where nothing was seen; of a model with one class per sample also
      ``zone_patches_classes.tif``, with colour table and class names. Where patches overlap, pixels
      are as large as the step between patches, and each lies in the middle of its patch.
    * ``zone_patches.gpkg``: the patches as polygons with the columns of the table, embeddings
      excepted and labels joined by ``; ``; null as above. Where patches overlap, so do polygons.

    Files bear temporary names until the run is through. Then they replace those of an earlier run,
    of which nothing stays, not even kinds that this run does not write; after an error or an
    interruption no part is left behind. In a distributed run every process writes a table of its
    own, ``predictions_rank0.parquet`` and so on, and the maps of the rasters it was given, without
    waiting for the others.

    Args:
        output: folder for the files, made if need be.
        format: kind of table; Parquet keeps types, lists and metadata, and is smaller.
        grid: what to write for every raster besides the table: ``geotiff``, ``geopackage`` (needs
            ``pip install 'fusionlab[geopackage]'``), both in a list, or ``none``.
        contributions: write the share of every expert in the decision.
        embeddings: write the embeddings of every expert and the fused one; Parquet only.

    Raises:
        InputError: if embeddings are wanted in CSV, or later if a model gives nothing else.
    """

    def __init__(
        self,
        output: str | Path = "predictions",
        *,
        format: TableFormat = "parquet",
        grid: Literal["geotiff", "geopackage", "none"] | list[GridFormat] = "geotiff",
        contributions: bool = False,
        embeddings: bool = False,
    ) -> None:
        if embeddings and format == "csv":
            raise InputError(
                "Embeddings are lists of numbers, which a CSV file has no place for: write "
                "`format: parquet`, or leave `embeddings` out."
            )
        self.output = Path(output).expanduser()
        self.format: TableFormat = format
        self.grid: tuple[str, ...] = (grid,) if isinstance(grid, str) else tuple(grid)
        self.contributions = contributions
        self.embeddings = embeddings
        self._table: TableFile | None = None
        self._maps: PatchMaps | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes the folder.

        Raises:
            InputError: if that is impossible, if the model answers per pixel, if it has no
                embeddings although they are wanted, or if GeoPackages are wanted and cannot be
                written.
        """
        if stage != "predict":
            return
        schema = _schema(pl_module)
        if schema.pixelwise:
            raise InputError(
                "TableWriter writes one answer per sample, but the model answers per pixel. Write "
                "its predictions with `--writer GeoTiffWriter`."
            )
        if isinstance(pl_module, Task) and pl_module.only_embeddings:
            if self.format == "csv":
                raise InputError(
                    f"{type(pl_module).__name__} gives embeddings, lists of numbers, which a CSV "
                    "file has no place for: write `format: parquet`."
                )
            self.embeddings = True
        if self.embeddings and isinstance(pl_module, Task):
            pl_module.require_embeddings()
        if "geopackage" in self.grid:
            require_pyogrio()
            lower = [name.lower() for name in schema.outputs]
            twins = [name for name in schema.outputs if lower.count(name.lower()) > 1]
            if twins:
                raise InputError(
                    f"A GeoPackage does not tell the {schema.kind} {twins} apart, whose names "
                    "differ in capitals only. Choose `grid: geotiff`."
                )
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"Cannot make the output folder {self.output} ({error}). Choose another --output."
            ) from error

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Asks the task for what is to be written; keeps no predictions in memory."""
        trainer.predict_loop.return_predictions = False
        if self.contributions:
            pl_module.explain = True  # type: ignore[assignment]
        if self.embeddings:
            pl_module.embeddings = True  # type: ignore[assignment]
        metadata = _description(trainer, pl_module)
        rank = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        self._table = TableFile(
            self.output / f"{NAME}{rank}.{self.format}",
            format=self.format,
            metadata=metadata,
        )
        self._maps = PatchMaps(
            self.output, kinds=self.grid, schema=_schema(pl_module), metadata=metadata
        )

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds the samples of a batch.

        Args:
            trainer: the trainer.
            pl_module: the task; its schema names the classes or variables.
            outputs: ``probabilities`` ``(B, K)`` and ``labels`` ``(B, K)`` bool, or ``values``
                ``(B, V)``, and, if asked for, ``shares`` ``(B,)`` and ``embeddings`` ``(B, D)`` per
                expert.
            batch: with ``placement`` if samples are patches of rasters.
            batch_idx: not used.
            dataloader_idx: not used.

        Raises:
            InputError: if the model has no shares or embeddings although they are wanted, or the
                files cannot be written.
        """
        predictions = self._predictions(pl_module, outputs, batch)
        rows = predictions.rows()
        assert self._table is not None
        assert self._maps is not None
        with self._writing():
            self._table.add(rows)
            if self.grid != ("none",) and predictions.names and _cut_from_raster(batch):
                window, stride = _steps(batch)
                self._maps.add(predictions, rows, window=window, stride=stride)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finishes all files and gives them their names."""
        table, maps = self._table, self._maps
        assert table is not None
        assert maps is not None
        with self._writing():
            table.close()
            maps.close()
            maps.commit()
            if table.rows:  # comes last: once it is there, everything is
                table.temporary.replace(table.path)
        self._remove_other_tables(trainer, table)
        log.info("Wrote %d rows to %s.", table.rows, table.path)
        self._table = self._maps = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leaves no half-written file."""
        self._abort()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves no half-written file."""
        self._abort()

    def _predictions(
        self,
        task: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
    ) -> Predictions:
        schema = _schema(task)
        reads = getattr(task.model, "modalities", None) or tuple(batch["available"])
        available = {name: batch["available"][name].cpu().numpy() for name in reads}
        numbers = outputs.get("values" if schema.regresses else "probabilities")
        shares = self._asked_for(outputs, "shares", wanted=self.contributions)
        embeddings = self._asked_for(outputs, "embeddings", wanted=self.embeddings)
        placement = batch.get("placement")
        return Predictions(
            patches=batch["sample_id"],
            names=schema.outputs,
            units=schema.units,
            numbers=_no_numbers(batch) if numbers is None else _array(numbers),
            labels=outputs["labels"].cpu().numpy() if "labels" in outputs else None,
            several=schema.target == "multilabel",
            present=_any(available.values()),
            available=available,
            shares={name: _array(share) for name, share in shares.items()},
            embeddings={name: _array(values) for name, values in embeddings.items()},
            embedded={
                name: _any(available[modality] for modality in modalities)
                for name, modalities in _looks_at(task).items()
                if set(modalities) <= set(available)
            },
            sources=placement["source"] if placement is not None else (),
            windows=placement["window"].cpu().numpy() if placement is not None else None,
        )

    def _asked_for(self, outputs: Any, kind: str, *, wanted: bool) -> dict[str, torch.Tensor]:  # noqa: ANN401
        if not wanted:
            return {}
        found = outputs.get(kind)
        if found:
            return dict(found)
        if kind == "shares":
            raise InputError(
                "This model cannot say what each modality contributes: it has only one, or a "
                "fusion without that notion. Predict without contributions."
            )
        raise InputError(
            "This model has no embeddings: it does not fuse features. Predict without embeddings, "
            "or with a FeatureFusion model."
        )

    def _remove_other_tables(self, trainer: Trainer, table: TableFile) -> None:
        """Tables of an earlier run: of this process, and of processes that are no more."""
        pattern = re.compile(rf"{NAME}(?:_rank(\d+))?\.(?:{'|'.join(_ENDINGS)})")
        for path in sorted(self.output.iterdir()):
            match = pattern.fullmatch(path.name)
            if match is None or (path == table.path and table.rows):
                continue
            alone = trainer.world_size == 1
            rank = None if match[1] is None else int(match[1])
            mine = rank == (None if alone else trainer.global_rank)
            gone = alone or rank is None or rank >= trainer.world_size
            if mine or (gone and trainer.is_global_zero):
                path.unlink(missing_ok=True)

    def _abort(self) -> None:
        for unfinished in (self._maps, self._table):
            if unfinished is not None:
                unfinished.abort()
        self._table = self._maps = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RasterioError, pa.ArrowException) as error:
            reason = str(error.__cause__ or error)
            raise InputError(
                f"Cannot write predictions into {self.output} ({reason}). Check that the folder "
                "can be written and has space."
            ) from error


def _schema(task: LightningModule) -> Schema:
    schema = task.schema
    assert isinstance(schema, Schema)
    return schema


def _array(values: torch.Tensor) -> Floats:
    array: Floats = values.detach().cpu().float().numpy()
    return array


def _no_numbers(batch: Batch) -> Floats:
    return np.empty((len(batch["sample_id"]), 0), np.float32)


def _any(masks: Iterable[Mask]) -> Mask:
    found: Mask = np.any(list(masks), axis=0)
    return found


def _cut_from_raster(batch: Batch) -> bool:
    """Whether patches lie side by side in a raster; those of a data set have one file each."""
    placement = batch.get("placement")
    return placement is not None and "stride" in placement


def _steps(batch: Batch) -> tuple[int, int]:
    """Pixels of a patch along one side, and from one patch to the next."""
    placement = batch["placement"]
    return int(placement["shape"][0, 0]), int(placement["stride"][0, 0])


def _looks_at(task: LightningModule) -> dict[str, Sequence[str]]:
    """Per expert of the model, the modalities that it looks at."""
    experts = getattr(task.model, "experts", None)
    if experts is None:
        return {}
    return {name: part.modalities for name, part in experts.items() if isinstance(part, Model)}


def _description(trainer: Trainer, task: LightningModule) -> dict[str, Any]:
    """Where predictions come from, in plain values."""
    schema = _schema(task)
    found: dict[str, Any] = {
        "target": schema.target,
        schema.kind: list(schema.outputs),
        "modalities": {name: list(m.bands) for name, m in schema.modalities.items()},
        "fusionlab": fusionlab.__version__,
    }
    if schema.regresses:
        found["units"] = list(schema.units)
    threshold = getattr(task, "threshold", None)
    if isinstance(threshold, torch.Tensor):
        threshold = threshold.tolist()
    if schema.target == "multilabel" and threshold is not None:
        found["threshold"] = threshold
    if trainer.ckpt_path is not None:
        found["checkpoint"] = str(trainer.ckpt_path)
    if isinstance(task.model, Model):
        found["model"] = task.model.describe()
    return found

"""Writes predictions as georeferenced maps while they are made."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rasterio.errors import RasterioError

from fusionlab.callbacks.map_layers import (
    ClassLayer,
    ContributionLayer,
    Floats,
    Layer,
    Probabilities,
    ProbabilityLayer,
    ValueLayer,
)
from fusionlab.callbacks.map_stream import MapStream
from fusionlab.callbacks.quicklook import write_quicklook
from fusionlab.errors import InputError
from fusionlab.plots import class_colors
from fusionlab.types import Batch, Schema

log = logging.getLogger(__name__)

_MOST_CLASSES = 255


class GeoTiffWriter(Callback):
    """Writes one map per raster of the output grid, in its reference system and on its pixels.

    For ``zone.tif`` it writes, tiled and compressed,

    * of a model that gives pixels a class ``zone_classes.tif``: class indices as uint8, 255 is
      nodata, with colour table and class names (as tags ``CLASS_0``… and ``CLASS_NAMES``, and in
      GDAL's side file for GIS legends);
    * of a model that gives pixels values ``zone_values.tif``: one band of float32 per variable,
      described by its name and unit, NaN is nodata.

    Nodata is where that raster or all modalities that the model reads have no data. Overlapping
    windows are blended.

    Files bear a temporary name until they are whole. Then they replace those of an earlier run, of
    which nothing stays, not even kinds that this run does not write; after an error or an
    interruption no part is left behind. Every process of a distributed run writes the rasters it
    was given, without waiting for the others.

    Args:
        output: folder for the maps, made if need be.
        probabilities: write ``zone_probabilities.tif`` too, one band per class: ``uint8`` (254 is
            1, with the scale in the file, 255 is nodata) or ``float16`` (NaN is nodata). For models
            that give classes only.
        contributions: write ``zone_contributions.tif`` too, one band per modality: its share in
            the answer, percent, 255 is nodata.
        quicklook: write ``zone_quicklook.png`` too: classes in their colours, or values with a
            colour bar.
        compress: compression of the GeoTIFFs.
    """

    def __init__(
        self,
        output: str | Path = "maps",
        *,
        probabilities: Probabilities = "none",
        contributions: bool = False,
        quicklook: bool = False,
        compress: Literal["deflate", "lzw", "zstd"] = "deflate",
    ) -> None:
        self.output = Path(output).expanduser()
        self.probabilities: Probabilities = probabilities
        self.contributions = contributions
        self.quicklook = quicklook
        self.compress = compress
        self._stream: MapStream | None = None
        self._done: dict[str, str] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes the folder.

        Raises:
            InputError: if that is impossible, if the model answers once per sample, if there are
                more classes than a byte can name, or if probabilities are wanted of a model that
                gives values.
        """
        if stage != "predict":
            return
        schema = _schema(pl_module)
        if not schema.pixelwise:
            raise InputError(
                f"GeoTiffWriter writes an answer per pixel, but the model answers once per sample "
                f"({schema.target}). Write its predictions with `--writer TableWriter`, which also "
                "writes a grid of the patches of a raster."
            )
        if schema.regresses and self.probabilities != "none":
            raise InputError(
                f"The model gives values ({', '.join(schema.variables)}), which have no "
                f"probabilities; got `probabilities: {self.probabilities}`. Leave it out: the "
                "values themselves are written."
            )
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"Cannot make the output folder {self.output} ({error}). Choose another --output."
            ) from error
        if schema.num_classes > _MOST_CLASSES:
            raise InputError(
                f"GeoTiffWriter writes at most {_MOST_CLASSES} classes, got {schema.num_classes}."
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Asks the task for contributions if they are wanted; keeps no predictions in memory."""
        self._done = {}
        trainer.predict_loop.return_predictions = False
        if self.contributions:
            pl_module.explain = True  # type: ignore[assignment]

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds the windows of a batch to their maps.

        Args:
            trainer: the trainer.
            pl_module: the task; its schema names the classes or variables.
            outputs: ``probabilities`` ``(B, K, H, W)``, or ``values`` ``(B, V, H, W)`` of a
                regression, and, if asked for, ``shares`` ``(B, H, W)`` per modality.
            batch: with ``placement``.
            batch_idx: not used.
            dataloader_idx: not used.

        Raises:
            InputError: if the data do not say where windows lie, or the model answers at another
                size or explains nothing.
        """
        if "placement" not in batch:
            raise InputError(
                "The data module gives no placement, so its predictions are not maps. Predict with "
                "RasterDataModule, or another data module of georeferenced images."
            )
        schema = _schema(pl_module)
        shares = self._shares(outputs)
        answers = outputs["values" if schema.regresses else "probabilities"]
        windows = batch["placement"]["window"].tolist()
        # Without any input a model still answers something, which must not become a map.
        available = batch["available"]
        reads = getattr(pl_module.model, "modalities", None) or tuple(available)
        present = torch.stack([available[name] for name in reads]).any(dim=0).tolist()
        for i, (source, window) in enumerate(
            zip(batch["placement"]["source"], windows, strict=True)
        ):
            row, column, height, width = window
            if answers.shape[-2] < height or answers.shape[-1] < width:
                raise InputError(
                    f"The model answers with {tuple(answers.shape[-2:])} pixels for a window "
                    f"of {(height, width)} of {source}: maps need an answer for every pixel of the "
                    "grid. Choose a smaller --data.window, or another --data.grid."
                )
            stream = self._open(source, height, schema, tuple(shares))
            # One sample at a time: a whole batch in float32 is large.
            values = answers[i, :, :height, :width].detach().cpu().float().numpy()
            parts = [share[i, :height, :width].detach().cpu().float() for share in shares.values()]
            stacked: Floats | None = torch.stack(parts).numpy() if parts else None
            with _writing(source, self.output):
                stream.add(row, column, values, stacked, present=present[i])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finishes the last map."""
        self._finish(_schema(pl_module))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leaves no half-written map."""
        self._abort()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves no half-written map."""
        self._abort()

    def _shares(self, outputs: Any) -> Mapping[str, torch.Tensor]:  # noqa: ANN401
        if not self.contributions:
            return {}
        shares = outputs.get("shares")
        if not shares:
            raise InputError(
                "This model cannot say what each modality contributes: it has only one, or a "
                "fusion without that notion. Predict without contributions."
            )
        return dict(shares)

    def _open(
        self, source: str, window_height: int, schema: Schema, modalities: Sequence[str]
    ) -> MapStream:
        if self._stream is not None and self._stream.source == source:
            return self._stream
        self._finish(schema)
        stem = Path(source).stem
        if stem in self._done:
            raise InputError(
                f"The maps of {self._done[stem]} and {source} would have the same name in "
                f"{self.output}. Rename one, or predict them into different folders."
            )
        self._done[stem] = source
        with _writing(source, self.output):
            self._stream = MapStream(
                source,
                self.output,
                window_height=window_height,
                layers=self._layers(schema, modalities),
                answers=len(schema.outputs),
                shares=len(modalities),
                band_counts=[len(m.bands) for m in schema.modalities.values() if not m.temporal],
                compress=self.compress,
            )
        return self._stream

    def _layers(self, schema: Schema, modalities: Sequence[str]) -> list[Layer]:
        """What is written of a raster; the map itself first."""
        layers: list[Layer]
        if schema.regresses:
            layers = [ValueLayer(schema.variables, schema.units)]
        else:
            classes = schema.classes
            layers = [ClassLayer(classes, class_colors(classes, schema.colors))]
            if self.probabilities != "none":
                layers.append(ProbabilityLayer(classes, self.probabilities))
        if modalities:
            layers.append(ContributionLayer(modalities))
        return layers

    def _finish(self, schema: Schema) -> None:
        stream = self._stream
        if stream is None:
            return
        with _writing(stream.source, self.output):
            stream.close()
        self._stream = None
        if not stream.complete:
            log.warning(
                "Not all windows of %s were predicted (limit_predict_batches?): no map written.",
                stream.source,
            )
            return
        log.info("Wrote %s.", stream.map)
        if self.quicklook:
            write_quicklook(
                stream.map.with_name(f"{Path(stream.source).stem}_quicklook.png"),
                source=stream.source,
                map_path=stream.map,
                layer=next(iter(stream.layers.values())),
                bands=[modality.bands for modality in schema.modalities.values()],
            )

    def _abort(self) -> None:
        if self._stream is not None:
            self._stream.abort()
            self._stream = None


@contextmanager
def _writing(source: str, output: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RasterioError) as error:
        reason = str(error.__cause__ or error)
        raise InputError(
            f"Cannot write the map of {source} into {output} ({reason}). Check that the folder can "
            "be written and has space."
        ) from error


def _schema(task: LightningModule) -> Schema:
    schema = task.schema
    assert isinstance(schema, Schema)
    return schema

"""What is written for every raster that was cut into patches, one raster after the other."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fusionlab.callbacks.patch_grid import PatchGrid
from fusionlab.callbacks.patch_polygons import PatchPolygons
from fusionlab.callbacks.prediction_table import Predictions
from fusionlab.errors import InputError
from fusionlab.plots import class_colors
from fusionlab.types import Schema

log = logging.getLogger(__name__)

_ENDINGS = ("_patches.tif", "_patches_classes.tif", "_patches.gpkg")


class PatchMaps:
    """Grids and polygons of all rasters of a run, under temporary names until it is through.

    Args:
        folder: where the files go.
        kinds: what to write: ``geotiff``, ``geopackage``, or both.
        schema: classes and colours, and whether a sample has one class; or variables and units.
        metadata: what files say of themselves, in plain values.
    """

    def __init__(
        self, folder: Path, *, kinds: tuple[str, ...], schema: Schema, metadata: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        self.kinds = kinds
        self.schema = schema
        self.metadata = {k: json.dumps(v, ensure_ascii=False) for k, v in metadata.items()}
        self._source = ""
        self._open: list[PatchGrid | PatchPolygons] = []
        self._whole: list[PatchGrid | PatchPolygons] = []
        self._stems: dict[str, str] = {}

    def add(
        self, predictions: Predictions, rows: pa.RecordBatch, *, window: int, stride: int
    ) -> None:
        """Adds patches, those of a raster one after the other.

        Args:
            predictions: of patches of rasters.
            rows: the same as rows of the table.
            window: rows and columns of a patch, pixels.
            stride: pixels from one patch to the next.

        Raises:
            InputError: if two rasters have the same name.
        """
        assert predictions.windows is not None
        seen = np.where(predictions.present[:, None], predictions.numbers, np.float32(np.nan))
        first = 0
        for source, group in groupby(predictions.sources):
            part = slice(first, first + len(list(group)))
            first = part.stop
            if source != self._source:
                self._finish()
                self._begin(source, window=window, stride=stride)
            for drawn in self._open:
                if isinstance(drawn, PatchGrid):
                    windows = predictions.windows[part]
                    drawn.add(windows[:, 0], windows[:, 1], seen[part])
                else:
                    drawn.add(rows.slice(part.start, part.stop - part.start))

    def close(self) -> None:
        """Writes what is left; files keep their temporary names."""
        self._finish()

    def commit(self) -> None:
        """Gives the files their names; what an earlier run wrote of these rasters goes."""
        written: dict[str, set[Path]] = {}
        for drawn in self._whole:
            drawn.commit()
            written.setdefault(Path(drawn.source).stem, set()).update(drawn.paths.values())
        for stem, paths in written.items():
            for path in (self.folder / f"{stem}{ending}" for ending in _ENDINGS):
                if path not in paths:
                    path.unlink(missing_ok=True)
                    path.with_name(f"{path.name}.aux.xml").unlink(missing_ok=True)
        self._whole = []

    def abort(self) -> None:
        """Leaves nothing behind of what has no name yet."""
        for drawn in (*self._open, *self._whole):
            drawn.abort()
        self._open, self._whole = [], []

    def _begin(self, source: str, *, window: int, stride: int) -> None:
        stem = Path(source).stem
        if stem in self._stems:
            raise InputError(
                f"The maps of {self._stems[stem]} and {source} would have the same name in "
                f"{self.folder}. Rename one, or predict them into different folders."
            )
        self._stems[stem] = self._source = source
        if "geotiff" in self.kinds:
            schema = self.schema
            single = schema.target == "multiclass"
            said = {"CLASS_NAMES": "classes", "THRESHOLD": "threshold"}
            self._open.append(
                PatchGrid(
                    source,
                    self.folder,
                    window=window,
                    stride=stride,
                    names=schema.outputs,
                    units=schema.units,
                    colors=class_colors(schema.classes, schema.colors) if single else None,
                    tags={k: self.metadata[v] for k, v in said.items() if v in self.metadata},
                )
            )
        if "geopackage" in self.kinds:
            self._open.append(PatchPolygons(source, self.folder, metadata=self.metadata))

    def _finish(self) -> None:
        while self._open:
            drawn = self._open[0]
            drawn.close()
            self._open.pop(0)
            if drawn.complete:
                self._whole.append(drawn)
            else:
                log.warning(
                    "Not all patches of %s were predicted (limit_predict_batches?): no grid "
                    "written.",
                    drawn.source,
                )

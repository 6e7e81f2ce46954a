"""Predictions of the patches of a raster as polygons in a GeoPackage."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import rasterio
from numpy.typing import NDArray

from fusionlab.callbacks.prediction_table import flat
from fusionlab.errors import InputError

LAYER = "patches"
_CHUNK_ROWS = 20_000
_POLYGON = np.dtype(
    [("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", (5, 2))]
)
"""Well-known binary of a polygon with one ring of five points: 93 bytes, nothing between them."""


def require_pyogrio() -> ModuleType:
    """The library that writes GeoPackages.

    Raises:
        InputError: if it is not installed.
    """
    try:
        return importlib.import_module("pyogrio")
    except ImportError as error:
        raise InputError(
            "GeoPackages are written with pyogrio, which is not installed: "
            "`pip install 'fusionlab[geopackage]'`, or choose `grid: geotiff`."
        ) from error


def rectangles(
    left: NDArray[np.float64],
    bottom: NDArray[np.float64],
    right: NDArray[np.float64],
    top: NDArray[np.float64],
) -> NDArray[np.object_]:
    """Rectangles as well-known binary, counter-clockwise; each argument and the result ``(n,)``."""
    polygons = np.zeros(len(left), _POLYGON)
    polygons["order"] = 1  # little endian
    polygons["type"] = 3
    polygons["rings"] = 1
    polygons["points"] = 5
    polygons["xy"][..., 0] = np.stack([left, right, right, left, left], axis=1)
    polygons["xy"][..., 1] = np.stack([bottom, bottom, top, top, bottom], axis=1)
    content, size = polygons.tobytes(), _POLYGON.itemsize
    encoded = np.empty(len(left), object)
    encoded[:] = [content[i : i + size] for i in range(0, len(content), size)]
    return encoded


class PatchPolygons:
    """The polygons of one raster, from its first patch to its last.

    A polygon is the part of a patch that lies on the raster. It carries the columns of the table,
    except embeddings.

    Args:
        source: the raster that was cut into patches.
        folder: where the file goes, under a temporary name.
        metadata: what the file says of itself.

    Attributes:
        paths: final path, under ``polygons``.
        temporary: the name until the file is whole.
        complete: always true: polygons stand for themselves.
    """

    complete = True

    def __init__(self, source: str, folder: Path, *, metadata: Mapping[str, str]) -> None:
        self.source = source
        path = folder / f"{Path(source).stem}_patches.gpkg"
        self.paths = {"polygons": path}
        self.temporary = folder / f".{path.stem}.part.gpkg"  # GDAL goes by the ending
        self.metadata = dict(metadata)
        with rasterio.open(source) as file:
            self.crs, self.transform = file.crs, file.transform
        self._pyogrio = require_pyogrio()
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._exists = False
        self._remove()

    def add(self, rows: pa.RecordBatch) -> None:
        """Adds patches of this raster: rows of the table."""
        kept = [name for name in rows.schema.names if not name.startswith("embedding_")]
        self._waiting.append(flat(rows.select(kept)))
        self._waiting_rows += rows.num_rows
        if self._waiting_rows >= _CHUNK_ROWS:
            self._flush()

    def close(self) -> None:
        """Writes what is left; the file keeps its temporary name."""
        if self._waiting:
            self._flush()

    def commit(self) -> None:
        """Gives the file its name, in place of that of an earlier run."""
        path = self.paths["polygons"]
        for ending in ("-wal", "-shm", "-journal"):  # would be taken for parts of the new file
            path.with_name(path.name + ending).unlink(missing_ok=True)
        self.temporary.replace(path)

    def abort(self) -> None:
        """Leaves nothing behind."""
        self._waiting = []
        self._remove()

    def _remove(self) -> None:
        for ending in ("", "-wal", "-shm", "-journal"):
            self.temporary.with_name(self.temporary.name + ending).unlink(missing_ok=True)

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        data, masks = [], []
        for column in table.columns:
            missing = column.is_null().to_numpy()
            data.append(_values(column))
            masks.append(missing if missing.any() else None)
        code = self.crs.to_epsg()
        try:
            self._pyogrio.raw.write(
                self.temporary,
                self._geometry(table),
                data,
                table.column_names,
                field_mask=masks,
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                crs=self.crs.to_wkt() if code is None else f"EPSG:{code}",
                append=self._exists,
                dataset_metadata=None if self._exists else self.metadata,
            )
        except RuntimeError as error:  # the base of all that pyogrio raises
            raise OSError(f"{self.temporary.name}: {error}") from error
        self._exists = True

    def _geometry(self, table: pa.Table) -> NDArray[np.object_]:
        row, column, height, width = (
            table.column(name).to_numpy().astype(np.float64)
            for name in ("row", "column", "height", "width")
        )
        t = self.transform
        return rectangles(
            t.c + column * t.a,
            t.f + (row + height) * t.e,
            t.c + (column + width) * t.a,
            t.f + row * t.e,
        )


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy()
    if pa.types.is_boolean(column.type):
        return values.astype(bool)
    return values

"""Predictions of samples as a table: batches in, row groups out, memory bounded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

TableFormat = Literal["parquet", "csv"]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

SEPARATOR = "; "
"""Between the labels of a sample where a file format has no lists."""
METADATA_KEY = "fusionlab"
_GROUP_ROWS = 65_536
_GROUP_BYTES = 2**25


@dataclass(frozen=True)
class Predictions:
    """What a model says of some samples.

    Attributes:
        patches: names, one per sample.
        names: of classes or variables.
        numbers: ``(n, K)``: probabilities of the classes, or values of the variables.
        labels: ``(n, K)``, which classes the model names; None where it gives values.
        several: whether a sample may have any number of labels; otherwise it has one.
        present: ``(n,)``, whether the model saw anything. Where not, its answer counts for nothing.
        available: per modality ``(n,)``, whether it was there.
        units: of the variables; their columns carry them where a file format has a place for them.
        shares: per expert ``(n,)``, its share in the decision.
        embeddings: per expert, and fused, ``(n, D)``.
        embedded: per embedding ``(n,)``, whether there was anything to embed; as `present` if not
            given.
        sources: paths of the rasters the samples were cut from; empty if they were not.
        windows: ``(n, 4)``, first row, first column, rows and columns there, pixels.
    """

    patches: Sequence[str]
    names: Sequence[str]
    numbers: Floats
    labels: Mask | None
    several: bool
    present: Mask
    available: Mapping[str, Mask]
    units: Sequence[str] = ()
    shares: Mapping[str, Floats] = field(default_factory=dict)
    embeddings: Mapping[str, Floats] = field(default_factory=dict)
    embedded: Mapping[str, Mask] = field(default_factory=dict)
    sources: Sequence[str] = ()
    windows: NDArray[np.int64] | None = None

    def rows(self) -> pa.RecordBatch:
        """One row per sample; see `TableWriter` for the columns."""
        absent = ~self.present
        columns: dict[str, pa.Array] = {"sample": pa.array(self.patches, pa.string())}
        if self.windows is not None:
            columns["source"] = pa.array(self.sources, pa.string())
            for i, name in enumerate(("row", "column", "height", "width")):
                columns[name] = pa.array(self.windows[:, i], pa.int32())
        if self.labels is not None:
            columns["labels" if self.several else "label"] = self._labels(self.labels)
        for name, there in self.available.items():
            columns[f"available_{name}"] = pa.array(there)
        numbers = "value" if self.labels is None else "probability"
        for i, name in enumerate(self.names):
            columns[f"{numbers}_{name}"] = _floats(self.numbers[:, i], absent)
        for name, share in self.shares.items():
            columns[f"share_{name}"] = _floats(share, absent)
        for name, values in self.embeddings.items():
            missing = ~self.embedded.get(name, self.present)
            columns[f"embedding_{name}"] = _lists(values, missing)
        units = {
            f"{numbers}_{name}": {"unit": unit}
            for name, unit in zip(self.names, self.units, strict=False)
            if unit
        }
        fields = [
            pa.field(name, values.type, metadata=units.get(name))
            for name, values in columns.items()
        ]
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(fields))

    def _labels(self, labels: Mask) -> pa.Array:
        names = pa.array(self.names, pa.string())
        if not self.several:
            chosen = pa.array(labels.argmax(axis=1), pa.int32(), mask=~self.present)
            return names.take(chosen)
        labels = labels & self.present[:, None]
        offsets = np.concatenate([[0], labels.sum(axis=1).cumsum()])
        chosen = pa.array(np.nonzero(labels)[1], pa.int32())
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names.take(chosen))


def flat(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows for formats without lists: labels joined to one text."""
    if "labels" not in rows.schema.names:
        return rows
    joined = pc.binary_join(rows.column("labels"), SEPARATOR)
    return rows.set_column(rows.schema.get_field_index("labels"), "labels", joined)


def _floats(values: Floats, missing: Mask) -> pa.Array:
    return pa.array(np.ascontiguousarray(values, np.float32), pa.float32(), mask=missing)


def _lists(values: Floats, missing: Mask) -> pa.Array:
    """A list of numbers per row, null where missing."""
    kept = values[~missing]
    offsets = np.concatenate([[0], (~missing).cumsum() * values.shape[1]])
    flat_values = pa.array(np.ascontiguousarray(kept, np.float32).ravel())
    mask = pa.array(missing) if missing.any() else None
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat_values, mask=mask)


class TableFile:
    """A table under a temporary name, from its first rows to its last.

    Args:
        path: its name once it is whole.
        format: kind of file.
        metadata: plain values that a Parquet file carries, as JSON under the key ``fusionlab``.

    Attributes:
        temporary: the name until then.
        rows: how many were added.
    """

    def __init__(self, path: Path, *, format: TableFormat, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.part")
        self.format = format
        self.metadata = dict(metadata)
        self.rows = 0
        self._writer: Any = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Adds rows; all must have the same columns."""
        self._waiting.append(flat(rows) if self.format == "csv" else rows)
        self.rows += rows.num_rows
        self._waiting_rows += rows.num_rows
        self._waiting_bytes += rows.nbytes
        if self._waiting_rows >= _GROUP_ROWS or self._waiting_bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Writes what is left; the file keeps its temporary name."""
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def abort(self) -> None:
        """Leaves nothing behind."""
        self._waiting = []
        if self._writer is not None:
            with suppress(OSError, pa.ArrowException):  # a full disk must not keep the file there
                self._writer.close()
            self._writer = None
        self.temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._waiting)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        if self._writer is None:
            self._writer = self._open(table.schema)
        if self.format == "csv":
            self._writer.write_table(table)
        else:
            self._writer.write_table(table.cast(self._writer.schema), row_group_size=table.num_rows)

    def _open(self, schema: pa.Schema) -> Any:  # noqa: ANN401
        if self.format == "csv":
            return pa_csv.CSVWriter(self.temporary, schema)
        text = json.dumps(self.metadata, ensure_ascii=False)
        repeated = ["source", "label", "labels.list.element"]  # numbers and names rarely repeat
        return pq.ParquetWriter(
            self.temporary,
            schema.with_metadata({METADATA_KEY: text}),
            compression="zstd",
            use_dictionary=repeated,
        )

"""Which patches there are: the metadata tables of v2 and the split lists of v1.

Tables stay columns: a few arrays without Python objects, which worker processes share with the main
process, and which are filtered and counted all at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fusionlab.data.bigearthnet import constants
from fusionlab.data.bigearthnet.names import EXAMPLES, MONTH, PATTERNS, Sensor, Version
from fusionlab.data.choices import require_known
from fusionlab.data.damage import reason
from fusionlab.errors import InputError

METADATA = "metadata.parquet"
METADATA_SNOW_CLOUD = "metadata_for_patches_with_snow_cloud_or_shadow.parquet"


@dataclass(frozen=True)
class Patches:
    """Some patches, one per row.

    Attributes:
        s2: names of the Sentinel-2 patches, null where there is none.
        s1: names of the Sentinel-1 patches, null where there is none.
        labels: ``(N, K)`` bool, the classes of each; None if they are not in a table.
    """

    s2: pa.StringArray
    s1: pa.StringArray
    labels: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.s2)

    def name(self, index: int) -> str:
        """Name of a sample: that of its Sentinel-2 patch, or else of its Sentinel-1 patch."""
        return str(self.s2[index].as_py() or self.s1[index].as_py())

    def names(self, sensor: Sensor) -> pa.StringArray:
        """Names of the patches of one sensor."""
        return self.s1 if sensor == "S1" else self.s2

    def take(self, rows: NDArray[np.int64]) -> Patches:
        """These rows in this order."""
        labels = None if self.labels is None else self.labels[rows]
        return Patches(self.s2.take(pa.array(rows)), self.s1.take(pa.array(rows)), labels)


def find_file(
    name: str, folders: Sequence[Path | None], given: Path | None, *, option: str, what: str
) -> Path:
    """A file of the data set.

    Args:
        name: its published name.
        folders: where to look for it.
        given: the file itself, which wins.
        option: the option that names it.
        what: what it is, for the error message.

    Raises:
        InputError: if there is none; lists what was tried.
    """
    candidates = [given] if given is not None else [f / name for f in folders if f is not None]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = " or ".join(str(candidate) for candidate in candidates) or "nothing"
    raise InputError(
        f"No {what}: looked for {tried}. Give `root`, the folder of the data set, or the file with "
        f"`{option}`."
    )


def read_tables(
    paths: Sequence[Path],
    part: str,
    *,
    labels: Sequence[str] | None,
    s1: bool,
    countries: Sequence[str] | None,
) -> Patches:
    """The patches of a split of v2, sorted by name.

    Args:
        paths: Parquet tables; the patches of all of them are put together.
        part: `train`, `val` or `test`.
        labels: class names in index order; None leaves the labels out.
        s1: whether names of Sentinel-1 patches are needed.
        countries: only those; None keeps all.

    Raises:
        InputError: if a table cannot be read, lacks a column, names unknown classes or holds no
            patch of the split.
    """
    columns = ["patch_id", "split"]
    columns += ["labels"] * (labels is not None) + ["s1_name"] * s1 + ["country"] * bool(countries)
    table = pa.concat_tables([_read_table(path, columns) for path in paths])
    where = " and ".join(str(path) for path in paths)
    split = constants.SPLITS[part]
    chosen = table.filter(pc.equal(table["split"], split))
    if not len(chosen):
        found = sorted(str(value) for value in table["split"].unique().to_pylist())
        raise InputError(
            f"The split {part!r} is empty: {where} holds {len(table)} patches, of the splits "
            f"{found}, and none of {split!r}."
        )
    if countries:
        total = len(chosen)
        chosen = chosen.filter(pc.is_in(chosen["country"], pa.array(countries)))
        if not len(chosen):
            raise InputError(
                f"The split {part!r} is empty: none of its {total} patches in {where} lies in "
                f"{list(countries)}."
            )
    chosen = chosen.take(pc.sort_indices(chosen["patch_id"]))
    names = _strings(chosen["patch_id"])
    _require_names(names, ("S2", "v2"), where, "patch_id")
    partners = pa.nulls(len(names), pa.string())
    if s1:
        partners = _strings(chosen["s1_name"])
        _require_names(partners, ("S1", "v2"), where, "s1_name")
    hot = None
    if labels is not None:
        hot = multi_hot(chosen["labels"].combine_chunks(), labels, where=where)
    return Patches(names, partners, hot)


def read_split_list(path: Path) -> Patches:
    """The patches of a split of v1, sorted by name.

    Args:
        path: a list of the publishers, lines of ``<Sentinel-2 name>,<Sentinel-1 name>``.

    Raises:
        InputError: if it cannot be read or holds anything else.
    """
    options = pyarrow.csv.ReadOptions(column_names=["s2", "s1"])
    text = pyarrow.csv.ConvertOptions(column_types={"s2": pa.string(), "s1": pa.string()})
    try:
        table = pyarrow.csv.read_csv(path, read_options=options, convert_options=text)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"Cannot read the split list {path} ({reason(error)}). Expected lines of "
            f"{EXAMPLES['S2', 'v1']},{EXAMPLES['S1', 'v1']}."
        ) from error
    if len(table) and not str(table["s2"][0]).startswith("S2"):
        table = table.slice(1)  # a line of column names
    if not len(table):
        raise InputError(f"The split list {path} is empty.")
    table = table.take(pc.sort_indices(table["s2"]))
    names, partners = _strings(table["s2"]), _strings(table["s1"])
    _require_names(names, ("S2", "v1"), str(path), "first")
    _require_names(partners, ("S1", "v1"), str(path), "second")
    return Patches(names, partners)


def acquired_in(names: pa.StringArray, months: Collection[int]) -> NDArray[np.int64]:
    """Rows of the Sentinel-2 patches that were acquired in some calendar months."""
    digits = pc.utf8_slice_codeunits(names, MONTH.start, MONTH.stop)
    wanted = pa.array([f"{month:02d}" for month in sorted(months)])
    rows: NDArray[np.int64] = np.flatnonzero(pc.is_in(digits, wanted).to_numpy(False))
    return rows


def multi_hot(labels: pa.ListArray, classes: Sequence[str], *, where: str) -> NDArray[np.bool_]:
    """Lists of class names as ``(N, K)`` bool.

    Args:
        labels: a list of names per patch.
        classes: class names in index order.
        where: what holds the lists, for the error message.

    Raises:
        InputError: for a name that is no class.
    """
    names = labels.flatten()
    indices = pc.index_in(names, value_set=pa.array(classes, names.type))
    if indices.null_count:
        unknown = pc.unique(names.filter(pc.is_null(indices))).to_pylist()
        require_known(
            [str(name) for name in unknown], classes, option=f"labels in {where}", what="class"
        )
    hot = np.zeros((len(labels), len(classes)), bool)
    hot[pc.list_parent_indices(labels).to_numpy(), indices.to_numpy()] = True
    return hot


def _read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    try:
        found = pq.read_schema(path)
        missing = [column for column in columns if column not in found.names]
        if missing:
            raise InputError(
                f"The metadata {path} has no column {missing}: it has {found.names}. Give the "
                "published table, or one with its columns."
            )
        table = pq.read_table(path, columns=list(columns), partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"Cannot read the metadata {path}: {reason(error)}.") from error
    fields = {column: pa.string() for column in columns}
    if "labels" in fields:
        fields["labels"] = pa.list_(pa.string())
    try:
        return table.select(list(columns)).cast(pa.schema(list(fields.items())))
    except pa.ArrowException as error:
        found_types = {name: str(table.schema.field(name).type) for name in fields}
        raise InputError(
            f"The columns of the metadata {path} are {found_types}: expected "
            f"{ {name: str(kind) for name, kind in fields.items()} }."
        ) from error


def _strings(column: pa.ChunkedArray) -> pa.StringArray:
    merged = column.combine_chunks()
    if isinstance(merged, pa.ChunkedArray):  # as releases of pyarrow differ in
        merged = pa.concat_arrays(merged.chunks)
    return merged


def _require_names(
    names: pa.StringArray, kind: tuple[Sensor, Version], where: str, column: str
) -> None:
    good = pc.fill_null(pc.match_substring_regex(names, f"^{PATTERNS[kind]}$"), False)
    if not pc.all(good, min_count=0).as_py():
        bad = names.filter(pc.invert(good))
        raise InputError(
            f"{len(bad)} of {len(names)} names in the column {column!r} of {where} are no names of "
            f"patches, e.g. {bad[0].as_py()!r}. Expected names such as {EXAMPLES[kind]}."
        )


__all__ = [
    "METADATA",
    "METADATA_SNOW_CLOUD",
    "Patches",
    "acquired_in",
    "find_file",
    "multi_hot",
    "read_split_list",
    "read_tables",
]

"""The modalities that a user declares, and what reads each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusionlab.data.choices import require_known
from fusionlab.data.manifest.cells import TableSource
from fusionlab.data.manifest.images import RasterSource
from fusionlab.data.manifest.options import (
    ImageColumn,
    Options,
    SeriesColumns,
    TableColumns,
    TargetColumn,
    TextColumn,
    check_image,
    check_series,
    check_table,
    check_text,
)
from fusionlab.data.manifest.problems import Problems
from fusionlab.data.manifest.series import FileSeries, WideSeries
from fusionlab.data.manifest.source import Source
from fusionlab.data.manifest.stacks import StackSource
from fusionlab.data.manifest.table import Manifest
from fusionlab.data.manifest.texts import TextSource
from fusionlab.errors import InputError


def chosen(
    given: Mapping[str, Mapping[str, Any] | None], use: Sequence[str] | None
) -> dict[str, Options]:
    """The modalities to deliver, in the order in which they are declared.

    Args:
        given: what the user says, by section and name.
        use: names; None for all.

    Raises:
        InputError: for a name that is used twice or not declared, or if there is none.
    """
    options: dict[str, Options] = {}
    for section, entries in given.items():
        for name, entry in (entries or {}).items():
            if name in options:
                raise InputError(f"data.{section}: {name!r} is the name of another modality, too.")
            options[name] = entry
    require_known(use or [], options, option="use", what="modality")
    kept = {name: entry for name, entry in options.items() if use is None or name in use}
    if not kept:
        raise InputError(
            "data: declare at least one modality in images, texts, tables or series, such as "
            "`images: {aerial: {column: path}}`."
        )
    return kept


def check_modalities(options: Mapping[str, Options]) -> None:
    """Refuses options that make no sense before the manifest is read.

    Raises:
        InputError: for the first.
    """
    for name, given in options.items():
        if isinstance(given, ImageColumn):
            check_image(name, given)
        elif isinstance(given, TextColumn):
            check_text(name, given)
        elif isinstance(given, TableColumns):
            check_table(name, given)
        else:
            check_series(name, given)


def file_columns(
    given: Mapping[str, ImageColumn | SeriesColumns], target: TargetColumn | None
) -> list[str]:
    """The columns that hold paths, in the order in which they are declared; of masks last.

    Args:
        given: images and series, used or not.
        target: what is to be learned.
    """
    columns = [entry.column for entry in given.values()]
    if target is not None and target.kind == "mask":
        columns.append(target.column)
    return [column for column in columns if column is not None]


def make_source(
    name: str, given: Options, manifest: Manifest, root: Path, problems: Problems
) -> Source:
    """What reads a modality.

    Args:
        name: of the modality.
        given: what the user says of it.
        manifest: the table.
        root: folder that relative paths are below.
        problems: takes cells that cannot be used.

    Raises:
        InputError: for a column that is not there.
    """
    if isinstance(given, ImageColumn):
        images = RasterSource if given.temporal is None else StackSource
        return images(name, given, manifest, root)
    if isinstance(given, TextColumn):
        return TextSource(name, given, manifest)
    if isinstance(given, TableColumns):
        return TableSource(name, given, manifest, problems)
    if given.wide is not None:
        return WideSeries(name, given, manifest, problems)
    return FileSeries(name, given, manifest, root)

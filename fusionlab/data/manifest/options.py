"""What a user says of a manifest: which columns make which modality, the target, and the splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from fusionlab.errors import InputError

TargetKind = Literal["class", "classes", "values", "mask"]
Fitting = Literal["resize", "crop"]


@dataclass(frozen=True)
class TemporalFile:
    """How a file holds a series of images: the names of its arrays.

    Attributes:
        values: the images ``(T, C, H, W)``.
        dates: one date per image: days since 1970-01-01, dates such as 2021-04-15 or 20210415, or
            names of Sentinel products.
        hidden: where cloud or snow hides the ground, ``(T, H, W)`` or ``(T, M, H, W)`` of M kinds
            (probabilities, or 1 where hidden). None if the file does not say.
        threshold: from which value on a pixel of that array counts as hidden.
        hidden_area: a date is left out if the hidden share of its pixels reaches this; None keeps
            all.
        monthly_means: average the dates of each calendar month.
        max_dates: how many dates to deliver at most, spread evenly; None for all.
    """

    values: str = "values"
    dates: str = "dates"
    hidden: str | None = None
    threshold: float = 50.0
    hidden_area: float | None = 0.5
    monthly_means: bool = False
    max_dates: int | None = None


@dataclass(frozen=True)
class ImageColumn:
    """A modality of images: a column of paths to rasters, or to image files such as PNG or JPEG.

    Attributes:
        column: holds one path per row, below the root unless absolute; empty where there is none.
        bands: what the bands of the files are, in the files' order; by default the files say so by
            their band descriptions or colours, and these are also heeded if they name all of these.
        gsd: pixel size in metres; by default that of the first file, or 1 if it does not know.
        size: rows and columns to deliver, one number or two; by default those of the files, which
            must then all have one size. For targets that are masks, use the data module's `crop`.
        fitting: how files of another size get it: all of the image resampled, or its middle cut
            out.
        scale: what a raw value is multiplied by to give its physical unit, one number or one per
            band of the files.
        mean: per band, mean in physical units; computed over the training split if not given.
        std: per band, standard deviation in physical units; likewise.
        nodata: raw value that means "no observation", beside what the files themselves declare.
        keep: hold single images in memory once they are read, for sets that fit into it. It pays
            with ``num_workers: 0``: worker processes forget theirs after every epoch. Not for
            targets that are masks.
        temporal: for series of images: files are ``.npz`` or ``.h5`` (needs
            ``pip install 'fusionlab[hdf5]'``) with arrays of these names.
    """

    column: str
    bands: list[str] | None = None
    gsd: float | None = None
    size: int | list[int] | None = None
    fitting: Fitting = "resize"
    scale: float | list[float] = 1.0
    mean: list[float] | None = None
    std: list[float] | None = None
    nodata: float | None = None
    keep: bool = False
    temporal: TemporalFile | None = None

    @property
    def shape(self) -> tuple[int, int] | None:
        """Rows and columns to deliver, if they were given."""
        if self.size is None or isinstance(self.size, int):
            return None if self.size is None else (self.size, self.size)
        return (self.size[0], self.size[1])


@dataclass(frozen=True)
class TextColumn:
    """A modality of texts: a column that holds them.

    Attributes:
        column: holds one text per row; an empty one is missing.
        vocabulary: how many pieces of words to tell apart at most, at least 260; they are made of
            the texts of the training split. What is not among them is spelled in bytes, so any
            text in any script can be read.
        lowercase: whether capitals count as small letters.
    """

    column: str
    vocabulary: int = 2000
    lowercase: bool = True


@dataclass(frozen=True)
class TableColumns:
    """A modality of numbers and categories: several columns that are one row of a table.

    A cell may be empty. Where all are, the modality is missing.

    Attributes:
        columns: names, in the order to deliver.
        categories: which of them hold categories and no numbers. By default those that occur in
            the training split can be told apart, in alphabetical order; or list them: ``{season:
            [winter, spring, …]}``. Any other is unknown to a model that is trained on these data.
        mean: per numeric column its mean; computed over the training split if not given.
        std: likewise, its standard deviation.
        nodata: numbers that stand for no value, such as -9999; cells with them are empty.
    """

    columns: list[str]
    categories: list[str] | dict[str, list[str]] = field(default_factory=list)
    mean: dict[str, float] | None = None
    std: dict[str, float] | None = None
    nodata: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class SeriesColumns:
    """A modality of values over time: a file per row, or columns of the manifest itself.

    Attributes:
        column: holds the path of a CSV or Parquet file per row, with a column of dates and one per
            variable. A value that is not there is a gap; so is a date.
        variables: the variables to deliver; by default all columns of the first file but the date.
        date: name of the files' column of dates: 2021-04-15, 20210415, or days since 1970-01-01. Of
            times with a zone, the calendar date counts as it is written.
        wide: for series in the manifest itself, per variable the pattern of its columns, such as
            ``{ndvi: "ndvi_*"}`` for ``ndvi_01 … ndvi_52``, where ``*`` stands for a number.
        start: the date of the columns with the lowest number, or the name of a column that holds
            it.
        step: days from one number to the next.
        mean: per variable, its mean; computed over the training split if not given.
        std: per variable, its standard deviation; likewise.
        nodata: numbers that stand for no value, such as -9999; they are gaps.
    """

    column: str | None = None
    variables: list[str] | None = None
    date: str = "date"
    wide: dict[str, str] | None = None
    start: str | None = None
    step: int = 7
    mean: list[float] | None = None
    std: list[float] | None = None
    nodata: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class TargetColumn:
    """What is to be learned.

    Attributes:
        column: holds, as `kind` says, a class by name, or by index where no name is a number; the
            names of any number of classes; a value; or the path of a mask.
        columns: in place of `column`, one per class that hold 0 or 1, or false or true
            (``classes``), or one per variable (``values``).
        kind: ``class``: one per sample. ``classes``: any number of them. ``values``: of variables,
            per sample. ``mask``: a raster per row, of classes or, if `variables` are named, of
            values.
        classes: names in index order; by default those that occur, in alphabetical order. Masks
            need them.
        separator: between the names of several classes in one cell.
        colors: ``#rrggbb`` per class, for maps and charts.
        variables: names of values; by default those of their columns. Of a mask, its bands.
        units: their units, one per variable, ``""`` where there is none.
        values: of a mask of classes, the raster value of each class, or the class of each value.
        ignore: of a mask of classes, further values, which count in no loss or score.
        scale: of a mask of values, what a raw value is multiplied by to give its unit.
        nodata: of a mask, value that means "unknown", beside what the files declare.
        gsd: of a mask, pixel size in metres; by default that of the first file.
        allow_missing: let samples without a class or value go through: they count in no loss or
            score. Samples without any of several classes always do: none applies.
    """

    column: str | None = None
    columns: list[str] | None = None
    kind: TargetKind = "class"
    classes: list[str] | None = None
    separator: str = ";"
    colors: list[str] | None = None
    variables: list[str] | None = None
    units: list[str] | None = None
    values: list[int] | dict[int, str] | None = None
    ignore: list[int] = field(default_factory=list)
    scale: float = 1.0
    nodata: float | None = None
    gsd: float | None = None
    allow_missing: bool = False


@dataclass(frozen=True)
class ManifestSplits:
    """Which rows are for training, validation and test.

    Attributes:
        column: says it row by row. Rows whose cell is empty are in no split.
        train: with a column, the value, or values, that it has for training; ``train`` if not
            given. Without one, the share of the rows to draw (see `ManifestDataModule`); what is
            left if not given.
        val: likewise; ``val``, ``valid`` or ``validation``, or a share of 0.1; 0 draws none.
        test: likewise; ``test``, or a share of 0.1.
        seed: of the draw.
        blocks: draw square blocks of so many metres with all that lies in them instead of single
            rows, since neighbours are too much alike to be trained on and tested on.
        x: column of the eastward coordinate in metres; by default blocks are told by where the
            images lie.
        y: column of the northward coordinate in metres.
        longitude: column of degrees, in place of `x` and `y`.
        latitude: likewise.
    """

    column: str | None = None
    train: float | str | list[str] | None = None
    val: float | str | list[str] | None = None
    test: float | str | list[str] | None = None
    seed: int = 0
    blocks: float | None = None
    x: str | None = None
    y: str | None = None
    longitude: str | None = None
    latitude: str | None = None

    @property
    def coordinates(self) -> tuple[str, str] | None:
        """The columns of the coordinates, eastward first."""
        if self.longitude is not None and self.latitude is not None:
            return self.longitude, self.latitude
        return (self.x, self.y) if self.x is not None and self.y is not None else None


Options = ImageColumn | TextColumn | TableColumns | SeriesColumns


def check_image(name: str, given: ImageColumn) -> None:
    """Refuses options of images that make no sense.

    Raises:
        InputError: names the option and what was expected.
    """
    where = f"images.{name}"
    size = [given.size] if isinstance(given.size, int) else given.size
    if size is not None and (len(size) not in (1, 2) or min(size) < 1):
        raise InputError(
            f"{where}.size: expected rows and columns, at least 1, such as 64 or [64, 48], got "
            f"{given.size}."
        )
    require_one_of(given.fitting, get_args(Fitting), where=f"{where}.fitting")
    if given.gsd is not None and not given.gsd > 0:
        raise InputError(f"{where}.gsd: a pixel size in metres above 0, got {given.gsd}.")
    _check_statistics(given.mean, given.std, where=where)
    temporal = given.temporal
    if temporal is None:
        return
    if given.bands is None:
        raise InputError(
            f"{where}: name the bands of a series of images, in the order of the files: "
            f"`{where}.bands: [...]`."
        )
    if temporal.max_dates is not None and temporal.max_dates < 1:
        raise InputError(f"{where}.temporal.max_dates: at least 1, got {temporal.max_dates}.")
    if temporal.hidden_area is not None and not 0 < temporal.hidden_area <= 1:
        raise InputError(
            f"{where}.temporal.hidden_area: a share above 0 and up to 1, or null to keep all "
            f"dates, got {temporal.hidden_area}."
        )


def check_text(name: str, given: TextColumn) -> None:
    """Refuses a vocabulary that has no place for all bytes.

    Raises:
        InputError: says what is needed.
    """
    if given.vocabulary < 260:
        raise InputError(
            f"texts.{name}.vocabulary: at least 260, for 256 bytes and a few signs, got "
            f"{given.vocabulary}."
        )


def check_table(name: str, given: TableColumns) -> None:
    """Refuses options of a table that make no sense.

    Raises:
        InputError: names the option and what was expected.
    """
    where = f"tables.{name}"
    require_different(given.columns, where=f"{where}.columns")
    for option in ("categories", "mean", "std"):
        strangers = [c for c in getattr(given, option) or [] if c not in given.columns]
        if strangers:
            raise InputError(
                f"{where}.{option}: {strangers} are not among its columns {given.columns}."
            )
    if isinstance(given.categories, dict):
        for column, names in given.categories.items():
            require_different(names, where=f"{where}.categories.{column}")
    _check_statistics(given.mean, given.std, where=where)


def check_series(name: str, given: SeriesColumns) -> None:
    """Refuses options of a series that make no sense.

    Raises:
        InputError: names the option and what was expected.
    """
    where = f"series.{name}"
    if (given.column is None) == (given.wide is None):
        raise InputError(
            f"{where}: name the column of its files, or its columns in the manifest with "
            '`wide: {ndvi: "ndvi_*"}`: one of the two.'
        )
    if given.variables is not None:
        require_different(given.variables, where=f"{where}.variables")
    _check_statistics(given.mean, given.std, where=where)
    if given.wide is None:
        return
    for variable, pattern in given.wide.items():
        if pattern.count("*") != 1:
            raise InputError(
                f"{where}.wide.{variable}: a column's name with * in place of its number, such as "
                f"'ndvi_*', got {pattern!r}."
            )
    if given.start is None or given.step < 1:
        raise InputError(
            f"{where}: columns need the date of the first, such as `start: 2023-01-02`, and the "
            f"days from one to the next, at least 1, got start {given.start}, step {given.step}."
        )
    if given.variables is not None and set(given.variables) - set(given.wide):
        raise InputError(f"{where}: the variables {given.variables} are not all in `wide`.")


def check_target_column(given: TargetColumn) -> None:
    """Refuses options of a target that make no sense; those of masks are checked with their files.

    Raises:
        InputError: names the option and what was expected.
    """
    require_one_of(given.kind, get_args(TargetKind), where="target.kind")
    if (given.column is None) == (given.columns is None):
        raise InputError("target: name its column, or its columns: one of the two.")
    if given.columns is not None:
        if given.kind not in ("classes", "values"):
            raise InputError(
                f"target: `columns` are for the kinds classes and values, got {given.kind}: name "
                "one `column`."
            )
        require_different(given.columns, where="target.columns")
        named = given.classes if given.kind == "classes" else given.variables
        if named is not None and len(named) != len(given.columns):
            raise InputError(
                f"target: {len(named)} names for {len(given.columns)} columns: give one each."
            )
    unfit = {
        "class": ("variables", "units", "values", "ignore"),
        "classes": ("variables", "units", "values", "ignore"),
        "values": ("classes", "colors", "values", "ignore"),
    }
    wrong = [option for option in unfit.get(given.kind, ()) if getattr(given, option)]
    if wrong:
        raise InputError(f"target: {wrong} say nothing of a target of the kind {given.kind!r}.")
    if given.classes is not None:
        require_different(given.classes, where="target.classes")
    if given.kind == "classes" and not given.separator:
        raise InputError("target.separator: the sign between names of classes, such as ';'.")


def require_one_of(value: str, known: Sequence[str], *, where: str) -> None:
    """Refuses a word that is none of those known.

    Raises:
        InputError: with all of them.
    """
    if value not in known:
        raise InputError(f"{where}: one of {', '.join(known)}, got {value!r}.")


def require_different(names: Sequence[str], *, where: str) -> None:
    """Refuses an empty list, and one that names anything twice.

    Raises:
        InputError: with the list.
    """
    if not names or len(set(names)) != len(names):
        raise InputError(f"{where}: expected different names, at least one, got {list(names)}.")


def _check_statistics(mean: object, std: object, *, where: str) -> None:
    if (mean is None) != (std is None):
        raise InputError(f"{where}: give both mean and std, or neither to have them computed.")

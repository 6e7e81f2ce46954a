"""What a user says of a data set in folders: one folder per modality, and one of targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fusionlab.data.choices import require_known
from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX

NAME = "{name}"
"""Stands for the name of a place in a pattern of file names."""


@dataclass(frozen=True)
class ImageFolder:
    """A modality: a folder with one image per place.

    Attributes:
        path: the folder, below the root unless it is absolute.
        bands: what the bands of its files are, in the files' order; by default the files say so by
            their band descriptions, which are also heeded if they name all of these.
        gsd: pixel size in metres; by default that of the first file.
        scale: what a raw value is multiplied by to give its physical unit, one number or one per
            band of the files.
        mean: per band of the files, mean in physical units; computed if not given.
        std: per band of the files, standard deviation in physical units; computed if not given.
        files: names of the files where they have something around the name that all folders share,
            e.g. ``"{name}_S1.tif"``; by default ``<name>.tif``, or another raster format.
        nodata: raw value that means "no observation", beside what the files themselves declare.
    """

    path: str
    bands: list[str] | None = None
    gsd: float | None = None
    scale: float | list[float] = 1.0
    mean: list[float] | None = None
    std: list[float] | None = None
    files: str | None = None
    nodata: float | None = None


@dataclass(frozen=True)
class TargetFolder:
    """What is to be learned: a folder with one raster per place, of classes or of values.

    Attributes:
        path: the folder, below the root unless it is absolute.
        classes: class names in index order. Either these or `variables` are given.
        values: the raster value of each class, one per class; or the class of each value, e.g.
            ``{10: trees, 20: trees, 80: water}``, of which several may mean one class, and then
            `classes` may be left out. By default the first class is 0, the second 1…
        ignore: further values that may occur and count in no loss or score.
        colors: ``#rrggbb`` per class, for maps and charts.
        variables: names of the values that the bands hold, for regression.
        units: their units, one per variable, ``""`` where there is none.
        scale: what a raw value of regression is multiplied by to give its unit.
        nodata: value that means "unknown", beside what the files themselves declare.
        gsd: pixel size in metres; by default that of the first file.
        files: names of the files, as in `ImageFolder`.
        per_sample: learn one value per variable and sample instead of a map: the mean of the known
            values in its window. For variables only.
    """

    path: str
    classes: list[str] | None = None
    values: list[int] | dict[int, str] | None = None
    ignore: list[int] = field(default_factory=list)
    colors: list[str] | None = None
    variables: list[str] | None = None
    units: list[str] | None = None
    scale: float = 1.0
    nodata: float | None = None
    gsd: float | None = None
    files: str | None = None
    per_sample: bool = False

    @property
    def regression(self) -> bool:
        """Whether it holds values and no classes."""
        return self.variables is not None


def check_images(name: str, folder: ImageFolder) -> None:
    """Refuses options of a modality that make no sense.

    Raises:
        InputError: names the option and what was expected.
    """
    where = f"modalities.{name}"
    check_pattern(folder.files, where=where)
    if folder.gsd is not None and not folder.gsd > 0:
        raise InputError(f"{where}: gsd is a pixel size in metres above 0, got {folder.gsd}.")
    if (folder.mean is None) != (folder.std is None):
        raise InputError(f"{where}: give both mean and std, or neither to have them computed.")
    if folder.bands is None:
        return
    if not folder.bands or len(set(folder.bands)) != len(folder.bands):
        raise InputError(f"{where}: band names must differ, and be there, got {folder.bands}.")
    for option in ("scale", "mean", "std"):
        check_length(getattr(folder, option), len(folder.bands), where=f"{where}.{option}")


def check_length(numbers: float | Sequence[float] | None, bands: int, *, where: str) -> None:
    """Refuses a list that has not one finite number per band.

    Raises:
        InputError: with both lengths.
    """
    if isinstance(numbers, Sequence) and len(numbers) != bands:
        raise InputError(
            f"{where}: {len(numbers)} numbers for {bands} bands of the files: give one per band."
        )
    for number in numbers if isinstance(numbers, Sequence) else (numbers,):
        if number is not None and not math.isfinite(number):
            raise InputError(f"{where}: expected finite numbers, got {numbers}.")


def check_pattern(pattern: str | None, *, where: str) -> None:
    """Refuses a pattern of file names without, or with several, places for the name.

    Raises:
        InputError: with an example.
    """
    if pattern is not None and (pattern.count(NAME) != 1 or "/" in pattern):
        raise InputError(
            f"{where}: files is a file name with {NAME} in it once, such as '{NAME}_S1.tif', got "
            f"{pattern!r}."
        )


def check_target(folder: TargetFolder) -> None:
    """Refuses options of a target that make no sense.

    Raises:
        InputError: names the option and what was expected.
    """
    check_pattern(folder.files, where="target")
    if folder.gsd is not None and not folder.gsd > 0:
        raise InputError(f"target: gsd is a pixel size in metres above 0, got {folder.gsd}.")
    if folder.regression == bool(folder.classes or folder.values):
        raise InputError(
            "target: give classes (or values with their classes) to learn a class per pixel, or "
            "variables, such as [canopy_height], to learn a value per pixel, or with per_sample: "
            "true per sample: one of the two."
        )
    if folder.variables is not None:
        if not folder.variables or len(set(folder.variables)) != len(folder.variables):
            raise InputError(f"target: variables must differ, got {folder.variables}.")
        if folder.units is not None and len(folder.units) != len(folder.variables):
            raise InputError(
                f"target: {len(folder.units)} units for {len(folder.variables)} variables: give "
                'one per variable, "" where there is none.'
            )
        for option in ("ignore", "colors"):
            if getattr(folder, option):
                raise InputError(f"target: {option} is for classes; use nodata for variables.")
        if not math.isfinite(folder.scale) or folder.scale == 0:
            raise InputError(f"target: scale is a finite number other than 0, got {folder.scale}.")
    else:
        names, _ = class_values(folder)
        if folder.units is not None or folder.scale != 1.0:
            raise InputError("target: units and scale are for variables, not for classes.")
        if folder.per_sample:
            raise InputError(
                "target: per_sample learns the mean of values, and classes have none. Leave it out "
                f"to learn a class per pixel, or name variables in place of {list(names)}."
            )


def class_values(folder: TargetFolder) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names in index order, and the index of every value that stands for one.

    Raises:
        InputError: if values and classes do not go together, or a value is also to be ignored.
    """
    values = folder.values
    if isinstance(values, dict):
        classes = tuple(folder.classes or dict.fromkeys(values.values()))
        require_known(list(values.values()), classes, option="target.values", what="class")
        indices = {value: classes.index(name) for value, name in values.items()}
    else:
        classes = tuple(folder.classes or ())
        given = list(range(len(classes))) if values is None else values
        if len(given) != len(classes) or len(set(given)) != len(given):
            raise InputError(
                f"target: {len(classes)} classes need as many different values, got {given}."
            )
        indices = {value: index for index, value in enumerate(given)}
    if len(classes) > IGNORE_INDEX:
        raise InputError(f"target: at most {IGNORE_INDEX} classes, got {len(classes)}.")
    both = sorted(set(indices) & set(folder.ignore))
    if both:
        raise InputError(f"target: the values {both} stand for classes and are to be ignored.")
    return classes, indices

"""What is expected of the files of a folder: their bands and their pixel size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from fusionlab.data.folders.files import Header, find, read_header
from fusionlab.data.folders.options import ImageFolder, TargetFolder, check_length
from fusionlab.data.raster.files import same_gsd
from fusionlab.errors import InputError

_MOST_RATIO = 1000


@dataclass(frozen=True)
class Layer:
    """What is expected of the files of one folder.

    Attributes:
        where: config key, for error messages.
        files: path by name of the place.
        bands: what the bands are called; of classes, one.
        gsd: pixel size, metres.
        ratio: how many pixels of the grid of the target one of its pixels spans, along a side.
        nodata: value that means "no observation", beside what the files declare.
    """

    where: str
    files: Mapping[str, str]
    bands: tuple[str, ...]
    gsd: float
    ratio: Fraction = Fraction(1)
    nodata: float | None = None


def image_layer(name: str, folder: ImageFolder, root: Path) -> Layer:
    """The files of a modality; what the user does not say of them is read from the first.

    Raises:
        InputError: if there are none, or the first does not say it either.
    """
    where = f"modalities.{name}"
    files = find(root / folder.path, folder.files, where=where)
    bands, gsd = folder.bands, folder.gsd
    if bands is None or gsd is None:
        first = read_header(next(iter(files.values())), where=where)
        gsd = gsd or _own_gsd(first, where=where)
        bands = bands or list(first.descriptions)
        if not all(bands) or len(set(bands)) != len(bands):
            raise InputError(
                f"{where}: {first.path} describes its {first.count} band(s) as "
                f"{list(first.descriptions)}. Say what the files' bands are, in order: "
                f"`{where}.bands: [...]`."
            )
        for option in ("scale", "mean", "std"):
            check_length(getattr(folder, option), len(bands), where=f"{where}.{option}")
    return Layer(where, files, tuple(bands), gsd, nodata=folder.nodata)


def target_layer(
    target: TargetFolder, root: Path, images: Iterable[Layer], *, needed: bool
) -> Layer:
    """The files of the target.

    Args:
        target: what the user says of it.
        root: folder that its path is below.
        images: of the modalities, whose finest pixels a target without files has.
        needed: whether it must have files.

    Raises:
        InputError: if it must and has none, or the first does not say its pixel size.
    """
    bands = tuple(target.variables or ["class"])
    if not needed and not (root / target.path).is_dir():
        return Layer("target", {}, bands, target.gsd or min(layer.gsd for layer in images))
    files = find(root / target.path, target.files, where="target")
    gsd = target.gsd or _own_gsd(
        read_header(next(iter(files.values())), where="target"), where="target"
    )
    return Layer("target", files, bands, gsd)


def ratio_of(gsd: float, reference: float, *, where: str) -> Fraction:
    """How many pixels of the reference one pixel spans, a whole number or one over it.

    Raises:
        InputError: if neither size is a multiple of the other.
    """
    larger, smaller = max(gsd, reference), min(gsd, reference)
    times = round(larger / smaller)
    if not same_gsd(times * smaller, larger) or times > _MOST_RATIO:
        raise InputError(
            f"{where}: pixels of {gsd:g} m do not fit those of {reference:g} m: one must be a "
            "multiple of the other. Resample the files, e.g. `gdalwarp -tr 10 10 IN OUT`."
        )
    return Fraction(times) if gsd > reference else Fraction(1, times)


def _own_gsd(header: Header, *, where: str) -> float:
    if header.gsd is None:
        raise InputError(
            f"{where}: {header.path} has no pixel size in metres. Say it: `{where}.gsd: 10`."
        )
    return round(header.gsd[1], 6)

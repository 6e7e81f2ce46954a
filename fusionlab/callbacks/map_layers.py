"""What a map is written as: classes, probabilities, contributions, or values; a file for each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.raster.files import Mask
from fusionlab.types import IGNORE_INDEX

Floats = NDArray[np.float32]
Probabilities = Literal["none", "uint8", "float16"]

NODATA = IGNORE_INDEX
_FULL = 254
"""A probability of 1 as uint8; 255 is nodata."""


class Blended(NamedTuple):
    """Some rows of a map: sums over the windows that cover a pixel, and the sum of their weights.

    Attributes:
        answers: what the model answers, times weight, ``(K, rows, columns)``.
        shares: shares of the modalities, times weight, ``(M, rows, columns)``.
        weight: ``(rows, columns)``; 0 where no window counts.
        seen: where there is something to write, ``(rows, columns)``.
    """

    answers: Floats
    shares: Floats
    weight: Floats
    seen: Mask

    def mean(self, sums: Floats) -> Floats:
        """Weighted mean of one channel, 0 where no window counts."""
        result: Floats = np.divide(
            sums, self.weight, out=np.zeros_like(sums), where=self.weight > 0
        )
        return result


class Layer:
    """One file of a map.

    Args:
        names: of the bands.

    Attributes:
        kind: what it shows; the file of ``zone.tif`` is ``zone_<kind>.tif``.
        names: of the bands.
        dtype: of the values.
        nodata: value where there is nothing.
        options: how GDAL creates the file.
    """

    kind: ClassVar[str]

    def __init__(
        self, names: Sequence[str], *, dtype: str, nodata: float, **options: int | str
    ) -> None:
        self.names = tuple(names)
        self.dtype = dtype
        self.nodata = nodata
        self.options = options

    def describe(self, file: Any) -> None:  # noqa: ANN401
        """Writes into an open file what it shows."""
        for band, name in enumerate(self.names, 1):
            file.set_band_description(band, name)

    def bands(self, rows: Blended) -> Iterator[NDArray[Any]]:
        """The bands of some rows, one after the other: a copy of all would need memory."""
        raise NotImplementedError(f"{type(self).__name__} does not define bands().")

    def write_beside(self, path: Path) -> None:
        """Writes what the format has no place for, just before the file gets its name."""


class ClassLayer(Layer):
    """The most probable class as uint8, with colours and names.

    Args:
        classes: class names.
        colors: ``#rrggbb`` per class.
    """

    kind = "classes"

    def __init__(self, classes: Sequence[str], colors: Sequence[str]) -> None:
        super().__init__(("class",), dtype="uint8", nodata=NODATA)
        self.classes = tuple(classes)
        self.colors = tuple(colors)

    def describe(self, file: Any) -> None:  # noqa: ANN401
        """Adds colour table and class names."""
        super().describe(file)
        table = {i: (*bytes.fromhex(color[1:]), 255) for i, color in enumerate(self.colors)}
        file.write_colormap(1, {**table, NODATA: (0, 0, 0, 0)})
        file.update_tags(1, **{f"CLASS_{i}": name for i, name in enumerate(self.classes)})
        file.update_tags(CLASS_NAMES=json.dumps(self.classes, ensure_ascii=False))

    def bands(self, rows: Blended) -> Iterator[NDArray[Any]]:
        """One band of indices."""
        classes = rows.answers.argmax(axis=0).astype(np.uint8)
        classes[~rows.seen] = NODATA
        yield classes

    def write_beside(self, path: Path) -> None:
        """The class names for GIS legends."""
        write_categories(path, self.classes)


class ProbabilityLayer(Layer):
    """Probabilities of the classes, one band each.

    Args:
        classes: class names.
        kind_of_number: ``uint8`` or ``float16``.
    """

    kind = "probabilities"

    def __init__(self, classes: Sequence[str], kind_of_number: Probabilities) -> None:
        self.scaled = kind_of_number == "uint8"
        if self.scaled:
            super().__init__(classes, dtype="uint8", nodata=NODATA)
        else:  # GDAL keeps half-precision floats as "float32 of 16 bits"
            super().__init__(classes, dtype="float32", nodata=float("nan"), NBITS=16)

    def describe(self, file: Any) -> None:  # noqa: ANN401
        """Adds the scale."""
        super().describe(file)
        if self.scaled:
            file.scales = (1 / _FULL,) * file.count

    def bands(self, rows: Blended) -> Iterator[NDArray[Any]]:
        """A band per class."""
        for sums in rows.answers:
            probability = rows.mean(sums).clip(0, 1)
            if self.scaled:
                yield np.where(rows.seen, np.round(probability * _FULL), NODATA).astype(np.uint8)
            else:
                yield np.where(rows.seen, probability, np.float32(np.nan))


class ContributionLayer(Layer):
    """Shares of the modalities in the decision, percent, one band each.

    Args:
        modalities: their names.
    """

    kind = "contributions"

    def __init__(self, modalities: Sequence[str]) -> None:
        super().__init__(modalities, dtype="uint8", nodata=NODATA)

    def describe(self, file: Any) -> None:  # noqa: ANN401
        """Adds the unit."""
        super().describe(file)
        file.units = ("percent",) * len(self.names)

    def bands(self, rows: Blended) -> Iterator[NDArray[Any]]:
        """A band per modality."""
        for sums in rows.shares:
            share = rows.mean(sums).clip(0, 1)
            yield np.where(rows.seen, np.round(share * 100), NODATA).astype(np.uint8)


class ValueLayer(Layer):
    """Values of variables as float32, one band each, NaN where there is nothing.

    Args:
        variables: their names.
        units: of each; empty text where it has none.
    """

    kind = "values"

    def __init__(self, variables: Sequence[str], units: Sequence[str]) -> None:
        # Differences of floats, byte by byte, compress better than the floats themselves.
        super().__init__(variables, dtype="float32", nodata=float("nan"), PREDICTOR=3)
        self.units = tuple(units)

    def describe(self, file: Any) -> None:  # noqa: ANN401
        """Adds the units."""
        super().describe(file)
        file.units = self.units

    def bands(self, rows: Blended) -> Iterator[NDArray[Any]]:
        """A band per variable."""
        for sums in rows.answers:
            yield np.where(rows.seen, rows.mean(sums), np.float32(np.nan))


KINDS = tuple(layer.kind for layer in (ClassLayer, ValueLayer, ProbabilityLayer, ContributionLayer))
"""All kinds of layers."""


def write_categories(path: Path, classes: Sequence[str]) -> None:
    """Writes GDAL's side file, from which GIS programs take the legend's names.

    A GeoTIFF itself has no place for category names, only for the tags that hold them as well.
    """
    names = "".join(f"<Category>{escape(name)}</Category>" for name in classes)
    text = (
        '<PAMDataset><PAMRasterBand band="1"><CategoryNames>'
        f"{names}</CategoryNames></PAMRasterBand></PAMDataset>\n"
    )
    target = path.with_name(path.name + ".aux.xml")
    temporary = target.with_name(f".{target.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)

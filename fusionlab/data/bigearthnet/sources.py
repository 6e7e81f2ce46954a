"""Where patches are read from: the interface, and the published folders of GeoTIFFs.

The other source, an LMDB, is in `database`.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fusionlab.data.bigearthnet import constants
from fusionlab.data.bigearthnet.geotiff import read_band, read_header
from fusionlab.data.bigearthnet.names import EXAMPLES, Sensor, Version, parent, parse
from fusionlab.data.bigearthnet.options import sensor_of
from fusionlab.errors import InputError

Kind = Literal["S1", "S2", "reference_map"]
"""What a patch has files of."""

REFERENCE_MAP: Literal["reference_map"] = "reference_map"
_SUFFIXES = (".tif", ".tiff")
DTYPES: Mapping[str, np.dtype[Any]] = {
    **dict.fromkeys(constants.S1_BANDS, np.dtype(np.float32)),
    **dict.fromkeys((*constants.S2_BANDS, REFERENCE_MAP), np.dtype(np.uint16)),
}
SHAPES: Mapping[str, tuple[int, int]] = {
    **{band: (size, size) for band, size in constants.SIZE.items()},
    REFERENCE_MAP: (constants.PATCH_METRES // 10,) * 2,
}

FOLDERS: Mapping[tuple[Version, Kind], str] = {
    ("v2", "S1"): "BigEarthNet-S1",
    ("v2", "S2"): "BigEarthNet-S2",
    ("v2", "reference_map"): "Reference_Maps",
    ("v1", "S1"): "BigEarthNet-S1-v1.0",
    ("v1", "S2"): "BigEarthNet-v1.0",
}
"""Names of the published folders below the root."""


class Source(ABC):
    """Where patches are read from, by name and band; the same in every process.

    Attributes:
        georeferenced: whether there are files that say where a patch lies.
    """

    georeferenced = False

    @abstractmethod
    def present(self, kind: Kind, names: pa.StringArray) -> NDArray[np.bool_]:
        """Which of the patches there are, found without opening any; False for null."""

    @abstractmethod
    def read(self, sensor: Sensor, name: str, bands: Sequence[str]) -> list[NDArray[Any]]:
        """Some bands of a patch, each ``(size, size)`` in its own resolution.

        The arrays may be views of memory that others share: copy before writing.

        Raises:
            InputError: if a band is missing, or has another size or type; says where.
        """

    @abstractmethod
    def reference_map(self, name: str) -> NDArray[np.uint16]:
        """CORINE codes of a patch, ``(120, 120)``; 0 is nodata.

        Raises:
            InputError: if there is none, or it has another size or type.
        """

    @abstractmethod
    def check(self, kind: Kind, name: str, bands: Sequence[str]) -> None:
        """Refuses a patch whose bands cannot be used, as far as names and headers tell.

        Raises:
            InputError: as `read`.
        """

    @abstractmethod
    def names(self, sensor: Sensor) -> list[str]:
        """All patches of a sensor, sorted."""

    @abstractmethod
    def where(self, kind: Kind) -> str:
        """The folder or database that holds something, for messages."""


def expect(band: str, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
    """Refuses a band of another size or type than published.

    Args:
        band: its name, or ``reference_map``.
        shape: found.
        dtype: found.
        where: what holds it.

    Raises:
        InputError: says what was expected and found.
    """
    if shape != SHAPES[band] or dtype != DTYPES[band]:
        raise InputError(
            f"{where}: expected {band} as {DTYPES[band]} of {SHAPES[band][0]} × "
            f"{SHAPES[band][1]} pixels, found {dtype} of {' × '.join(map(str, shape))}."
        )


class GeoTiffFolders(Source):
    """The published folders: one folder per patch, one file per band.

    In v2 the folders of patches lie in one folder per tile or scene; in v1 all lie side by side.
    Files end in ``.tif`` or ``.tiff``.

    Args:
        folders: of each kind; those that are not needed may be left out.
        version: of the layout.
    """

    georeferenced = True

    def __init__(self, folders: Mapping[Kind, Path], version: Version) -> None:
        self.folders = dict(folders)
        self.version = version
        # Strings, because building a Path costs as much as reading a small file.
        self._roots = {kind: f"{path}/" for kind, path in folders.items()}
        self._suffix = _SUFFIXES[0]

    def present(self, kind: Kind, names: pa.StringArray) -> NDArray[np.bool_]:
        """Lists the folders of the tiles or scenes that the names belong to."""
        if kind not in self.folders:
            return np.zeros(len(names), bool)
        if self.version == "v1":
            parents = [""]
        else:
            pattern = r"(_[^_]+){3}$" if kind == "S1" else r"(_[^_]+){2}$"
            stems = pc.replace_substring_regex(names, pattern, "")
            parents = [stem for stem in stems.unique().to_pylist() if stem is not None]
        found = [name for stem in parents for name in _subfolders(self.folders[kind] / stem)]
        listed: NDArray[np.bool_] = pc.is_in(
            names, pa.array(found, pa.string()), skip_nulls=True
        ).to_numpy(zero_copy_only=False)
        listed &= names.is_valid().to_numpy(zero_copy_only=False)
        return listed

    def folder(self, kind: Kind, name: str) -> str:
        """The folder of a patch."""
        stem = parent(name, sensor=_named_after(kind), version=self.version)
        return f"{self._roots[kind]}{stem}/{name}" if stem else f"{self._roots[kind]}{name}"

    def has(self, kind: Kind, name: str | None) -> bool:
        """Whether there is a folder of the patch."""
        return kind in self.folders and name is not None and Path(self.folder(kind, name)).is_dir()

    def path(self, kind: Kind, name: str, band: str) -> str:
        """The file of a band, whether it exists or not."""
        stem = f"{self.folder(kind, name)}/{name}_{band}"
        for suffix in _SUFFIXES:
            if os.path.exists(stem + suffix):  # noqa: PTH110  # as above
                return stem + suffix
        return stem + _SUFFIXES[0]

    def read(self, sensor: Sensor, name: str, bands: Sequence[str]) -> list[NDArray[Any]]:
        """See `Source.read`."""
        folder = self.folder(sensor, name)
        pixels = []
        for band in bands:
            stem = f"{folder}/{name}_{band}"
            values = self._read(stem)
            if values.shape != SHAPES[band] or values.dtype != DTYPES[band]:
                expect(band, values.shape, values.dtype, self.path(sensor, name, band))
            pixels.append(values)
        return pixels

    def reference_map(self, name: str) -> NDArray[np.uint16]:
        """See `Source.reference_map`."""
        codes = self._read(f"{self.folder(REFERENCE_MAP, name)}/{name}_{REFERENCE_MAP}")
        expect(
            REFERENCE_MAP, codes.shape, codes.dtype, self.path(REFERENCE_MAP, name, REFERENCE_MAP)
        )
        return codes

    def check(self, kind: Kind, name: str, bands: Sequence[str]) -> None:
        """Lists the patch's folder and reads the headers of its bands."""
        for band in bands:
            path = self.path(kind, name, band)
            try:
                shape, dtype = read_header(path)
            except FileNotFoundError as error:
                raise self._no_band(path) from error
            expect(band, shape, dtype, path)

    def names(self, sensor: Sensor) -> list[str]:
        """All folders with the name of a patch, wherever the version's layout has them."""
        root = self.folders.get(sensor)
        if root is None:
            return []
        stems = [""] if self.version == "v1" else sorted(_subfolders(root))
        return sorted(
            name
            for stem in stems
            for name in _subfolders(root / stem)
            if parse(name, sensor=sensor, version=self.version)
            and parent(name, sensor=sensor, version=self.version) == stem
        )

    def where(self, kind: Kind) -> str:
        """The folder, with the layout of the patches below it."""
        name = EXAMPLES[_named_after(kind), self.version]
        below = parent(name, sensor=_named_after(kind), version=self.version)
        return f"{self.folders.get(kind)} (as {below + '/' if below else ''}{name}/)"

    def metadata(self, kind: Sensor, name: str) -> dict[str, Any]:
        """The JSON that v1 keeps beside the bands of each patch.

        Raises:
            InputError: if it is missing or damaged.
        """
        path = Path(self.folder(kind, name)) / f"{name}_labels_metadata.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"Cannot read the labels of the patch, {path}: {error}.") from error
        if not isinstance(content, dict):
            raise InputError(f"{path}: expected an object with labels, found {type(content)}.")
        return content

    def _read(self, stem: str) -> NDArray[Any]:
        try:
            return read_band(stem + self._suffix)
        except FileNotFoundError:
            other = next(suffix for suffix in _SUFFIXES if suffix != self._suffix)
            try:
                pixels = read_band(stem + other)
            except FileNotFoundError as error:
                raise self._no_band(stem + _SUFFIXES[0]) from error
            self._suffix = other  # the others will most likely end so, too
            return pixels

    def _no_band(self, path: str) -> InputError:
        folder = Path(path).parent
        there = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else None
        found = f"that folder holds {there}" if there is not None else f"{folder} does not exist"
        return InputError(
            f"The file {path} (or .tiff) does not exist; {found}. Complete the patch, or choose "
            "bands that it has with `modalities`."
        )


def bands_of(sensor: Sensor, bands: Sequence[str]) -> list[str]:
    """Those of the bands that belong to a sensor, each once."""
    return [band for band in dict.fromkeys(bands) if sensor_of(band) == sensor]


def _named_after(kind: Kind) -> Sensor:
    """Whose patches' names it bears: reference maps have those of Sentinel-2."""
    return "S2" if kind == REFERENCE_MAP else kind


def _subfolders(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if entry.is_dir())

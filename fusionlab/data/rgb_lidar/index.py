"""Which pairs there are: folders of classes, and in them images and scans of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.choices import require_known
from fusionlab.errors import InputError

Sensor = Literal["rgb", "lidar"]
SENSORS: tuple[Sensor, ...] = get_args(Sensor)
SUFFIX: dict[Sensor, str] = {"rgb": ".png", "lidar": ".npy"}
BANDS: dict[Sensor, tuple[str, ...]] = {"rgb": ("R", "G", "B", "A"), "lidar": ("X", "Y", "Z", "A")}

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of files, or single files where a partner is missing.

    Attributes:
        root: folder that the classes lie in.
        folders: their names, sorted; empty text stands for the root itself.
        folder: ``(N,)`` in which of them a pair lies.
        stems: ``(N,)`` names of files without suffix.
        present: per sensor ``(N,)``: whether there is a file.
    """

    root: Path
    folders: tuple[str, ...]
    folder: Rows
    stems: NDArray[np.str_]
    present: dict[Sensor, Mask]

    def __len__(self) -> int:
        return len(self.stems)

    def name(self, row: int) -> str:
        """Name of a pair: ``cubes/0000``."""
        folder = self.folders[self.folder[row]]
        return f"{folder}/{self.stems[row]}" if folder else str(self.stems[row])

    def short(self, sensor: Sensor, row: int) -> str:
        """A file's path below the root, whether it exists or not: ``cubes/rgb/0000.png``."""
        folder = self.folders[self.folder[row]]
        file = f"{sensor}/{self.stems[row]}{SUFFIX[sensor]}"
        return f"{folder}/{file}" if folder else file

    def path(self, sensor: Sensor, row: int) -> Path:
        """The same with the root."""
        return self.root / self.short(sensor, row)

    def take(self, rows: Rows | Mask) -> Pairs:
        """Some of them."""
        return Pairs(
            self.root,
            self.folders,
            self.folder[rows],
            self.stems[rows],
            {sensor: there[rows] for sensor, there in self.present.items()},
        )


def find_pairs(root: Path, classes: Sequence[str] | None) -> Pairs:
    """All pairs in the folders of classes, sorted by class and name.

    Args:
        root: folder that they lie in.
        classes: their names; None for every folder with a folder ``rgb`` or ``lidar``.

    Raises:
        InputError: if there are no such folders, or if one has neither images nor scans.
    """
    if not root.is_dir():
        raise InputError(
            f"data.root: {root} is no folder. Name the one whose folders are the classes, such as "
            "cubes and spheres."
        )
    there = sorted(path.name for path in root.iterdir() if _holds_pairs(path))
    if not there:
        raise InputError(
            f"data.root: no folder in {root} holds rgb/ (PNG) and lidar/ (NPY), and each class "
            "needs one that does."
        )
    require_known(classes or [], there, option="data.classes", what="class folder")
    pairs = _pairs(root, sorted(set(classes or there)))
    empty = [
        name for i, name in enumerate(pairs.folders) if not np.count_nonzero(pairs.folder == i)
    ]
    if empty:
        raise InputError(
            f"data.root: the classes {empty} in {root} are empty: rgb/ has no .png and lidar/ no "
            ".npy. Complete them, remove their folders, or name the others with `classes`."
        )
    return pairs


def find_new_pairs(root: Path) -> Pairs:
    """All pairs below a folder, be it that of a class, or one that such folders lie in.

    Raises:
        InputError: if there are none.
    """
    inside = [path.name for path in root.iterdir() if _holds_pairs(path)] if root.is_dir() else []
    pairs = _pairs(root, ([""] if _holds_pairs(root) else []) + sorted(inside))
    if not len(pairs):
        raise InputError(
            f"data.root: there is nothing to predict in {root}: neither rgb/*.png nor lidar/*.npy, "
            "there or in the folders below."
        )
    return pairs


def _holds_pairs(folder: Path) -> bool:
    return any((folder / sensor).is_dir() for sensor in SENSORS)


def _pairs(root: Path, folders: Sequence[str]) -> Pairs:
    found: list[tuple[int, str]] = []
    present: dict[Sensor, list[Any]] = {sensor: [] for sensor in SENSORS}
    for i, name in enumerate(folders):
        stems = {sensor: _stems(root / name / sensor, SUFFIX[sensor]) for sensor in SENSORS}
        every = sorted(set().union(*stems.values()))
        found += [(i, stem) for stem in every]
        for sensor in SENSORS:
            present[sensor] += [stem in stems[sensor] for stem in every]
    return Pairs(
        root,
        tuple(folders),
        np.array([i for i, _ in found], np.int64),
        np.array([stem for _, stem in found], np.str_),
        {sensor: np.array(there, bool) for sensor, there in present.items()},
    )


def _stems(folder: Path, suffix: str) -> set[str]:
    if not folder.is_dir():
        return set()
    return {path.stem for path in folder.iterdir() if path.suffix == suffix}

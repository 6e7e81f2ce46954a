"""Targets of BigEarthNet: the classes of a patch, or the class of each of its pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionlab.data.bigearthnet import constants
from fusionlab.data.bigearthnet.index import Patches
from fusionlab.data.bigearthnet.names import Sensor
from fusionlab.data.bigearthnet.sources import GeoTiffFolders, Source
from fusionlab.data.choices import require_known
from fusionlab.errors import InputError
from fusionlab.types import IGNORE_INDEX

_NO_CODE = -1


class Target(ABC):
    """Reads the target of a patch."""

    @abstractmethod
    def __call__(self, patches: Patches, index: int) -> Tensor:
        """The target of one of the patches."""


class TableLabels(Target):
    """Labels of v2, which the table holds: ``(K,)`` float32 of zeros and ones."""

    def __call__(self, patches: Patches, index: int) -> Tensor:
        """See `Target`."""
        assert patches.labels is not None
        return torch.from_numpy(patches.labels[index].astype(np.float32))


class FileLabels(Target):
    """Labels of v1, one JSON file per patch, whose 43 classes become 19: ``(K,)`` float32.

    Args:
        source: the folders.
        classes: class names in index order.
    """

    def __init__(self, source: GeoTiffFolders, classes: Sequence[str]) -> None:
        self.source = source
        self.classes = tuple(classes)

    def __call__(self, patches: Patches, index: int) -> Tensor:
        """See `Target`.

        Raises:
            InputError: if the file is missing or names an unknown class.
        """
        labels, where = self._labels(patches, index)
        target = torch.zeros(len(self.classes))
        for label in labels:
            require_known([label], constants.V1_LABELS, option=where, what="class")
            kept = constants.V1_LABELS[label]
            if kept is not None:
                target[self.classes.index(kept)] = 1.0
        return target

    def _labels(self, patches: Patches, index: int) -> tuple[list[str], str]:
        # The files of both sensors hold them; a user may have one of the two.
        there: list[Sensor] = [
            sensor
            for sensor in ("S2", "S1")
            if self.source.has(sensor, patches.names(sensor)[index].as_py())
        ]
        sensor = there[0] if there else "S2"
        name = patches.names(sensor)[index].as_py()
        where = f"labels of {self.source.folder(sensor, name)}"
        labels = self.source.metadata(sensor, name).get("labels")
        if not isinstance(labels, list):
            raise InputError(f"{where}: expected a list of class names, found {labels!r}.")
        return labels, where


class ReferenceMap(Target):
    """The class of each pixel, ``(120, 120)`` int64; 255 where the map has none of the classes.

    Args:
        source: what holds the maps.
        classes: class names in index order.
    """

    def __init__(self, source: Source, classes: Sequence[str]) -> None:
        self.source = source
        self.table = class_table(classes)

    def __call__(self, patches: Patches, index: int) -> Tensor:
        """See `Target`.

        Raises:
            InputError: if the map is missing or holds a code that CORINE does not know.
        """
        name = patches.s2[index].as_py()
        codes = self.source.reference_map(name)
        classes = self.table[codes]
        if classes.min() == _NO_CODE:
            foreign = sorted(int(code) for code in np.unique(codes[classes == _NO_CODE]))
            raise InputError(
                f"The reference map of {name} holds {foreign}, which are no codes of CORINE Land "
                f"Cover, level 3, such as {sorted(constants.CORINE)[:3]}."
            )
        return torch.from_numpy(classes)


def class_table(classes: Sequence[str]) -> NDArray[np.int64]:
    """The class index of each uint16 code: 255 if it belongs to none, -1 if there is no such code.

    Args:
        classes: class names in index order.
    """
    table = np.full(2**16, _NO_CODE, np.int64)
    table[[0, *constants.UNLABELLED]] = IGNORE_INDEX
    for code, name in constants.CORINE.items():
        table[code] = classes.index(name)
    return table

"""Files as arrays of one size: images resized, scans turned into points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fusionlab.data.rgb_lidar.checks import Angles, Problems, each
from fusionlab.data.rgb_lidar.files import read_depth, read_image
from fusionlab.data.rgb_lidar.index import Pairs, Sensor
from fusionlab.data.rgb_lidar.scan import Floats, nearest, xyza
from fusionlab.errors import InputError

_BLOCK = 512
"""Pairs whose files are in memory at their own size at once."""


@dataclass(frozen=True, eq=False)
class Loader:
    """Reads files of pairs.

    Images are resized bilinearly with antialiasing, channel by channel, so that every pixel counts.
    Of scans, which must not mix near and far, the nearest row and column are taken, and points are
    made of what is left.

    Attributes:
        size: rows and columns of what it gives.
        angles: of the scans, by folder.
    """

    size: int
    angles: Mapping[int, Angles] = field(default_factory=dict)

    def one(self, pairs: Pairs, sensor: Sensor, row: int) -> Tensor:
        """One image, uint8 ``(4, size, size)``, or one scan, float32 ``(4, size, size)``.

        Raises:
            InputError: if the file cannot be read; names it.
        """
        path = pairs.path(sensor, row)
        try:
            if sensor == "rgb":
                return resized(read_image(path)[None], self.size)[0]
            depth = self._read_depth(path)
        except InputError as error:
            raise InputError(
                f"{path} {error}; it was changed since the run began, or is damaged inside."
            ) from error
        return torch.from_numpy(self._points(depth, int(pairs.folder[row])))

    def all(self, pairs: Pairs, sensor: Sensor) -> Tensor:
        """All images or scans, ``(N, 4, size, size)``; zeros for those that are missing.

        Raises:
            InputError: if files cannot be read; names them.
        """
        whole = torch.zeros((len(pairs), 4, self.size, self.size), dtype=dtype_of(sensor))
        for rows, block in self.blocks(pairs, sensor):
            whole[torch.from_numpy(rows)] = block
        return whole

    def blocks(self, pairs: Pairs, sensor: Sensor) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """The images or scans that there are, some at a time.

        Yields:
            Rows, and their arrays ``(n, 4, size, size)``.

        Raises:
            InputError: if files cannot be read, after all were tried; names them.
        """
        rows = np.flatnonzero(pairs.present[sensor])
        problems = Problems(pairs.root)
        for first in range(0, len(rows), _BLOCK):
            some = rows[first : first + _BLOCK]
            if sensor == "rgb":
                images = each(pairs, sensor, some.tolist(), read_image, problems)
                if len(images) == len(some):
                    yield some, resized(np.stack([images[r] for r in some.tolist()]), self.size)
                continue
            scans = each(pairs, sensor, some.tolist(), self._read_depth, problems)
            if len(scans) < len(some):
                continue
            depths = np.stack([scans[row] for row in some.tolist()])
            folders = pairs.folder[some]
            for folder in np.unique(folders).tolist():
                mine = folders == folder
                yield some[mine], torch.from_numpy(self._points(depths[mine], folder))
        problems.refuse()

    def _read_depth(self, path: Path) -> Floats:
        depth = read_depth(path)
        rows, columns = (nearest(count, self.size) for count in depth.shape)
        return depth[np.ix_(rows, columns)]

    def _points(self, depth: Floats, folder: int) -> Floats:
        """Points of depths that are already of the size wanted, at the angles that were taken."""
        azimuth, zenith = (
            angles[nearest(len(angles), self.size)] for angles in self.angles[folder]
        )
        return xyza(depth, azimuth, zenith)


def resized(images: NDArray[np.uint8], size: int) -> Tensor:
    """Images ``(n, c, h, w)`` as ``(n, c, size, size)``, bilinearly with antialiasing."""
    whole = torch.from_numpy(np.ascontiguousarray(images))
    if whole.shape[-2:] == (size, size):
        return whole
    return functional.interpolate(whole, size=(size, size), mode="bilinear", antialias=True)


def dtype_of(sensor: Sensor) -> torch.dtype:
    """Images stay what they are on disk."""
    return torch.uint8 if sensor == "rgb" else torch.float32

"""Canopy height as a target: the fifth band of an aerial image where the mask says trees.

The band is the height of a surface model above ground, in units of 0.2 m. On buildings and fields
it is a height too, but not of a canopy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionlab.data.choices import require_known
from fusionlab.data.flair2.constants import AERIAL, CLASSES_19, SATURATED_HEIGHT
from fusionlab.errors import InputError

HEIGHT_CHANNEL = AERIAL.bands.index("height")
METRES_PER_UNIT = AERIAL.scale[HEIGHT_CHANNEL]


@dataclass(frozen=True)
class CanopyHeight:
    """Which heights are known.

    Attributes:
        images: folder of the aerial images that hold them.
        values: values of the mask where they count; None counts them everywhere.
    """

    images: Path
    values: tuple[int, ...] | None

    def target(self, units: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> Tensor:
        """Heights ``(1, H, W)`` in metres, float32, NaN where unknown.

        Args:
            units: the fifth band, ``(H, W)``; saturated values are unknown.
            mask: classes 1 to 19, ``(H, W)``; None if heights count everywhere.
        """
        known = units != SATURATED_HEIGHT
        if mask is not None and self.values is not None:
            known &= np.isin(mask, self.values)
        metres = units * np.float32(METRES_PER_UNIT)
        return torch.from_numpy(np.where(known, metres, np.float32(np.nan))[None])


def mask_values(classes: Sequence[str] | None) -> tuple[int, ...] | None:
    """The values that stand for classes in a mask; None for None, which means everywhere.

    Raises:
        InputError: for an unknown class, or none at all.
    """
    if classes is None:
        return None
    require_known(classes, CLASSES_19, option="height_classes", what="class")
    if not classes:
        raise InputError(
            "height_classes: with no class at all no height is known. Name classes, or null for "
            "heights everywhere."
        )
    return tuple(sorted(CLASSES_19.index(name) + 1 for name in classes))

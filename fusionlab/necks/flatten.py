"""A neck that makes one vector of all cells of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from fusionlab.features import Feature, checked_map_size, flattened
from fusionlab.necks.base import Neck, checked_indices


class Flatten(Neck):
    """Flattens one map into an embedding that keeps where everything was, e.g. for late fusion.

    Its width depends on the size of the map, so only images of one size are taken; AggregateTokens
    gives embeddings of images of any size.

    Args:
        features: descriptions of maps.
        size: rows and columns of the map: two numbers, or one for both. A stride of 8 makes 8 x 8
            cells of 64 x 64 pixels.
        index: which of the maps, from 0 or from -1 backwards; the others are left out.

    Attributes:
        image_size: rows and columns of the images (as the backbone sees them) that it takes; None
            where the stride of the map is not known.

    Raises:
        InputError: for other layouts, a position that does not exist, or no such size; when
            applied, for a map of another size.
    """

    layouts: ClassVar[tuple[str, ...]] = ("NCHW",)

    def __init__(
        self, features: Sequence[Feature], *, size: int | Sequence[int], index: int = -1
    ) -> None:
        super().__init__(features)
        (self.index,) = checked_indices([index], len(self.received), where="Flatten index")
        self.size = checked_map_size(size, where="Flatten size")
        rows, columns = self.size
        channels, stride, _ = self.received[self.index]
        self.image_size: tuple[int, int] | None = None
        if stride is not None:
            self.image_size = (round(rows * stride), round(columns * stride))
        self.features = (Feature(channels * rows * columns, None, "NC"),)

    def convert(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """The map ``(B, C, rows, columns)`` as ``(B, C * rows * columns)``.

        Raises:
            InputError: for a map of another size.
        """
        channels = self.received[self.index].channels
        found = flattened(
            features[self.index], channels, self.size, where="Flatten", instead="AggregateTokens"
        )
        return [found]

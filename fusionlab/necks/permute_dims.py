"""A neck that puts the axes of every feature into another order."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusionlab.errors import InputError
from fusionlab.features import Feature
from fusionlab.necks.base import Neck


class PermuteDims(Neck):
    """Permutes the axes of every feature, e.g. maps with channels last to channels first.

    Args:
        features: descriptions of the tensors it gets, all with the same number of axes.
        new_order: for each axis of the result, its position before: ``[0, 3, 1, 2]`` turns NHWC
            into NCHW.

    Raises:
        InputError: if `new_order` does not name each axis of every feature once.
    """

    def __init__(self, features: Sequence[Feature], *, new_order: Sequence[int]) -> None:
        super().__init__(features)
        order = list(new_order) if isinstance(new_order, Sequence) else []
        for i, feature in enumerate(self.received):
            axes = range(len(feature.layout))
            if len(order) != len(axes) or any(axis not in order for axis in axes):
                raise InputError(
                    f"PermuteDims new_order must name each axis of feature {i} ({feature.layout}) "
                    f"once, i.e. 0 to {axes[-1]} in some order, got {new_order!r}. [0, 3, 1, 2] "
                    "turns NHWC into NCHW."
                )
        self.new_order = tuple(order)
        self.features = tuple(
            Feature(channels, stride, "".join(layout[axis] for axis in self.new_order))
            for channels, stride, layout in self.received
        )

    def convert(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """The tensors with their axes in the new order, contiguous in memory."""
        return [feature.permute(self.new_order).contiguous() for feature in features]

"""CutMix: windows of samples pasted into one another.

Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features",
ICCV 2019, arXiv 1905.04899.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fusionlab.data.ground import Ground, Pair, Raster, ground
from fusionlab.data.mixing.base import Mixing, Placed
from fusionlab.errors import InputError
from fusionlab.types import Batch, Raw, Schema, Target, TimeSeries

_LEAST_PIXELS = 4  # across a sample, of an image on whose pixels windows lie


class CutMix(Mixing):
    """Pastes a window of another sample into every sample of a training batch.

    The window is the same on the ground in all images, series and masks, each at its own
    resolution: it lies on whole pixels of the coarsest of them that has at least four across the
    sample. Its centre falls anywhere in the sample, and what of it would stick out is cut off. The
    share that is not pasted, measured in the finest pixels, is the sample's own: targets of whole
    samples and all that is no image are mixed by it, see `Mixing`. A target that is a map gets the
    window of the other's and stays as hard as it was.

    Args:
        alpha: of the Beta distribution of shares; above 0. 1 makes all shares equally likely.
        probability: of a batch to be mixed.

    Raises:
        InputError: for numbers outside these ranges.
    """

    def __init__(self, alpha: float = 1.0, *, probability: float = 1.0) -> None:
        super().__init__(alpha, probability=probability)

    def softens(self, target: Target) -> bool:
        """One class per sample only: masks stay masks."""
        return target == "multiclass"

    def require(self, schema: Schema) -> None:
        """See `Mixing.require`.

        Raises:
            InputError: also if the data deliver no images.
        """
        super().require(schema)
        if not any(modality.kind == "image" for modality in schema.modalities.values()):
            raise InputError(
                f"data.mix: CutMix pastes windows of images, but the data deliver none: "
                f"{list(schema.modalities)}. Use MixUp."
            )

    def place(self, share: Tensor, batch: Batch, schema: Schema) -> Placed:
        """Windows of an area that leaves the samples their shares; see `Mixing.place`."""
        inputs = batch["inputs"]
        images = {name: size for name, value in inputs.items() if (size := _size(value))}
        target = batch["target"]
        grid = (target.shape[-2], target.shape[-1]) if schema.pixelwise else None
        laid = ground(images, grid, schema=schema)
        if laid is None:  # as `require` refuses
            return torch.ones_like(share), {}, None
        offsets = batch.get("offset", {})
        coarse = laid.coarsest(_LEAST_PIXELS)
        edges = _drawn(share, laid, coarse, offsets.get(_name(coarse, laid)))
        windows = {
            name: _window(edges, raster, offsets.get(name)) for name, raster in laid.images.items()
        }
        on_target = None if laid.target is None else _window(edges, laid.target, None)
        finest = laid.finest
        found = on_target if finest is laid.target else windows[_name(finest, laid)]
        assert found is not None
        return _left(found, finest, laid.extent), windows, on_target


def _drawn(share: Tensor, laid: Ground, coarse: Raster, offset: Tensor | None) -> Tensor:
    """Edges of windows on whole pixels of a raster.

    Returns:
        ``(B, 4)`` float64, in the units of `Ground` from the centre of the sample: top, bottom,
        left, right.
    """
    side = (1 - share.double()).sqrt()
    edges = []
    for axis in range(2):
        pixel = coarse.pixel[axis]
        across = laid.extent[axis] / pixel
        centre = _centre(coarse, axis, offset)
        middle = centre + (torch.rand(len(share), dtype=torch.float64) - 0.5) * across
        for sign in (-0.5, 0.5):
            edge = middle + sign * side * across
            inside = torch.maximum(torch.minimum(edge, centre + across / 2), centre - across / 2)
            edges.append((inside.round() - centre) * pixel)
    return torch.stack(edges, dim=1)


def _window(edges: Tensor, raster: Raster, offset: Tensor | None) -> Tensor:
    """The pixels between edges, ``(B, 4)`` int64 as in `Plan`."""
    parts = []
    for axis in range(2):
        for edge in edges[:, 2 * axis : 2 * axis + 2].unbind(dim=1):
            # Rounded twice: a sum that is a whole number but for its last digits is that number.
            position = _centre(raster, axis, offset) + edge / raster.pixel[axis]
            parts.append(position.round(decimals=6).round().clamp(0, raster.size[axis]).long())
    return torch.stack(parts, dim=1)


def _centre(raster: Raster, axis: int, offset: Tensor | None) -> Tensor:
    """Where the centre of the sample lies in a raster, in its pixels, 0-d or ``(B,)``."""
    half = torch.tensor(raster.size[axis] / 2, dtype=torch.float64)
    return half if offset is None else half + offset[:, axis].double()


def _left(window: Tensor, raster: Raster, extent: Pair) -> Tensor:
    """The share of a sample that is not pasted over, ``(B,)`` float32."""
    top, bottom, left, right = window.double().unbind(dim=1)
    pixel = raster.pixel[0] * raster.pixel[1] / (extent[0] * extent[1])
    area = (bottom - top) * (right - left) * pixel
    return (1 - area).round(decimals=9).clamp(0, 1).float()


def _name(raster: Raster, laid: Ground) -> str:
    """The modality that has these pixels; "" of the target."""
    return next((name for name, other in laid.images.items() if other is raster), "")


def _size(value: Raw) -> tuple[int, int] | None:
    """Rows and columns of images in a batch."""
    if isinstance(value, list):
        return None
    values, axes = (value.values, 5) if isinstance(value, TimeSeries) else (value, 4)
    return (values.shape[-2], values.shape[-1]) if values.ndim == axes else None

"""Alignment: bringing expert outputs onto one reference grid.

Experts answer at their own resolution and extent: an aerial image of 512 pixels at 0.2 m, say, and
a Sentinel-2 crop of 40 pixels at 10 m around the same place. The centres coincide; where the data
know better, they say by how much they do not (``offset``), which `Footprint` heeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from fusionlab.component import Component
from fusionlab.errors import InputError
from fusionlab.types import Batch, Grid


class Alignment(Component):
    """Base of alignments."""

    supplied: ClassVar[tuple[str, ...]] = ()

    def align(
        self, maps: Tensor, grid: Grid, *, gsd: float, name: str, offset: Tensor | None
    ) -> Tensor:
        """The alignment itself; arguments as in `forward`."""
        raise NotImplementedError(f"{type(self).__name__} does not define align().")

    def forward(
        self, maps: Tensor, grid: Grid, *, gsd: float, name: str, offset: Tensor | None = None
    ) -> Tensor:
        """Brings maps onto a grid; leaves them alone if they are on it.

        Args:
            maps: ``(B, C, h, w)``.
            grid: the reference grid.
            gsd: ground sampling distance of the maps, metres.
            name: the expert they come from.
            offset: ``(B, 2)``, see `Batch`.

        Returns:
            ``(B, C, grid.rows, grid.columns)``.
        """
        same_size = tuple(maps.shape[-2:]) == (grid.rows, grid.columns)
        if same_size and math.isclose(gsd, grid.gsd, rel_tol=1e-3):
            return maps
        return self.align(maps, grid, gsd=gsd, name=name, offset=offset)


class CentreCrop(Alignment):
    """Crops to the whole pixels inside the reference's footprint, then resizes bilinearly.

    What the published late fusions of FLAIR do. The crop covers whole pixels only: 10 pixels of
    10 m are stretched over 102.4 m, which shifts the edges by up to 1.2 m; `Footprint` does not.

    Args:
        size: pixels to keep per expert, one number or rows and columns; by default as many whole
            pixels as fit the reference's footprint.

    Raises:
        InputError: at run time, if the crop is larger than the map.
    """

    def __init__(self, *, size: dict[str, int | tuple[int, int]] | None = None) -> None:
        super().__init__()
        self.size = {
            name: (value, value) if isinstance(value, int) else (value[0], value[1])
            for name, value in (size or {}).items()
        }

    def align(
        self, maps: Tensor, grid: Grid, *, gsd: float, name: str, offset: Tensor | None
    ) -> Tensor:
        """See `Alignment.align`."""
        if name in self.size:
            rows, columns = self.size[name]
        else:
            # The small addition keeps 102.4 m / 10.24 m at 10 in spite of rounding.
            rows, columns = (max(1, int(n * grid.gsd / gsd + 1e-6)) for n in grid[:2])
        height, width = maps.shape[-2:]
        if rows > height or columns > width:
            raise InputError(
                f"CentreCrop: {name} maps have {height} x {width} pixels, fewer than the "
                f"{rows} x {columns} to keep. Deliver a larger crop of {name}, or set "
                f"`size: {{{name}: {min(height, width)}}}`."
            )
        top, left = (height - rows) // 2, (width - columns) // 2
        maps = maps[..., top : top + rows, left : left + columns]
        if (rows, columns) == grid[:2]:
            return maps
        return functional.interpolate(maps, size=grid[:2], mode="bilinear", align_corners=False)


class Footprint(Alignment):
    """Resamples bilinearly at the true position of every reference pixel.

    Uses the ground sampling distances, and the offset between the centres where the data give one,
    so nothing is stretched or shifted. Outside the map its border value is repeated.
    """

    def align(
        self, maps: Tensor, grid: Grid, *, gsd: float, name: str, offset: Tensor | None
    ) -> Tensor:
        """See `Alignment.align`."""
        axes = []
        for axis, n in enumerate(grid[:2]):
            extent = maps.shape[2 + axis]
            from_centre = torch.arange(n, device=maps.device, dtype=torch.float32) + 0.5 - n / 2
            position = (extent / 2 + from_centre * (grid.gsd / gsd)).expand(len(maps), n)
            if offset is not None:
                position = position + offset[:, axis : axis + 1].float()
            axes.append(2 * position / extent - 1)
        rows, columns = axes
        where = torch.stack(
            [
                columns[:, None, :].expand(-1, grid.rows, -1),
                rows[:, :, None].expand(-1, -1, grid.columns),
            ],
            dim=-1,
        )
        # grid_sample wants both of one type; under autocast the maps may be bfloat16.
        sampled = functional.grid_sample(
            maps.float(), where, mode="bilinear", padding_mode="border", align_corners=False
        )
        return sampled.to(maps.dtype)


def centre_offset(
    batch: Batch,
    modality: str,
    *,
    pixel: float,
    gsd: float,
    reference: str | None = None,
    reference_pixel: float = 0.0,
) -> Tensor | None:
    """How far another centre lies from that of a modality's arrays; None if the data do not say.

    Args:
        batch: with the offset of each sample's centre from the centre of a modality's arrays.
        modality: whose arrays.
        pixel: their pixel size, metres.
        gsd: metres that the answer counts; maps made of the arrays may be coarser than they are.
        reference: the other centre is that of this modality's arrays; of the sample if not given.
        reference_pixel: pixel size of the reference's arrays, metres.

    Returns:
        ``(B, 2)`` rows and columns.
    """
    offsets = batch.get("offset", {})
    own, other = offsets.get(modality), offsets.get(reference or "")
    if modality == reference:
        return None
    away = None if own is None else own * (pixel / gsd)
    if other is None:
        return away
    moved = other * (reference_pixel / gsd)
    return -moved if away is None else away - moved


AlignmentFactory = Callable[[], Alignment]
"""In YAML: ``class_path`` and ``init_args`` of an alignment."""

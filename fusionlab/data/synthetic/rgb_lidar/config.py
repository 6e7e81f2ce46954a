"""What a synthetic set of RGB and LiDAR pairs is made of: seed, numbers of pairs, sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fusionlab.errors import InputError

MOST_PAIRS = 100_000
SIZES = (8, 1024)


@dataclass(frozen=True, kw_only=True)
class RgbLidarConfig:
    """Numbers, sizes and seed of a synthetic set of cubes and spheres.

    Attributes:
        seed: The only source of randomness; equal configurations give equal bytes, and a larger
            set begins with the pairs of a smaller one.
        cubes: Pairs that show a cube.
        spheres: Pairs that show a sphere.
        image_size: Rows and columns of an RGB image.
        scan_size: Rows and columns of a LiDAR scan.
        hard_images: Share of the images that are hard to read: dark, or with little contrast, flat
            shading and much noise.
        hard_scans: Share of the scans that are hard to read, drawn apart from the images: few
            returns, and some of them from rain and dust.
    """

    seed: int = 0
    cubes: int = 1250
    spheres: int = 1250
    image_size: int = 80
    scan_size: int = 64
    hard_images: float = 0.1
    hard_scans: float = 0.1

    def __post_init__(self) -> None:
        """Refuses what cannot be rendered.

        Raises:
            InputError: If a value is out of range; the message names the field.
        """
        for name in ("cubes", "spheres"):
            count = getattr(self, name)
            if not 0 <= count <= MOST_PAIRS:
                raise InputError(f"{name} must be 0 to {MOST_PAIRS}, found {count}.")
        for name in ("image_size", "scan_size"):
            size = getattr(self, name)
            if not SIZES[0] <= size <= SIZES[1]:
                raise InputError(
                    f"{name} must be {SIZES[0]} to {SIZES[1]} rows and columns, found {size}."
                )
        for name in ("hard_images", "hard_scans"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise InputError(f"{name} is a share from 0 to 1, found {share}.")
        if not self.cubes + self.spheres:
            raise InputError("At least one of cubes and spheres must be over 0.")

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready primitives."""
        return asdict(self)

"""What a synthetic set of images, captions, tables and weekly series is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fusionlab.errors import InputError

_SHARES = ("second_visits", "named", "vague", "no_caption", "no_weather", "empty_cells", "clouded")


@dataclass(frozen=True, kw_only=True)
class GeoMultimodalConfig:
    """Sizes, gaps and seed of a set.

    Attributes:
        seed: The only source of randomness; equal configurations give equal bytes, and a larger set
            begins with the samples of a smaller one.
        samples: Images, and rows of the manifest.
        patch_size: Rows and columns of an image.
        pixel_size: Metres per pixel.
        second_visits: Share of the sites that are photographed in a second season, too.
        named: Share of the captions that name the use of the land.
        vague: Share of the captions that say hardly more than that there is land.
        no_caption: Share of the samples without a caption.
        no_weather: Share of the samples without a weekly series.
        empty_cells: Share of the cells of the table that are empty.
        clouded: Share of the weeks of a dry place whose vegetation index is hidden by clouds;
            where it rains more, more are.
    """

    seed: int = 0
    samples: int = 3000
    patch_size: int = 64
    pixel_size: float = 2.0
    second_visits: float = 0.25
    named: float = 0.4
    vague: float = 0.15
    no_caption: float = 0.08
    no_weather: float = 0.06
    empty_cells: float = 0.05
    clouded: float = 0.15

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn.

        Raises:
            InputError: If a value is out of range; the message names the field.
        """
        if self.samples < 1:
            raise InputError(f"samples must be at least 1, found {self.samples}.")
        if not 16 <= self.patch_size <= 512:
            raise InputError(f"patch_size must be 16 to 512 pixels, found {self.patch_size}.")
        if not 0.5 <= self.pixel_size <= 4:
            raise InputError(f"pixel_size must be 0.5 to 4 metres, found {self.pixel_size}.")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a share from 0 to 1, found {getattr(self, name)}.")
        if self.named + self.vague > 1:
            raise InputError(
                f"named and vague are shares of the captions that exclude each other: "
                f"{self.named} and {self.vague} are more than all."
            )

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready primitives."""
        return asdict(self)

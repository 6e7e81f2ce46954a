"""What a data module says of one source of data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from fusionlab.errors import InputError

Kind = Literal["image", "text", "table", "series"]
"""What one source delivers for a sample: an image, or a series of images; a text; a row of a table;
or a series of plain values, such as the weather."""


@dataclass(frozen=True)
class Modality:
    """A named source of data, as a data module delivers it.

    Attributes:
        bands: band names in the order of the channel axis; of a table its columns, of a series of
            values its variables, of a text nothing.
        gsd: ground sampling distance, metres per pixel; infinite for what is no image.
        scale: per band, what a raw value is multiplied by to give its physical unit; 1 if empty.
        mean: per band, mean in physical units, as published for the data set; 0 if empty.
        std: per band, standard deviation in physical units; 1 if empty.
        temporal: whether it is a series, of images or of values.
        preparation: how samples were made of the raw data, by name and in plain values, e.g.
            ``{"crop_size": 40, "monthly_means": True}``. It travels in checkpoints, so that new
            data can be made the same way; empty where there is nothing to repeat.
        kind: what it delivers for a sample.
        categories: of a table, per column that holds categories their names in the order of the
            indices that are delivered. Columns not named here are numbers.
        others: of a table, per column the names of categories that its training rows lack and other
            rows have; their indices follow on. A model that was trained on other rows may know
            them. They describe one table, so checkpoints do not hold them.
        tokenizer: of a text, a tokenizer made from the training texts, in the JSON format of the
            library ``tokenizers``; empty where there were none.
    """

    bands: tuple[str, ...]
    gsd: float = math.inf
    scale: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    temporal: bool = False
    # A plain dict, which `asdict` copies; unhashable, but two of them compare.
    preparation: Mapping[str, Any] = field(default_factory=dict, hash=False)
    kind: Kind = "image"
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    tokenizer: str = field(default="", repr=False)
    others: Mapping[str, Sequence[str]] = field(
        default_factory=dict, hash=False, compare=False, kw_only=True
    )

    def __post_init__(self) -> None:
        n = len(self.bands)
        if self.kind not in get_args(Kind):
            raise InputError(f"A modality is one of {list(get_args(Kind))}, got {self.kind!r}.")
        for name, default in (("scale", 1.0), ("mean", 0.0), ("std", 1.0)):
            values = tuple(getattr(self, name)) or (default,) * n
            if len(values) != n:
                raise InputError(
                    f"Modality has {n} bands {list(self.bands)} but {len(values)} values of {name}."
                )
            object.__setattr__(self, name, values)  # lists, as checkpoints hold them, included
        object.__setattr__(self, "bands", tuple(self.bands))
        object.__setattr__(self, "preparation", dict(self.preparation))
        categories = {name: tuple(names) for name, names in self.categories.items()}
        object.__setattr__(self, "categories", categories)
        others = {name: tuple(names) for name, names in self.others.items()}
        object.__setattr__(self, "others", others)
        if len(set(self.bands)) != n:
            raise InputError(f"Band names must differ, got {list(self.bands)}.")
        unknown = [name for name in {**categories, **others} if name not in self.bands]
        if unknown:
            raise InputError(f"Categories of {unknown}, which are none of {list(self.bands)}.")

    def indices(self, bands: Sequence[str], *, where: str) -> list[int]:
        """Positions of bands by name.

        Args:
            bands: the names wanted.
            where: what is asking, for the error message.

        Raises:
            InputError: if a band is not among those delivered; names both lists.
        """
        missing = [band for band in bands if band not in self.bands]
        if missing:
            what = {"table": "columns", "series": "variables"}.get(self.kind, "bands")
            raise InputError(
                f"{where} wants the {what} {list(bands)}, but the data deliver {list(self.bands)}: "
                f"{missing} are missing. Choose {what} that both have, or another expert."
            )
        return [self.bands.index(band) for band in bands]

    def warn_unless_prepared_like(self, trained: Modality, *, where: str) -> None:
        """Warns where samples are made in another way than those that a model was trained on."""
        different = {
            name: f"{self.preparation.get(name)} instead of {value}"
            for name, value in trained.preparation.items()
            if self.preparation and self.preparation.get(name) != value
        }
        if different:
            warnings.warn(
                f"{where} was trained on samples prepared otherwise than the data's: {different}. "
                "Set the same options in the data module, unless this is meant.",
                stacklevel=2,
            )

    def select(self, bands: Sequence[str], *, where: str) -> Modality:
        """The same modality with only these bands, in this order."""
        index = self.indices(bands, where=where)
        return replace(
            self,
            bands=tuple(bands),
            scale=tuple(self.scale[i] for i in index),
            mean=tuple(self.mean[i] for i in index),
            std=tuple(self.std[i] for i in index),
            categories={name: c for name, c in self.categories.items() if name in bands},
            others={name: c for name, c in self.others.items() if name in bands},
        )

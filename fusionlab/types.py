"""The batch contract and the schema: what data modules deliver and what models may rely on.

Everything here is plain data. A batch is a nested dict of tensors, so that Lightning moves it to
the device and the DataLoader pins it without help; modalities are known by name, never by position.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict, get_args

from torch import Tensor

from fusionlab.errors import InputError

IGNORE_INDEX = 255
"""Target value of pixels that count neither in a loss nor in a metric."""

Target = Literal["segmentation", "multiclass", "multilabel"]
"""What a target says: a class per pixel, one class per sample, or any number of them."""


class TimeSeries(NamedTuple):
    """A series of images of one place.

    Attributes:
        values: raw values, ``(T, C, H, W)`` in a sample and ``(B, T, C, H, W)`` in a batch.
        dates: days since 1970-01-01 as int64, ``(T,)`` or ``(B, T)``.
        valid: True where a date was observed, False where it only pads, ``(T,)`` or ``(B, T)``.
    """

    values: Tensor
    dates: Tensor
    valid: Tensor


class Placement(TypedDict):
    """Where predictions belong on the ground.

    Attributes:
        source: path of the georeferenced raster that defines the output grid, one per sample.
        window: ``(B, 4)`` int64: first row, first column, height and width in that raster, pixels.
        shape: ``(B, 2)`` int64: rows and columns of the prediction, the same for a whole batch;
            more than the window's where it sticks out of the raster to the right or the bottom.
        gsd: ``(B,)`` float32: ground sampling distance of that raster, metres.
        stride: ``(B, 2)`` int64: pixels from one window to the next, down and to the right.
    """

    source: list[str]
    window: Tensor
    shape: Tensor
    gsd: Tensor
    stride: NotRequired[Tensor]


class Grid(NamedTuple):
    """A grid on the ground around a common centre.

    Attributes:
        rows: number of rows.
        columns: number of columns.
        gsd: ground sampling distance, metres.
    """

    rows: int
    columns: int
    gsd: float


class Batch(TypedDict, total=False):
    """What a data module delivers.

    Attributes:
        inputs: raw values per modality, in the type they were read in: an image ``(B, C, H, W)``,
            a `TimeSeries`, a table ``(B, F)``… Experts scale and normalise them on the device.
        available: ``(B,)`` bool per modality. A missing modality is zeros with False here, never an
            absent key, so that every rank of a distributed run sees the same graph.
        target: ``(B, H, W)`` int64 class indices with `IGNORE_INDEX` where unknown, ``(B,)`` int64
            or ``(B, K)`` float.
        cloud_cover: optional, per modality, fraction of the dates that cloud or snow hides,
            ``(B, 1, h, w)`` float in [0, 1] on that modality's grid.
        offset: optional, per modality, ``(B, 2)`` float: how far (rows, columns) the centre of
            the sample lies from the centre of this modality's array, in its own pixels.
        counted: optional, ``(B,)`` bool: False for a sample that another process counts already.
        sample_id: one name per sample.
        placement: where a prediction belongs on the ground; only when predicting.
    """

    inputs: dict[str, Tensor | TimeSeries]
    available: dict[str, Tensor]
    target: Tensor
    cloud_cover: dict[str, Tensor]
    offset: dict[str, Tensor]
    counted: Tensor
    sample_id: list[str]
    placement: Placement


class Output(NamedTuple):
    """What a model answers.

    Attributes:
        logits: ``(B, K, H, W)`` or ``(B, K)``.
        auxiliary: logits of auxiliary heads, only while training.
        weights: per modality, its share in the decision, ``(B or 1, K or 1, H or 1, W or 1)``, in
            [0, 1]; the shares of all modalities sum to 1. None where a model has no such notion.
        embeddings: per expert ``(B, D)``, and ``fused`` of models that fuse them; None where
            answers do not come from embeddings.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...] = ()
    weights: dict[str, Tensor] | None = None
    embeddings: dict[str, Tensor] | None = None


@dataclass(frozen=True)
class Modality:
    """A named source of data, as a data module delivers it.

    Attributes:
        bands: band names in the order of the channel axis.
        gsd: ground sampling distance, metres per pixel.
        scale: per band, what a raw value is multiplied by to give its physical unit; 1 if empty.
        mean: per band, mean in physical units, as published for the data set; 0 if empty.
        std: per band, standard deviation in physical units; 1 if empty.
        temporal: whether it is a series of images.
        preparation: how samples were made of the raw data, by name and in plain values, e.g.
            ``{"crop_size": 40, "monthly_means": True}``. It travels in checkpoints, so that new
            data can be made the same way; empty where there is nothing to repeat.
    """

    bands: tuple[str, ...]
    gsd: float
    scale: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    temporal: bool = False
    # A plain dict, which `asdict` copies; unhashable, but two of them compare.
    preparation: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        n = len(self.bands)
        for name, default in (("scale", 1.0), ("mean", 0.0), ("std", 1.0)):
            values = tuple(getattr(self, name)) or (default,) * n
            if len(values) != n:
                raise InputError(
                    f"Modality has {n} bands {list(self.bands)} but {len(values)} values of {name}."
                )
            object.__setattr__(self, name, values)  # lists, as checkpoints hold them, included
        object.__setattr__(self, "bands", tuple(self.bands))
        object.__setattr__(self, "preparation", dict(self.preparation))
        if len(set(self.bands)) != n:
            raise InputError(f"Band names must differ, got {list(self.bands)}.")

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
            raise InputError(
                f"{where} wants the bands {list(bands)}, but the data deliver {list(self.bands)}: "
                f"{missing} are missing. Choose bands that both have, or another expert."
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
        )


# Not a dataclass to the outside: jsonargparse would expand a dataclass into separate arguments,
# but a schema is always handed over whole, from the data module to the task.
class Schema:
    """What a data set delivers, typed once and handed from the data module to the model.

    Args:
        modalities: by name.
        classes: class names in index order; empty when the data carry no classes (new rasters).
        colors: ``#rrggbb`` per class, for maps and charts; empty for a default palette.
        gsd: ground sampling distance of a target that is a map, metres.
        scores: for each published convention of the mean IoU, the classes it averages over, e.g.
            ``{"flair2": (the first twelve)}``. The plain mean over all classes is always given.
        target: what the target of a sample says: ``segmentation`` is a class per pixel,
            ``multiclass`` one class per sample, ``multilabel`` any number of classes per sample.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        classes: Sequence[str] = (),
        *,
        colors: Sequence[str] = (),
        gsd: float | None = None,
        scores: Mapping[str, Sequence[str]] | None = None,
        target: Target = "segmentation",
    ) -> None:
        if target not in get_args(Target):
            raise InputError(f"A target is one of {list(get_args(Target))}, got {target!r}.")
        self.target: Target = target
        self.gsd = gsd
        self.modalities = dict(modalities)
        self.classes = tuple(classes)
        self.colors = tuple(colors)
        self.scores = {name: tuple(over) for name, over in (scores or {}).items()}
        if len(set(self.classes)) != len(self.classes):
            raise InputError(f"Class names must differ, got {list(self.classes)}.")
        if self.colors and len(self.colors) != len(self.classes):
            raise InputError(
                f"{len(self.classes)} classes but {len(self.colors)} colours: give one per class."
            )
        for name, over in self.scores.items():
            self.class_indices(over, where=f"the score {name!r}")

    def __repr__(self) -> str:
        return f"Schema(modalities={self.modalities!r}, classes={self.classes!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable dicts inside

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def modality(self, name: str | None, *, where: str) -> tuple[str, Modality]:
        """A modality by name, or the only one.

        Raises:
            InputError: if the name is unknown, or is None and there are several.
        """
        if name is None:
            if len(self.modalities) != 1:
                raise InputError(
                    f"{where} takes one modality, but the data deliver "
                    f"{list(self.modalities)}: name one with `modality:`, or let the data module "
                    "deliver only that one."
                )
            return next(iter(self.modalities.items()))
        if name not in self.modalities:
            raise InputError(
                f"The expert of the modality {name!r} ({where}) finds only {list(self.modalities)} "
                f"in the data. Keep {name!r} among the data's modalities, or name one of those "
                "there with `modality:` if it is to look at that one. A trained model answers "
                f'without {name!r} if the data keep it and say --data.missing "[{name}]".'
            )
        return name, self.modalities[name]

    def only(self, name: str) -> Schema:
        """The schema with one modality left; unchanged if there is none of that name."""
        if name not in self.modalities:
            return self
        return self._with(modalities={name: self.modalities[name]})

    def without_classes(self) -> Schema:
        """The schema for a network that answers features and no classes."""
        return self._with(classes=(), colors=(), scores={})

    def _with(self, **changes: Any) -> Schema:  # noqa: ANN401
        arguments = {
            "modalities": self.modalities,
            "classes": self.classes,
            "colors": self.colors,
            "gsd": self.gsd,
            "scores": self.scores,
            "target": self.target,
        }
        return Schema(**(arguments | changes))

    def class_indices(self, names: Sequence[str | int], *, where: str) -> list[int]:
        """Indices of classes given by name or index.

        Raises:
            InputError: for a name or an index that does not exist; lists those that do.
        """
        return class_indices(names, self.classes, where=where)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts only, so that it may live in a checkpoint."""
        modalities = {}
        for name, modality in self.modalities.items():
            values = asdict(modality)
            modalities[name] = {
                k: list(v) if isinstance(v, tuple) else v for k, v in values.items()
            }
        return {
            "modalities": modalities,
            "classes": list(self.classes),
            "colors": list(self.colors),
            "gsd": self.gsd,
            "scores": {name: list(over) for name, over in self.scores.items()},
            "target": self.target,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schema:
        """The inverse of `to_dict`."""
        modalities = {name: Modality(**fields) for name, fields in values["modalities"].items()}
        return cls(
            modalities,
            values["classes"],
            colors=values.get("colors", ()),
            gsd=values.get("gsd"),
            scores=values.get("scores", {}),
            target=values.get("target", "segmentation"),
        )


def class_indices(names: Sequence[str | int], classes: Sequence[str], *, where: str) -> list[int]:
    """Indices of classes given by name or index.

    Args:
        names: class names, or indices as int or as digits (YAML keys may arrive as text).
        classes: all class names in index order.
        where: what is asking, for the error message.

    Raises:
        InputError: for a name or an index that does not exist; lists those that do.
    """
    indices = []
    for name in names:
        if name in classes:
            indices.append(list(classes).index(str(name)))
        elif str(name).isdigit() and int(name) < len(classes):
            indices.append(int(name))
        else:
            near = get_close_matches(str(name), classes, n=2)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise InputError(
                f"Unknown class {name!r} in {where}.{hint} The classes are {list(classes)}, "
                f"or their indices 0 to {len(classes) - 1}."
            )
    return indices

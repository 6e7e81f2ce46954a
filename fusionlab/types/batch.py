"""The batch contract: what data modules deliver, and what models answer.

Everything here is plain data. A batch is a nested dict of tensors, so that Lightning moves it to
the device and the DataLoader pins it without help; modalities are known by name, never by position.
"""

from __future__ import annotations

from typing import NamedTuple, NotRequired, TypedDict

from torch import Tensor

IGNORE_INDEX = 255
"""Target value of pixels that count neither in a loss nor in a metric."""


class TimeSeries(NamedTuple):
    """A series of images, or of plain values, of one place.

    Attributes:
        values: raw values, ``(T, C, H, W)`` in a sample and ``(B, T, C, H, W)`` in a batch; of
            plain values (weather, a vegetation index) ``(T, C)`` and ``(B, T, C)``, NaN where one
            is missing.
        dates: days since 1970-01-01 as int64, ``(T,)`` or ``(B, T)``.
        valid: True where a date was observed, False where it only pads, ``(T,)`` or ``(B, T)``.
    """

    values: Tensor
    dates: Tensor
    valid: Tensor


Raw = Tensor | TimeSeries | list[str]
"""The raw values of one modality in a batch: images ``(B, C, H, W)``, a `TimeSeries`, a table
``(B, F)``, or texts, which stay as they are until the expert that owns their vocabulary reads them.
"""


class Tokens(NamedTuple):
    """What an expert says of the parts of a sample: patches, words, dates or columns.

    Attributes:
        values: ``(B, N, D)``; zeros where not valid.
        valid: ``(B, N)`` bool: False for what only pads.
        grid: rows and columns of patches that lie on an image, row by row; None for other parts.
    """

    values: Tensor
    valid: Tensor
    grid: tuple[int, int] | None = None


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
        inputs: raw values per modality, in the type they were read in, see `Raw`. Of a table
            ``(B, F)`` float, numbers stand as they are and categories as their index, NaN where a
            cell is empty. Experts scale and normalise them on the device.
        available: ``(B,)`` bool per modality. A missing modality is zeros (texts: empty) with False
            here, never an absent key, so that every rank of a distributed run sees the same graph.
        target: ``(B, H, W)`` int64 class indices with `IGNORE_INDEX` where unknown, ``(B,)`` int64
            or ``(B, K)`` float; of a regression ``(B, V, H, W)`` or ``(B, V)`` float, NaN where
            unknown. Where samples were mixed, soft: float shares of exclusive classes ``(B, K)`` or
            ``(B, K, H, W)``, which sum to 1 over K, and to 0 where unknown.
        cloud_cover: optional, per modality, fraction of the dates that cloud or snow hides,
            ``(B, 1, h, w)`` float in [0, 1] on that modality's grid.
        offset: optional, per modality, ``(B, 2)`` float: how far (rows, columns) the centre of
            the sample lies from the centre of this modality's array, in its own pixels.
        place: optional, ``(B,)`` int64: samples of one number show the same place, so none is a
            negative example for another in contrastive learning.
        counted: optional, ``(B,)`` bool: False for a sample that another process counts already.
        sample_id: one name per sample.
        placement: where a prediction belongs on the ground; only when predicting.
    """

    inputs: dict[str, Raw]
    available: dict[str, Tensor]
    target: Tensor
    cloud_cover: dict[str, Tensor]
    offset: dict[str, Tensor]
    place: Tensor
    counted: Tensor
    sample_id: list[str]
    placement: Placement


class Auxiliary(NamedTuple):
    """What an auxiliary head answers.

    Attributes:
        name: that its loss is logged under; empty for none.
        logits: as those of an `Output`.
        weight: of its loss; None for the task's own.
    """

    name: str
    logits: Tensor
    weight: float | None = None


class Output(NamedTuple):
    """What a model answers.

    Attributes:
        logits: ``(B, K, H, W)`` or ``(B, K)``; of a regression, values in the variables' units.
        auxiliary: answers of auxiliary heads, only while training.
        weights: per modality, its share in the decision, ``(B or 1, K or 1, H or 1, W or 1)``, in
            [0, 1]; the shares of all modalities sum to 1. None where a model has no such notion.
        embeddings: per expert ``(B, D)``, and ``fused`` of models that fuse them; None where
            answers do not come from embeddings.
        attention: of models that fuse by cross-attention, per pair ``(asking, asked)`` of experts
            ``(B, N, M)`` in [0, 1], how much each token of the first looks at each of the second
            (the mean over heads); rows sum to 1, or to 0 where the one asked is missing.
    """

    logits: Tensor
    auxiliary: tuple[Auxiliary, ...] = ()
    weights: dict[str, Tensor] | None = None
    embeddings: dict[str, Tensor] | None = None
    attention: dict[tuple[str, str], Tensor] | None = None


def kind_of(values: Raw) -> str:
    """What raw values are, in words for error messages."""
    if isinstance(values, TimeSeries):
        return f"a time series {tuple(values.values.shape)}"
    return f"a tensor {tuple(values.shape)}" if isinstance(values, Tensor) else "texts"

"""A network composed of a backbone, necks, a decoder and heads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionlab.features import Feature
from fusionlab.heads import Head
from fusionlab.necks import Neck
from fusionlab.padding import pad_to_multiple

Stage = Literal["backbone", "necks", "decoder"]
"""Where features may be taken from: behind which of the parts."""


class AuxiliaryDecoder(nn.Module):
    """A second opinion on the same features, whose loss helps to train those before it.

    Args:
        decoder: of the features that the main decoder gets; None for the last of them as it is.
        head: None where the decoder answers logits itself.
        weight: of its loss; None for the task's own.
    """

    def __init__(
        self, decoder: nn.Module | None, head: nn.Module | None, *, weight: float | None = None
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = head
        self.weight = weight

    def forward(self, features: list[Tensor]) -> Tensor:
        """Logits on the grid that decoder and head give."""
        decoded: Tensor = features[-1] if self.decoder is None else self.decoder(list(features))
        return decoded if self.head is None else self.head(decoded)


class Answer(NamedTuple):
    """What a composed network says of images.

    Attributes:
        logits: ``(B, K, H, W)``, or ``(B, K)`` of whole samples; values where it regresses.
        auxiliary: the same from auxiliary decoders, by name; only while training.
        features: what the head decided from: a map ``(B, C, h, w)``, or whatever the last part
            before the head gives.
    """

    logits: Tensor
    auxiliary: dict[str, Tensor]
    features: Tensor


class EncoderDecoderNetwork(nn.Module):
    """Images in, logits out; see `build_model`, which puts such networks together.

    Images are padded at the bottom and the right, by reflection, so that every grid inside divides
    exactly, and what comes out is cut to where the image was. A backbone for images of one size
    gets them resized to it.

    Args:
        backbone: images ``(B, bands, H, W)`` to a list of tensors.
        necks: one after another.
        decoder: a list of maps to one map; None to decide from the last of what the necks give.
        head: None where the decoder answers logits itself, or where only features are wanted.
        auxiliary: further decoders over what the necks give, by name; they answer in training.
        encoded: what the backbone gives.
        features: what the necks make of it.
        multiple: image sides are padded to multiples of this.
        pixelwise: whether it answers for every pixel.
        rescale: whether answers for pixels are resized to the images (bilinear).

    Attributes:
        answer_stride: pixels of the image per pixel of the answer; 1 where it is resized.
    """

    answer_stride: float = 1.0

    def __init__(
        self,
        backbone: nn.Module,
        necks: Sequence[Neck],
        decoder: nn.Module | None,
        head: Head | nn.Module | None,
        auxiliary: Mapping[str, AuxiliaryDecoder] | None = None,
        *,
        encoded: Sequence[Feature],
        features: Sequence[Feature],
        multiple: int,
        pixelwise: bool,
        rescale: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.necks = nn.ModuleList(necks)
        self.decoder = decoder
        self.head = head
        self.auxiliary = nn.ModuleDict(dict(auxiliary or {}))
        self.encoded = tuple(encoded)
        self.features = tuple(features)
        self.multiple = multiple
        self.pixelwise = pixelwise
        self.rescale = rescale

    def forward(self, images: Tensor, *series: Tensor) -> Tensor:
        """Logits of normalised images ``(B, bands, H, W)``; arguments as of `answer`."""
        return self.answer(images, *series).logits

    def answer(self, images: Tensor, *series: Tensor) -> Answer:
        """Logits, those of auxiliary decoders while training, and features.

        Args:
            images: normalised, ``(B, bands, H, W)``; of a series ``(B, T, bands, H, W)``.
            series: of a series ``dates`` and ``valid``, ``(B, T)``, as `PooledDates` takes them.
        """
        padded = self.prepared(images)
        return self.decide(self.encode(padded, *series), sides(images), sides(padded))

    def prepared(self, images: Tensor) -> Tensor:
        """Images ``(..., H, W)`` of sides that the backbone takes."""
        wanted: tuple[int, int] | None = getattr(self.backbone, "size", None)
        if wanted is None:
            return pad_to_multiple(images, self.multiple)
        if sides(images) == tuple(wanted):
            return images
        flat = images.flatten(0, -4)
        resized = F.interpolate(flat, wanted, mode="bilinear", antialias=True)
        return resized.view(*images.shape[:-2], *wanted)

    def encode(self, images: Tensor, *series: Tensor) -> list[Tensor]:
        """Features of prepared images, behind the necks; arguments as of `answer`."""
        return self.through_necks(self.backbone(images, *series), sides(images))

    def through_necks(self, features: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """What the necks make of what the backbone gave for prepared images of a size."""
        for neck in self.necks:
            features = neck(features, size)
        return list(features)

    def features_at(self, stage: Stage, index: int, images: Tensor, *series: Tensor) -> Tensor:
        """Features of prepared images behind one of the parts.

        Args:
            stage: behind which; the necks where there is no decoder.
            index: which of several.
            images: as of `encode`, like `series`.
            series: of a series.
        """
        if stage == "backbone":
            found: Tensor = self.backbone(images, *series)[index]
            return found
        encoded = self.encode(images, *series)
        if stage == "decoder" and self.decoder is not None:
            decoded: Tensor = self.decoder(encoded)
            return decoded
        return encoded[index]

    def decide(
        self, features: list[Tensor], size: tuple[int, int], padded: tuple[int, int]
    ) -> Answer:
        """From features to logits.

        Args:
            features: behind the necks.
            size: of the images.
            padded: of the images as the backbone saw them.
        """
        decoded: Tensor = features[-1] if self.decoder is None else self.decoder(list(features))
        logits: Tensor = decoded if self.head is None else self.head(decoded)
        auxiliary = {}
        if self.training:
            for name, decoder in self.auxiliary.items():
                auxiliary[name] = self.on_image(decoder(features), size, padded)
        return Answer(self.on_image(logits, size, padded), auxiliary, decoded)

    def weight(self, name: str) -> float | None:
        """Weight of the loss of an auxiliary decoder; None for the task's own."""
        decoder = self.auxiliary[name]
        assert isinstance(decoder, AuxiliaryDecoder)
        return decoder.weight

    def on_image(self, maps: Tensor, size: tuple[int, int], padded: tuple[int, int]) -> Tensor:
        """An answer for padded images, resized and cut to the images; those of samples as is."""
        if not self.pixelwise:
            return maps
        resized = getattr(self.backbone, "size", None) is not None
        if self.rescale:
            full = size if resized else padded
            if tuple(maps.shape[-2:]) != full:
                maps = F.interpolate(maps, full, mode="bilinear", align_corners=False)
            return maps[..., : size[0], : size[1]]
        return centred(maps, size, padded)


def sides(images: Tensor) -> tuple[int, int]:
    """Rows and columns."""
    return images.shape[-2], images.shape[-1]


def covering(maps: Tensor, size: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """Maps of padded images, resampled so that they cover the images alone, cell for cell.

    Args:
        maps: ``(B, C, h, w)`` over the padded images.
        size: rows and columns of the images, at the top left of the padded ones.
        padded: rows and columns of these.

    Returns:
        ``(B, C, h', w')`` with cells of about the same size; the same maps if nothing was padded.
    """
    if size == padded:
        return maps
    cells = [max(round(n * inside / whole), 1)
             for n, inside, whole in zip(maps.shape[-2:], size, padded, strict=True)]  # fmt: skip
    axes = []
    for count, inside, whole in zip(cells, size, padded, strict=True):
        step = torch.arange(count, device=maps.device, dtype=torch.float32) + 0.5
        axes.append(2 * step / count * (inside / whole) - 1)
    return _sampled(maps, *axes)


def _sampled(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Maps at positions of rows and columns in -1..1 over all of them."""
    where = torch.stack(
        [columns.expand(len(rows), -1), rows[:, None].expand(-1, len(columns))], dim=-1
    )
    grid = where.expand(len(maps), -1, -1, -1)
    sampled = F.grid_sample(
        maps.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled.to(maps.dtype)


def centred(maps: Tensor, size: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """Maps of padded images, cut to as many whole cells as fit the images, around their centre.

    Args:
        maps: ``(B, C, h, w)`` over the padded images.
        size: rows and columns of the images, at the top left of the padded ones.
        padded: rows and columns of these.

    Returns:
        ``(B, C, h', w')`` with cells of exactly the same size, one at least; the same maps if
        nothing was padded.
    """
    if size == padded:
        return maps
    axes = []
    for cells, inside, whole in zip(maps.shape[-2:], size, padded, strict=True):
        stride = whole / cells
        count = max(int(inside / stride + 1e-6), 1)
        step = torch.arange(count, device=maps.device, dtype=torch.float32) + 0.5 - count / 2
        axes.append(2 * (inside / 2 + step * stride) / whole - 1)
    return _sampled(maps, *axes)


def smallest_multiple(multiple: int, features: Sequence[Feature]) -> int:
    """What image sides must be multiples of, for a backbone and what its necks make of it."""
    strides = [round(f.stride) for f in features if f.stride is not None and f.stride >= 1]
    return math.lcm(multiple, *strides)

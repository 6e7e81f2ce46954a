"""A composed network's first pass: what cannot work must not be found out in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionlab.backbones.dates import PooledDates
from fusionlab.backbones.probe import find_shapes, first_used, side_of_least
from fusionlab.encoder_decoder import EncoderDecoderNetwork, Stage, sides
from fusionlab.errors import InputError


def try_out(network: EncoderDecoderNetwork, bands: int, answers: int) -> None:
    """One pass over empty images, auxiliary decoders included.

    The images are small, or of the only size that a part takes; where nobody knows that size,
    nothing is tried. Also finds the stride of an answer that is not resized, and takes the gradient
    from parameters on which no answer depends (layers of a backbone behind the last map that is
    looked at): several processes that train together would wait for it.

    Args:
        network: as put together.
        bands: number of input channels.
        answers: number of classes or variables; 0 for a network that gives features only.

    Raises:
        InputError: if the parts do not work together, or answer something else than is wanted.
    """
    tried = _Everything(network, by_dates=True)
    size: tuple[int, int] | None = _usual_size(network)
    names = ["", *(f"aux_decoders.{name}: " for name in network.auxiliary)]
    try:
        size = trial_size(network, bands)
        if size is None:
            return
        shapes = find_shapes(tried, bands, size)
    except InputError:
        raise
    except Exception as error:  # parts of third parties may fail in any way
        parts = [network.backbone, *network.necks, network.decoder, network.head]
        listed = " → ".join(type(part).__name__ for part in parts if part is not None)
        size = size or _usual_size(network)
        beside = f", with auxiliary decoders {list(network.auxiliary)}" if len(names) > 1 else ""
        raise InputError(
            f"{listed}{beside}: these parts do not work together: an image of {size[0]} x "
            f"{size[1]} pixels fails with {type(error).__name__}: {str(error)[:300]}. Choose "
            "others, or put a neck between them."
        ) from error
    if answers:
        for name, shape in zip(names, shapes, strict=True):
            _check_shape(shape[1:], answers, where=name, pixelwise=network.pixelwise)
        if network.pixelwise:
            network.answer_stride = size[0] / shapes[0][2]
    _freeze_unused(_Everything(network, by_dates=False), bands)


def freeze_behind(network: EncoderDecoderNetwork, bands: int, stage: Stage, index: int) -> None:
    """Takes the gradient from parameters on which the features at a stage do not depend.

    Args:
        network: as put together.
        bands: number of input channels.
        stage: behind which of its parts.
        index: which of several features.
    """
    _freeze_unused(_AtStage(network, stage, index), bands)


def _freeze_unused(asked: _Asked, bands: int) -> None:
    size = trial_size(asked.network, bands)
    if size is None:
        return
    used = first_used(asked, bands, size)
    pooling: list[nn.Parameter] = []
    if isinstance(backbone := asked.network.backbone, PooledDates):
        pooling = list(backbone.queries.parameters())  # not asked for, see `_Asked`
        for index, query in enumerate(backbone.queries):
            query.requires_grad_(f"looked_at.{index}" in used)
    of_dates = {id(parameter) for parameter in pooling}
    for name, parameter in asked.network.named_parameters():
        if f"network.{name}" not in used and id(parameter) not in of_dates:
            parameter.requires_grad_(False)


def trial_size(network: EncoderDecoderNetwork, bands: int) -> tuple[int, int] | None:
    """Rows and columns of an image that a network takes for certain.

    Small ones, or the only size that a part takes that flattens maps. None where nobody knows it,
    because nobody knows the stride of that map: then nothing can be tried.
    """
    for neck in network.necks:
        if hasattr(neck, "image_size"):  # flattens a map
            found: tuple[int, int] | None = neck.image_size  # type: ignore[assignment]
            return found
    usual = _usual_size(network)
    map_size = getattr(network.head, "map_size", None)
    if map_size is None:
        return usual
    stride = network.features[-1].stride
    if network.decoder is not None:
        (shape,) = find_shapes(_AtStage(network, "decoder", -1), bands, usual)
        stride = usual[0] / shape[-2] if len(shape) == 4 else None
    return None if stride is None else (round(map_size[0] * stride), round(map_size[1] * stride))


def _usual_size(network: EncoderDecoderNetwork) -> tuple[int, int]:
    backbone = network.backbone
    inner = backbone.backbone if isinstance(backbone, PooledDates) else backbone
    only: tuple[int, int] | None = getattr(inner, "size", None)
    side = side_of_least(network.multiple)
    return only or (side, side)


def _check_shape(shape: tuple[int, ...], answers: int, *, where: str, pixelwise: bool) -> None:
    if not pixelwise:
        if shape != (answers,):
            raise InputError(
                f"{where}The network answers {shape} for an image, but an answer for the whole "
                f"sample has the shape ({answers},). Choose a decoder or head for whole samples."
            )
        return
    if len(shape) != 3:
        raise InputError(
            f"{where}The network answers {shape} for an image, but an answer for every pixel has "
            f"the shape ({answers}, rows, columns). Choose a decoder or head that gives maps."
        )
    if shape[0] != answers:
        raise InputError(
            f"{where}The network answers {shape[0]} channels, but {answers} are wanted. Give a "
            "decoder or head for so many."
        )


class _Asked(nn.Module):
    """A network as it is asked in a trial, always for images.

    Args:
        network: as put together.
        by_dates: whether a network for series gets each image as a series of one date; otherwise
            dates are not pooled at all, which can be followed without any values.
    """

    def __init__(self, network: EncoderDecoderNetwork, *, by_dates: bool = False) -> None:
        super().__init__()
        self.network = network
        self.by_dates = by_dates
        self.looked_at = nn.ParameterList(torch.ones(()) for _ in network.encoded)

    @property
    def inner(self) -> nn.Module | None:
        """The backbone for single images of a network for series."""
        backbone = self.network.backbone
        return backbone.backbone if isinstance(backbone, PooledDates) else None

    def backbone_features(self, images: Tensor) -> list[Tensor]:
        """What the backbone gives for prepared images."""
        features: list[Tensor]
        if self.inner is None:
            features = self.network.backbone(images)
        elif self.by_dates:
            dates = torch.zeros(len(images), 1, dtype=torch.long, device=images.device)
            valid = torch.ones_like(dates, dtype=torch.bool)
            features = self.network.backbone(images[:, None], dates, valid)
        else:
            features = self.inner(images)
        # Which of them matter is seen by the gradients of these factors.
        return [one * factor for one, factor in zip(features, self.looked_at, strict=True)]


class _Everything(_Asked):
    """All answers of a network: the logits, then those of auxiliary decoders."""

    def forward(self, images: Tensor) -> list[Tensor]:
        network = self.network
        padded = network.prepared(images)
        features = network.through_necks(self.backbone_features(padded), sides(padded))
        found = network.decide(features, sides(images), sides(padded))
        others = [
            network.on_image(decoder(features), sides(images), sides(padded))
            for decoder in network.auxiliary.values()
        ]
        return [found.logits, *others]


class _AtStage(_Asked):
    """The features of a network behind one of its parts."""

    def __init__(self, network: EncoderDecoderNetwork, stage: Stage, index: int) -> None:
        super().__init__(network)
        self.stage = stage
        self.index = index

    def forward(self, images: Tensor) -> list[Tensor]:
        network = self.network
        padded = network.prepared(images)
        encoded = self.backbone_features(padded)
        if self.stage == "backbone":
            return [encoded[self.index]]
        features = network.through_necks(encoded, sides(padded))
        if self.stage == "decoder" and network.decoder is not None:
            return [network.decoder(features)]
        return [features[self.index]]

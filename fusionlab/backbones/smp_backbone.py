"""Encoders of segmentation-models-pytorch as backbones: Mix Transformers (SegFormer) and CNNs.

Their names and weights are listed at https://smp.readthedocs.io/en/latest/encoders.html. Where
timm has a network too, `TimmBackbone` offers more; Mix Transformers are here only.
"""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from segmentation_models_pytorch import encoders as smp
from torch import Tensor

from fusionlab.backbones.base import ImageBackbone
from fusionlab.backbones.hub_weights import HUB_FILES, hub_file
from fusionlab.backbones.probe import find_shapes, first_used, side_of_least
from fusionlab.checkpoints import read_checkpoint
from fusionlab.errors import InputError
from fusionlab.features import Feature

_DEEPEST = 5


class SmpBackbone(ImageBackbone):
    """An encoder of segmentation-models-pytorch, as a list of feature maps.

    One map per stage. The image itself and the empty map, which these encoders put into their list
    where they have nothing at a stride, are left out.

    Args:
        bands: number of input channels.
        name: an encoder, e.g. ``mit_b0``, ``resnet34``, ``mobileone_s0``. Those that the library
            calls ``tu-…`` are timm's: use `TimmBackbone`.
        weights: none for random weights; the name of published ones, e.g. ``imagenet``, kept in the
            Hugging Face cache, which is asked first; or the path of a local file. First layers made
            for three channels are adapted to other numbers of bands by repetition.
        depth: number of stages, 1 to 5; the last has the stride ``2 ** depth``.
        output_stride: 32; 16 or 8 has the last stages dilated instead of coarser, where the encoder
            can do this.
        frozen: whether it stays as it is: no gradient, no drift of statistics.
        restored: set where a checkpoint holds the weights: then `weights` is not asked again.

    Attributes:
        encoder: the encoder of the library.

    Raises:
        InputError: if the encoder is unknown or does not support what it is asked for, or if
            weights cannot be had or do not fit.
    """

    def __init__(
        self,
        bands: int,
        *,
        name: str,
        weights: str | None = None,
        depth: int = 5,
        output_stride: int = 32,
        frozen: bool = False,
        restored: bool = False,
    ) -> None:
        super().__init__(frozen=frozen)
        self.name = name
        self.trained = weights is not None
        known = smp.get_encoder_names()
        if name not in known:
            raise InputError(_unknown(name, known))
        if not 1 <= depth <= _DEEPEST:
            raise InputError(f"SmpBackbone has 1 to {_DEEPEST} stages, got depth {depth}.")
        self.encoder = _create(name, depth, output_stride)
        if weights is not None and not restored:
            _load(self.encoder, name, weights)
        self.encoder.set_in_channels(bands, pretrained=self.trained)
        self.kept: tuple[int, ...] | None = None
        self._describe(bands)
        if frozen:
            self.freeze()

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def _describe(self, bands: int) -> None:
        """Finds what comes out, by passes without values."""
        multiple = int(self.encoder.output_stride)
        side = side_of_least(multiple)
        height, width = side, side + 2 * multiple
        shapes = find_shapes(self, bands, (height, width))
        image = (bands, height, width)
        self.kept = tuple(
            index
            for index, (channels, *grid) in enumerate(shape[1:] for shape in shapes)
            if channels and not (index == 0 and (channels, *grid) == image)
        )
        features = []
        for index in self.kept:
            channels, rows, columns = shapes[index][1:]
            if height % rows or height * columns != width * rows:
                raise InputError(
                    f"The encoder {self.name!r} gives a map of {rows} x {columns} cells for images "
                    f"of {height} x {width} pixels, which no stride explains. Choose another."
                )
            features.append(Feature(channels, height // rows))
        if not features:
            raise InputError(
                f"The encoder {self.name!r} gives no map in its first stages. Say a larger `depth`."
            )
        self.features, self.multiple = tuple(features), multiple
        self._layers = first_used(self, bands, (height, width))
        for name, parameter in self.named_parameters():
            if name not in self._layers:  # stages that are not asked for
                parameter.requires_grad_(False)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Maps ``(B, C, h, w)`` of images whose sides fit, finest first."""
        answer: list[Tensor] = self.encoder(images)
        return answer if self.kept is None else [answer[index] for index in self.kept]

    def parameter_layers(self) -> dict[str, int]:
        """Per parameter name, the number of its stage: of the first map that depends on it."""
        last = len(self.features) - 1
        return {name: self._layers.get(name, last) for name, _ in self.named_parameters()}


def _unknown(name: str, known: list[str]) -> str:
    if name.startswith("tu-"):
        return (
            f"The encoder {name!r} is one of timm's: use TimmBackbone with the name "
            f"{name.removeprefix('tu-')!r}."
        )
    near = get_close_matches(name, known, n=5)
    hint = f"; similar names: {near}" if near else ""
    return f"segmentation-models-pytorch has no encoder {name!r}{hint}. It has {known}."


def _create(name: str, depth: int, output_stride: int) -> Any:  # noqa: ANN401  # smp is untyped
    """The encoder for three channels, which is what its weights are made for."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # their names, which users see here
            return smp.get_encoder(name, depth=depth, output_stride=output_stride, weights=None)
    except (NotImplementedError, ValueError) as error:
        raise InputError(
            f"The encoder {name!r} cannot have depth {depth} and output_stride {output_stride} "
            f"({error}). Say `depth: 5` and `output_stride: 32`, or choose another."
        ) from error


def _load(encoder: Any, name: str, weights: str) -> None:  # noqa: ANN401
    """Loads published weights, or a file."""
    published = smp.encoders[name].get("pretrained_settings") or {}
    if weights in published:
        source = published[weights]
        path = hub_file(
            f"{source['repo_id']}@{source['revision']}",
            HUB_FILES[:1],
            what=f"The weights {weights!r} of {name!r}",
            without="weights: null",
        )
    elif Path(weights).is_file():
        path = weights
    else:
        raise InputError(
            f"The encoder {name!r} has no weights named {weights!r}, nor is there such a file. It "
            f"has {list(published) or 'none'}. Leave `weights` out for random ones."
        )
    state_dict = read_checkpoint(path).state_dict
    try:
        encoder.load_state_dict(dict(state_dict))
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"The weights in {path} are not those of the encoder {name!r} ({str(error)[:400]}). Is "
            "it a file of another architecture?"
        ) from error

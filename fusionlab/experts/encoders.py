"""Image encoders from timm: feature pyramids for any number of bands, weights only on request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fusionlab.checkpoints import load_weights, read_checkpoint
from fusionlab.component import Backbone
from fusionlab.errors import InputError
from fusionlab.experts.hub_weights import first_convolutions, model_config, timm_weights, widen
from fusionlab.experts.timm_layers import parameter_layers

STRIDES = (4, 8, 16, 32)
"""Strides of the four feature maps, finest first."""

_ADVICE = (
    "Choose a convolutional or hierarchical encoder such as 'resnet18', 'resnet50' or "
    "'convnext_tiny'"
)
_CANNOT = (TypeError, AttributeError, AssertionError, IndexError, RuntimeError, ValueError)
"""How timm's models say that they do not support an option."""


class Pyramid(Backbone):
    """Feature maps of an image at strides 4, 8, 16 and 32.

    Args:
        name: a timm model, e.g. ``resnet18``, ``convnext_tiny``, ``swin_tiny_patch4_window7_224``;
            a suffix names particular weights (``resnet18.a1_in1k``).
        bands: number of input channels.
        pretrained: False for random weights; True for those that timm's hub has under this name
            (kept in the Hugging Face cache, which is asked first); or the path of a local file.
            Weights made for three channels are adapted to `bands` by repetition, as timm does.

    Attributes:
        channels: of the four maps, finest first.

    Raises:
        InputError: if the encoder is unknown or has no such four maps, or if weights cannot be had.
    """

    def __init__(self, name: str, *, bands: int, pretrained: bool | str = False) -> None:
        super().__init__()
        config = model_config(name, advice=_ADVICE)
        body = _create(name, bands, config)
        if pretrained is True:
            # As a file, because timm would ask the hub whether there is a newer one.
            overlay = {"file": timm_weights(name, config)}
            body = _create(name, bands, config, pretrained=True, pretrained_cfg_overlay=overlay)
        elif pretrained:
            _load_file(body, str(pretrained), config=config, bands=bands)
        self.name = name
        self.body = body
        self.channels: tuple[int, ...] = tuple(body.feature_info.channels())
        self.channels_last = getattr(body, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        """``(B, bands, H, W)``, sizes divisible by 32, to four maps ``(B, channels, h, w)``."""
        features: list[Tensor] = self.body(images)
        if self.channels_last:
            return [feature.permute(0, 3, 1, 2) for feature in features]
        return features

    def parameter_layers(self) -> dict[str, int]:
        """Per parameter name, the number of its layer, 0 next to the input, as timm counts them."""
        # timm counts in whole models; random numbers must not depend on whether one was built.
        with torch.random.fork_rng(devices=[]):
            layers = parameter_layers(timm.create_model(self.name, num_classes=0))
        own = _by_flat_name(name for name, _ in self.body.named_parameters())
        return {f"body.{own[k]}": layers[n] for k, n in _by_flat_name(layers).items() if k in own}


def _create(name: str, bands: int, config: Any, **options: Any) -> Any:  # noqa: ANN401
    """The encoder, with a message that helps where it cannot be used."""
    options |= {"features_only": True, "out_indices": (-4, -3, -2, -1), "in_chans": bands}
    fixed_size = config is not None and config.fixed_input_size
    if fixed_size:
        # Swin and its kin check the size of their input unless told that it varies.
        options["strict_img_size"] = False
    try:
        encoder: Any = timm.create_model(name, **options)
        strides = tuple(encoder.feature_info.reduction())
    except _CANNOT as error:
        one_size = fixed_size and isinstance(error, TypeError)
        reason = "it takes images of one size only" if one_size else str(error)
        raise InputError(
            f"The encoder {name!r} cannot give four feature maps (strides {list(STRIDES)}) for "
            f"images of any size with {bands} bands: {reason}. Choose one that can, such as "
            "'resnet18', 'convnext_tiny' or 'swin_tiny_patch4_window7_224'."
        ) from error
    if strides != STRIDES:
        raise InputError(
            f"The encoder {name!r} gives feature maps at strides {list(strides)}, but four maps at "
            f"strides {list(STRIDES)} are needed. Choose a convolutional or hierarchical encoder, "
            "such as 'resnet18', 'convnext_tiny' or 'swin_tiny_patch4_window7_224'."
        )
    return encoder


def _load_file(encoder: nn.Module, path: str, *, config: Any, bands: int) -> None:  # noqa: ANN401
    """Loads timm weights from a file: all of the encoder's, whatever else the file holds."""
    weights = read_checkpoint(path).state_dict
    own = encoder.state_dict()
    names = _by_flat_name(own)
    found = {names[k]: weights[key] for k, key in _by_flat_name(weights).items() if k in names}
    for layer in first_convolutions(config):
        key = names.get(_flat(f"{layer}.weight"))
        if key in found:
            found[key] = widen(found[key], own[key], bands)
    load_weights(encoder, found or weights, where=path)


def _flat(name: str) -> str:
    """The feature extractors of timm write "stem_0" where the whole model has "stem.0"."""
    return name.replace(".", "_")


def _by_flat_name(names: Iterable[str]) -> dict[str, str]:
    return {_flat(name): name for name in names}

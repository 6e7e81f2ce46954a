"""Image encoders from timm: feature pyramids for any number of bands, weights only on request."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from typing import Any

import timm
from huggingface_hub import constants, get_session, try_to_load_from_cache
from timm.models import adapt_input_conv
from torch import Tensor, nn

from fusionlab.checkpoints import load_weights, read_checkpoint
from fusionlab.errors import InputError

STRIDES = (4, 8, 16, 32)
"""Strides of the four feature maps, finest first."""

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_HUB_TIMEOUT = 10.0  # seconds
_CANNOT = (TypeError, AttributeError, AssertionError, IndexError, RuntimeError, ValueError)
"""How timm's models say that they do not support an option."""


class Pyramid(nn.Module):
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
        body = _create(name, bands)
        if pretrained is True:
            body = _create_pretrained(name, bands)
        elif pretrained:
            _load_file(body, str(pretrained), name=name, bands=bands)
        self.body = body
        self.channels: tuple[int, ...] = tuple(body.feature_info.channels())
        self.channels_last = getattr(body, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        """``(B, bands, H, W)``, sizes divisible by 32, to four maps ``(B, channels, h, w)``."""
        features: list[Tensor] = self.body(images)
        if self.channels_last:
            return [feature.permute(0, 3, 1, 2) for feature in features]
        return features


def _create(name: str, bands: int, **options: Any) -> Any:  # noqa: ANN401  # timm is untyped
    """The encoder, with a message that helps where it cannot be used."""
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=5)
        raise InputError(
            f"timm has no model {name!r}"
            + (f"; similar names: {similar}" if similar else "")
            + ". Choose a convolutional or hierarchical encoder such as 'resnet18', 'resnet50' or "
            "'convnext_tiny' (`timm.list_models()` lists all)."
        )
    config = _config(name)
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


def _config(name: str) -> Any:  # noqa: ANN401
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = timm.list_pretrained(name.split(".")[0] + ".*")
        raise InputError(f"timm has no weights named {name!r}. It has {known}.") from error


def _create_pretrained(name: str, bands: int) -> Any:  # noqa: ANN401
    config = _config(name)
    if config is None or not config.has_weights:
        raise InputError(
            f"timm publishes no weights for {name!r}. Say `pretrained: false`, or give the path of "
            "a weights file."
        )
    if "nc" in (config.license or "").lower().split("-"):
        warnings.warn(
            f"The weights of {name!r} are licensed {config.license}: no commercial use, and what "
            "is trained from them inherits that.",
            stacklevel=4,
        )
    source = config.hf_hub_id or config.url
    cached = _cached(config.hf_hub_id, config.hf_hub_filename)
    if cached is not None:
        # Handed over as a file, because timm would ask the hub whether there is a newer one.
        return _create(name, bands, pretrained=True, pretrained_cfg_overlay={"file": cached})
    try:
        if config.hf_hub_id:
            # huggingface_hub repeats every request for most of a minute before it gives up.
            get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT)
        return _create(name, bands, pretrained=True)
    except Exception as error:  # the HTTP libraries involved share no class of errors
        raise InputError(
            f"The weights of {name!r} are not in the local cache ({constants.HF_HUB_CACHE}), and "
            f"getting {source} from {constants.ENDPOINT} failed: the hub could not be reached "
            f"({type(error).__name__}: {error}). Say `pretrained: false` to start from random "
            "weights, give the path of a local file (`pretrained: /path/weights.safetensors`), or "
            "fill the cache on a machine with a connection "
            f"(`hf download {source}`) and copy it here."
        ) from error


def _cached(repository: str | None, filename: str | None) -> str | None:
    """Path of weights in the local Hugging Face cache, if they are there."""
    if not repository:
        return None
    name, _, revision = repository.partition("@")
    for file in (filename,) if filename else _HUB_FILES:
        path = try_to_load_from_cache(name, file, revision=revision or None)
        if isinstance(path, str):
            return path
    return None


def _load_file(encoder: nn.Module, path: str, *, name: str, bands: int) -> None:
    """Loads timm weights from a file: all of the encoder's, whatever else the file holds."""
    weights = read_checkpoint(path).state_dict
    own = encoder.state_dict()
    # timm's feature extractors write "stem_0" where the whole model has "stem.0".
    names = {key.replace(".", "_"): key for key in own}
    found = {names[k]: v for key, v in weights.items() if (k := key.replace(".", "_")) in names}
    config = _config(name)
    first = (config.first_conv if config is not None else None) or ()
    for layer in (first,) if isinstance(first, str) else first:
        key = names.get(f"{layer}.weight".replace(".", "_"))
        if key in found and found[key].shape[1] == 3 and own[key].shape[1] != 3:
            found[key] = adapt_input_conv(bands, found[key])
    load_weights(encoder, found or weights, where=path)

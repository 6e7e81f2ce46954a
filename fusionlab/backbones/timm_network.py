"""Image networks of timm: made for any size of image, filled from a file, counted in layers."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import timm
from timm.models._manipulate import group_with_matcher
from timm.optim._param_groups import auto_group_layers
from torch import Tensor

from fusionlab.backbones.hub_weights import first_convolutions, timm_weights, widen
from fusionlab.checkpoints import load_weights, read_checkpoint
from fusionlab.errors import InputError

CANNOT = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""How timm's models say that they do not support something."""


class Classifier(NamedTuple):
    """The linear classifier of a weights file.

    Attributes:
        weight: ``(K, D)``.
        bias: ``(K,)``.
        where: the file.
    """

    weight: Tensor
    bias: Tensor
    where: str


def reason(error: Exception) -> str:
    """What went wrong inside timm, short enough for a message."""
    return f"{type(error).__name__}: {str(error)[:160]}"


def create_network(name: str, bands: int, image_size: int | None, **wishes: float) -> Any:  # noqa: ANN401  # timm is untyped
    """A network without a classifier, for images of any size wherever it can take them.

    Args:
        name: a timm model.
        bands: number of input channels.
        image_size: side in pixels of the images it is made for; its own if not given.
        wishes: options of the network that count only if not 0, such as ``drop_rate``.

    Raises:
        InputError: if it does not support what it is asked for.
    """
    options: dict[str, Any] = {
        "dynamic_img_size": True,
        "dynamic_img_pad": True,
        "strict_img_size": False,
        **{name: wish for name, wish in wishes.items() if wish},
    }
    if image_size is not None:
        options["img_size"] = image_size
    while True:
        try:
            network: Any = timm.create_model(name, in_chans=bands, num_classes=0, **options)
        except CANNOT as error:
            refused = [option for option in options if f"'{option}'" in str(error)]
            unsupported = [option for option in refused if option in wishes]
            if unsupported:
                raise InputError(
                    f"{name!r} has no {unsupported[0]}. Leave it out, or choose another backbone."
                ) from error
            if not refused or not isinstance(error, TypeError):
                raise InputError(
                    f"timm's {name!r} cannot be used with {bands} bands"
                    + (f" and image_size {image_size}" if image_size else "")
                    + f" ({reason(error)}). Choose another backbone."
                ) from error
            options = {key: value for key, value in options.items() if key not in refused}
            continue
        if image_size is not None and options.get("dynamic_img_pad"):
            patch = max(network.patch_embed.patch_size)
            if image_size % patch:
                below, above = image_size // patch * patch, -(-image_size // patch) * patch
                raise InputError(
                    f"image_size {image_size} is no multiple of the patches of {name!r}, which are "
                    f"{patch} pixels wide. Say {below or above} or {above}; or leave it out, then "
                    "images are padded."
                )
        return network


def native_size(network: Any) -> int:  # noqa: ANN401
    """Side in pixels of the images that a network was made for."""
    return int(network.pretrained_cfg.get("input_size", (3, 224, 224))[-1])


def fill_network(
    network: Any,  # noqa: ANN401
    pretrained: bool | str,
    *,
    name: str,
    config: Any,  # noqa: ANN401
    bands: int,
) -> Classifier | None:
    """Loads all that a network has from a hub or a file, which may hold a classifier besides.

    Args:
        network: as `create_network` gives it.
        pretrained: False leaves it as it is; True takes timm's weights; or the path of a file.
        name: the timm model.
        config: what `fusionlab.backbones.hub_weights.model_config` says of it.
        bands: number of input channels.

    Returns:
        The classifier of the file, if it is linear.

    Raises:
        InputError: if weights cannot be had or do not fit.
    """
    if not pretrained:
        return None
    path = timm_weights(name, config) if pretrained is True else pretrained
    weights = read_checkpoint(path).state_dict
    prefix = "vision_encoder."  # of ConfigILM, which reBEN's authors train with
    if all(key.startswith(prefix) for key in weights):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    module = importlib.import_module(timm.model_entrypoint(name.split(".")[0]).__module__)
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is not None:
        # What timm does to weights of other origin, or for images of another size.
        try:
            weights = dict(convert(weights, network))
        except CANNOT as error:
            raise InputError(
                f"The weights in {path} are not those of {name!r}, nor can timm convert them "
                f"({reason(error)}). Is it a file of another architecture?"
            ) from error
    own = network.state_dict()
    for layer in first_convolutions(config):
        key = f"{layer}.weight"
        if key in weights and key in own:
            weights[key] = widen(weights[key], own[key], bands)
    for key, value in own.items():
        if key.endswith("num_batches_tracked"):  # a mere counter, which older files lack
            weights.setdefault(key, value)
    found = (config.classifier if config is not None else None) or ("head.fc", "head", "fc")
    names = (found,) if isinstance(found, str) else tuple(found)
    beside = tuple(f"{classifier}." for classifier in names)
    left = [key for key in weights if key not in own and key.startswith(beside)]
    head = {key.rpartition(".")[2]: weights.pop(key) for key in left}
    load_weights(network, weights, where=path)
    if len(left) == 2 and head.keys() == {"weight", "bias"} and head["weight"].ndim == 2:
        return Classifier(head["weight"], head["bias"], path)
    return None


def network_layers(network: Any, prefix: str) -> dict[str, int]:  # noqa: ANN401
    """Per parameter name, the number of its layer, 0 next to the input, as timm counts them.

    What follows the last block (its normalisation) counts as part of it.

    Args:
        network: of timm.
        prefix: put before each name.
    """
    if not hasattr(network, "group_matcher"):
        layers = dict(auto_group_layers(network))  # type: ignore[no-untyped-call]
        return {f"{prefix}{name}": layer for name, layer in layers.items()}
    behind = "behind the last layer"  # a name that no pattern knows
    named = [*((name, None) for name, _ in network.named_parameters()), (behind, None)]
    layers = group_with_matcher(iter(named), network.group_matcher(coarse=False), reverse=True)
    last = layers.pop(behind) - 1
    return {f"{prefix}{name}": min(layer, last) for name, layer in layers.items()}

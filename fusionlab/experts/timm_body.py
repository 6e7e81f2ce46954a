"""Image networks from timm without their classifier: one embedding, or a feature map, per image."""

from __future__ import annotations

import importlib
from typing import Any, Literal, NamedTuple

import timm
import torch
from einops import rearrange
from timm.layers.classifier import NormMlpClassifierHead
from torch import Tensor, nn
from torch.func import functional_call

from fusionlab.checkpoints import load_weights, read_checkpoint
from fusionlab.component import Backbone
from fusionlab.errors import InputError
from fusionlab.experts.hub_weights import first_convolutions, model_config, timm_weights, widen
from fusionlab.experts.timm_layers import parameter_layers

Pooling = Literal["token", "average", "both"]
"""What becomes the embedding: the class token, the average over positions, or one after another."""

_PROBED_SIZE = (120, 152)  # neither a square nor multiples of 16, as patches of the wild are
_CANNOT = (
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


class TimmBody(Backbone):
    """An image network of timm without its classifier.

    In transformers the final normalisation of a network is applied exactly once, whatever the
    pooling: to every token, or, in networks made for average pooling, to what was pooled.

    Args:
        name: a timm model; a suffix names particular weights.
        bands: number of input channels.
        pretrained: False for random weights, True for timm's, or the path of a file.
        pooling: see `TimmExpert`.
        image_size: side of the images that it will be given; None for any size.
        drop_rate: dropout, as the network understands it.
        drop_path_rate: stochastic depth.

    Attributes:
        network: the timm model.
        pooling: as given, or as chosen for this network.
        own_pooling: how the network itself pools.
        embedding_dim: width of the embedding.
        classifier: that of the weights file, if it held one that is linear; for whoever has a use.

    Raises:
        InputError: if the network is unknown or does not support what it is asked for, or if
            weights cannot be had or do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        bands: int,
        pretrained: bool | str = False,
        pooling: Pooling | None = None,
        image_size: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.name = name
        config = model_config(
            name, advice="Choose one of its image models, such as 'resnet50' or 'convnext_tiny'"
        )
        network = _create(
            name, bands, image_size, drop_rate=drop_rate, drop_path_rate=drop_path_rate
        )
        self.network = network
        self.classifier: Classifier | None = None
        if pretrained:
            path = timm_weights(name, config) if pretrained is True else pretrained
            self.classifier = _load(network, path, name=name, config=config, bands=bands)
        # Transformers that keep one token per patch, after others that stand for the image.
        self.tokens = hasattr(network, "fc_norm") and hasattr(network, "num_prefix_tokens")
        self.own_pooling, self.pooling = self._choose(pooling)
        if getattr(network, "attn_pool", None) is not None and self.tokens:
            network.reset_classifier(0, "")  # a pooling that nobody asks would train without effect
        self.embedding_dim = self._probe(bands, image_size)

    def _choose(self, pooling: Pooling | None) -> tuple[Pooling, Pooling]:
        """How the network pools by itself, and how it shall."""
        network = self.network
        own: Pooling = "token" if getattr(network, "global_pool", "") == "token" else "average"
        if not self.tokens:
            if pooling not in (None, own):
                raise InputError(
                    f"pooling: {pooling!r} needs the class token of a vision transformer, but "
                    f"{self.name!r} pools in one way of its own ({own}). Leave pooling out."
                )
            return own, own
        has_token = getattr(network, "cls_token", None) is not None
        if pooling is None:
            for_average = not isinstance(network.fc_norm, nn.Identity)
            return own, "token" if has_token and not for_average else "average"
        if pooling != "average" and not has_token:
            raise InputError(
                f"pooling: {pooling!r} needs a class token, which {self.name!r} does not have. "
                "Say `pooling: average`."
            )
        return own, pooling

    def _probe(self, bands: int, image_size: int | None) -> int:
        """Width of the embedding, found by a pass without values."""
        height, width = _PROBED_SIZE if image_size is None else (image_size, image_size)
        state = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        without_values = {key: value.detach().to("meta") for key, value in state.items()}
        images = torch.empty(1, bands, height, width, device="meta")
        self.eval()
        try:
            with torch.no_grad():
                embedding = functional_call(self, without_values, (images,))
        except _CANNOT as error:
            native = self.network.pretrained_cfg.get("input_size", (3, 224, 224))[-1]
            if image_size is None:
                problem = "takes images of particular sizes only"
                advice = f"Say `image_size: {native}` to have them resized, or another it can take"
            else:
                problem = f"cannot take images of {image_size} x {image_size} pixels"
                advice = f"Say `image_size: {native}`, the size it was made for"
            raise InputError(
                f"{self.name!r} {problem} ({_reason(error)}). {advice}, or choose another backbone."
            ) from error
        self.train()
        if embedding.ndim != 2:
            raise InputError(
                f"{self.name!r} gives no embedding, but {tuple(embedding.shape[1:])} values per "
                "image. Choose another backbone."
            )
        return int(embedding.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of normalised images, ``(B, bands, H, W)`` to ``(B, embedding_dim)``."""
        network = self.network
        features = network.forward_features(images)
        if not self.tokens:
            pooled: Tensor = network.forward_head(features, pre_logits=True)
            return pooled
        parts = []
        if self.pooling != "average":
            parts.append(features[:, 0])
        if self.pooling != "token":
            parts.append(features[:, network.num_prefix_tokens :].mean(dim=1))
        embedding: Tensor = torch.cat([network.fc_norm(part) for part in parts], dim=1)
        if hasattr(network, "head_drop"):
            embedding = network.head_drop(embedding)
        return embedding

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps of normalised images, ``(B, bands, H, W)`` to ``(B, C, h, w)``.

        One cell per patch of a transformer, also of those that were padded; otherwise the last map
        before pooling. Normalised as the embedding is, where that is done per position.

        Raises:
            InputError: if the network keeps no map.
        """
        network = self.network
        features = network.forward_features(images)
        grid = getattr(getattr(network, "patch_embed", None), "dynamic_feat_size", None)
        if self.tokens and grid is not None:
            patches = network.fc_norm(features[:, network.num_prefix_tokens :])
            rows, columns = grid(images.shape[-2:])
            grown: Tensor = rearrange(patches, "b (h w) c -> b c h w", h=rows, w=columns)
            return grown
        if not isinstance(features, Tensor) or features.ndim != 4:
            raise InputError(f"{self.name!r} gives no feature map, only an embedding per image.")
        if getattr(network, "output_fmt", "NCHW") == "NHWC":
            return rearrange(features, "b h w c -> b c h w")
        head = getattr(network, "head", None)
        if isinstance(head, NormMlpClassifierHead):  # ConvNeXt; DINOv3 normalises its maps so, too
            normalised: Tensor = head.norm(features)
            return normalised
        return features

    def parameter_layers(self) -> dict[str, int]:
        """Per parameter name, the number of its layer, 0 next to the input, as timm counts them."""
        return {f"network.{name}": n for name, n in parameter_layers(self.network).items()}


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:160]}"


def _create(name: str, bands: int, image_size: int | None, **rates: float) -> Any:  # noqa: ANN401
    """The network without a classifier, for images of any size wherever it can take them."""
    options: dict[str, Any] = {
        "dynamic_img_size": True,
        "dynamic_img_pad": True,
        "strict_img_size": False,
        **{name: rate for name, rate in rates.items() if rate},
    }
    if image_size is not None:
        options["img_size"] = image_size
    while True:
        try:
            network: Any = timm.create_model(name, in_chans=bands, num_classes=0, **options)
        except _CANNOT as error:
            refused = [option for option in options if f"'{option}'" in str(error)]
            unsupported = [option for option in refused if option in rates]
            if unsupported:
                raise InputError(
                    f"{name!r} has no {unsupported[0]}. Leave it out, or choose another backbone."
                ) from error
            if not refused or not isinstance(error, TypeError):
                raise InputError(
                    f"timm's {name!r} cannot be used with {bands} bands"
                    + (f" and image_size {image_size}" if image_size else "")
                    + f" ({_reason(error)}). Choose another backbone."
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


def _load(network: Any, path: str, *, name: str, config: Any, bands: int) -> Classifier | None:  # noqa: ANN401
    """Loads a file: all that the network has, and nothing else in it but a classifier.

    Returns:
        The classifier, if it is linear.
    """
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
        except _CANNOT as error:
            raise InputError(
                f"The weights in {path} are not those of {name!r}, nor can timm convert them "
                f"({_reason(error)}). Is it a file of another architecture?"
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

"""Image networks from timm without their classifier: one embedding, or a feature map, per image."""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from timm.layers.classifier import NormMlpClassifierHead
from torch import Tensor, nn
from torch.func import functional_call

from fusionlab.backbones.hub_weights import model_config
from fusionlab.backbones.timm_network import (
    CANNOT,
    create_network,
    fill_network,
    native_size,
    network_layers,
    reason,
)
from fusionlab.backbones.timm_network import Classifier as Classifier
from fusionlab.component import Backbone
from fusionlab.errors import InputError

Pooling = Literal["token", "average", "both"]
"""What becomes the embedding: the class token, the average over positions, or one after another."""

_PROBED_SIZE = (120, 152)  # neither a square nor multiples of 16, as patches of the wild are


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
        network = create_network(
            name, bands, image_size, drop_rate=drop_rate, drop_path_rate=drop_path_rate
        )
        self.network = network
        self.classifier: Classifier | None = fill_network(
            network, pretrained, name=name, config=config, bands=bands
        )
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
        except CANNOT as error:
            native = native_size(self.network)
            if image_size is None:
                problem = "takes images of particular sizes only"
                advice = f"Say `image_size: {native}` to have them resized, or another it can take"
            else:
                problem = f"cannot take images of {image_size} x {image_size} pixels"
                advice = f"Say `image_size: {native}`, the size it was made for"
            raise InputError(
                f"{self.name!r} {problem} ({reason(error)}). {advice}, or choose another backbone."
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
        """Per parameter name, the number of its layer, 0 next to the input, as timm counts them.

        What follows the last block (its normalisation) counts as part of it.
        """
        return network_layers(self.network, "network.")

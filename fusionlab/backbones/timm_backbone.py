"""Every image network of timm as a backbone: ResNet, ConvNeXt, Swin, ViT, DINOv2 and DINOv3 etc.

DINOv3: "DINOv3" (Siméoni et al., 2025, arXiv:2508.10104). The networks themselves are timm's.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal, get_args

import timm
import torch
from torch import Tensor, nn

from fusionlab.backbones.base import ImageBackbone
from fusionlab.backbones.hub_weights import model_config
from fusionlab.backbones.probe import find_shapes, first_used, side_of_least
from fusionlab.backbones.timm_network import (
    CANNOT,
    create_network,
    fill_network,
    native_size,
    network_layers,
    reason,
)
from fusionlab.errors import InputError
from fusionlab.features import Feature

Layout = Literal["NCHW", "NLC"]
"""Whether a backbone gives maps or sequences of tokens."""

PYRAMID = (4, 8, 16, 32)
"""Strides that decoders commonly expect, finest first."""

_DEPTHS = 4  # how many blocks of a plain transformer are looked at


class TimmBackbone(ImageBackbone):
    """An image network of timm without its head, as a list of feature maps.

    Hierarchical networks (convolutional ones, Swin, PVT, MaxViT, HRNet…) give one map per stage.
    Plain ones (ViT, DeiT, DINOv2, DINOv3, EVA-02, BEiT, Mixer…) give the tokens of some of their
    blocks as maps, which all have the stride of their patches; necks make a pyramid of them. Class
    and register tokens are left out of maps. What comes behind the last map is left out of the
    network, so that every parameter that asks for a gradient gets one.

    Weights keep their licence, see `fusionlab.backbones.hub_weights`.

    Args:
        bands: number of input channels.
        name: a timm model, e.g. ``resnet50``, ``convnext_tiny.dinov3_lvd1689m``,
            ``vit_small_patch16_dinov3``; a suffix names particular weights.
        pretrained: False for random weights; True for those that timm's hub has under this name,
            kept in the Hugging Face cache, which is asked first; or the path of a local file, which
            must hold the whole network and may hold a classifier. First layers made for three
            channels are adapted to other numbers of bands by repetition, as timm does.
        out_indices: which maps, counted from 0 in the order of the network, or from the end if
            negative: stages of a hierarchical network, blocks of a plain one. If not given: the
            four at strides 4, 8, 16 and 32 where they exist, or all from stride 4 on; of plain
            networks four evenly spaced blocks, the last included.
        layout: ``NCHW`` for maps ``(B, C, h, w)``; ``NLC`` for tokens ``(B, tokens, C)``, class and
            register tokens first, of plain transformers only.
        norm: whether the network's final normalisation is applied to every map, as is usual with
            DINOv2 and DINOv3. Of plain networks only, where it is if nothing is said. The maps of
            hierarchical networks are as their stages leave them.
        image_size: side in pixels of the images that it is made for. If not given, images of any
            size are taken; networks of one size (BEiT, Mixer, Hiera) need it, and networks whose
            windows divide one size (MaxViT, CoAtNet) then take multiples of their own.
        output_stride: 8 or 16 has the last stages of a convolutional network dilated instead of
            coarser, where timm offers this.
        drop_rate: dropout, as the network understands it.
        drop_path_rate: stochastic depth, where the network has it.
        frozen: whether it stays as it is: no gradient, no drift of statistics.
        restored: set where a checkpoint holds the weights: then `pretrained` is not asked again.

    Attributes:
        body: the timm model.
        indices: the maps' numbers, counted from 0.
        prefix_tokens: how many tokens come before those of the patches; 0 for maps.

    Raises:
        InputError: if the network is unknown or does not support what it is asked for, or if
            weights cannot be had or do not fit.
    """

    def __init__(
        self,
        bands: int,
        *,
        name: str,
        pretrained: bool | str = False,
        out_indices: Sequence[int] | None = None,
        layout: Layout = "NCHW",
        norm: bool | None = None,
        image_size: int | None = None,
        output_stride: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen: bool = False,
        restored: bool = False,
    ) -> None:
        super().__init__(frozen=frozen)
        if layout not in get_args(Layout):
            raise InputError(f"layout is one of {list(get_args(Layout))}, got {layout!r}.")
        self.name = name
        self.layout = layout
        self.prefix_tokens = 0
        self.trained = bool(pretrained)
        config = model_config(
            name, advice="Choose one of its image models, such as 'resnet50' or 'convnext_tiny'"
        )
        body = create_network(
            name,
            bands,
            image_size,
            output_stride=output_stride or 0,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
        )
        if not hasattr(body, "forward_intermediates"):
            raise InputError(
                f"timm {timm.__version__} gives no feature maps of {name!r}. Install 1.0.31 or "
                "newer, or choose another backbone."
            )
        fill_network(body, not restored and pretrained, name=name, config=config, bands=bands)
        self.body = body
        self.strides = [int(stage["reduction"]) for stage in _stages(body)]
        plain = len(set(self.strides)) == 1
        self.norm = self._norm(norm, plain)
        self.indices = self._choose(out_indices, plain)
        self._leave_out()
        self.separate_prefix = self._separate_prefix(plain)
        self._describe(bands, image_size)
        if frozen:
            self.freeze()

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def _norm(self, norm: bool | None, plain: bool) -> bool:
        if norm and not plain:
            raise InputError(
                f"{self.name!r} has no normalisation that fits all its maps, which are at strides "
                f"{self.strides}. Leave `norm` out."
            )
        return plain if norm is None else norm

    def _choose(self, out_indices: Sequence[int] | None, plain: bool) -> tuple[int, ...]:
        """Which maps, counted from 0."""
        count = len(self.strides)
        if out_indices is None:
            if plain:
                depths = min(_DEPTHS, count)
                return tuple((step + 1) * count // depths - 1 for step in range(depths))
            if set(PYRAMID) <= set(self.strides):
                return tuple(self.strides.index(stride) for stride in PYRAMID)
            return tuple(i for i, stride in enumerate(self.strides) if stride >= PYRAMID[0])
        chosen = [index + count if index < 0 else index for index in out_indices]
        if not chosen or min(chosen) < 0 or max(chosen) >= count:
            what = f"{count} blocks" if plain else f"{count} maps, at strides {self.strides}"
            raise InputError(
                f"out_indices {list(out_indices)} does not fit {self.name!r}, which has {what}. "
                f"Count from 0 to {count - 1}, or from the end with -1 to -{count}."
            )
        if chosen != sorted(set(chosen)):
            raise InputError(
                f"out_indices goes from the first map to the last, each once; got "
                f"{list(out_indices)}, which is {chosen} in {self.name!r}."
            )
        return tuple(chosen)

    def _leave_out(self) -> None:
        """Takes what comes behind the last map out of the network."""
        body = self.body
        fc_norm = getattr(body, "fc_norm", None)
        if self.norm and isinstance(fc_norm, nn.LayerNorm) and isinstance(body.norm, nn.Identity):
            # Networks made for average pooling normalise what was pooled; here, every position.
            body.norm, body.fc_norm = fc_norm, nn.Identity()
        body.prune_intermediate_layers(list(self.indices), prune_norm=not self.norm)

    def _separate_prefix(self, plain: bool) -> bool:
        """Whether timm gives tokens and, beside them, those that do not stand for a patch."""
        if self.layout == "NCHW":
            return False
        if not plain:
            raise InputError(
                f"layout: NLC needs a plain transformer, but {self.name!r} gives maps at strides "
                f"{self.strides}. Leave `layout` out."
            )
        known = inspect.signature(self.body.forward_intermediates).parameters
        self.prefix_tokens = int(getattr(self.body, "num_prefix_tokens", None) or 0)
        separate = "return_prefix_tokens" in known and self.prefix_tokens > 0
        if not separate:
            self.prefix_tokens = 0  # some transformers add their class token behind the maps
        return separate

    def _describe(self, bands: int, image_size: int | None) -> None:
        """Finds which images are taken and what comes out, by passes without values."""
        strides = [self.strides[index] for index in self.indices]
        native = native_size(self.body)
        failure: Exception | None = None
        coarsest = max(self.strides)  # of which some need two cells (MobileViTv2) or whole windows
        for multiple in dict.fromkeys((max(strides), coarsest, 2 * coarsest, image_size or native)):
            side = side_of_least(multiple)
            size = (side, side + 2 * multiple)
            try:
                self.features = self._features(bands, size)
            except CANNOT as error:
                failure = failure or error
                continue
            self.multiple = multiple
            break
        else:
            size = (image_size or native,) * 2
            try:
                features = self._features(bands, size)
            except CANNOT as error:
                raise InputError(
                    f"{self.name!r} cannot be used as a backbone for images of {bands} bands and "
                    f"{size[0]} x {size[1]} pixels ({reason(error)}). Choose another."
                ) from error
            if image_size is None:
                raise InputError(
                    f"{self.name!r} takes images of one size only ({reason(failure or OSError())})."
                    f" Say `image_size: {native}`, the size it was made for: images of other "
                    "sizes are resized to this square; or choose another backbone."
                )
            self.features, self.multiple, self.size = features, image_size, size
        used = first_used(self, bands, size)
        for name, parameter in self.named_parameters():
            if name not in used:  # processes that train together would wait for its gradient
                parameter.requires_grad_(False)
        self.body.train()  # forgets what some networks kept of the passes in evaluation

    def _features(self, bands: int, size: tuple[int, int]) -> tuple[Feature, ...]:
        """Describes the answer to images of a size.

        Raises:
            ValueError: if the maps do not divide it.
        """
        self.multiple = 1
        features = []
        shapes = find_shapes(self, bands, size)
        for index, shape in zip(self.indices, shapes, strict=True):
            if self.layout == "NLC":
                features.append(Feature(shape[-1], self.strides[index], "NLC"))
                continue
            channels, *grid = shape[1:]
            if len(grid) != 2 or size[0] % grid[0] or size[0] * grid[1] != size[1] * grid[0]:
                raise ValueError(f"a map of {grid} cells for images of {size} pixels")
            features.append(Feature(channels, size[0] // grid[0]))
        return tuple(features)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Maps ``(B, C, h, w)``, or tokens ``(B, tokens, C)``, of images whose sides fit."""
        options: dict[str, Any] = {"return_prefix_tokens": True} if self.separate_prefix else {}
        if self.separate_prefix:
            options["output_fmt"] = "NLC"
        answer = self.body.forward_intermediates(
            images,
            indices=list(self.indices),
            norm=self.norm,
            intermediates_only=True,
            **options,
        )
        if self.separate_prefix:
            return [torch.cat([prefix, patches], dim=1) for patches, prefix in answer]
        if self.layout == "NLC":
            return [each.flatten(2).transpose(1, 2) for each in answer]
        return list(answer)

    def parameter_layers(self) -> dict[str, int]:
        """Per parameter name, the number of its layer, 0 next to the input, as timm counts them."""
        return network_layers(self.body, "body.")


def _stages(body: Any) -> Sequence[dict[str, Any]]:  # noqa: ANN401  # timm is untyped
    """What timm says of the maps of a network: their stride (``reduction``) and width."""
    info = body.feature_info
    stages: Sequence[dict[str, Any]] = info if isinstance(info, list) else info.info
    return stages

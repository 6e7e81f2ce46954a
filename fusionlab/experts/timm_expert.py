"""One expert for all image networks of timm: DINOv3, ConvNeXt, ResNet, ViT, Swin, MobileViT etc.

DINOv3: "DINOv3" (Siméoni et al., 2025, arXiv:2508.10104). The networks themselves are timm's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.backbones.hub_weights import model_config
from fusionlab.errors import InputError
from fusionlab.experts.embedding import EmbeddingExpert
from fusionlab.experts.fingerprint import WeightsFingerprint
from fusionlab.experts.timm_body import Classifier, Pooling, TimmBody
from fusionlab.heads import Head, HeadFactory
from fusionlab.types import Raw, Schema, TimeSeries

Statistics = Literal["data", "weights"]
"""Whose mean and standard deviation normalise: those of the data, or of the pretrained weights."""

_SMALL = 32  # side of the images, in pixels, below which some convolutional networks fail
_TRUE_COLOUR = (("red", "green", "blue"), ("B04", "B03", "B02"), ("B4", "B3", "B2"))


class TimmExpert(EmbeddingExpert):
    """An image network of timm with a head: embeddings, and classes or values of whole images.

    Built for data without classes and variables it has no head and gives embeddings and feature
    maps only.

    Weights keep their licence: those of DINOv3 may be passed on, as checkpoints too, only under the
    DINOv3 License. They are fetched when needed and never part of this package.

    Args:
        schema: what the data deliver.
        backbone: a timm model, e.g. ``resnet50``, ``convnext_tiny``,
            ``vit_small_patch16_dinov3.lvd1689m``; a suffix names particular weights.
        pretrained: False for random weights; True for those that timm's hub has under this name,
            kept in the Hugging Face cache; or the path of a local file (safetensors or a state
            dict), which must hold the whole network. A classifier in the file is left out. First
            layers made for three channels are adapted to other numbers of bands by repetition, as
            timm does. A checkpoint that holds the
            weights does not need them again.
        pooling: what becomes the embedding of a vision transformer: ``token``, the class token;
            ``average``, the mean over patch tokens, without class and register tokens; ``both``,
            one after the other. If not given: the class token where there is one, unless the
            network was made for average pooling, i.e. normalises after it (BEiT, EVA-02). That is
            what the authors of the weights did: DINOv3's use the class token, although timm
            averages. Attention pooling (SigLIP) is replaced by the average. Other networks pool in
            their own way, which is the average for all convolutional ones.
        image_size: side in pixels, at least 1, to which images are resized on the device, after
            normalisation (bilinear; antialiased when shrinking). Networks of one size (BEiT, Mixer)
            need it. If not given, images are taken as they are, and transformers pad them with the
            mean to a multiple of their patches at the bottom and the right.
        statistics: ``data`` normalises by the mean and standard deviation that the data publish,
            or by `mean` and `std`; ``weights`` by those that timm states for the weights, which are
            made for red, green and blue in [0, 1].
        value_range: for ``statistics: weights``, the physical values that become 0 and 1; what
            lies outside is clipped. ``[0, 10000]`` takes Sentinel-2 reflectance (times 10,000) in
            full; ``[0, 3000]`` is how it is commonly shown.
        drop_rate: dropout before the head, where the network has one.
        drop_path_rate: stochastic depth, where the network has it.
        frozen: the backbone (not the head) stays as it is: no gradient, no drift of statistics.
        head: from embedding to logits, or values; one linear layer if not given.
        restored: set in checkpoints that hold the weights: then `pretrained` is not asked again.
        modality: see `Expert`, as for the arguments that follow.
        bands: the bands it looks at.
        scale: raw to physical units.
        mean: in physical units.
        std: in physical units.

    Raises:
        InputError: if the network is unknown or does not support what it is asked for, if its
            weights cannot be had or do not fit, if arguments contradict each other, or if the
            modality is a time series.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        backbone: str,
        pretrained: bool | str = False,
        pooling: Pooling | None = None,
        image_size: int | None = None,
        statistics: Statistics = "data",
        value_range: tuple[float, float] | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen: bool = False,
        head: HeadFactory | None = None,
        restored: bool = False,
        modality: str | None = None,
        bands: Sequence[str] | None = None,
        scale: Sequence[float] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        where = type(self).__name__
        name, delivered = schema.modality(modality, where=where)
        if delivered.temporal:
            raise InputError(
                f"{where} takes images, but {name!r} is a time series. Use an expert for series, "
                "such as TSViT, or name another `modality:`."
            )
        if image_size is not None and image_size < 1:
            raise InputError(
                f"{where}: image_size is the side in pixels to which images are resized, at least "
                f"1, got {image_size}. Leave it out to take images as they are."
            )
        if statistics == "weights":
            if mean is not None or std is not None:
                raise InputError(
                    f"{where}: `statistics: weights` brings its own mean and std. Leave out those "
                    "given, or say `statistics: data`."
                )
            chosen = tuple(bands) if bands is not None else delivered.bands
            mean, std = _weights_statistics(backbone, value_range, chosen)
        elif value_range is not None:
            raise InputError(
                f"{where}: value_range says which values become 0 and 1 for `statistics: weights`; "
                "with `statistics: data` nothing uses it. Leave it out."
            )
        super().__init__(schema, modality=modality, bands=bands, scale=scale, mean=mean, std=std)
        if value_range is not None:
            self.inputs.limit(*value_range)
        self.pretrained = pretrained
        self.restored = restored
        self.image_size = image_size
        self.frozen = frozen
        self.body = TimmBody(
            backbone,
            bands=len(self.inputs),
            pretrained=False if restored else pretrained,
            pooling=pooling,
            image_size=image_size,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
        )
        self.add_head(head)
        classifier, self.body.classifier = self.body.classifier, None
        if classifier is not None and self.head is not None:
            self.take_classifier(classifier, self.head)
        self._weights = WeightsFingerprint(self.body)
        if frozen:
            self.body.requires_grad_(False)
        self.train(self.training)

    def take_classifier(self, classifier: Classifier, head: Head) -> None:
        """Decides what becomes of the classifier in a weights file: here it is left out.

        Args:
            classifier: that of the file.
            head: this expert's, with random weights.
        """
        if len(classifier.weight) == self.num_classes:
            warnings.warn(
                f"{classifier.where} holds a classifier of {self.num_classes} classes, which is "
                "left out because the file does not name them: the head is one of its own.",
                stacklevel=3,
            )

    @property
    def trained(self) -> bool:
        """Whether the backbone is, where there is no head that would have to be trained too."""
        return bool(self.pretrained) and self.head is None

    def freeze(self) -> None:
        """Takes the gradient from all its parameters; the backbone stays in evaluation mode."""
        super().freeze()
        self.frozen = True
        self.train(self.training)

    @property
    def restorable(self) -> tuple[str, ...]:
        """The backbone, if it never changes and came from a hub or a file."""
        return ("body",) if self.frozen and self.pretrained else ()

    @property
    def embedding_dim(self) -> int:
        """Width of the embedding."""
        return self.body.embedding_dim

    def fingerprint(self) -> str | None:
        """A digest of the frozen backbone; None where it, or a head, still learns."""
        return self._weights() if self.frozen and self.head is None else None

    def train(self, mode: bool = True) -> Self:
        """Switches mode, but leaves a frozen backbone in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self

    def features(self, values: Raw, *, pooled: bool = True) -> Tensor:
        """Features of raw images ``(B, C, H, W)``.

        Args:
            values: raw values.
            pooled: embeddings ``(B, D)``; otherwise feature maps ``(B, C, h, w)``, see
                `TimmBody.maps`.

        Raises:
            InputError: if given a time series, if there is no feature map, or if the images are too
                small for the network.
        """
        images = self._images(values)
        try:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                features: Tensor = self.body(images) if pooled else self.body.maps(images)
        except RuntimeError as error:
            if min(images.shape[-2:]) < _SMALL:
                raise InputError(
                    f"{self.body.name!r} cannot take images of {images.shape[-2]} x "
                    f"{images.shape[-1]} pixels ({error}). Have them enlarged, e.g. with "
                    f"`image_size: {_SMALL}`."
                ) from error
            raise
        return features

    def _images(self, values: Raw) -> Tensor:
        """Raw values selected, normalised and resized, ``(B, bands, H, W)``."""
        if isinstance(values, TimeSeries):
            raise InputError(
                f"{type(self).__name__} takes images (B, C, H, W), but got a time series for "
                f"{self.modality!r}."
            )
        images: Tensor = self.inputs(values)
        size = self.image_size
        if size is None or images.shape[-2:] == (size, size):
            return images
        shrinks = max(images.shape[-2:]) > size
        return F.interpolate(images, (size, size), mode="bilinear", antialias=shrinks)

    def describe(self) -> dict[str, Any]:
        """As every component, but asking only for weights that the checkpoint does not hold."""
        description = super().describe()
        description["init_args"]["restored"] = not (self.stripped and self.restorable)
        return description


def _weights_statistics(
    backbone: str, value_range: tuple[float, float] | None, bands: tuple[str, ...]
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the weights, in the physical units of the data."""
    asked = "`statistics: weights`"
    if value_range is None:
        raise InputError(
            f"{asked} needs value_range: the physical values that become 0 and 1, such as "
            "`value_range: [0, 10000]` for Sentinel-2 reflectance times 10,000."
        )
    low, high = value_range
    if not low < high:
        raise InputError(f"value_range goes from a lower to a higher value, got {value_range}.")
    if len(bands) != 3:
        raise InputError(
            f"{asked} is made for red, green and blue, but there are {len(bands)} bands: "
            f"{list(bands)}. Choose three with `bands:`, or say `statistics: data`."
        )
    for colours in _TRUE_COLOUR:
        if set(bands) == set(colours) and bands != colours:
            raise InputError(
                f"{asked} is made for red, green and blue in this order, but the bands are "
                f"{list(bands)}. Say `bands: [{', '.join(colours)}]`."
            )
    config = model_config(backbone, advice="Choose one of its image models")
    if config is None or config.mean is None or config.std is None:
        raise InputError(f"timm states no mean and std for {backbone!r}: say `statistics: data`.")
    span = high - low
    return [low + span * m for m in config.mean], [span * s for s in config.std]

"""The networks that the authors of BigEarthNet v2 published, ready to classify.

"reBEN: Refined BigEarthNet Dataset for Remote Sensing Image Analysis" (Clasen et al., 2024,
arXiv:2407.03653); weights at https://huggingface.co/BIFOLD-BigEarthNetv2-0 (MIT licence). What they
expect is stated there (bands) and in ConfigILM, with which they were trained
(https://github.com/lhackel-tub/ConfigILM, ``configilm/extra/BENv2_utils.py``: class order,
statistics, upsampling; ``configilm/ConfigILM.py``: names of the weights, size of the images).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import torch
from torch import nn

from fusionlab.backbones.hub_weights import hub_file
from fusionlab.errors import InputError
from fusionlab.experts.timm_body import Classifier
from fusionlab.experts.timm_expert import TimmExpert
from fusionlab.heads import Head, HeadFactory, LinearHead
from fusionlab.types import Schema

Sensors = Literal["s1", "s2", "all"]
"""Which satellites a network looks at, as its authors name it."""

Version = Literal["0.1.1", "0.2.0"]
"""Versions of the published weights; they differ in the order of the bands."""

_OLD_S2 = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A")
_NEW_S2 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")

BAND_ORDERS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "0.1.1": {"s1": ("VH", "VV"), "s2": _OLD_S2, "all": (*_OLD_S2, "VH", "VV")},
        "0.2.0": {"s1": ("VV", "VH"), "s2": _NEW_S2, "all": ("VV", "VH", *_NEW_S2)},
    }
)
"""Bands in the order of the input channels, by version and sensors (the publisher's model card)."""

STATISTICS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "VV": (-12.643863677978516, 5.133493900299072),
        "VH": (-19.352558135986328, 5.590505599975586),
        "B02": (438.3720703125, 607.02685546875),
        "B03": (614.0556640625, 603.2968139648438),
        "B04": (588.4096069335938, 684.56884765625),
        "B05": (942.8433227539062, 738.4326782226562),
        "B06": (1769.931640625, 1100.4560546875),
        "B07": (2049.551513671875, 1275.805419921875),
        "B08": (2193.2919921875, 1369.3717041015625),
        "B8A": (2235.556640625, 1356.5440673828125),
        "B11": (1568.226806640625, 1070.1612548828125),
        "B12": (997.7324829101562, 813.5276489257812),
    }
)
"""Mean and standard deviation of each band that they were trained with: those of the train split
upsampled to 120 x 120 pixels by the nearest neighbour; reflectance times 10,000, and decibel."""

CLASSES = (
    "Agro-forestry areas",
    "Arable land",
    "Beaches, dunes, sands",
    "Broad-leaved forest",
    "Coastal wetlands",
    "Complex cultivation patterns",
    "Coniferous forest",
    "Industrial or commercial units",
    "Inland waters",
    "Inland wetlands",
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Marine waters",
    "Mixed forest",
    "Moors, heathland and sclerophyllous vegetation",
    "Natural grassland and sparsely vegetated areas",
    "Pastures",
    "Permanent crops",
    "Transitional woodland, shrub",
    "Urban fabric",
)
"""The 19 classes in the order of the outputs, which is alphabetical."""


class BifoldExpert(TimmExpert):
    """A network trained on BigEarthNet v2 by its authors, with the classifier they published.

    Its classes are matched by name, so data may list them in any order, or only some of them. It
    was trained on patches of 120 x 120 pixels of 10 m, coarser bands repeated (nearest neighbour).

    Args:
        schema: what the data deliver.
        backbone: as in the name of the repository: ``resnet50``, ``resnet101``, ``mobilevit_s``,
            ``convnextv2_base``, ``convmixer_768_32``, ``mixer_b16_224``, ``vit_base_patch8_224``,
            ``rdnet_base``.
        sensors: ``s1`` (2 bands), ``s2`` (10 bands) or ``all`` (12 bands); the modality must hold
            them all, in any order.
        version: of the weights; it decides the order of the bands.
        pretrained: True for the hub's ``BIFOLD-BigEarthNetv2-0/<backbone>-<sensors>-v<version>``,
            kept in the Hugging Face cache; or the path of its ``model.safetensors``; False for
            random weights.
        image_size: side to which images of another size are resized; None where a convolutional
            network shall see them as they are.
        drop_rate: see `TimmExpert`, as for the arguments that follow.
        drop_path_rate: stochastic depth.
        frozen: whether the backbone stays as it is.
        head: a head of one's own, with random weights; the published one if not given.
        restored: see `TimmExpert`.
        modality: which modality it looks at.
        bands: nothing else than the order of `version`; may be left out.
        scale: raw to physical units, reflectance times 10,000 and decibel.

    Raises:
        InputError: if `bands` are others than the weights want, or as `TimmExpert`.
    """

    published_head: bool = False
    """Whether its head is the published one."""

    def __init__(
        self,
        schema: Schema,
        *,
        backbone: str = "resnet50",
        sensors: Sensors = "s2",
        version: Version = "0.2.0",
        pretrained: bool | str = True,
        image_size: int | None = 120,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen: bool = False,
        head: HeadFactory | None = None,
        restored: bool = False,
        modality: str | None = None,
        bands: Sequence[str] | None = None,
        scale: Sequence[float] | None = None,
    ) -> None:
        if version not in BAND_ORDERS or sensors not in BAND_ORDERS[version]:
            known = {name: list(orders) for name, orders in BAND_ORDERS.items()}
            raise InputError(
                f"BifoldExpert knows no weights of version {version!r} for {sensors!r}, but these "
                f"versions and sensors: {known}."
            )
        wanted = BAND_ORDERS[version][sensors]
        if bands is not None and tuple(bands) != wanted:
            raise InputError(
                f"The {sensors} weights of version {version} want the bands {list(wanted)} in this "
                f"order, but `bands` are {list(bands)}. Leave `bands` out (they are found in the "
                "data by name), or name the version whose order this is."
            )
        path = False if restored else pretrained
        if path is True:
            repository = f"BIFOLD-BigEarthNetv2-0/{backbone}-{sensors}-v{version}"
            path = hub_file(repository, ("model.safetensors",), what=f"The weights {repository}")
        super().__init__(
            schema,
            backbone=backbone,
            pretrained=path,
            image_size=image_size,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            frozen=frozen,
            head=head,
            restored=restored,
            modality=modality,
            bands=wanted,
            scale=scale,
            mean=[STATISTICS[band][0] for band in wanted],
            std=[STATISTICS[band][1] for band in wanted],
        )
        self.pretrained = pretrained  # a path in a local cache means nothing elsewhere

    @property
    def trained(self) -> bool:
        """Whether the backbone is, and the head is published, in a checkpoint, or not there."""
        return bool(self.pretrained) and (self.head is None or self.published_head or self.restored)

    def take_classifier(self, classifier: Classifier, head: Head) -> None:
        """Puts the published classifier into the head, class by class, where it fits."""
        unknown = [name for name in self.names if name not in CLASSES]
        plain = (
            isinstance(head, LinearHead)
            and isinstance(head.norm, nn.Identity)
            and head.linear.weight.shape[1] == classifier.weight.shape[1]
            and self.body.pooling == self.body.own_pooling
        )
        if len(classifier.weight) != len(CLASSES) or unknown or not plain:
            reason = "it does not fit"
            if unknown:
                reason = f"it does not know the {self.schema.kind} {unknown}"
            warnings.warn(
                f"The classifier in {classifier.where} is left out, since {reason}: the head of "
                "BifoldExpert is one of its own, with random weights.",
                stacklevel=3,
            )
            return
        assert isinstance(head, LinearHead)
        order = [CLASSES.index(name) for name in self.names]
        with torch.no_grad():
            head.linear.weight.copy_(classifier.weight[order])
            head.linear.bias.copy_(classifier.bias[order])
        self.published_head = True

"""An expert composed from a backbone, necks, a decoder and heads, all named in YAML."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from fusionlab.backbones import BACKBONES
from fusionlab.backbones.dates import PooledDates, Pooling
from fusionlab.encoder_decoder import Answer, Stage, covering, sides
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert
from fusionlab.experts.fingerprint import WeightsFingerprint
from fusionlab.factory import NetworkTask, build_model
from fusionlab.features import Feature
from fusionlab.trial import freeze_behind
from fusionlab.types import Auxiliary, Output, Raw, Schema, Target, TimeSeries

_TASKS: dict[Target, NetworkTask] = {
    "segmentation": "segmentation",
    "regression": "regression",
    "multiclass": "classification",
    "multilabel": "classification",
    "scalar_regression": "scalar_regression",
}


class EncoderDecoder(Expert):
    """Any backbone with any necks, decoder and head that fit, for any task and modality.

    What it answers (classes or values, for every pixel or for whole samples) follows from the
    target of the data. Parts are given by name, or as a mapping of the name and its options; see
    `build_model`, and ``fusionlab backbones | necks | decoders | heads`` for what there is. A class
    of your own is named by its path.

    Built for data without classes and variables it has no head and gives features only, from the
    part that `stage` names.

    Args:
        schema: what the data deliver.
        backbone: e.g. ``timm/convnext_tiny`` or ``{name: timm/convnext_tiny, pretrained: true}``.
        decoder: e.g. ``UperNet`` or ``{name: UperNet, channels: 256}``; may be left out where whole
            samples are answered: the head then takes the last feature.
        necks: in their order, e.g. ``[{name: SelectIndices, indices: [2, 5, 8, 11]}]``; one needs
            no list.
        head: options of the task's own head, or a name or ``{name: …, **options}`` for another.
        aux_decoders: by name, ``{decoder: …, head: …, weight: 0.4}``, all of which may be left out;
            they add to the loss in training. Without a weight, the task's own counts.
        dates: how the features of a series are pooled over its dates: ``mean``, ``max`` or
            ``attention``; the mean if not given. Single images need none.
        rescale: whether an answer for pixels is resized to the image; otherwise it stays on the
            grid of the decoder, which the task aligns with the target.
        stage: where fusions of features take them from: behind the ``backbone``, the ``necks`` or
            the ``decoder``.
        stage_index: which of several features, as an index of a list. In a fusion of features, what
            lies behind it in the backbone is not trained.
        frozen: the backbone stays as it is: no gradient, no drift of statistics.
        restored: set in checkpoints that hold the weights: then pretrained ones are not asked for.
        modality: see `Expert`, as for the arguments that follow.
        bands: the bands it looks at.
        scale: raw to physical units.
        mean: in physical units.
        std: in physical units.

    Raises:
        InputError: for parts that do not exist or do not fit, with what would; see `build_model`.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        backbone: str | dict[str, Any],
        decoder: str | dict[str, Any] | None = None,
        necks: list[str | dict[str, Any]] | str | dict[str, Any] | None = None,
        head: str | dict[str, Any] | None = None,
        aux_decoders: dict[str, dict[str, Any]] | None = None,
        dates: Pooling | None = None,
        rescale: bool = True,
        stage: Stage = "decoder",
        stage_index: int = -1,
        frozen: bool = False,
        restored: bool = False,
        modality: str | None = None,
        bands: Sequence[str] | None = None,
        scale: Sequence[float] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(schema, modality=modality, bands=bands, scale=scale, mean=mean, std=std)
        self.temporal = self.schema.modalities[self.modality].temporal
        if dates is not None and not self.temporal:
            raise InputError(
                f"EncoderDecoder: `dates: {dates}` pools a time series, but {self.modality!r} is "
                "delivered as single images. Leave it out, or name another `modality:`."
            )
        self.stage = stage
        self.stage_index = stage_index
        self.frozen = frozen
        self.frozen_whole = False
        bare = not schema.outputs
        self.network = build_model(
            _TASKS[schema.target],
            _with_options(backbone, frozen=frozen, restored=restored),
            decoder if not bare or stage == "decoder" else None,
            bands=len(self.inputs),
            names=schema.outputs,
            necks=necks or () if not bare or stage != "backbone" else (),
            head=None if bare else head,
            aux_decoders=None if bare else aux_decoders,
            dates=(dates or "mean") if self.temporal else None,
            rescale=rescale,
        )
        if stage != "decoder" or stage_index != -1:
            self._feature()
        if bare:
            self._freeze_unused()
        self._weights = WeightsFingerprint(self.network)
        self.gsd *= self.network.answer_stride
        if frozen:
            self.encoder.requires_grad_(False)
            if not restored and not getattr(self.encoder, "trained", True):
                rank_zero_warn(
                    f"The backbone {self.encoder} is frozen with random weights: it will never "
                    "learn. Give it weights (`pretrained:`), or leave `frozen` out."
                )
        self.train(self.training)

    @property
    def encoder(self) -> nn.Module:
        """The backbone as named, which in a network for series is inside another."""
        backbone = self.network.backbone
        return backbone.backbone if isinstance(backbone, PooledDates) else backbone

    @property
    def restorable(self) -> tuple[str, ...]:
        """The backbone, if it never changes and came from a hub or a file."""
        if not (self.frozen and getattr(self.encoder, "trained", False)):
            return ()
        return ("network.backbone.backbone" if self.temporal else "network.backbone",)

    @property
    def trained(self) -> bool:
        """Whether all that it answers comes from a pretrained backbone."""
        own = {id(parameter) for parameter in self.encoder.parameters()}
        others = [p for p in self.parameters() if id(p) not in own]
        return bool(getattr(self.encoder, "trained", False)) and not others

    def train(self, mode: bool = True) -> Self:
        """Switches mode, but leaves what is frozen in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        if self.frozen_whole:
            self.network.eval()
        return self

    def freeze(self) -> None:
        """Takes the gradient from all its parameters; it stays in evaluation mode."""
        super().freeze()
        self.frozen_whole = True
        self.train(self.training)

    def fingerprint(self) -> str | None:
        """A digest of all its weights, once it is frozen as a whole."""
        return self._weights() if self.frozen_whole else None

    def drop_head(self) -> None:
        """Leaves out what lies behind the features that `stage` names."""
        network = self.network
        network.head = None
        network.auxiliary.clear()
        if self.stage != "decoder":
            network.decoder = None
        if self.stage == "backbone":
            network.necks = nn.ModuleList()
        self._freeze_unused()

    def choose_stage(self, stage: Stage, index: int = -1) -> None:
        """Takes features from another part than it was built for; arguments as of the class."""
        self.stage, self.stage_index = stage, index
        self._feature()

    def logits(self, values: Raw) -> Tensor:
        """Logits or values, ``(B, K, H, W)`` or ``(B, K)``, of raw images or series."""
        return self.answer(values).logits

    def answer(self, values: Raw) -> Output:
        """Logits, those of auxiliary decoders while training, and embeddings of whole samples.

        Raises:
            InputError: if given a series instead of images, or the other way round.
        """
        if not self.schema.outputs and self.network.head is None:
            raise InputError(
                "This EncoderDecoder was built for data without classes and gives features only. "
                "Use it in FeatureFusion, or give it data with classes."
            )
        images, series = self._prepared(values)
        answer: Answer = self.network.answer(images, *series)
        auxiliary = tuple(
            Auxiliary(name, logits, self.network.weight(name))
            for name, logits in answer.auxiliary.items()
        )
        embeddings = None
        if not self.network.pixelwise and self.stage == "decoder":
            embeddings = {self.modality: _pooled(answer.features, self._feature().layout)}
        return Output(answer.logits, auxiliary=auxiliary, embeddings=embeddings)

    @property
    def embedding_dim(self) -> int:
        """Width of the features that `stage` names."""
        return self._feature().channels

    def require_maps(self) -> None:
        """Refuses to give maps where the part that `stage` names gives tokens or an embedding."""
        layout = self._feature().layout
        if layout != "NCHW":
            remedy = "leave out the neck that pools or flattens them"
            if layout != "NC":
                remedy = "add the neck ReshapeTokensToImage"
            raise InputError(
                f"EncoderDecoder: the features behind the {self.stage} are laid out as "
                f"{layout!r}, not as maps. Choose another `stage:`, or {remedy}."
            )

    def features(self, values: Raw, *, pooled: bool = True) -> Tensor:
        """Features of raw images or series, from the part that `stage` names.

        Args:
            values: raw values.
            pooled: their mean over positions, ``(B, D)``; otherwise a map ``(B, D, h, w)`` that
                covers the image.

        Raises:
            InputError: if no map is to be had.
        """
        images, series = self._prepared(values)
        padded = self.network.prepared(images)
        found = self.network.features_at(self.stage, self.stage_index, padded, *series)
        if pooled:
            return _pooled(found, self._feature().layout)
        self.require_maps()
        if getattr(self.encoder, "size", None) is not None:  # resized as a whole, not padded
            return found
        return covering(found, sides(images), sides(padded))

    def describe(self) -> dict[str, Any]:
        """As every component, but asking only for weights that the checkpoint does not hold."""
        description = super().describe()
        description["init_args"]["restored"] = not (self.stripped and self.restorable)
        return description

    def _freeze_unused(self) -> None:
        """Nothing learns that the features do not depend on."""
        freeze_behind(self.network, len(self.inputs), self.stage, self.stage_index)

    def _feature(self) -> Feature:
        """What `stage` names, in advance."""
        network = self.network
        if self.stage == "decoder" and network.decoder is not None:
            if getattr(network.decoder, "includes_head", False):
                raise InputError(
                    f"The decoder {type(network.decoder).__name__} includes the head, so there are "
                    "no features behind it. Say `stage: necks` or `stage: backbone`."
                )
            return Feature(int(network.decoder.out_channels))  # type: ignore[arg-type]
        listed = network.encoded if self.stage == "backbone" else network.features
        try:
            return listed[self.stage_index]
        except IndexError as error:
            raise InputError(
                f"EncoderDecoder: there are {len(listed)} features behind the {self.stage}, so "
                f"there is no stage_index {self.stage_index}."
            ) from error

    def _prepared(self, values: Raw) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised images, and for a series its dates and which of them are valid."""
        if isinstance(values, TimeSeries) != self.temporal:
            given = "a time series" if isinstance(values, TimeSeries) else "images"
            raise InputError(
                f"EncoderDecoder was built for {self.modality!r} as "
                f"{'a time series' if self.temporal else 'images'}, but got {given}."
            )
        if not isinstance(values, TimeSeries):
            return self.inputs(values), ()
        return self.inputs(values.values), (values.dates, values.valid)


def _with_options(part: str | Mapping[str, Any], **options: bool) -> dict[str, Any]:
    """A backbone with the options that are set, where it takes them."""
    spec = dict(part) if isinstance(part, Mapping) else {"name": part}
    if not isinstance(spec.get("name"), str):
        return spec  # refused by the factory, with a message
    taken = _parameters(BACKBONES.find(spec["name"]))
    return spec | {name: value for name, value in options.items() if value and name in taken}


def _parameters(constructor: Callable[..., nn.Module]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(constructor).parameters
    except ValueError:
        return {}


def _pooled(features: Tensor, layout: str) -> Tensor:
    axes = [i for i, axis in enumerate(layout) if axis not in "NC"]
    return features.mean(dim=axes) if axes else features

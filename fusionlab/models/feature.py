"""Feature fusion: experts give embeddings or feature maps, an operator fuses, a head decides."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from fusionlab.component import Explanation
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert, ExpertFactory
from fusionlab.fusion.features import Concat, FeatureOperator, FeatureOperatorFactory
from fusionlab.fusion.features.base import keep_available
from fusionlab.heads import Head, HeadFactory, LinearHead, RegressionHead, SegmentationHead
from fusionlab.models.align import Alignment, AlignmentFactory, Footprint, centre_offset
from fusionlab.models.composition import Composition
from fusionlab.models.contributions import leave_one_out_shares, weight_shares
from fusionlab.types import Batch, Grid, Output, Schema, TimeSeries, Tokens


class FeatureFusion(Composition):
    """Features of several experts, a fusion of them, and one head over the result.

    Where the data have a target per sample, experts give embeddings, or with ``pooled: false``
    feature maps, of which the head gets the fused one; or tokens, where the operator takes these.
    Where they have one per pixel, experts give feature maps, and what the head answers is resized
    (bilinear) to the reference's image. Maps are aligned to the map of the reference expert and
    fused there.

    Experts are built without classes, so they carry no head of their own, and those trained before
    may have been trained on other classes, or on other variables. The steps are separate methods:
    frozen experts give the same features in every epoch, so `embed` may be computed once and
    `fuse` be given stored ones.

    Args:
        schema: what the data deliver.
        experts: by name; a name is its modality, unless the expert names another one. Several
            experts may look at one modality.
        fusion: the operator, built for the widths of the experts' features.
        head: built for the width of the operator's result and the classes, or the variables; if
            not given, `LinearHead` for samples, and `SegmentationHead` or `RegressionHead` for
            pixels.
        alignment: of feature maps; not used for embeddings.
        reference: the expert whose image and feature map lay the grids where maps are fused; the
            finest if not given.
        pooled: whether embeddings are fused, or maps; if not given, embeddings for samples and maps
            for pixels, which cannot be answered from embeddings.
        cache: folder to keep the features of frozen experts in, see `AnswerCache`; none if empty.
            Not part of the model that a checkpoint describes.

    Raises:
        InputError: for fewer than two experts, one that gives no features (or no maps, where these
            are fused) or is called ``fused``, a head for another kind of target or for maps where
            there are none, pooling for pixels, or data without classes and variables.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        experts: dict[str, ExpertFactory],
        fusion: FeatureOperatorFactory = Concat,
        head: HeadFactory | None = None,
        alignment: AlignmentFactory = Footprint,
        reference: str | None = None,
        pooled: bool | None = None,
        cache: str = "",
    ) -> None:
        if "fused" in experts:
            raise InputError("FeatureFusion: 'fused' is the result; give the expert another name.")
        if pooled and schema.pixelwise:
            raise InputError(
                f"FeatureFusion: the target of the data is {schema.target!r}, and pooled features "
                "say nothing of single pixels. Leave `pooled` out, or use data with a target per "
                "sample."
            )
        bare = schema.without_outputs()
        built = {name: make(bare.only(name)) for name, make in experts.items()}
        super().__init__(schema, built, reference=reference, cache=cache)
        self.pixelwise = schema.pixelwise
        self.pooled = not self.pixelwise if pooled is None else pooled
        self.gsd = self.pixel_size(self.reference_expert)
        widths = {
            name: _width(name, expert, maps=not self.pooled) for name, expert in built.items()
        }
        self.fusion: FeatureOperator = fusion(widths)
        if self.fusion.takes == "tokens":
            for name, expert in built.items():
                _require_tokens(name, expert)
        if self.pixelwise and not self.fusion.keeps_grid:
            raise InputError(
                f"FeatureFusion: the target of the data is {schema.target!r}, but what "
                f"{type(self.fusion).__name__} answers does not lie on the grid of the maps. "
                "Choose another operator (e.g. Add), or use data with a target per sample."
            )
        default: type[Head] = LinearHead
        if self.pixelwise:
            default = RegressionHead if schema.regresses else SegmentationHead
        self.head: Head = (head or default)(self.fusion.channels_out, schema.outputs)
        kind = "pixel" if self.pixelwise else "sample"
        answers = "values" if schema.regresses else "classes"
        if self.head.kind != kind or self.head.answers not in (None, answers):
            raise InputError(
                f"FeatureFusion: the target of the data is {schema.target!r}, {answers} for every "
                f"{kind}, but {type(self.head).__name__} answers {self.head.answers or answers} "
                f"for every {self.head.kind}. Leave `head:` out for {default.__name__}, or choose "
                "another one."
            )
        if self.pooled and self.head.map_size is not None:
            raise InputError(
                f"FeatureFusion: {type(self.head).__name__} takes maps, but the features of the "
                "experts are pooled to embeddings. Say `pooled: false` to fuse their maps, or "
                "choose ClassificationHead."
            )
        self.alignment: Alignment = alignment()

    @property
    def embedding_dim(self) -> int:
        """Width of the fused embedding.

        Raises:
            InputError: where it answers for pixels.
        """
        if self.pixelwise:
            raise InputError("This FeatureFusion answers for pixels and gives no embedding.")
        return self.fusion.channels_out

    def rebind(self, schema: Schema) -> None:
        """Reads from data that deliver other bands, another order or another encoding."""
        super().rebind(schema)
        self.gsd = self.pixel_size(self.reference_expert)

    def embed(self, batch: Batch) -> dict[str, Tensor | Tokens]:
        """Features of every expert, float32; zeros where its modality is missing.

        Returns:
            Embeddings ``(B, D)``; where maps are fused, ``(B, D, h, w)`` on the reference's map;
            `Tokens` for an operator that takes them.
        """
        available = self.available(batch)
        if self.fusion.takes == "tokens":
            tokens = {name: self.ask_tokens(name, batch) for name in self.experts}
            return {
                name: token._replace(valid=token.valid & available[name][:, None])
                for name, token in tokens.items()
            }
        features = {
            name: self.ask_features(name, batch, pooled=self.pooled).float()
            for name in self.experts
        }
        if not self.pooled:
            features = self._aligned(features, batch)
        return {name: keep_available(value, available[name]) for name, value in features.items()}

    def fuse(self, embeddings: Mapping[str, Tensor | Tokens], batch: Batch) -> Output:
        """Fuses the experts' features and decides.

        Args:
            embeddings: as `embed` gives them.
            batch: says who is available, and how large the reference's images are.

        Returns:
            Logits ``(B, K)`` or ``(B, K, H, W)``, the operator's weights where it has any, and of
            samples the embeddings with the ``fused`` one. Of maps of whole samples, embeddings and
            weights are means over positions.
        """
        return self._fuse(embeddings, self.available(batch), self._size(batch))

    def forward(self, batch: Batch) -> Output:
        """Experts, alignment, fusion, head."""
        return self.fuse(self.embed(batch), batch)

    def _fuse(
        self,
        embeddings: Mapping[str, Tensor | Tokens],
        available: dict[str, Tensor],
        size: tuple[int, int],
    ) -> Output:
        # Operator and head are cheap: float32 also where experts ran in half precision.
        with torch.autocast(next(iter(available.values())).device.type, enabled=False):
            given = {name: _float(value) for name, value in embeddings.items()}
            fused = self.fusion(given, available)
            logits = self.head(fused.features)
        if not self.pixelwise:
            weights = fused.weights and {n: _pooled(weight) for n, weight in fused.weights.items()}
            both = {**embeddings, "fused": fused.features}
            pooled = {name: _pooled(values) for name, values in both.items()}
            return Output(logits, weights=weights, embeddings=pooled, attention=fused.attention)
        weights = fused.weights and {
            # One weight for the whole map stands for all of its pixels.
            name: weight if weight.shape[-2:] == (1, 1) else _resized(weight, size)
            for name, weight in fused.weights.items()
        }
        return Output(_resized(logits, size), weights=weights)

    def explain(self, batch: Batch) -> Explanation:
        """The answer and each expert's share in it, ``(B,)`` or ``(B, H, W)``.

        Operators that weight the experts say the share themselves. For others it is measured by
        leaving one expert out, for the most probable class, or for values.
        """
        embeddings = self.embed(batch)
        available, size = self.available(batch), self._size(batch)
        output = self._fuse(embeddings, available, size)
        if output.weights is not None:
            shares = weight_shares(output.logits, output.weights, self.target)
        else:
            shares = leave_one_out_shares(
                output.logits,
                lambda there: self._fuse(embeddings, there, size).logits,
                available,
                self.target,
            )
        return Explanation(output, shares)

    def _aligned(self, maps: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Maps of all experts on the map of the reference."""
        resolution = {}
        for name, value in maps.items():
            expert = self.expert(name)
            rows = _image_size(batch, expert)[0]
            resolution[name] = self.pixel_size(name) * rows / value.shape[-2]
        rows, columns = maps[self.reference_expert].shape[-2:]
        grid = Grid(rows, columns, resolution[self.reference_expert])
        aligned = {}
        for name, value in maps.items():
            expert = self.expert(name)
            offset = centre_offset(
                batch,
                expert.modality,
                pixel=self.pixel_size(name),
                gsd=resolution[name],
                reference=self.reference,
                reference_pixel=self.pixel_size(self.reference_expert),
            )
            aligned[name] = self.alignment(
                value, grid, gsd=resolution[name], name=name, offset=offset
            )
        return aligned

    def _size(self, batch: Batch) -> tuple[int, int]:
        """Rows and columns of an answer for pixels: those of the reference's images."""
        if not self.pixelwise:
            return 1, 1
        return _image_size(batch, self.expert(self.reference_expert))


def _image_size(batch: Batch, expert: Expert) -> tuple[int, int]:
    values = batch["inputs"][expert.modality]
    array = values.values if isinstance(values, TimeSeries) else values
    assert isinstance(array, Tensor)  # fusions of maps take images only
    shape = array.shape
    return shape[-2], shape[-1]


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == size:
        return maps
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False)


def _float(features: Tensor | Tokens) -> Tensor | Tokens:
    if isinstance(features, Tokens):
        return features._replace(values=features.values.float())
    return features.float()


def _pooled(features: Tensor | Tokens) -> Tensor:
    """The mean over positions of maps, or over valid tokens; embeddings as they are."""
    if isinstance(features, Tokens):
        valid = features.valid[..., None]
        total = torch.where(valid, features.values, 0).sum(dim=1)
        return total / valid.sum(dim=1).clamp(min=1)
    return features if features.ndim == 2 else features.flatten(2).mean(dim=2)


def _require_tokens(name: str, expert: Expert) -> None:
    try:
        expert.require_tokens()
    except InputError as error:
        raise InputError(
            f"FeatureFusion cannot attend over the expert {name!r}: {error} Choose an operator "
            "that fuses embeddings, such as Concat, or another expert."
        ) from error


def _width(name: str, expert: Expert, *, maps: bool) -> int:
    try:
        if maps:
            expert.require_maps()
        return expert.embedding_dim
    except InputError as error:
        raise InputError(
            f"FeatureFusion cannot use the expert {name!r}: {error} Fuse its decisions with "
            "LateFusion, or choose an expert that gives features."
        ) from error

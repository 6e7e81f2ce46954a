"""Feature fusion: experts give embeddings, an operator fuses them, a head decides."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionlab.component import Explanation
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert, ExpertFactory
from fusionlab.fusion.features import Concat, FeatureOperator, FeatureOperatorFactory
from fusionlab.heads import Head, HeadFactory, LinearHead
from fusionlab.models.composition import Composition
from fusionlab.models.contributions import leave_one_out_shares, weight_shares
from fusionlab.types import Batch, Output, Schema


class FeatureFusion(Composition):
    """Embeddings of several experts, a fusion of them, and one head over the result.

    Experts are built without classes, so they carry no head of their own, and those trained before
    may have been trained on other classes. The steps are separate methods: frozen experts give the
    same embeddings in every epoch, so `embed` may be computed once and `fuse` be given stored ones.

    Args:
        schema: what the data deliver.
        experts: by name; a name is its modality, unless the expert names another one. Several
            experts may look at one modality.
        fusion: the operator, built for the widths of the experts' embeddings.
        head: built for the width of the operator's result and the classes.
        cache: folder to keep the embeddings of frozen experts in, see `AnswerCache`; none if empty.
            Not part of the model that a checkpoint describes.

    Raises:
        InputError: for fewer than two experts, one that gives no embedding or is called ``fused``,
            data whose target is a map, or data without classes.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        experts: dict[str, ExpertFactory],
        fusion: FeatureOperatorFactory = Concat,
        head: HeadFactory = LinearHead,
        cache: str = "",
    ) -> None:
        if schema.target == "segmentation":
            raise InputError(
                "FeatureFusion gives a sample its classes, but the data have a class per pixel. "
                "Use LateFusion, or data with the target multiclass or multilabel."
            )
        if "fused" in experts:
            raise InputError("FeatureFusion: 'fused' is the result; give the expert another name.")
        bare = schema.without_classes()
        built = {name: make(bare.only(name)) for name, make in experts.items()}
        super().__init__(schema, built, cache=cache)
        widths = {name: _embedding_dim(name, expert) for name, expert in built.items()}
        self.fusion: FeatureOperator = fusion(widths)
        self.head: Head = head(self.fusion.channels_out, schema.classes)

    @property
    def embedding_dim(self) -> int:
        """Width of the fused embedding."""
        return self.fusion.channels_out

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Embedding of every expert, ``(B, D)`` float32; zeros where its modality is missing."""
        available = self.available(batch)
        embeddings = {}
        for name in self.experts:
            values = self.ask_features(name, batch).float()
            there = available[name][:, None]
            embeddings[name] = torch.where(there, values, torch.zeros_like(values))
        return embeddings

    def fuse(self, embeddings: dict[str, Tensor], batch: Batch) -> Output:
        """Fuses the experts' embeddings and decides.

        Returns:
            Logits ``(B, K)``, the operator's weights ``(B, 1)`` where it has any, and the
            embeddings with the ``fused`` one.
        """
        return self._fuse(embeddings, self.available(batch))

    def forward(self, batch: Batch) -> Output:
        """Experts, fusion, head."""
        return self.fuse(self.embed(batch), batch)

    def _fuse(self, embeddings: dict[str, Tensor], available: dict[str, Tensor]) -> Output:
        # Operator and head are cheap: float32 also where experts ran in half precision.
        with torch.autocast(next(iter(embeddings.values())).device.type, enabled=False):
            given = {name: value.float() for name, value in embeddings.items()}
            fused = self.fusion(given, available)
            logits = self.head(fused.features)
        return Output(
            logits, weights=fused.weights, embeddings={**embeddings, "fused": fused.features}
        )

    def explain(self, batch: Batch) -> Explanation:
        """The answer and each expert's share in it, ``(B,)``.

        Operators that weight the experts say the share themselves. For others it is measured by
        leaving one expert out, for the most probable class of each sample.
        """
        embeddings = self.embed(batch)
        available = self.available(batch)
        output = self._fuse(embeddings, available)
        if output.weights is not None:
            shares = weight_shares(output.logits, output.weights)
        else:
            shares = leave_one_out_shares(
                output.logits,
                lambda there: self._fuse(embeddings, there).logits,
                available,
                self.target,
            )
        return Explanation(output, shares)


def _embedding_dim(name: str, expert: Expert) -> int:
    try:
        return expert.embedding_dim
    except InputError as error:
        raise InputError(
            f"FeatureFusion cannot use the expert {name!r}: {error} Fuse its decisions with "
            "LateFusion, or choose an expert that gives features."
        ) from error

"""Late fusion: experts decide, an operator fuses their decisions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fusionlab.component import Explanation, Model
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert, ExpertFactory
from fusionlab.fusion import Average, Fused, Fusion, FusionFactory
from fusionlab.models.align import AlignmentFactory, CentreCrop
from fusionlab.models.cache import AnswerCache
from fusionlab.types import Batch, Grid, Output, Schema


class LateFusion(Model):
    """Experts, alignment of their logits, and a fusion of them.

    The three steps are separate methods: frozen experts answer the same in every epoch, so
    `decide` may be computed once and `fuse` be given stored answers.

    Args:
        schema: what the data deliver.
        experts: by name; a name is its modality, unless the expert names another one.
        fusion: the operator, built for these experts and the classes.
        alignment: how the logits come onto one grid.
        reference: the expert whose grid is the common one; the finest if not given.
        cache: folder to keep the answers of frozen experts in, see `AnswerCache`; not part of
            the model that a checkpoint describes.

    Raises:
        InputError: for fewer than two experts, an unknown reference, or experts that do not share
            the classes of the data.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        experts: dict[str, ExpertFactory],
        fusion: FusionFactory = Average,
        alignment: AlignmentFactory = CentreCrop,
        reference: str | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        built = {name: make(schema.only(name)) for name, make in experts.items()}
        for name, expert in built.items():
            if expert.classes != schema.classes:
                raise InputError(
                    f"The expert {name!r} answers {expert.num_classes} classes "
                    f"{list(expert.classes)}, the data have {schema.num_classes} "
                    f"{list(schema.classes)}. All experts must share the classes of the data."
                )
        self.experts = nn.ModuleDict(built)
        self.fusion: Fusion = fusion(list(built), schema.classes)
        gsd = {name: expert.gsd for name, expert in built.items()}
        if reference is not None and reference not in built:
            raise InputError(f"reference {reference!r} is none of the experts {list(built)}.")
        self.reference = reference or min(gsd, key=lambda name: gsd[name])
        self.gsd = gsd[self.reference]
        self.alignment = alignment()
        self.cache = AnswerCache(cache) if cache is not None else None

    def expert(self, name: str) -> Expert:
        """An expert by name."""
        expert = self.experts[name]
        assert isinstance(expert, Expert)
        return expert

    @property
    def contributors(self) -> tuple[str, ...]:
        """Names of the experts."""
        return tuple(self.experts)

    def rebind(self, schema: Schema) -> None:
        """Reads from data that deliver other bands, another order or another encoding."""
        for name in self.experts:
            self.expert(name).rebind(schema)
        self.gsd = self.expert(self.reference).gsd

    def decide(self, batch: Batch) -> dict[str, Tensor]:
        """Logits of every expert at its own resolution."""
        if self.cache is not None:
            return {name: self.cache.ask(self.expert(name), batch) for name in self.experts}
        return {name: self.expert(name)(batch).logits for name in self.experts}

    def describe(self) -> dict[str, Any]:
        """As `Component.describe`, but without the cache."""
        description = super().describe()
        description["init_args"].pop("cache", None)
        return description

    def fuse(self, logits: dict[str, Tensor], batch: Batch) -> Output:
        """Aligns and fuses the experts' logits."""
        aligned, available, cloud_cover = self._align(logits, batch)
        fused: Fused = self.fusion(aligned, available, cloud_cover)
        return Output(fused.logits, weights=fused.weights)

    def forward(self, batch: Batch) -> Output:
        """Experts, alignment, fusion."""
        return self.fuse(self.decide(batch), batch)

    def explain(self, batch: Batch) -> Explanation:
        """The fused answer and each expert's share in it.

        Operators that weight the experts say the share themselves. For others (concatenation) it is
        measured by leaving one expert out: how much the probability of the predicted class falls
        without it, relative to the others.
        """
        aligned, available, cloud_cover = self._align(self.decide(batch), batch)
        fused: Fused = self.fusion(aligned, available, cloud_cover)
        predicted = fused.logits.argmax(dim=1, keepdim=True)
        if fused.weights is not None:
            shares = {
                name: weights.expand_as(fused.logits).gather(1, predicted).squeeze(1)
                for name, weights in fused.weights.items()
            }
            return Explanation(Output(fused.logits, weights=fused.weights), shares)
        chosen = fused.logits.softmax(dim=1).gather(1, predicted).squeeze(1)
        drops = []
        for name in self.experts:
            without = {**available, name: torch.zeros_like(available[name])}
            logits = self.fusion(aligned, without, cloud_cover).logits
            drop = chosen - logits.softmax(dim=1).gather(1, predicted).squeeze(1)
            there = available[name].reshape(-1, *[1] * (drop.ndim - 1))
            drops.append(drop.clamp(min=1e-6) * there)
        total = torch.stack(drops).sum(dim=0).clamp(min=1e-6)
        return Explanation(
            Output(fused.logits),
            {name: drop / total for name, drop in zip(self.experts, drops, strict=True)},
        )

    def _align(
        self, logits: dict[str, Tensor], batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        modality = {name: self.expert(name).modality for name in self.experts}
        available = {name: batch["available"][modality[name]] for name in self.experts}
        # Fusion is cheap and sums exponentials: float32 also where experts ran in half precision.
        logits = {name: value.float() for name, value in logits.items()}
        reference = logits[self.reference]
        if reference.ndim == 2:
            return logits, available, {}
        grid = Grid(reference.shape[-2], reference.shape[-1], self.gsd)
        offsets = batch.get("offset", {})
        aligned = {}
        cloud_cover = {}
        for name, value in logits.items():
            source = {"gsd": self.expert(name).gsd, "name": modality[name]}
            offset = offsets.get(modality[name])
            aligned[name] = self.alignment(value, grid, offset=offset, **source)
            cover = batch.get("cloud_cover", {}).get(modality[name])
            if cover is not None:
                cloud_cover[name] = self.alignment(cover.float(), grid, offset=offset, **source)
        return aligned, available, cloud_cover

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
        cache: folder to keep the answers of frozen experts in, see `AnswerCache`; none if empty.
            Not part of the model that a checkpoint describes.

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
        cache: str = "",
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
        self.reference_expert = reference or min(gsd, key=lambda name: gsd[name])
        self.reference = built[self.reference_expert].modality
        self.gsd = gsd[self.reference_expert]
        self.alignment = alignment()
        self.cache = AnswerCache(cache) if cache else None

    def expert(self, name: str) -> Expert:
        """An expert by name."""
        expert = self.experts[name]
        assert isinstance(expert, Expert)
        return expert

    @property
    def contributors(self) -> tuple[str, ...]:
        """Names of the experts."""
        return tuple(self.experts)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those of all experts, each once."""
        return tuple(dict.fromkeys(self.expert(name).modality for name in self.experts))

    def rebind(self, schema: Schema) -> None:
        """Reads from data that deliver other bands, another order or another encoding."""
        for name in self.experts:
            self.expert(name).rebind(schema)
        self.gsd = self.expert(self.reference_expert).gsd

    def decide(self, batch: Batch) -> dict[str, Tensor]:
        """Logits of every expert at its own resolution."""
        return {name: answer.logits for name, answer in self._ask(batch).items()}

    def _ask(self, batch: Batch) -> dict[str, Output]:
        if self.cache is not None:
            return {name: self.cache.ask(self.expert(name), batch) for name in self.experts}
        return {name: self.experts[name](batch) for name in self.experts}

    def describe(self) -> dict[str, Any]:
        """As `Component.describe`, but without the cache."""
        description = super().describe()
        description["init_args"].pop("cache", None)
        return description

    def fuse(self, logits: dict[str, Tensor], batch: Batch) -> Output:
        """Aligns and fuses the experts' logits."""
        fused = self._fuse(*self._align(logits, batch))
        return Output(fused.logits, weights=fused.weights)

    def forward(self, batch: Batch) -> Output:
        """Experts, alignment, fusion. Auxiliary logits are those of experts that still train."""
        answers = self._ask(batch)
        fused = self.fuse({name: answer.logits for name, answer in answers.items()}, batch)
        grid = Grid(fused.logits.shape[-2], fused.logits.shape[-1], self.gsd)
        auxiliary = tuple(
            self._on_grid(name, logits, grid, batch)
            for name, answer in answers.items()
            for logits in answer.auxiliary
        )
        return fused._replace(auxiliary=auxiliary)

    def _fuse(
        self,
        logits: dict[str, Tensor],
        available: dict[str, Tensor],
        cloud_cover: dict[str, Tensor],
    ) -> Fused:
        # Fusion is cheap and sums exponentials: float32 also where experts ran in half precision.
        with torch.autocast(next(iter(logits.values())).device.type, enabled=False):
            fused: Fused = self.fusion(logits, available, cloud_cover)
        return fused

    def explain(self, batch: Batch) -> Explanation:
        """The fused answer and each expert's share in it.

        Operators that weight the experts say the share themselves. For others (concatenation) it is
        measured by leaving one expert out: how much the probability of the predicted class falls
        without it, relative to the others.
        """
        aligned, available, cloud_cover = self._align(self.decide(batch), batch)
        fused = self._fuse(aligned, available, cloud_cover)
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
            logits = self._fuse(aligned, without, cloud_cover).logits
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
        available = {name: batch["available"][self.expert(name).modality] for name in self.experts}
        logits = {name: value.float() for name, value in logits.items()}
        reference = logits[self.reference_expert]
        if reference.ndim == 2:
            return logits, available, {}
        grid = Grid(reference.shape[-2], reference.shape[-1], self.gsd)
        aligned = {name: self._on_grid(name, maps, grid, batch) for name, maps in logits.items()}
        cloud_cover = {}
        for name in self.experts:
            cover = batch.get("cloud_cover", {}).get(self.expert(name).modality)
            if cover is not None:
                cloud_cover[name] = self._on_grid(name, cover.float(), grid, batch)
        return aligned, available, cloud_cover

    def _on_grid(self, name: str, maps: Tensor, grid: Grid, batch: Batch) -> Tensor:
        expert = self.expert(name)
        offset = batch.get("offset", {}).get(expert.modality)
        aligned: Tensor = self.alignment(maps, grid, gsd=expert.gsd, name=name, offset=offset)
        return aligned

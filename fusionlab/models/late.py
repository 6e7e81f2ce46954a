"""Late fusion: experts decide, an operator fuses their decisions."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionlab.component import Explanation
from fusionlab.errors import InputError
from fusionlab.experts.base import ExpertFactory
from fusionlab.fusion import Average, Fused, Fusion, FusionFactory
from fusionlab.models.align import AlignmentFactory, CentreCrop, centre_offset
from fusionlab.models.composition import Composition
from fusionlab.models.contributions import leave_one_out_shares, weight_shares
from fusionlab.types import Batch, Grid, Output, Schema


class LateFusion(Composition):
    """Experts, alignment of their logits, and a fusion of them.

    The three steps are separate methods: frozen experts answer the same in every epoch, so
    `decide` may be computed once and `fuse` be given stored answers.

    Args:
        schema: what the data deliver.
        experts: by name; a name is its modality, unless the expert names another one.
        fusion: the operator, built for these experts and the classes, or the variables.
        alignment: how the logits come onto one grid.
        reference: the expert whose grid is the common one; the finest if not given.
        cache: folder to keep the answers of frozen experts in, see `AnswerCache`; none if empty.
            Not part of the model that a checkpoint describes.

    Raises:
        InputError: for fewer than two experts, an unknown reference, or experts that do not share
            the classes, or variables, of the data.
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
        built = {name: make(schema.only(name)) for name, make in experts.items()}
        for name, expert in built.items():
            if expert.names != schema.outputs:
                kind = schema.kind
                raise InputError(
                    f"The expert {name!r} answers {expert.num_outputs} {kind} "
                    f"{list(expert.names)}, the data have {len(schema.outputs)} "
                    f"{list(schema.outputs)}. All experts must share the {kind} of the data."
                )
        super().__init__(schema, built, reference=reference, cache=cache)
        self.fusion: Fusion = fusion(list(built), schema.outputs)
        self.alignment = alignment()

    @property
    def embedding_dim(self) -> int:
        """Experts are asked for their decisions only.

        Raises:
            InputError: always.
        """
        raise InputError("LateFusion fuses decisions and gives no embedding.")

    def decide(self, batch: Batch) -> dict[str, Tensor]:
        """Logits of every expert at its own resolution."""
        return {name: answer.logits for name, answer in self._ask(batch).items()}

    def _ask(self, batch: Batch) -> dict[str, Output]:
        return {name: self.ask_logits(name, batch) for name in self.experts}

    def fuse(self, logits: dict[str, Tensor], batch: Batch) -> Output:
        """Aligns and fuses the experts' logits."""
        fused = self._fuse(*self._align(logits, batch))
        return Output(fused.logits, weights=fused.weights)

    def forward(self, batch: Batch) -> Output:
        """Experts, alignment, fusion. Auxiliary logits are those of experts that still train.

        Where an expert's modality is missing, the fused logits stand for its auxiliary ones,
        without a gradient: what was not seen teaches it nothing. Names of auxiliary heads have that
        of their expert before them.
        """
        answers = self._ask(batch)
        fused = self.fuse({name: answer.logits for name, answer in answers.items()}, batch)
        available = self.available(batch)
        auxiliary = []
        for name, answer in answers.items():
            for head in answer.auxiliary:
                logits, gsd = head.logits.float(), self.expert(name).gsd
                aligned = self._like(fused.logits, name, logits, batch, gsd=gsd)
                there = available[name].reshape(-1, *[1] * (aligned.ndim - 1))
                logits = torch.where(there, aligned, fused.logits.detach())
                own = head.name and f"{name}_{head.name}"
                auxiliary.append(head._replace(name=own, logits=logits))
        return fused._replace(auxiliary=tuple(auxiliary))

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
        measured by leaving one expert out: how much the probability of the predicted class (of the
        most probable one, where there may be several) falls without it, or how far a regressed
        value moves, relative to the others.
        """
        aligned, available, cloud_cover = self._align(self.decide(batch), batch)
        fused = self._fuse(aligned, available, cloud_cover)
        if fused.weights is not None:
            shares = weight_shares(fused.logits, fused.weights, self.target)
        else:
            shares = leave_one_out_shares(
                fused.logits,
                lambda there: self._fuse(aligned, there, cloud_cover).logits,
                available,
                self.target,
            )
        return Explanation(Output(fused.logits, weights=fused.weights), shares)

    def _align(
        self, logits: dict[str, Tensor], batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        available = self.available(batch)
        reference = logits[self.reference_expert]
        aligned = {
            name: self._like(reference, name, value.float(), batch, gsd=self.expert(name).gsd)
            for name, value in logits.items()
        }
        cloud_cover = {}
        for name in self.experts:
            cover = batch.get("cloud_cover", {}).get(self.expert(name).modality)
            if cover is not None and reference.ndim == 2:
                cloud_cover[name] = cover.float().flatten(1).mean(dim=1, keepdim=True)
            elif cover is not None:
                cloud_cover[name] = self._like(
                    reference, name, cover.float(), batch, gsd=self.pixel_size(name)
                )
        return aligned, available, cloud_cover

    def _like(
        self, reference: Tensor, name: str, values: Tensor, batch: Batch, *, gsd: float
    ) -> Tensor:
        """Maps of an expert on the grid of the reference; answers per sample as they are."""
        if values.ndim != reference.ndim:
            raise InputError(
                f"LateFusion fuses maps or answers per sample, not both: the expert {name!r} gives "
                f"{tuple(values.shape)}, {self.reference_expert!r} {tuple(reference.shape)}."
            )
        if values.ndim == 2:
            return values
        expert = self.expert(name)
        grid = Grid(reference.shape[-2], reference.shape[-1], self.gsd)
        offset = centre_offset(
            batch,
            expert.modality,
            pixel=self.pixel_size(name),
            gsd=gsd,
            reference=self.reference,
            reference_pixel=self.pixel_size(self.reference_expert),
        )
        aligned: Tensor = self.alignment(values, grid, gsd=gsd, name=name, offset=offset)
        return aligned

"""What all models over several experts have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fusionlab.component import Model
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert
from fusionlab.models.cache import AnswerCache
from fusionlab.models.missing import with_stand_ins
from fusionlab.types import Batch, Output, Schema, Tokens


class Composition(Model):
    """Experts by name, and how they are asked.

    While training, samples that miss an expert's modality are replaced by others of the batch
    before it sees them (`models.missing`); answers for them mean nothing and must be masked.

    Args:
        schema: what the data deliver.
        experts: built for these data, by name.
        reference: the expert on whose grid the model answers; the finest if not given.
        cache: folder to keep the answers of frozen experts in, see `AnswerCache`; none if empty.

    Attributes:
        target: what the target says, see `Schema`.

    Raises:
        InputError: for no expert, one whose name cannot be used, or an unknown reference.
    """

    def __init__(
        self,
        schema: Schema,
        experts: Mapping[str, Expert],
        *,
        reference: str | None = None,
        cache: str = "",
    ) -> None:
        super().__init__()
        if not experts:
            raise InputError(f"{type(self).__name__} needs experts: name two or more.")
        taken = nn.ModuleDict(), nn.ParameterDict()  # which keep parts by name, as attributes
        for name in experts:
            if not name or "." in name or any(hasattr(module, name) for module in taken):
                raise InputError(
                    f"An expert cannot be called {name!r}, which stands for something else in "
                    "PyTorch. Give it another name, without dots."
                )
        if reference is not None and reference not in experts:
            raise InputError(f"reference {reference!r} is none of the experts {list(experts)}.")
        self.target = schema.target
        self.experts = nn.ModuleDict(dict(experts))
        gsd = {name: expert.gsd for name, expert in experts.items()}
        self.reference_expert = reference or min(gsd, key=lambda name: gsd[name])
        self.reference = experts[self.reference_expert].modality
        self.gsd = gsd[self.reference_expert]
        self.cache = AnswerCache(cache) if cache else None

    def expert(self, name: str) -> Expert:
        """An expert by name."""
        expert = self.experts[name]
        assert isinstance(expert, Expert)
        return expert

    def pixel_size(self, name: str) -> float:
        """Of the images that an expert looks at, metres; its answers may be coarser."""
        expert = self.expert(name)
        return expert.schema.modalities[expert.modality].gsd

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

    def describe(self) -> dict[str, Any]:
        """As `Component.describe`, but without the cache."""
        description = super().describe()
        description["init_args"].pop("cache", None)
        return description

    def available(self, batch: Batch) -> dict[str, Tensor]:
        """Per expert ``(B,)`` bool: whether its modality is there."""
        return {name: batch["available"][self.expert(name).modality] for name in self.experts}

    def ask_logits(self, name: str, batch: Batch) -> Output:
        """An expert's decision, from the cache where there is one and the expert is frozen."""
        expert = self.expert(name)
        if self.cache is not None and self.cache.keeps(expert):
            return Output(self.cache.ask(expert, batch, "logits"))
        answer: Output = expert(self._shown(expert, batch))
        return answer

    def ask_features(self, name: str, batch: Batch, *, pooled: bool = True) -> Tensor:
        """An expert's embedding ``(B, D)`` or map ``(B, D, h, w)``; from the cache, if any."""
        expert = self.expert(name)
        if self.cache is not None and self.cache.keeps(expert):
            return self.cache.ask(expert, batch, "embedding" if pooled else "map")
        values = self._shown(expert, batch)["inputs"][expert.modality]
        return expert.features(values, pooled=pooled)

    def ask_tokens(self, name: str, batch: Batch) -> Tokens:
        """What an expert says of the parts of a sample; never from the cache."""
        expert = self.expert(name)
        return expert.tokens(self._shown(expert, batch)["inputs"][expert.modality])

    def _shown(self, expert: Expert, batch: Batch) -> Batch:
        return with_stand_ins(batch, expert.modality) if self.training else batch

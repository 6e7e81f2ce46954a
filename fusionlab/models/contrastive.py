"""Several encoders that put what they see of one sample in the same place of a common space.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP),
2021, arXiv 2103.00020, of images and texts; here of any experts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionlab.errors import InputError
from fusionlab.experts.base import Expert, ExpertFactory
from fusionlab.fusion.features.base import keep_available
from fusionlab.models.composition import Composition
from fusionlab.types import Batch, Output, Raw, Schema

_SMALLEST_NORM = 1e-6


class ContrastiveModel(Composition):
    """Experts by name, and a projection head of each to embeddings of one width and of length 1.

    Experts are built without classes, for whole samples, so what the data's target says plays no
    part. Those trained before may be frozen (`FrozenExpert`): then their heads learn alone.

    Args:
        schema: what the data deliver.
        experts: by name; a name is its modality, unless the expert names another one.
        width: of the embeddings.
        hidden: width of a hidden layer in every projection head, as in Chen et al., "A Simple
            Framework for Contrastive Learning of Visual Representations", 2020, arXiv 2002.05709;
            None for heads that are linear and without bias, as in CLIP.
        cache: folder to keep the features of frozen experts in, see `AnswerCache`; none if empty.
            Not part of the model that a checkpoint describes.

    Attributes:
        projections: the heads, by expert.

    Raises:
        InputError: for fewer than two experts, one that gives no features, or a width below 1.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        experts: dict[str, ExpertFactory],
        width: int = 256,
        hidden: int | None = None,
        cache: str = "",
    ) -> None:
        if len(experts) < 2:
            raise InputError(
                f"ContrastiveModel compares two or more experts, got {list(experts)}: name another "
                "one."
            )
        for option, value in (("width", width), ("hidden", hidden)):
            if value is not None and value < 1:
                raise InputError(f"ContrastiveModel {option} must be 1 or more, got {value}.")
        bare = sample_schema(schema)
        built = {name: make(bare.only(name)) for name, make in experts.items()}
        super().__init__(bare, built, cache=cache)
        self.width = width
        self.projections = nn.ModuleDict(
            {name: _head(_width(name, expert), hidden, width) for name, expert in built.items()}
        )

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings."""
        return self.width

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Embeddings of every expert, float32 ``(B, D)`` of length 1; zeros where it is missing."""
        available = self.available(batch)
        return {
            name: self.project(name, self.ask_features(name, batch), available[name])
            for name in self.experts
        }

    def encode(self, name: str, values: Raw) -> Tensor:
        """Embeddings ``(B, D)`` of raw values by one expert, all of them there."""
        return self.project(name, self.expert(name).features(values))

    def project(self, name: str, features: Tensor, available: Tensor | None = None) -> Tensor:
        """Embeddings ``(B, D)`` of an expert's features.

        Args:
            name: of the expert.
            features: ``(B, C)``.
            available: ``(B,)`` bool; all there if not given.
        """
        # Heads are cheap: float32 also where experts ran in half precision.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            if available is None:
                return F.normalize(self.projections[name](features), eps=_SMALLEST_NORM)
            projected = self.projections[name](keep_available(features, available))
            # What is missing has no direction; a gradient of its length would not be finite.
            projected = torch.where(available[:, None], projected, 1.0)
            return keep_available(F.normalize(projected, eps=_SMALLEST_NORM), available)

    def forward(self, batch: Batch) -> Output:
        """Embeddings, and as logits the cosine of each two experts' for one sample.

        Returns:
            Logits ``(B, M (M - 1) / 2)`` in [-1, 1], the first expert with the second, with the
            third… then the second with the third…; 0 where one is missing.
        """
        embeddings = self.embed(batch)
        every = list(embeddings.values())
        cosines = [(a * b).sum(dim=1) for i, a in enumerate(every) for b in every[i + 1 :]]
        return Output(torch.stack(cosines, dim=1), embeddings=embeddings)


ContrastiveModelFactory = Callable[[Schema], ContrastiveModel]
"""In YAML: ``class_path`` and ``init_args`` of a contrastive model."""


def sample_schema(schema: Schema) -> Schema:
    """What experts are built for that answer embeddings of whole samples, and nothing else."""
    return Schema(schema.modalities, target="multiclass")


def _head(channels: int, hidden: int | None, width: int) -> nn.Module:
    if hidden is None:
        return nn.Linear(channels, width, bias=False)
    return nn.Sequential(
        nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, width, bias=False)
    )


def _width(name: str, expert: Expert) -> int:
    try:
        return expert.embedding_dim
    except InputError as error:
        raise InputError(
            f"ContrastiveModel cannot use the expert {name!r}: {error} Choose an expert that gives "
            "features."
        ) from error

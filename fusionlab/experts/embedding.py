"""What experts have in common that decide by one embedding of a whole sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fusionlab.errors import InputError
from fusionlab.experts.base import Expert
from fusionlab.heads import Head, HeadFactory, LinearHead
from fusionlab.types import Output, Raw, Tokens


class EmbeddingExpert(Expert):
    """A network that gives embeddings, and a head that decides by them.

    Built for data without classes and variables it has no head and gives features only.

    Subclasses implement `features` and say the width of the embedding, and call `add_head` once
    their layers are there.

    Attributes:
        head: from embedding to logits, or values; None where there are no classes and variables.
    """

    head: Head | None

    def add_head(self, head: HeadFactory | None) -> None:
        """Builds the head.

        Args:
            head: in YAML; one linear layer if not given.

        Raises:
            InputError: for a head that does not answer for whole samples from embeddings, or that
                is made for another kind of target.
        """
        plain: HeadFactory = _linear
        make = head if head is not None else plain
        self.head = make(self.embedding_dim, self.names) if self.names else None
        if self.head is None:
            return
        answers = "values" if self.schema.regresses else "classes"
        fits = self.head.kind == "sample" and self.head.map_size is None
        if not fits or self.head.answers not in (None, answers):
            raise InputError(
                f"{type(self).__name__} decides about whole samples ({answers}) from embeddings, "
                f"which {type(self.head).__name__} cannot. Leave `head:` out for a linear layer, "
                "or choose another one, such as MLPHead."
            )

    def drop_head(self) -> None:
        """Gives features only from now on."""
        self.head = None

    def logits(self, values: Raw) -> Tensor:
        """Logits ``(B, K)`` of raw values; see `answer`."""
        return self.answer(values).logits

    def answer(self, values: Raw) -> Output:
        """Logits ``(B, K)`` of raw values, and the embedding they come from.

        Raises:
            InputError: if it was built for data without classes.
        """
        if self.head is None:
            raise InputError(
                f"This {type(self).__name__} was built for data without classes and gives features "
                "only. Use it in FeatureFusion, or give it data with classes."
            )
        embedding = self.features(values)
        return Output(self.head(embedding), embeddings={self.modality: embedding})

    def describe(self) -> dict[str, Any]:
        """As every component, but without a head that is not there."""
        description = super().describe()
        if self.head is None:
            description["init_args"].pop("head", None)
        return description

    def _plain(self, name: str, value: Any) -> Any:  # noqa: ANN401
        if name == "head" and self.head is None:
            return None  # a factory that was not used
        return super()._plain(name, value)


class TokenExpert(EmbeddingExpert):
    """An expert for samples whose parts lie on no image: words, columns of a table, dates.

    Subclasses implement `embed` and `tokens`. Both use all parameters but the head's, so that
    training with either leaves none without a gradient.
    """

    def add_head(self, head: HeadFactory | None) -> None:
        """Builds the head; see `EmbeddingExpert.add_head`.

        Raises:
            InputError: also for data with a target per pixel.
        """
        if self.names and self.schema.pixelwise:
            raise InputError(
                f"{type(self).__name__} answers for whole samples, but the target of the data is "
                f"{self.schema.target!r}, one per pixel. Use an expert for images, or data with a "
                "target per sample."
            )
        super().add_head(head)

    def embed(self, values: Raw) -> Tensor:
        """Embeddings of raw values, ``(B, D)``."""
        raise NotImplementedError(f"{type(self).__name__} does not define embed().")

    def features(self, values: Raw, *, pooled: bool = True) -> Tensor:
        """Embeddings of raw values, ``(B, D)``.

        Args:
            values: raw values.
            pooled: there are embeddings only.

        Raises:
            InputError: if asked for feature maps, or given values of another kind.
        """
        if not pooled:
            self.require_maps()
        return self.embed(values)

    def tokens(self, values: Raw) -> Tokens:
        """What it says of the parts of samples, see `Tokens`; they have no grid.

        Args:
            values: raw values.

        Raises:
            InputError: if given values of another kind.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define tokens().")

    def require_tokens(self) -> None:
        """There are some."""

    def require_maps(self) -> None:
        """There are none.

        Raises:
            InputError: always; says what there is instead.
        """
        kind = self.schema.modalities[self.modality].kind
        raise InputError(
            f"{type(self).__name__} looks at a {kind}, of which there are no feature maps: it "
            "gives embeddings, for targets per sample (leave `pooled` out), and tokens."
        )


def _linear(channels: int, names: Sequence[str]) -> Head:
    return LinearHead(channels, names, norm=False, dropout=0.0)

"""A small transformer encoder for texts, trained from scratch.

Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762. Word dropout as in Bowman et
al., "Generating Sentences from a Continuous Space", 2015, arXiv:1511.06349.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fusionlab.backbones.dates import encode_days
from fusionlab.errors import InputError
from fusionlab.experts.embedding import TokenExpert
from fusionlab.experts.sequence import Pooling, SequenceEncoder
from fusionlab.experts.tokenizer import TextReader, pack, read_tokenizer, unpack
from fusionlab.heads import HeadFactory
from fusionlab.heads.base import checked_rate
from fusionlab.types import Raw, Schema, Tokens, kind_of

Positions = Literal["sinusoidal", "learned"]
"""How a token's place in the text is told: by fixed sines and cosines, or by learned vectors."""

_DROPPED = 0  # row of the table for words that were dropped, before those of the vocabulary
_PERIOD = 10_000.0  # of the slowest sine over places, as in the paper


class TextExpert(TokenExpert):
    """A transformer encoder over the tokens of a text, in any language.

    The tokenizer is the data's, made from the training texts, or that of a file. It is the model's
    from then on and is kept in its checkpoints: other data, with another tokenizer, change nothing.

    A learned token stands before each text. A text without any token is that one alone, so it has
    a learned embedding. Tokens are that one and one per token of the text.

    Args:
        schema: what the data deliver.
        tokenizer: path of a tokenizer in the JSON format of the library ``tokenizers``, instead of
            the data's.
        width: of embeddings and tokens; even, and a multiple of `heads`.
        depth: number of transformer blocks.
        heads: attention heads.
        mlp_ratio: width of a block's inner layer over `width`.
        max_length: tokens of a text that are read, with those that the tokenizer adds; longer texts
            are cut.
        positions: ``sinusoidal`` or ``learned``.
        pooling: what becomes the embedding: ``average``, the mean over all tokens, or ``first``,
            the learned token before the text.
        dropout: of embedded tokens, after attention and within the inner layers, in [0, 1).
        word_dropout: while training, the share of tokens that are hidden, in [0, 1): one learned
            vector stands in their place.
        head: from embedding to logits, or values; one linear layer if not given.
        packed_tokenizer: the tokenizer itself, see `tokenizer.pack`; filled in by checkpoints.
        modality: see `Expert`.

    Raises:
        InputError: if there is no tokenizer, it cannot be used, or it is not that of the checkpoint
            to restore; if an option is out of its range; if the modality is no text, or the target
            of the data is one per pixel.
    """

    kinds = ("text",)

    def __init__(
        self,
        schema: Schema,
        *,
        tokenizer: str | None = None,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        mlp_ratio: int = 4,
        max_length: int = 128,
        positions: Positions = "sinusoidal",
        pooling: Pooling = "average",
        dropout: float = 0.1,
        word_dropout: float = 0.0,
        head: HeadFactory | None = None,
        packed_tokenizer: str | None = None,
        modality: str | None = None,
    ) -> None:
        super().__init__(schema, modality=modality)
        where = type(self).__name__
        own = self.schema.modalities[self.modality].tokenizer
        self.reader = _reader(own, tokenizer, packed_tokenizer, max_length=max_length, where=where)
        if positions not in get_args(Positions):
            raise InputError(
                f"{where}: positions is one of {list(get_args(Positions))}, got {positions!r}."
            )
        self.word_dropout = checked_rate(word_dropout, where=f"{where}: word")
        self.encoder = SequenceEncoder(
            width,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            pooling=pooling,
            where=where,
        )
        self.words = nn.Embedding(1 + self.reader.size, width)
        nn.init.normal_(self.words.weight, std=0.02)
        places = 0.02 * encode_days(torch.arange(max_length), width, period=_PERIOD)
        self.positions: Tensor
        if positions == "learned":
            self.positions = nn.Parameter(torch.empty(max_length, width))
            nn.init.normal_(self.positions, std=0.02)
        else:
            self.register_buffer("positions", places, persistent=False)
        self.add_head(head)

    @property
    def embedding_dim(self) -> int:
        """Width of the embedding."""
        return self.words.embedding_dim

    def embed(self, values: Raw) -> Tensor:
        """Embeddings ``(B, D)`` of B texts.

        Raises:
            InputError: if given anything but texts.
        """
        return self.encoder.pool(*self._encode(values))

    def tokens(self, values: Raw) -> Tokens:
        """The learned token before each text and one per token of it, ``(B, 1 + N, D)``.

        Args:
            values: B texts.

        Raises:
            InputError: if given anything but texts.
        """
        return Tokens(*self._encode(values))

    def token_names(self, values: Raw) -> list[list[str]]:
        """The words or pieces of words that tokens stand for; first the one before the text."""
        assert isinstance(values, list)
        return [["(text)", *pieces] for pieces in self.reader.pieces(values)]

    def _encode(self, values: Raw) -> tuple[Tensor, Tensor]:
        if not isinstance(values, list):
            raise InputError(
                f"{type(self).__name__} takes a list of texts, but got {kind_of(values)} for "
                f"{self.modality!r}."
            )
        numbers, valid = self.reader(values, self.words.weight.device)
        rows = numbers + 1
        if self.training and self.word_dropout:
            rows = rows.masked_fill(torch.rand_like(rows.float()) < self.word_dropout, _DROPPED)
        parts = self.words(rows) + self.positions[: rows.shape[1]]
        encoded: tuple[Tensor, Tensor] = self.encoder(parts, valid)
        return encoded

    def describe(self) -> dict[str, Any]:
        """As every component, with the tokenizer itself instead of its path."""
        description = super().describe()
        description["init_args"].pop("tokenizer", None)
        description["init_args"]["packed_tokenizer"] = pack(self.reader.vocabulary)
        return description


def _reader(
    own: str, path: str | None, packed: str | None, *, max_length: int, where: str
) -> TextReader:
    """That of a checkpoint, else of a file, else of the data."""
    given = None
    if path is not None and (packed is None or Path(path).is_file()):
        source = f"{where} tokenizer: {path}"
        given = TextReader(read_tokenizer(path), max_length=max_length, where=source)
    if packed is not None:
        known = unpack(packed, where=where)
        kept = TextReader(known, max_length=max_length, where=f"{where} packed_tokenizer")
        if given is not None and given.vocabulary != kept.vocabulary:
            raise InputError(
                f"{where} tokenizer: {path} is not the tokenizer that this model was trained with. "
                "The checkpoint holds that one, so leave `tokenizer:` out; to use the other, train "
                "anew, without --ckpt_path."
            )
        return kept
    if given is not None:
        return given
    if not own:
        raise InputError(
            f"{where} needs a tokenizer, and the data bring none (a set with training texts makes "
            "one by itself). Give `tokenizer:`, the path of a `tokenizer.json` in the format of "
            "the library `tokenizers`."
        )
    return TextReader(own, max_length=max_length, where=f"{where}: the tokenizer of the data")

"""Texts of a manifest, and the pieces of words that its training texts are made of.

Byte-pair encoding on bytes ("Language Models are Unsupervised Multitask Learners", Radford et al.,
2019; byte-pair encoding for words: Sennrich et al., 2016, arXiv 1508.07909), by the library
``tokenizers``: no text is beyond it, and a vocabulary of some thousand pieces is enough.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from fusionlab.data.manifest.options import TextColumn
from fusionlab.data.manifest.source import Rows, Source
from fusionlab.data.manifest.statistics import keep
from fusionlab.data.manifest.table import Manifest, present
from fusionlab.types import Modality

log = logging.getLogger(__name__)

SPECIAL = ("[PAD]", "[UNK]")
"""The first entries of a vocabulary; the second never occurs, as every byte has its own."""
_VERSION = 1
_BATCH = 10_000


class TextSource(Source):
    """A column of texts.

    Args:
        name: of the modality.
        options: what the user says of it.
        manifest: the table.

    Raises:
        InputError: if there is no such column.
    """

    section = "texts"

    def __init__(self, name: str, options: TextColumn, manifest: Manifest) -> None:
        super().__init__(name)
        self.options = options
        self._texts = manifest.texts(options.column, where=self.where)
        self.there = present(self._texts)

    def describe(self, training: Rows, *, store: Path, verify: Callable[[], None]) -> None:
        """See `Source.describe`: trains the tokenizer, or finds it in the store."""
        rows = training[self.there[training]]
        tokenizer = self._tokenizer(rows, store) if len(rows) else ""
        if len(training) and not len(rows):
            log.warning("%s: no row of the training split has a text.", self.where)
        self.modality = Modality((), kind="text", tokenizer=tokenizer)

    def read(self, row: int) -> str | None:
        """The text of a row; None if it is empty."""
        text: str | None = self._texts[int(row)].as_py()
        return text

    def blank(self) -> str:
        """No text."""
        return ""

    def _tokenizer(self, rows: Rows, store: Path) -> str:
        digest = hashlib.blake2b(digest_size=12)
        digest.update(
            json.dumps([_VERSION, self.options.vocabulary, self.options.lowercase]).encode()
        )
        for texts in self._batches(rows):
            digest.update(json.dumps(texts).encode())
        path = store / f"{self.name}-{digest.hexdigest()}.tokenizer.json"
        if path.is_file():
            try:
                known: str = Tokenizer.from_file(str(path)).to_str()
                return known
            except Exception:  # the library raises nothing narrower
                log.warning("%s is damaged; it is made anew.", path)
        log.info("Making a vocabulary of %r from %d texts.", self.name, len(rows))
        made = train_tokenizer(
            self._batches(rows),
            vocabulary=self.options.vocabulary,
            lowercase=self.options.lowercase,
        )
        keep(path, made)
        return made

    def _batches(self, rows: Rows) -> Iterator[list[str]]:
        for first in range(0, len(rows), _BATCH):
            yield self._texts.take(rows[first : first + _BATCH]).to_pylist()


def train_tokenizer(texts: Iterator[list[str]], *, vocabulary: int, lowercase: bool) -> str:
    """A tokenizer of some texts; the same texts give the same one.

    Args:
        texts: in lists.
        vocabulary: how many entries it has at most; every byte has one.
        lowercase: whether capitals count as small letters.

    Returns:
        The JSON of the library ``tokenizers``. Entry 0 is ``[PAD]``.
    """
    tokenizer = Tokenizer(models.BPE())
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    made: str = tokenizer.to_str()
    return made

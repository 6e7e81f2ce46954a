"""Tokenizers of the library ``tokenizers``, as text that travels in a checkpoint."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from fusionlab.errors import InputError

_LARGEST = 1 << 28  # bytes of a tokenizer in a checkpoint, which is not to be trusted with more
_STRANGE = "\u16a0 \u2603 \u5b57 \U0001f6f0"
"""A rune, a snowman, a Chinese character and a satellite: few vocabularies have them all."""


class TextReader:
    """Turns texts into token numbers.

    Any text goes through: words that the vocabulary lacks become its unknown token (or, where it
    has none by design, are spelled in smaller pieces or left out).

    Args:
        vocabulary: the tokenizer's JSON.
        max_length: tokens of a text that are kept, with those that the tokenizer adds by itself
            (beginning, end); longer texts are cut.
        where: where the JSON is from, for error messages.

    Attributes:
        vocabulary: its JSON, in ASCII, with neither padding nor truncation.
        size: one more than the largest token number.

    Raises:
        InputError: if the JSON is no tokenizer, its vocabulary is empty, it fails for unknown
            words, or `max_length` leaves no room for the text.
    """

    def __init__(self, vocabulary: str, *, max_length: int, where: str) -> None:
        try:
            tokenizer = Tokenizer.from_str(vocabulary)
        except Exception as error:  # the library raises no class of its own
            raise InputError(
                f"{where} is not in the JSON format of the library `tokenizers` ({error}). Save it "
                "there with `Tokenizer.save`, or from transformers with "
                "`tokenizer.backend_tokenizer.save`."
            ) from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        # Not as the library writes it: ASCII survives every encoding on the way.
        self.vocabulary = json.dumps(json.loads(tokenizer.to_str()), separators=(",", ":"))
        numbers = tokenizer.get_vocab(with_added_tokens=True).values()
        self.size = max(numbers, default=-1) + 1
        if not self.size:
            raise InputError(f"{where} has an empty vocabulary: train it on texts first.")
        added = tokenizer.num_special_tokens_to_add(is_pair=False)
        if max_length <= added:
            raise InputError(
                f"max_length is the number of tokens of a text that are kept, of which this "
                f"tokenizer adds {added} by itself, so at least {added + 1}; got {max_length}."
            )
        tokenizer.enable_truncation(max_length)
        try:
            tokenizer.encode(_STRANGE)
        except Exception as error:
            raise InputError(
                f"{where} fails for words that it does not know ({error}). Train it with an "
                "unknown token, e.g. `WordLevel(unk_token='[UNK]')`."
            ) from error
        self._tokenizer = tokenizer

    def __call__(
        self, texts: Sequence[str], device: torch.device | None = None
    ) -> tuple[Tensor, Tensor]:
        """Token numbers of texts.

        Args:
            texts: B of them.
            device: where the numbers are wanted.

        Returns:
            Numbers ``(B, N)`` int64, 0 where shorter texts are padded, and which are valid, ``(B,
            N)`` bool. N is that of the longest, which may be 0.
        """
        # Not as one batch: the library would start threads of its own, which do not go together
        # with data loaders that fork.
        listed = [self._tokenizer.encode(_encodable(text)).ids for text in texts]
        lengths = torch.tensor([len(ids) for ids in listed])
        longest = max(map(len, listed), default=0)
        numbers = torch.tensor([ids + [0] * (longest - len(ids)) for ids in listed])
        numbers = numbers.reshape(len(listed), longest).long()
        valid = torch.arange(longest) < lengths[:, None]
        # No waiting for what the device is busy with.
        return numbers.to(device, non_blocking=True), valid.to(device, non_blocking=True)

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """What of each text its tokens stand for, in their order.

        Tokens that stand for nothing in it, such as its end, are given by their own names.
        """
        listed = []
        for text in map(_encodable, texts):
            found = self._tokenizer.encode(text)
            spans = zip(found.offsets, found.tokens, strict=True)
            listed.append([text[a:b].strip() or token for (a, b), token in spans])
        return listed


def _encodable(text: str) -> str:
    """The text with a question mark for halves of characters, as damaged files hold them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def pack(vocabulary: str) -> str:
    """The JSON of a tokenizer as a shorter text, for checkpoints: zlib and base64."""
    return base64.b64encode(zlib.compress(vocabulary.encode(), level=9)).decode()


def unpack(packed: str, *, where: str) -> str:
    """The inverse of `pack`.

    Raises:
        InputError: if it is nothing that `pack` made.
    """
    try:
        reader = zlib.decompressobj()
        text = reader.decompress(base64.b64decode(packed, validate=True), _LARGEST)
        if not reader.eof:
            raise ValueError("it is not complete")
        return text.decode()
    except (ValueError, zlib.error) as error:
        raise InputError(
            f"{where}: packed_tokenizer is filled in by checkpoints and cannot be read ({error}). "
            "Leave it out, and give the path of a tokenizer with `tokenizer:`."
        ) from error


def read_tokenizer(path: str) -> str:
    """The JSON of a tokenizer in a file.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"tokenizer: {path} cannot be read ({error}). Give the path of a `tokenizer.json`, as "
            "the library `tokenizers` saves it."
        ) from error

"""The text tower of CLIP, with its pretrained weights, as the library ``transformers`` has it.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021,
arXiv:2103.00020. Weights keep their licence and are never part of this package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from fusionlab.backbones.hub_weights import HUB_FILES, hub_file
from fusionlab.checkpoints import load_weights, read_checkpoint
from fusionlab.errors import InputError
from fusionlab.experts.embedding import TokenExpert
from fusionlab.experts.fingerprint import WeightsFingerprint
from fusionlab.experts.tokenizer import TextReader, pack, read_tokenizer, unpack
from fusionlab.heads import HeadFactory
from fusionlab.types import Raw, Schema, Tokens, kind_of

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
)
"""What of a configuration decides the network; the rest is about training and generation."""

_PREFIX = "text_model."
"""Of the text tower's weights within CLIP."""


class ClipTextExpert(TokenExpert):
    """CLIP's text tower with its own tokenizer: the state at the end of a text is its embedding.

    Needs the library ``transformers`` (``pip install 'fusionlab[clip]'``). Weights, tokenizer and
    sizes are kept in checkpoints, which ask neither the hub nor the folder again. The tokenizer of
    the data is not used. The projection into the space that CLIP shares with images is left out:
    contrastive training brings one of its own.

    Tokens are one per token of the text, with those for its beginning and end; each knows those
    before it only.

    Args:
        schema: what the data deliver.
        pretrained: a folder with ``config.json``, ``tokenizer.json`` and weights, or the name of a
            repository of the hub, kept in the Hugging Face cache; of a whole CLIP, or of its text
            tower.
        frozen: the tower (not the head) stays as it is: no gradient, no dropout.
        max_length: tokens of a text that are read, with beginning and end; longer texts are cut.
            As many as the tower takes (77) if not given.
        head: from embedding to logits, or values; one linear layer if not given.
        restored: set in checkpoints that hold the weights: then `pretrained` is not asked again.
        packed_tokenizer: the tokenizer itself, see `tokenizer.pack`; filled in by checkpoints.
        tower_sizes: sizes of the tower; filled in by checkpoints.
        modality: see `Expert`.

    Raises:
        InputError: if ``transformers`` is not installed, if files cannot be had, are no CLIP or do
            not fit each other, if the modality is no text, or the target of the data is one per
            pixel.
    """

    kinds = ("text",)

    def __init__(
        self,
        schema: Schema,
        *,
        pretrained: str = "openai/clip-vit-base-patch32",
        frozen: bool = True,
        max_length: int | None = None,
        head: HeadFactory | None = None,
        restored: bool = False,
        packed_tokenizer: str | None = None,
        tower_sizes: dict[str, Any] | None = None,
        modality: str | None = None,
    ) -> None:
        super().__init__(schema, modality=modality)
        where = type(self).__name__
        if restored and (packed_tokenizer is None or tower_sizes is None):
            raise InputError(
                f"{where}: `restored` is set by checkpoints, together with the tokenizer and the "
                "sizes of the tower. Leave it out."
            )
        self.pretrained = pretrained
        self.frozen = frozen
        self.tower_sizes = tower_sizes or _sizes(pretrained, where=where)
        longest = int(self.tower_sizes["max_position_embeddings"])
        kept = longest if max_length is None else max_length
        if kept > longest:
            raise InputError(
                f"{where}: max_length is {max_length}, but {pretrained} takes {longest} tokens."
            )
        if packed_tokenizer is None:
            words = read_tokenizer(_file(pretrained, ("tokenizer.json",), where=where))
        else:
            words = unpack(packed_tokenizer, where=where)
        source = f"{where}: the tokenizer of {pretrained}"
        self.reader = TextReader(words, max_length=kept, where=source)
        if self.reader.size > self.tower_sizes["vocab_size"] or not self.reader([""])[1].any():
            raise InputError(
                f"{source} does not go with the tower: it has {self.reader.size} tokens, the tower "
                f"{self.tower_sizes['vocab_size']}, and it must mark the end of a text. Give a "
                "folder whose files belong together."
            )
        self.body = _tower(self.tower_sizes, where=where)
        if not restored:
            self._load(_file(pretrained, HUB_FILES, where=where))
        self._weights = WeightsFingerprint(self.body)
        if frozen:
            self.body.requires_grad_(False)
        self.add_head(head)
        self.train(self.training)

    def _load(self, path: str) -> None:
        weights = read_checkpoint(path).state_dict
        if any(name.startswith(_PREFIX) for name in weights):
            weights = {
                name.removeprefix(_PREFIX): weight
                for name, weight in weights.items()
                if name.startswith(_PREFIX)
            }
        weights.pop("embeddings.position_ids", None)  # 0, 1, 2…, in files of older versions
        weights.pop("text_projection.weight", None)
        load_weights(self.body, weights, where=path)

    @property
    def embedding_dim(self) -> int:
        """Width of the embedding."""
        return int(self.tower_sizes["hidden_size"])

    @property
    def trained(self) -> bool:
        """Whether the tower is, where there is no head that would have to be trained too."""
        return self.head is None

    @property
    def restorable(self) -> tuple[str, ...]:
        """The tower, if it never changes."""
        return ("body",) if self.frozen else ()

    def freeze(self) -> None:
        """Takes the gradient from all its parameters; the tower stays in evaluation mode."""
        super().freeze()
        self.frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switches mode, but leaves a frozen tower in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self

    def fingerprint(self) -> str | None:
        """A digest of the frozen tower; None where it, or a head, still learns."""
        return self._weights() if self.frozen and self.head is None else None

    def embed(self, values: Raw) -> Tensor:
        """Embeddings ``(B, D)`` of B texts: the states at their ends.

        Raises:
            InputError: if given anything but texts.
        """
        encoded, valid = self._encode(values)
        last = valid.sum(dim=1) - 1
        return encoded[torch.arange(len(last), device=last.device), last]

    def tokens(self, values: Raw) -> Tokens:
        """The states at all tokens, ``(B, N, D)``.

        Args:
            values: B texts.

        Raises:
            InputError: if given anything but texts.
        """
        return Tokens(*self._encode(values))

    def token_names(self, values: Raw) -> list[list[str]]:
        """The words or pieces of words that tokens stand for."""
        assert isinstance(values, list)
        return self.reader.pieces(values)

    def _encode(self, values: Raw) -> tuple[Tensor, Tensor]:
        if not isinstance(values, list):
            raise InputError(
                f"{type(self).__name__} takes a list of texts, but got {kind_of(values)} for "
                f"{self.modality!r}."
            )
        numbers, valid = self.reader(values, next(self.body.parameters()).device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            # Padding comes last, and no token looks at those behind it: a mask is not needed.
            encoded: Tensor = self.body(input_ids=numbers).last_hidden_state
        return encoded.masked_fill(~valid[..., None], 0.0), valid

    def describe(self) -> dict[str, Any]:
        """As every component, with tokenizer and sizes, and whether the weights are there too."""
        description = super().describe()
        description["init_args"] |= {
            "restored": not (self.stripped and self.restorable),
            "packed_tokenizer": pack(self.reader.vocabulary),
            "tower_sizes": dict(self.tower_sizes),
        }
        return description


def _file(source: str, names: tuple[str, ...], *, where: str) -> str:
    """Path of the first of these files that a folder, or a repository of the hub, has."""
    if Path(source).is_dir():
        found = [Path(source) / name for name in names if (Path(source) / name).is_file()]
        if not found:
            raise InputError(
                f"{where} pretrained: the folder {source} has no {' or '.join(names)}. Save model "
                "and tokenizer there with `save_pretrained` of transformers."
            )
        return str(found[0])
    try:
        return hub_file(source, names, what=f"The files of {source!r}")
    except InputError as error:
        raise InputError(
            f"{where} pretrained: {source!r} is no folder here, its {names[0]} is not in the local "
            f"cache, and the hub could not be reached ({type(error.__cause__).__name__}). Fetch it "
            f"where there is a connection (`hf download {source}`) and copy the cache here, or "
            "give the path of a folder with config.json, tokenizer.json and model.safetensors."
        ) from error


def _sizes(source: str, *, where: str) -> dict[str, Any]:
    """What decides the network, of the configuration in a folder or a repository."""
    path = _file(source, ("config.json",), where=where)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{where} pretrained: {path} cannot be read ({error}).") from error
    kind = content.get("model_type") if isinstance(content, Mapping) else None
    if kind not in ("clip", "clip_text_model"):
        raise InputError(
            f"{where} pretrained: {path} is of a model of the type {kind!r}, not of a CLIP. Choose "
            "one such as openai/clip-vit-base-patch32."
        )
    library = _transformers(where=where)
    if kind == "clip":
        config = library.CLIPConfig.from_dict(content).text_config
    else:
        config = library.CLIPTextConfig.from_dict(content)
    return {name: getattr(config, name) for name in _SIZES}


def _tower(sizes: Mapping[str, Any], *, where: str) -> nn.Module:
    """The network with random weights."""
    library = _transformers(where=where)
    model: nn.Module = library.CLIPTextModel(library.CLIPTextConfig(**sizes))
    # Older versions wrap it once more; without that, names of weights are the same in all.
    inner: nn.Module = getattr(model, "text_model", model)
    return inner


def _transformers(*, where: str) -> Any:  # noqa: ANN401  # an optional library
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            f"{where} needs the library `transformers` ({error}). Install it with `pip install "
            "'fusionlab[clip]'`, or use TextExpert, which is trained from scratch."
        ) from error
    return transformers

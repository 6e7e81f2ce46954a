"""Small experts that give tokens; named in YAML as ``token_experts.WordExpert``."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from fusionlab.experts import Expert
from fusionlab.types import Schema, Tokens

VOCABULARY = ("", "red", "green", "blue", "dark", "bright", "field", "road")


class PatchExpert(Expert):
    """Patches of 2 by 2 pixels of an image."""

    def __init__(self, schema: Schema, *, width: int = 8, **contract):
        super().__init__(schema, **contract)
        self.patches = nn.Conv2d(len(self.inputs), width, 2, stride=2)
        self.mix = nn.Linear(width, width)

    @property
    def embedding_dim(self) -> int:
        return self.mix.out_features

    def features(self, values, *, pooled: bool = True) -> Tensor:
        maps = self.patches(self.inputs(values))
        maps = self.mix(maps.relu().movedim(1, -1)).movedim(-1, 1)
        return maps.mean(dim=(-2, -1)) if pooled else maps


class WordExpert(Expert):
    """Words of a small vocabulary, padded to the longest text; others are read as the empty one."""

    kinds: ClassVar = ("text",)

    def __init__(self, schema: Schema, *, width: int = 6, **contract):
        super().__init__(schema, **contract)
        self.words = nn.Embedding(len(VOCABULARY), width)
        self.mix = nn.Linear(width, width)

    @property
    def embedding_dim(self) -> int:
        return self.mix.out_features

    def token_names(self, values: list[str]) -> list[list[str]]:
        return [text.split() for text in values]

    def tokens(self, values: list[str]) -> Tokens:
        split = [text.split() for text in values]
        longest = max(1, *map(len, split))
        ids = torch.zeros(len(split), longest, dtype=torch.long)
        valid = torch.zeros(len(split), longest, dtype=torch.bool)
        for row, words in enumerate(split):
            for column, word in enumerate(words):
                ids[row, column] = VOCABULARY.index(word) if word in VOCABULARY else 0
                valid[row, column] = True
        ids, valid = ids.to(self.mix.weight.device), valid.to(self.mix.weight.device)
        return Tokens(self.mix(self.words(ids).tanh()) * valid[..., None], valid)

    def require_tokens(self) -> None:
        pass

    def features(self, values: list[str], *, pooled: bool = True) -> Tensor:
        tokens = self.tokens(values)
        return tokens.values.sum(dim=1) / tokens.valid.sum(dim=1, keepdim=True).clamp(min=1)

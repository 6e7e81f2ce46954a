"""A residual network over the columns of a table, each of them embedded by itself.

Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", 2021, arXiv:2106.11959 (one
token per column; the ResNet); numbers as in "On Embeddings for Numerical Features in Tabular Deep
Learning", 2022, arXiv:2203.05556 (a linear layer and a ReLU per column).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from fusionlab.errors import InputError
from fusionlab.experts.embedding import TokenExpert
from fusionlab.heads import HeadFactory
from fusionlab.heads.base import checked_rate
from fusionlab.types import Modality, Raw, Schema, Tokens, kind_of


class TabularExpert(TokenExpert):
    """A residual network over columns that hold numbers or categories.

    Each column becomes a token: a number by a linear layer and a ReLU of its own, a category by a
    table of its own. A missing cell has a learned token of that column; so has a category that
    training did not know, which is one and the same. Residual layers then see all columns of a row
    at once. The embedding is the mean of the tokens.

    Categories are known by name: other data may list them in another order, or others. Latitude and
    longitude are columns as any other.

    Args:
        schema: what the data deliver.
        width: of embeddings and tokens.
        depth: number of residual layers; with 0 columns are not compared.
        hidden: width within a residual layer.
        dropout: within residual layers, in [0, 1).
        cell_dropout: while training, the share of cells that count as missing, in [0, 1). Without
            any, what stands for missing cells is only learned where the training data have some.
        head: from embedding to logits, or values; one linear layer if not given.
        modality: see `Expert`, as for the arguments that follow.
        bands: the columns it looks at, by name.
        scale: raw to physical units, of numbers.
        mean: in physical units, of numbers.
        std: in physical units, of numbers. A column that is published as constant is taken as it
            is, less its mean.

    Raises:
        InputError: if an option is out of its range; if the modality is no table, or the target of
            the data is one per pixel.
    """

    kinds = ("table",)

    def __init__(
        self,
        schema: Schema,
        *,
        width: int = 64,
        depth: int = 2,
        hidden: int = 128,
        dropout: float = 0.1,
        cell_dropout: float = 0.05,
        head: HeadFactory | None = None,
        modality: str | None = None,
        bands: Sequence[str] | None = None,
        scale: Sequence[float] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        where = type(self).__name__
        if std is None:
            _, delivered = schema.modality(modality, where=where)
            chosen = delivered.bands if bands is None else bands
            std = [s if s > 0 else 1.0 for s in delivered.select(chosen, where=where).std]
        super().__init__(schema, modality=modality, bands=bands, scale=scale, mean=mean, std=std)
        for name, size, least in (("width", width, 1), ("depth", depth, 0), ("hidden", hidden, 1)):
            if size < least:
                raise InputError(f"{where}: {name} must be {least} or more, got {size}.")
        rate = checked_rate(dropout, where=where)
        self.width = width
        self.cell_dropout = checked_rate(cell_dropout, where=f"{where}: cell")
        delivered = self.schema.modalities[self.modality]
        columns = self.inputs.bands
        self.categories = {c: delivered.categories[c] for c in columns if c in delivered.categories}
        numeric = [i for i, column in enumerate(columns) if column not in self.categories]
        categoric = [i for i, column in enumerate(columns) if column in self.categories]
        self.numbers = NumberTokens(len(numeric), width) if numeric else None
        self.names_of = CategoryTokens(self.categories, width) if categoric else None
        # On the device, where lists would have to go every time.
        index = {"numeric": numeric, "categoric": categoric}
        order = sorted(range(len(columns)), key=(numeric + categoric).__getitem__)
        for name, positions in {**index, "order": order}.items():
            self.register_buffer(f"_{name}", torch.tensor(positions).long(), persistent=False)
        self.layers = nn.ModuleList(
            ResidualLayer(len(columns), width, hidden, rate) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.add_head(head)
        if self.names_of is not None:
            self.names_of.follow(delivered)

    def rebind(self, schema: Schema) -> None:
        """Reads from data with other columns, another order of them, or other categories.

        Categories that it does not know count as unknown, with a warning.

        Raises:
            InputError: if a column is not delivered, or holds numbers where it held categories or
                the other way round; names it.
        """
        _, delivered = schema.modality(self.modality, where=type(self).__name__)
        for column in self.inputs.bands:
            was, is_now = column in self.categories, column in delivered.categories
            if column in delivered.bands and was != is_now:
                kinds = {True: "categories", False: "numbers"}
                raise InputError(
                    f"The column {column!r} of {self.modality!r} held {kinds[was]} where this "
                    f"{type(self).__name__} was trained, and holds {kinds[is_now]} in the data. "
                    f"Have the data deliver {kinds[was]}, or train anew."
                )
        super().rebind(schema)
        if self.names_of is not None:
            unknown = self.names_of.follow(delivered)
            if unknown:
                warnings.warn(
                    f"{type(self).__name__} of {self.modality!r} does not know the categories "
                    f"{unknown}; they count as missing.",
                    stacklevel=2,
                )

    @property
    def embedding_dim(self) -> int:
        """Width of the embedding."""
        return self.width

    def embed(self, values: Raw) -> Tensor:
        """Embeddings ``(B, D)`` of rows ``(B, F)``.

        Raises:
            InputError: if given anything else.
        """
        return self._encode(values).mean(dim=1)

    def tokens(self, values: Raw) -> Tokens:
        """One token per column, ``(B, columns, D)``, in the order of `bands`; all are valid.

        Args:
            values: rows ``(B, F)``.

        Raises:
            InputError: if given anything else.
        """
        encoded = self._encode(values)
        return Tokens(encoded, torch.ones_like(encoded[..., 0], dtype=torch.bool))

    def token_names(self, values: Raw) -> list[list[str]]:
        """The columns."""
        assert isinstance(values, Tensor)
        return [list(self.inputs.bands) for _ in range(len(values))]

    def _encode(self, values: Raw) -> Tensor:
        columns = self.schema.modalities[self.modality].bands
        if not isinstance(values, Tensor) or tuple(values.shape[1:]) != (len(columns),):
            raise InputError(
                f"{type(self).__name__} takes rows (B, {len(columns)}) of the columns "
                f"{list(columns)}, but got {kind_of(values)} for {self.modality!r}."
            )
        numbers, there = self.inputs.plain(values)
        if self.training and self.cell_dropout:
            there = there & (torch.rand_like(numbers) >= self.cell_dropout)
        tokens = []
        if self.numbers is not None:
            here = self._numeric
            tokens.append(self.numbers(numbers[:, here], there[:, here]))
        if self.names_of is not None:
            here = self._categoric
            codes = values[:, self.inputs.index[here]]
            tokens.append(self.names_of(codes, there[:, here]))
        encoded = torch.cat(tokens, dim=1).index_select(1, self._order)
        for layer in self.layers:
            encoded = layer(encoded)
        normed: Tensor = self.norm(encoded)
        return normed

    _numeric: Tensor
    _categoric: Tensor
    _order: Tensor


class NumberTokens(nn.Module):
    """A linear layer and a ReLU for each column, and a learned token for what is missing.

    Args:
        columns: how many.
        width: of a token.
    """

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(columns, width))
        self.bias = nn.Parameter(torch.empty(columns, width))
        self.missing = nn.Parameter(torch.zeros(columns, width))
        nn.init.normal_(self.weight)
        nn.init.uniform_(self.bias, -1.0, 1.0)

    def forward(self, numbers: Tensor, there: Tensor) -> Tensor:
        """Normalised numbers ``(B, columns)``, and which are there, to ``(B, columns, width)``."""
        tokens = (numbers[..., None] * self.weight + self.bias).relu()
        return torch.where(there[..., None], tokens, self.missing)


class CategoryTokens(nn.Module):
    """A table of tokens for each column, whose first row is for what is missing or unknown.

    Args:
        categories: per column, the names that training knew.
        width: of a token.
    """

    rows: Tensor
    unknown: Tensor

    def __init__(self, categories: Mapping[str, Sequence[str]], width: int) -> None:
        super().__init__()
        self.categories = {column: tuple(names) for column, names in categories.items()}
        sizes = [1 + len(names) for names in self.categories.values()]
        unknown = torch.tensor([0, *sizes[:-1]]).cumsum(dim=0)
        self.register_buffer("unknown", unknown, persistent=False)
        # Where the data's numbers of categories stand in the table; the last column is for others.
        self.register_buffer("rows", unknown[:, None].clone(), persistent=False)
        self.table = nn.Embedding(sum(sizes), width)
        with torch.no_grad():
            self.table.weight[unknown] = 0.0

    def follow(self, delivered: Modality) -> dict[str, list[str]]:
        """Reads the numbers of categories as these data mean them.

        Returns:
            Per column, the names that it does not know, where there are some.
        """
        # What the training rows of these data lack, a model trained on other data may know.
        listed = {
            column: [*delivered.categories[column], *delivered.others.get(column, ())]
            for column in self.categories
        }
        # Of shorter lists, the rest stays at the row of what is unknown.
        longest = max(len(names) for names in listed.values())
        rows = self.unknown.cpu()[:, None].repeat(1, longest + 1)
        strange: dict[str, list[str]] = {}
        for i, (column, names) in enumerate(self.categories.items()):
            known = {name: 1 + position for position, name in enumerate(names)}
            for j, name in enumerate(listed[column]):
                rows[i, j] += known.get(name, 0)
            if unknown := [name for name in listed[column] if name not in known]:
                strange[column] = unknown
        self.rows = rows.to(self.unknown.device)
        return strange

    def forward(self, codes: Tensor, there: Tensor) -> Tensor:
        """The data's numbers of categories ``(B, columns)`` to ``(B, columns, width)``.

        Args:
            codes: what is not among the data's numbers counts as unknown.
            there: where they count, ``(B, columns)`` bool.
        """
        last = self.rows.shape[1] - 1
        known = there & (codes >= 0) & (codes < last)
        column = torch.arange(codes.shape[1], device=codes.device)
        chosen: Tensor = self.table(self.rows[column, codes.where(known, last).long()])
        return chosen


class ResidualLayer(nn.Module):
    """A layer over all columns of a row at once, added to their tokens.

    As in the ResNet of arXiv:2106.11959, but normalised per token instead of over the batch.

    Args:
        columns: how many.
        width: of a token.
        hidden: width between the two linear layers.
        dropout: behind each of them.
    """

    def __init__(self, columns: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(
            nn.Linear(columns * width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, columns * width),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, columns, width)`` to the same shape."""
        row = rearrange(self.norm(tokens), "b columns d -> b (columns d)")
        mixed: Tensor = rearrange(self.mix(row), "b (columns d) -> b columns d", d=tokens.shape[2])
        return tokens + mixed

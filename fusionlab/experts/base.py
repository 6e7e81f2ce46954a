"""What every expert has in common: its modality, its input contract and what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from fusionlab.component import Explanation, Model
from fusionlab.errors import InputError
from fusionlab.types import (
    Auxiliary,
    Batch,
    Kind,
    Modality,
    Output,
    Raw,
    Schema,
    TimeSeries,
    Tokens,
    kind_of,
)

_EXPERTS: Mapping[Kind, str] = MappingProxyType(
    {
        "image": "EncoderDecoder or TimmExpert",
        "text": "TextExpert",
        "table": "TabularExpert",
        "series": "SeriesExpert",
    }
)
"""Which experts there are for which kind of modality."""


class InputContract(nn.Module):
    """Selects bands by name and turns raw values into normalised ones, on the device.

    ``(raw * scale - mean) / std`` per band. The statistics are buffers, so they travel with the
    weights; values that are not finite (nodata) become 0, the mean.

    Args:
        delivered: the modality as the data deliver it.
        bands: the bands wanted, in the expert's order.
        scale: per band, raw to physical units.
        mean: per band, in physical units.
        std: per band, in physical units.
        where: what is asking, for error messages.

    Raises:
        InputError: if a band is not delivered, or a list has another length than `bands`.
    """

    scale: Tensor
    mean: Tensor
    std: Tensor
    limits: Tensor | None
    index: Tensor

    def __init__(
        self,
        delivered: Modality,
        *,
        bands: Sequence[str] | None = None,
        scale: Sequence[float] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        where: str = "The expert",
    ) -> None:
        super().__init__()
        self.where = where
        self.bands = tuple(bands) if bands is not None else delivered.bands
        if not self.bands and delivered.kind != "text":
            raise InputError(f"{where} has no bands to look at: name some in `bands`.")
        self.own_scale = scale is not None
        chosen = delivered.select(self.bands, where=where)
        for name, given, published in (
            ("scale", scale, chosen.scale),
            ("mean", mean, chosen.mean),
            ("std", std, chosen.std),
        ):
            values = list(given) if given is not None else list(published)
            if len(values) != len(self.bands):
                raise InputError(
                    f"{where} has {len(self.bands)} bands {list(self.bands)} but {len(values)} "
                    f"values of {name}: give one per band."
                )
            if name == "std" and min(values, default=1) <= 0:
                raise InputError(f"{where}: every std must be positive, got {values}.")
            # How raw values are encoded is a matter of the data, not of the weights.
            persistent = name != "scale"
            self.register_buffer(name, _per_band(values), persistent=persistent)
        self.register_buffer("limits", None)
        self.register_buffer("index", None, persistent=False)
        self._find(delivered)

    def rebind(self, delivered: Modality) -> None:
        """Reads from data that deliver other bands, another order or another encoding.

        Raises:
            InputError: if a band is not delivered; names both lists.
        """
        self._find(delivered)
        if not self.own_scale:
            chosen = delivered.select(self.bands, where=self.where)
            self.scale.copy_(_per_band(chosen.scale))

    def _find(self, delivered: Modality) -> None:
        """Notes where its bands are, on the device: a list would have to go there every time."""
        found = delivered.indices(self.bands, where=self.where)
        self.all_bands = found == list(range(len(delivered.bands)))
        self.index = torch.tensor(found, device=self.scale.device)

    def limit(self, low: float, high: float) -> None:
        """Clips physical values to this range from now on; it travels with the weights."""
        self.limits = torch.tensor([low, high], dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.bands)

    def forward(self, raw: Raw) -> Tensor:
        """``(..., C, H, W)`` raw values of any type to ``(..., bands, H, W)`` float32.

        Raises:
            InputError: for a whole series, whose dates a caller must not forget, and for texts.
        """
        if isinstance(raw, TimeSeries):
            raise InputError(
                f"{self.where} passed a TimeSeries to self.inputs: pass series.values, and leave "
                "out the dates where series.valid is False."
            )
        if not isinstance(raw, Tensor):
            raise InputError(f"{self.where} takes numbers, but got {kind_of(raw)}.")
        values = raw.float()
        if not self.all_bands:
            values = values.index_select(-3, self.index)
        values = values * self.scale
        if self.limits is not None:
            nan = float("nan")  # what is not finite stays so, and is no extreme value
            values = torch.nan_to_num(values, nan=nan, posinf=nan, neginf=nan)
            values = values.clamp(self.limits[0], self.limits[1])
        values = (values - self.mean) / self.std
        return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)

    def plain(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, of raw values without images: a table, or a series of values.

        Args:
            raw: ``(..., C)``.

        Returns:
            Normalised values ``(..., bands)`` float32, 0 where one is missing, and which are there,
            ``(..., bands)`` bool.
        """
        there = raw if self.all_bands else raw.index_select(-1, self.index)
        return self(raw[..., None, None])[..., 0, 0], there.isfinite()


def _per_band(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)


class Expert(Model):
    """A network for one modality: raw values in, logits out, at its own resolution.

    Subclasses implement `logits` and set up their layers for ``len(self.inputs)`` channels that go
    in and ``self.num_outputs`` that come out: a logit per class, or a value per variable in its
    unit. Those that decide by an embedding implement `answer` beside it, so that both come from one
    pass.

    Those for other data than images say so in `kinds`.

    Args:
        schema: what the data deliver.
        modality: which modality it looks at; may be left out when the schema has just one.
        bands: the bands it looks at, by name; all if not given.
        scale: per band, raw to physical units; as published by the data module if not given.
        mean: per band, physical units; as published if not given.
        std: per band, physical units; as published if not given.

    Attributes:
        modality: name of its modality.
        inputs: its input contract.
        gsd: ground sampling distance of its logits, metres.
        names: of its answer's channels: classes, or variables that it regresses.
        classes: the classes among them; none of an expert that regresses.
        schema: what it was built for.

    Raises:
        InputError: if modality or bands are not delivered, or the modality is of another kind.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)
    """The kinds of modality that it can look at."""

    def __init__(
        self,
        schema: Schema,
        *,
        modality: str | None = None,
        bands: Sequence[str] | None = None,
        scale: Sequence[float] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        self.modality, delivered = schema.modality(modality, where=where)
        if delivered.kind not in self.kinds:
            raise InputError(
                f"{where} is for modalities of the kind {list(self.kinds)}, but "
                f"{self.modality!r} is {'an' if delivered.kind == 'image' else 'a'} "
                f"{delivered.kind}: use {_EXPERTS[delivered.kind]} for it, or name another "
                "`modality:`."
            )
        self.reference = self.modality
        self.inputs = InputContract(
            delivered, bands=bands, scale=scale, mean=mean, std=std, where=where
        )
        self.gsd = delivered.gsd
        self.names = schema.outputs
        self.classes = schema.classes
        self.schema = schema.only(self.modality)

    def rebind(self, schema: Schema) -> None:
        """Reads from data that deliver other bands, another order or another encoding.

        Raises:
            InputError: if its modality or one of its bands is not delivered.
        """
        _, delivered = schema.modality(self.modality, where=type(self).__name__)
        self.inputs.rebind(delivered)
        trained = self.schema.modalities[self.modality]
        delivered.warn_unless_prepared_like(trained, where=f"The {self.modality} expert")
        if math.isfinite(trained.gsd):
            self.gsd *= delivered.gsd / trained.gsd
        self.schema = schema.only(self.modality)

    @property
    def num_classes(self) -> int:
        """Number of classes its logits have."""
        return len(self.classes)

    @property
    def num_outputs(self) -> int:
        """Number of channels that its answer has: one per class, or per variable."""
        return len(self.names)

    def logits(self, values: Raw) -> Tensor | tuple[Tensor, Tensor]:
        """Logits ``(B, K, h, w)`` of raw values, with auxiliary ones beside them or not."""
        raise NotImplementedError(f"{type(self).__name__} does not define logits().")

    @property
    def embedding_dim(self) -> int:
        """Channels of the embedding that `features` gives."""
        raise InputError(f"{type(self).__name__} gives no features, only decisions.")

    def features(self, values: Raw, *, pooled: bool = True) -> Tensor:
        """What a model that fuses before the decision takes from this expert.

        Args:
            values: raw values.
            pooled: an embedding ``(B, D)``; otherwise a feature map ``(B, C, h, w)``.

        Raises:
            InputError: if this expert has none.
        """
        raise InputError(f"{type(self).__name__} gives no features, only decisions.")

    def tokens(self, values: Raw) -> Tokens:
        """What a model that attends over parts of samples takes from this expert.

        Of images, the positions of the feature map.

        Args:
            values: raw values.

        Raises:
            InputError: if this expert has none.
        """
        maps = self.features(values, pooled=False)
        b, _, rows, columns = maps.shape
        valid = torch.ones(b, rows * columns, dtype=torch.bool, device=maps.device)
        return Tokens(maps.flatten(2).transpose(1, 2), valid, (rows, columns))

    def token_names(self, values: Raw) -> list[list[str]]:
        """What the tokens of samples are, for pictures: words, columns, dates; else their numbers.

        Args:
            values: raw values.

        Returns:
            Per sample the names of its tokens in their order; empty for what only pads.
        """
        valid = self.tokens(values).valid.tolist()
        return [[str(i + 1) if there else "" for i, there in enumerate(row)] for row in valid]

    def require_tokens(self) -> None:
        """Refuses to give tokens where it is known that there are none.

        Raises:
            InputError: says what would help.
        """
        self.require_maps()

    def require_maps(self) -> None:
        """Refuses to give feature maps where it is known that there are none.

        Raises:
            InputError: says what would help.
        """

    @property
    def trained(self) -> bool:
        """Whether all that it answers comes from weights that were trained before."""
        return not any(True for _ in self.parameters())

    def drop_head(self) -> None:
        """Leaves out what only decisions need; it gives features from now on."""

    def freeze(self) -> None:
        """Takes the gradient from all its parameters."""
        self.requires_grad_(False)

    def fingerprint(self) -> str | None:
        """A digest of all weights that its answers depend on, where those can no longer change.

        None for an expert that trains, or that answers the same input differently from one time to
        the next (dropout, statistics that drift): its answers are not worth keeping. Statistics of
        the input contract need not be part of it.
        """
        return None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The one it looks at."""
        return (self.modality,)

    def answer(self, values: Raw) -> Output:
        """All that one pass over raw values gives; see `Output`."""
        logits = self.logits(values)
        if isinstance(logits, tuple):
            return Output(logits[0], auxiliary=(Auxiliary("", logits[1]),))
        return Output(logits)

    def forward(self, batch: Batch) -> Output:
        """Answers for its own modality; see `Output`."""
        return self.answer(batch["inputs"][self.modality])

    def explain(self, batch: Batch) -> Explanation:
        """One modality decides alone: its share is 1 everywhere."""
        output = self(batch)
        return Explanation(output, {self.modality: torch.ones_like(output.logits[:, 0])})


ExpertFactory = Callable[[Schema], Expert]
"""In YAML: ``class_path`` and ``init_args`` of an expert; the schema is supplied at build time."""

"""Early fusion: the bands of several modalities, on one grid, are what one expert looks at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

import torch
from torch import Tensor

from fusionlab.component import Explanation, Model
from fusionlab.errors import InputError
from fusionlab.experts.base import Expert, ExpertFactory
from fusionlab.models.align import Alignment, AlignmentFactory, Footprint, centre_offset
from fusionlab.models.contributions import leave_one_out_shares
from fusionlab.models.stacking import OverDates, on_grid, over_dates, stacked_modality
from fusionlab.types import Batch, Grid, Modality, Output, Raw, Schema, TimeSeries, kind_of

STACK = "stack"
"""Name of the only modality that the expert of an early fusion is shown."""


class EarlyFusion(Model):
    """Modalities stacked on the grid of one of them, and one expert for whatever the data ask.

    The expert is built for a single modality named ``stack`` with all bands, ``aerial.red`` and so
    on, which its own `bands`, `mean` and `std` may name. It normalises them, once, with the
    statistics of the modality that they come from.

    Images of other resolutions are resampled on the device. A time series becomes one image: the
    mean over its valid dates at every pixel. A modality that a sample lacks, and pixels that nobody
    knows, stand as the mean of their bands: zero after normalisation.

    Args:
        schema: what the data deliver.
        expert: any for images: `EncoderDecoder`, `UNetFormer`, `TimmExpert`…
        modalities: which to stack, in this order; all that the data deliver if not given.
        reference: the one on whose grid they are stacked and the answer lies; the finest if not
            given.
        alignment: resamples the others onto that grid.
        dates: what becomes of a time series at every pixel: ``mean`` or ``median`` of the valid
            dates. The median leaves out clouds where most dates are clear.
        mask_channels: whether the expert also sees a band per modality that is 1 where a sample has
            it and 0 where not, so that it can tell the mean from a modality that is missing.

    Attributes:
        target: what the target says, see `Schema`.

    Raises:
        InputError: for modalities that are not delivered or named twice, a reference that is not
            among them, an unknown option, or an expert that does not take such images.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        expert: ExpertFactory,
        modalities: Sequence[str] | None = None,
        reference: str | None = None,
        alignment: AlignmentFactory = Footprint,
        dates: OverDates = "mean",
        mask_channels: bool = False,
    ) -> None:
        super().__init__()
        names = list(schema.modalities if modalities is None else modalities)
        if not names or len(set(names)) != len(names):
            raise InputError(
                "EarlyFusion modalities names one or more of those that the data deliver, each "
                f"once: {list(schema.modalities)}. Got {names}."
            )
        if reference is not None and reference not in names:
            raise InputError(
                f"EarlyFusion: reference {reference!r} is none of the modalities {names}."
            )
        if dates not in get_args(OverDates):
            raise InputError(
                f"EarlyFusion dates is one of {list(get_args(OverDates))}, got {dates!r}."
            )
        self.target = schema.target
        self.dates = dates
        self.mask_channels = mask_channels
        self._delivered = self._find(schema, names)
        gsd = {name: modality.gsd for name, modality in self._delivered.items()}
        self.reference = reference or min(gsd, key=lambda name: gsd[name])
        self.alignment: Alignment = alignment()
        self.expert: Expert = expert(self._stacked_schema(schema))
        if not isinstance(self.expert, Expert) or self.expert.modality != STACK:
            raise InputError(
                f"EarlyFusion takes one expert for images; {type(self.expert).__name__} is a model "
                "over several, or looks at another modality."
            )
        self.gsd = self.expert.gsd

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that are stacked, in their order."""
        return tuple(self._delivered)

    @property
    def contributors(self) -> tuple[str, ...]:
        """The modalities."""
        return self.modalities

    @property
    def embedding_dim(self) -> int:
        """Width of the expert's embedding.

        Raises:
            InputError: if it has none.
        """
        return self.expert.embedding_dim

    def rebind(self, schema: Schema) -> None:
        """Reads from data that deliver other bands, another order or another encoding.

        Raises:
            InputError: if they lack a modality, or a band that the expert looks at.
        """
        self._delivered = self._find(schema, self._delivered)
        self.expert.rebind(self._stacked_schema(schema))
        self.gsd = self.expert.gsd

    def forward(self, batch: Batch) -> Output:
        """Stack and expert; an embedding of a whole sample is called ``fused``."""
        return self._answer(self.stack(batch))

    def stack(self, batch: Batch) -> Tensor:
        """What the expert is shown: raw values ``(B, bands, H, W)`` float32, NaN where unknown."""
        return self._joined(self._images(batch), batch["available"])

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """The embedding ``(B, D)`` of every sample, as ``fused``.

        Raises:
            InputError: if the expert has none.
        """
        return {"fused": self.expert.features(self.stack(batch))}

    def explain(self, batch: Batch) -> Explanation:
        """The answer and each modality's share in it, on the grid of the answer.

        Measured by leaving one modality out, for the most probable class, or for values.
        """
        images, available = self._images(batch), batch["available"]
        output = self._answer(self._joined(images, available))

        def without(there: dict[str, Tensor]) -> Tensor:
            return self._answer(self._joined(images, there)).logits.float()

        shares = leave_one_out_shares(
            output.logits.float(),
            without,
            {name: available[name] for name in self.modalities},
            self.target,
        )
        return Explanation(output, shares)

    def _answer(self, stack: Tensor) -> Output:
        answer = self.expert.answer(stack)
        if answer.embeddings is None:
            return answer
        return answer._replace(embeddings={"fused": answer.embeddings[self.expert.modality]})

    def _joined(self, images: dict[str, Tensor], available: dict[str, Tensor]) -> Tensor:
        """Images of all modalities as the bands of one; the expert makes the mean of NaN."""
        parts, masks = [], []
        for name, image in images.items():
            there = available[name][:, None, None, None]
            parts.append(torch.where(there, image, torch.nan))
            masks.append(there.to(image.dtype).expand(-1, 1, *image.shape[-2:]))
        return torch.cat([*parts, *masks] if self.mask_channels else parts, dim=1)

    def _images(self, batch: Batch) -> dict[str, Tensor]:
        """Raw values of every modality on the grid of the reference, NaN where unknown."""
        images = {name: self._image(name, batch["inputs"][name]) for name in self.modalities}
        rows, columns = images[self.reference].shape[-2:]
        grid = Grid(rows, columns, self._delivered[self.reference].gsd)
        aligned = {}
        for name, image in images.items():
            gsd = self._delivered[name].gsd
            offset = centre_offset(
                batch,
                name,
                pixel=gsd,
                gsd=gsd,
                reference=self.reference,
                reference_pixel=grid.gsd,
            )
            aligned[name] = on_grid(
                image, grid, gsd=gsd, name=name, offset=offset, alignment=self.alignment
            )
        return aligned

    def _image(self, name: str, values: Raw) -> Tensor:
        """Raw values of a modality, ``(B, C, h, w)`` float32 on its own grid."""
        modality = self._delivered[name]
        is_series = isinstance(values, TimeSeries)
        array = values.values if isinstance(values, TimeSeries) else values
        if (
            not isinstance(array, Tensor)
            or is_series != modality.temporal
            or array.ndim != 4 + is_series
            or array.shape[-3] != len(modality.bands)
        ):
            raise InputError(
                f"EarlyFusion stacks images, and series of them; {name!r} should be "
                f"{'a series' if modality.temporal else 'images'} of {len(modality.bands)} bands, "
                f"but is {kind_of(values)}. Leave it out with `modalities:`, or fuse later, with "
                "FeatureFusion."
            )
        return over_dates(values, self.dates) if isinstance(values, TimeSeries) else array.float()

    def _find(self, schema: Schema, names: Iterable[str]) -> dict[str, Modality]:
        return {name: schema.modality(name, where=type(self).__name__)[1] for name in names}

    def _stacked_schema(self, schema: Schema) -> Schema:
        stacked = stacked_modality(
            self._delivered,
            gsd=self._delivered[self.reference].gsd,
            mask_channels=self.mask_channels,
        )
        return schema.with_modalities({STACK: stacked})

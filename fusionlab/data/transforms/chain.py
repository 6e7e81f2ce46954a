"""Several transforms in order."""

from __future__ import annotations

import copy
from typing import Self

from fusionlab.data.samples import Sample
from fusionlab.data.transforms.base import SampleTransform
from fusionlab.errors import InputError
from fusionlab.types import Schema


class Chain(SampleTransform):
    """Puts samples through several transforms, one after the other.

    Args:
        transforms: in the order in which they are applied.

    Raises:
        InputError: if there are none.
    """

    def __init__(self, transforms: list[SampleTransform]) -> None:
        if not transforms:
            raise InputError("Chain needs at least one transform: `transforms: [RandomD4]`.")
        self.transforms = list(transforms)

    def bound(self, schema: Schema) -> Self:
        """Tells all of them; see `SampleTransform.bound`."""
        bound = copy.copy(self)
        bound.transforms = [transform.bound(schema) for transform in self.transforms]
        return bound

    def __call__(self, sample: Sample) -> Sample:
        """A new sample; the one given is not changed."""
        for transform in self.transforms:
            sample = transform(sample)
        return sample

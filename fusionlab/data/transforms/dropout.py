"""Modalities that training samples go without."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fusionlab.data.samples import Sample, without
from fusionlab.data.transforms.base import SampleTransform
from fusionlab.errors import InputError


class ModalityDropout(SampleTransform):
    """Takes modalities away at random, so that a model learns to do without them.

    What is taken away becomes zeros and is no longer available; a series shrinks to one invalid
    date. If all that are present were to go, one of them, drawn at random, stays.

    Args:
        probabilities: per modality, how likely it is taken away; others always stay.
    """

    def __init__(self, probabilities: Mapping[str, float]) -> None:
        for name, probability in probabilities.items():
            if not 0 <= probability <= 1:
                raise InputError(
                    f"The dropout probability of {name!r} must lie in [0, 1], got {probability}."
                )
        self.probabilities = dict(probabilities)

    def __call__(self, sample: Sample) -> Sample:
        """A new sample; the one given is not changed."""
        present = [name for name, available in sample["available"].items() if available]
        dropped = [m for m in present if torch.rand(()) < self.probabilities.get(m, 0.0)]
        if dropped and len(dropped) == len(present):
            dropped.pop(int(torch.randint(len(dropped), ())))
        return without(sample, dropped)

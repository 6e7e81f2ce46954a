"""Augmentation that keeps images, scans and their coordinates in step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fusionlab.data.rgb_lidar.index import BANDS
from fusionlab.data.samples import Sample
from fusionlab.data.transforms import D4, SampleTransform
from fusionlab.errors import InputError

_MIRROR = D4(flip=True)


class MirrorPairs(SampleTransform):
    """Shows every other sample in a mirror: left and right change places in image and scan.

    Columns are in reverse order, and the coordinate that grows along them changes its sign, so that
    the points are those of the mirrored scene. Flips and turns of pixels alone (`RandomD4`) would
    leave coordinates behind that no scanner measures.

    Args:
        probability: of a sample to be mirrored.

    Raises:
        InputError: for a probability outside [0, 1].
    """

    def __init__(self, probability: float = 0.5) -> None:
        if not 0 <= probability <= 1:
            raise InputError(f"The probability of a mirror lies in [0, 1], got {probability}.")
        self.probability = probability

    def __call__(self, sample: Sample) -> Sample:
        """A new sample; the one given is not changed."""
        if torch.rand(()) >= self.probability:
            return sample
        return mirrored(sample)


def mirrored(sample: Sample, *, across: Sequence[str] = ("Z",)) -> Sample:
    """The mirrored sample.

    Args:
        sample: with an image, a scan or both.
        across: channels of the scan that grow along columns.
    """
    moved = _MIRROR(sample)
    if "lidar" in moved["inputs"]:  # a copy already
        moved["inputs"]["lidar"][[BANDS["lidar"].index(band) for band in across]] *= -1
    return moved

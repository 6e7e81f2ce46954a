"""Samples of a manifest: whole rows, or windows of rows whose images lie on the same ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fusionlab.data.folders.dataset import FolderDataset
from fusionlab.data.folders.reading import Extent
from fusionlab.data.manifest.images import ImageSource
from fusionlab.data.manifest.source import Rows, Source
from fusionlab.data.manifest.targets import SampleTarget
from fusionlab.data.samples import Sample, Transform
from fusionlab.errors import InputError
from fusionlab.types import TimeSeries


class ManifestDataset(Dataset[Sample]):
    """One sample per row.

    Args:
        rows: positions in the manifest.
        sources: what is read, by modality.
        names: of all rows of the manifest.
        target: what is to be learned; None leaves it out.
        place: per row of the manifest, the number of its place; None if it is not known.
        transforms: applied to each sample in this order.
    """

    def __init__(
        self,
        rows: Rows,
        sources: Mapping[str, Source],
        names: Sequence[str],
        *,
        target: SampleTarget | None = None,
        place: NDArray[np.int64] | None = None,
        transforms: Sequence[Transform] = (),
    ) -> None:
        self.rows = rows
        self.sources = dict(sources)
        self.names = names
        self.target = target
        self.place = place
        self.transforms = tuple(transforms)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Reads a row.

        Raises:
            InputError: if a file cannot be read; names it.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"There are {len(self)} samples, no sample {index}.")
        row = int(self.rows[index])
        sample: Sample = {"inputs": {}, "available": {}, "sample_id": self.names[row]}
        for name, source in self.sources.items():
            self.put(sample, name, source.read(row))
        return self.finished(sample, row)

    def put(self, sample: Sample, name: str, value: Tensor | TimeSeries | str | None) -> None:
        """Puts a modality into a sample, or what stands for a missing one."""
        sample["available"][name] = torch.tensor(value is not None)
        sample["inputs"][name] = self.sources[name].blank() if value is None else value

    def finished(self, sample: Sample, row: int) -> Sample:
        """The sample with what else is known of its row, transformed."""
        if self.target is not None:
            sample["target"] = self.target.read(row)
        if self.place is not None:
            sample["place"] = torch.tensor(self.place[row])
        for transform in self.transforms:
            sample = transform(sample)
        return sample


class WindowDataset(ManifestDataset):
    """Windows of the rasters of rows, and beside them what else the rows hold.

    Args:
        rows: positions in the manifest.
        sources: what is read, by modality.
        names: of all rows of the manifest.
        windows: of the rasters of these rows.
        ratios: of the images that are no rasters, how many pixels of the grid of the windows one of
            theirs spans.
        place: per row of the manifest, the number of its place; None if it is not known.
        transforms: applied to each sample in this order.
    """

    def __init__(
        self,
        rows: Rows,
        sources: Mapping[str, Source],
        names: Sequence[str],
        *,
        windows: FolderDataset,
        ratios: Mapping[str, Fraction],
        place: NDArray[np.int64] | None = None,
        transforms: Sequence[Transform] = (),
    ) -> None:
        super().__init__(rows, sources, names, place=place, transforms=transforms)
        self.windows = windows
        self.ratios = dict(ratios)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Sample:
        """Reads a window.

        Raises:
            InputError: if a file cannot be read; names it.
        """
        number, extent, seen = self.windows.locate(index)
        row = int(self.rows[number])
        sample = self.windows.window(number, extent, seen)
        for name, source in self.sources.items():
            if name not in self.windows.images:
                value = source.read(row)
                if self.windows.crop is None or not isinstance(source, ImageSource):
                    self.put(sample, name, value)
                else:
                    self._put_cut(sample, name, value, extent)
        return self.finished(sample, row)

    def _put_cut(
        self, sample: Sample, name: str, value: Tensor | TimeSeries | str | None, extent: Extent
    ) -> None:
        whole = self.sources[name].blank() if value is None else value
        assert isinstance(whole, TimeSeries)
        window = extent.scaled(self.ratios[name])
        rows = slice(int(window.row_off), int(window.row_off + window.height))
        columns = slice(int(window.col_off), int(window.col_off + window.width))
        cut = whole.values[..., rows, columns]
        if cut.shape[-2:] != (window.height, window.width):
            raise InputError(
                f"{self.sources[name].where}: the series of {sample['sample_id']!r} has "
                f"{tuple(whole.values.shape[-2:])} pixels, which do not cover its images. Leave "
                "crop out, or deliver series of the same ground."
            )
        sample["available"][name] = torch.tensor(value is not None)
        sample["inputs"][name] = whole._replace(values=cut.clone())

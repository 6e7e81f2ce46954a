"""Samples of FLAIR #2: aerial image, Sentinel-2 series and mask of one patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from torch import Tensor
from torch.utils.data import Dataset

from fusionlab.data.damage import unreadable
from fusionlab.data.flair2.canopy_height import HEIGHT_CHANNEL, CanopyHeight
from fusionlab.data.flair2.constants import AERIAL, CLASSES_19
from fusionlab.data.flair2.index import Centroids, Patch
from fusionlab.data.flair2.super_area import SeriesOptions, SuperArea, open_array, series_dtype
from fusionlab.data.samples import Sample, Transform
from fusionlab.errors import InputError
from fusionlab.types import Placement, TimeSeries


@dataclass(frozen=True)
class AerialSource:
    """Where aerial images lie and which bands to read.

    Attributes:
        folder: holds the domains.
        channels: positions of the bands, from 0.
    """

    folder: Path
    channels: tuple[int, ...]


@dataclass(frozen=True)
class SeriesSource:
    """Where Sentinel-2 super-areas lie and how series are made of them.

    Attributes:
        folder: holds the domains.
        centroids: row and column of each patch in its super-area.
        options: how to crop, filter and average.
        num_bands: number of bands that are read.
        allow_missing: whether a patch may lack a super-area or a centroid; its series is then
            marked as not available.
    """

    folder: Path
    centroids: Centroids
    options: SeriesOptions
    num_bands: int
    allow_missing: bool = False


@dataclass(eq=False)
class Flair2Dataset(Dataset[Sample]):
    """One sample per patch.

    Everything that can be known from file names and headers is checked when it is made.

    Attributes:
        patches: what to read.
        aerial: where the images come from; None leaves them out.
        sentinel2: where the series come from; None leaves them out.
        labels: folder of the masks; None leaves a target of classes out.
        canopy_height: the target in the place of classes; None for classes.
        num_classes: 13 merges the mask values from 13 on, 19 keeps all.
        placement: folder of the aerial images on whose grid predictions are placed; None leaves
            the placement out.
        gsd: pixel size of images and masks in metres.
        transforms: applied to each sample in this order.

    Raises:
        InputError: for super-areas that are missing, damaged or do not hold their patches.
    """

    patches: Sequence[Patch]
    aerial: AerialSource | None = None
    sentinel2: SeriesSource | None = None
    labels: Path | None = None
    canopy_height: CanopyHeight | None = None
    num_classes: int = 13
    placement: Path | None = None
    gsd: float = 0.2
    transforms: Sequence[Transform] = ()
    _areas: dict[tuple[str, str], SuperArea | None] = field(init=False, default_factory=dict)
    _dtype: np.dtype[Any] = field(init=False, default=np.dtype(np.uint16))

    def __post_init__(self) -> None:
        if self.sentinel2 is not None:
            open_array.cache_clear()  # the files may have been written anew since
            self._areas = _super_areas(self.patches, self.sentinel2)
            self._dtype = series_dtype(
                [area for area in self._areas.values() if area], self.sentinel2.options
            )

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> Sample:
        """Reads one patch.

        Raises:
            InputError: if a file cannot be used; names it.
        """
        patch = self.patches[index]
        inputs: dict[str, Tensor | TimeSeries] = {}
        available: dict[str, Tensor] = {}
        sample: Sample = {"inputs": inputs, "available": available, "sample_id": patch.name}
        pixels = self._pixels(patch)
        if self.aerial is not None:
            inputs["aerial"] = torch.from_numpy(pixels[: len(self.aerial.channels)])
            available["aerial"] = torch.tensor(True)
        if self.sentinel2 is not None:
            series, cover = self._series(patch, self.sentinel2)
            inputs["sentinel2"] = series
            available["sentinel2"] = series.valid.any()
            if cover is not None:
                sample["cloud_cover"] = {"sentinel2": cover}
        if self.canopy_height is not None:
            sample["target"] = self._heights(patch, pixels[-1], self.canopy_height)
        elif self.labels is not None:
            sample["target"] = read_target(patch.mask(self.labels), num_classes=self.num_classes)
            if self.aerial is not None:
                self._check_sizes(patch, pixels.shape[1:], sample["target"].shape)
        if self.placement is not None:
            sample["placement"] = self._placement(patch, self.placement, inputs.get("aerial"))
        for transform in self.transforms:
            sample = transform(sample)
        return sample

    def _pixels(self, patch: Patch) -> NDArray[np.uint8]:
        """The bands of the aerial image to deliver, and then the height if it is the target."""
        use: tuple[int, ...] = ()
        if self.aerial is not None:
            folder, use = self.aerial.folder, self.aerial.channels
        if self.canopy_height is not None:
            folder, use = self.canopy_height.images, (*use, HEIGHT_CHANNEL)
        if not use:
            return np.zeros((0, 0, 0), np.uint8)
        return read_raster(patch.image(folder), bands=len(AERIAL.bands), use=use)

    def _heights(self, patch: Patch, units: NDArray[np.uint8], target: CanopyHeight) -> Tensor:
        mask = None
        if self.labels is not None and target.values is not None:
            mask = read_mask(patch.mask(self.labels))
            self._check_sizes(patch, units.shape, mask.shape)
        return target.target(units, mask)

    def _series(self, patch: Patch, source: SeriesSource) -> tuple[TimeSeries, Tensor | None]:
        options = source.options
        size = options.crop_size
        area = self._areas[patch.domain, patch.zone]
        centre = source.centroids.get(patch.name)
        series, cover = None, None
        if area is not None and centre is not None:
            series, cover = area.series(centre, options, self._dtype)
        elif options.cloud_cover:
            cover = torch.ones(1, size, size)  # nothing was seen on any date
        if series is None:
            nothing = np.zeros((1, source.num_bands, size, size), dtype=self._dtype)
            series = TimeSeries(
                torch.from_numpy(nothing),
                torch.zeros(1, dtype=torch.int64),
                torch.zeros(1, dtype=torch.bool),
            )
        return series, cover

    def _check_sizes(self, patch: Patch, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
        if image != mask and self.labels:
            raise InputError(
                f"The mask {patch.mask(self.labels)} has {tuple(mask)} pixels, its image "
                f"{tuple(image)}: they must cover the same pixels."
            )

    def _placement(
        self, patch: Patch, folder: Path, image: Tensor | TimeSeries | None
    ) -> Placement:
        # Georeferencing comes from the image: the masks carry a broken coordinate system.
        path = patch.image(folder)
        if isinstance(image, Tensor):
            height, width = image.shape[-2:]
        else:
            height, width, _ = read_grid(path)
        return {
            "source": str(path),  # type: ignore[typeddict-item]  # collation makes the list of them
            "window": torch.tensor([0, 0, height, width]),
            "shape": torch.tensor([height, width]),
            "gsd": torch.tensor(self.gsd),
        }


def read_raster(path: Path, *, bands: int, use: Sequence[int]) -> NDArray[np.uint8]:
    """Some bands of an 8-bit image, ``(len(use), H, W)``.

    Args:
        path: the GeoTIFF.
        bands: how many bands it must have.
        use: positions of those to read, from 0.

    Raises:
        InputError: if the file cannot be read, or has other bands or another type.
    """
    try:
        with rasterio.open(path) as source:
            if source.count != bands or source.dtypes[0] != "uint8":
                raise InputError(
                    f"{path}: expected {bands} band(s) of uint8, found {source.count} of "
                    f"{source.dtypes[0]}."
                )
            pixels: NDArray[np.uint8] = source.read([i + 1 for i in use])
    except RasterioError as error:
        raise unreadable(path, error, expected=f"{bands} band(s) of uint8") from error
    return pixels


def read_grid(path: Path) -> tuple[int, int, float]:
    """Height, width and pixel size in metres of an image, from its header.

    Raises:
        InputError: if the file cannot be read.
    """
    try:
        with rasterio.open(path) as source:
            return source.height, source.width, round(float(source.res[0]), 6)
    except RasterioError as error:
        raise unreadable(path, error, expected="a GeoTIFF") from error


def read_mask(path: Path) -> NDArray[np.uint8]:
    """The values of a mask, ``(H, W)``, 1 to 19.

    Raises:
        InputError: if the file cannot be read or holds other values; names file and values.
    """
    mask: NDArray[np.uint8] = read_raster(path, bands=1, use=[0])[0]
    counts = np.bincount(mask.ravel(), minlength=256)
    if counts[0] or counts[len(CLASSES_19) + 1 :].any():
        foreign = [int(v) for v in np.flatnonzero(counts) if not 1 <= v <= len(CLASSES_19)]
        raise InputError(
            f"The mask {path} holds the values {foreign}; expected 1 to {len(CLASSES_19)} only."
        )
    return mask


def read_target(path: Path, *, num_classes: int = 13) -> Tensor:
    """The class of each pixel of a mask, ``(H, W)`` int64 from 0.

    Args:
        path: mask with values 1 to 19.
        num_classes: 13 merges the values from 13 on into the last class, 19 keeps all.

    Raises:
        InputError: as `read_mask`.
    """
    return torch.from_numpy(np.minimum(read_mask(path), num_classes).astype(np.int64) - 1)


def _super_areas(
    patches: Sequence[Patch], source: SeriesSource
) -> dict[tuple[str, str], SuperArea | None]:
    areas: dict[tuple[str, str], SuperArea | None] = {}
    for patch in patches:
        key = patch.domain, patch.zone
        if key not in areas:
            areas[key] = _open_area(patch, source)
        area, centre = areas[key], source.centroids.get(patch.name)
        if centre is None and not source.allow_missing:
            raise InputError(
                f"The centroids have no entry '{patch.name}.tif', so its place in the Sentinel-2 "
                "super-area is unknown. Complete the file, or set allow_missing: true."
            )
        if area is not None and centre is not None:
            inside = all(0 <= c < length for c, length in zip(centre, area.size, strict=True))
            if not inside:
                raise InputError(
                    f"The centroid of {patch.name}, row {centre[0]} and column {centre[1]}, lies "
                    f"outside its super-area {area.data} of {area.size[0]} rows and "
                    f"{area.size[1]} columns."
                )
    return areas


def _open_area(patch: Patch, source: SeriesSource) -> SuperArea | None:
    folder = patch.super_area(source.folder)
    if folder.is_dir():
        return SuperArea.open(folder, masks=source.options.needs_masks)
    if source.allow_missing:
        return None
    raise InputError(
        f"No Sentinel-2 super-area for {patch.name}: {folder} does not exist. Set allow_missing: "
        "true to mark the modality as missing in such patches."
    )

"""Pairs of an RGB image and a LiDAR scan of one object, such as a cube or a sphere, by class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from fusionlab.data.base import DataModule, Split
from fusionlab.data.choices import Part, PathLike, path_or_none, require_known, with_statistics
from fusionlab.data.rgb_lidar.checks import check_pairs, usable
from fusionlab.data.rgb_lidar.dataset import RgbLidarDataset
from fusionlab.data.rgb_lidar.index import (
    BANDS,
    SENSORS,
    Pairs,
    Rows,
    Sensor,
    find_new_pairs,
    find_pairs,
)
from fusionlab.data.rgb_lidar.loading import Loader
from fusionlab.data.rgb_lidar.mirror import MirrorPairs
from fusionlab.data.rgb_lidar.splits import check_size, stratified_split
from fusionlab.data.rgb_lidar.statistics import channel_statistics
from fusionlab.data.samples import Transform
from fusionlab.data.transforms import SampleTransform
from fusionlab.errors import InputError
from fusionlab.types import Modality, Schema

_SCALE: dict[Sensor, float] = {"rgb": 1 / 255, "lidar": 1.0}


class RgbLidarDataModule(DataModule):
    """Delivers an RGB image and a LiDAR scan per sample, and the class of what they show.

    Every class is a folder, such as ``cubes`` and ``spheres``, with ``rgb/0000.png`` (RGBA of 8
    bits), ``lidar/0000.npy`` (depths in metres, rows × columns), ``azimuth.npy`` (the angle of
    every row, radians) and ``zenith.npy`` (of every column). Classes are in the order of their
    names.

    * ``rgb`` is ``(4, size, size)`` uint8: R, G, B, A; resized bilinearly with antialiasing.
    * ``lidar`` is ``(4, size, size)`` float32: the points x, y, z in metres and a, which is 1 where
      the depth is below 50; see `xyza`. Resized by the nearest row and column.
    * The target is the index of the class.

    All files are checked before a run starts. Means and standard deviations are of all pixels of
    the pairs that are trained on; they are computed once and stored, see `statistics`.

    Args:
        root: folder of the classes; of ``predict_split: folder``, of the pairs to predict.
        classes: their names; by default every folder with a folder ``rgb`` or ``lidar``.
        modalities: ``rgb``, ``lidar`` or both. Splits do not depend on it.
        size: rows and columns that images and scans are resized to.
        val_size: of the validation split: a number of pairs, or, below 1, a share of all.
        test_size: likewise, of the test split.
        split_seed: seed of the draw of both, which no other seed changes. Classes have the same
            shares in every split.
        predict_split: which pairs to predict; ``folder`` takes all in the root or in the folders
            there, without classes; the partner of a file may be missing then.
        allow_missing: mark a modality as missing where its file is not there instead of refusing
            that pair.
        cache: keep all samples in memory, as points and at their size; worker processes share it.
            Otherwise every file is read when it is its turn.
        statistics: folder in which computed means and standard deviations are kept, such as one
            that can be written where the data cannot; by default the root.
        mean: per modality, means of its channels instead of the computed ones: of colours from 0 to
            1, of coordinates in metres.
        std: likewise, standard deviations.
        augment: true mirrors half of the training samples (`MirrorPairs`); or a transform.
        **loader: options of `DataModule`: how batches are made, `modality_dropout`, `missing`, and
            `fraction`, `max_samples` and `subset_seed` for a part of the pairs.

    Raises:
        InputError: for options that make no sense, folders that are not there, and files that
            cannot be used.
    """

    def __init__(
        self,
        root: PathLike,
        *,
        classes: list[str] | None = None,
        modalities: list[str] | None = None,
        size: int = 64,
        val_size: int | float = 0.1,
        test_size: int | float = 0.1,
        split_seed: int = 0,
        predict_split: Literal["test", "val", "train", "folder"] = "test",
        allow_missing: bool = False,
        cache: bool = True,
        statistics: PathLike | None = None,
        mean: dict[str, list[float]] | None = None,
        std: dict[str, list[float]] | None = None,
        augment: bool | SampleTransform | Transform = False,
        **loader: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(augment=MirrorPairs() if augment is True else augment, **loader)
        self.root = path_or_none(root) or Path()
        self.size = size
        self.val_size = val_size
        self.test_size = test_size
        self.split_seed = split_seed
        self.predict_split = predict_split
        self.allow_missing = allow_missing
        self.cache = cache
        self._refuse_choices(modalities)
        wanted = SENSORS if modalities is None else modalities
        self.sensors: list[Sensor] = [sensor for sensor in SENSORS if sensor in wanted]

        new = predict_split == "folder"
        self.pairs = find_new_pairs(self.root) if new else find_pairs(self.root, classes)
        angles = check_pairs(self.pairs, self.sensors, allow_missing=allow_missing or new)
        self.loader = Loader(size, angles)
        self._parts: dict[Part, Rows] = {}
        if not new:
            self._parts = stratified_split(
                self.pairs, val=val_size, test=test_size, seed=split_seed
            )
        self._cached: dict[str, dict[Sensor, Tensor]] = {}
        store = path_or_none(statistics) or self.root
        self.schema = Schema(
            with_statistics(
                {s: self._modality(s, store, given=(mean, std)) for s in self.sensors},
                mean=mean,
                std=std,
            ),
            self.pairs.folders if not new else (),
            target="multiclass",
        )
        self.check_modalities()

    def dataset(self, split: Split) -> RgbLidarDataset:
        """The samples of a split, in memory if they are to be kept there.

        Raises:
            InputError: if the split is empty or a file cannot be read; says which.
        """
        predicting = split == "predict"
        part: Part | Literal["folder"] = self.predict_split if split == "predict" else split
        pairs = usable(part, self._pairs(part), self.sensors)
        if self.cache and part not in self._cached:
            self._cached[part] = {s: self.loader.all(pairs, s) for s in self.sensors}
        return RgbLidarDataset(
            pairs,
            self.loader,
            self.sensors,
            cached=self._cached.get(part, {}),
            targets=not predicting,
            transforms=self.transforms(split),
        )

    def _refuse_choices(self, modalities: list[str] | None) -> None:
        require_known(
            [self.predict_split],
            ["test", "val", "train", "folder"],
            option="predict_split",
            what="split",
        )
        require_known(modalities or [], SENSORS, option="modalities", what="modality")
        if modalities is not None and not modalities:
            raise InputError(f"data.modalities is empty: name one or both of {list(SENSORS)}.")
        if self.size < 1:
            raise InputError(f"data.size is at least 1 row and column, got {self.size}.")
        check_size(self.val_size, option="val_size")
        check_size(self.test_size, option="test_size")

    def _pairs(self, part: Part | Literal["folder"]) -> Pairs:
        if part == "folder":
            return self.pairs
        if not self._parts:
            raise InputError(
                f"predict_split: folder takes all pairs in {self.root} for prediction, and there "
                f"is no split {part!r}. Leave predict_split out to train or test."
            )
        rows = self._parts[part]
        if not len(rows):
            raise InputError(
                f"The split {part!r} is empty: {part}_size is 0. Say how many pairs are for it."
            )
        return self.pairs.take(rows[self.kept(len(rows), part)])

    def _modality(
        self,
        sensor: Sensor,
        store: Path,
        *,
        given: tuple[dict[str, list[float]] | None, dict[str, list[float]] | None],
    ) -> Modality:
        scale = _SCALE[sensor]
        modality = Modality(
            BANDS[sensor],
            gsd=1.0,  # one pixel: both have the same grid, which does not lie on the ground
            scale=(scale,) * 4,
            preparation={"size": self.size},
        )
        known = all(sensor in (values or {}) for values in given)
        if known or not self._parts:  # a model that predicts new pairs brings its own
            return modality
        raw = channel_statistics(self._pairs("train"), sensor, self.loader, folder=store)
        return replace(
            modality,
            mean=tuple(value * scale for value in raw.mean),
            # A channel that never changes, such as an alpha of opaque images, tells nothing.
            std=tuple(value * scale or 1.0 for value in raw.std),
        )

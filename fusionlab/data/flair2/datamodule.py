"""FLAIR #2: aerial images at 0.2 m with Sentinel-2 series of the same year and land-cover masks.

"FLAIR #2: textural and temporal information for semantic segmentation from multi-source optical
imagery" (Garioud et al., 2023, arXiv:2305.14467). Reads the published folders as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from fusionlab.data.base import DataModule, Split
from fusionlab.data.choices import (
    Part,
    PathLike,
    path_or_none,
    require_known,
    require_modalities,
    with_statistics,
)
from fusionlab.data.flair2 import constants, index
from fusionlab.data.flair2.canopy_height import CanopyHeight, mask_values
from fusionlab.data.flair2.dataset import AerialSource, Flair2Dataset, SeriesSource, read_grid
from fusionlab.data.flair2.super_area import SeriesOptions
from fusionlab.errors import InputError
from fusionlab.types import Modality, Schema

MODALITIES = {"aerial": constants.AERIAL, "sentinel2": constants.SENTINEL2}


class Flair2DataModule(DataModule):
    """Delivers FLAIR #2: `aerial` images and `sentinel2` series with land-cover classes or heights.

    Only what is asked for is read: a run on one modality needs no files of the other, except that
    predictions are placed on the grid of the aerial images.

    * `aerial`: ``(5, H, W)`` uint8; red, green, blue, near infrared, and height above ground in
      units of 0.2 m (the schema's `scale` makes metres of it; 255 means 51 m or more).
    * `sentinel2`: ``(T, 10, s, s)`` reflectance times 10,000 in the type it has on disk, in order
      of time, at 10 m around the patch. Past the super-area's border the nearest pixel is repeated.
      Dates without a value other than 0 in the crop, where the satellite did not pass, are left
      out. A patch without any usable date has the modality marked as not available. The schema's
      `preparation` tells `RasterDataModule` how series were cropped, filtered and averaged.
    * The target is ``(H, W)`` int64 class indices. With ``target: canopy_height`` it is
      ``(1, H, W)`` float32, metres above ground, from the fifth band of the aerial image, which
      then is no input; NaN where the mask names no tree, and where the band is saturated.

    Args:
        root: folder of the data set. The parts are looked for under their published names, those
            of the toy data set, and ``train/aerial``, ``train/sen``, ``train/labels``, ``test/…``.
        aerial_train: folder of the training and validation images, if not below the root.
        sen_train: likewise, of the Sentinel-2 super-areas.
        labels_train: likewise, of the masks.
        aerial_test: folder of the test images.
        sen_test: likewise, of the Sentinel-2 super-areas.
        labels_test: likewise, of the masks.
        centroids: the file ``flair-2_centroids_sp_to_patch.json``.
        modalities: which to deliver, `aerial`, `sentinel2` or both.
        bands: per modality, names of the bands to deliver; all by default, but not the height where
            that is the target.
        target: `segmentation` into classes, or regression of `canopy_height`.
        height_classes: classes of the mask (of the 19) in which a height counts as that of a
            canopy; null takes heights everywhere and needs no masks.
        train_domains: domains to train on, such as ``D004_2021`` or ``D004``; by default all in
            the training folders that are not for validation.
        val_domains: domains to validate on, or the name of a published list: `flair2` or `flair1`.
        test_domains: domains to test on; by default all in the test folders.
        predict_split: which patches to predict.
        classes: 13 merges the rare classes into `other`, as the baseline does; 19 keeps them.
        sen_crop_size: height and width of the Sentinel-2 crop in pixels, even. The baseline takes
            40; the middle 10 cover the patch.
        cloud_probability: percent from which on snow or cloud hides a pixel.
        cloud_area: a date is kept if the hidden share of the crop is below it; null keeps all.
        monthly_means: average the dates of each calendar month (float32, dated to the 15th).
        max_dates: deliver at most so many of the kept dates, evenly spaced, to bound memory.
        cloud_cover: deliver the fraction of dates that cloud or snow hides, over all dates.
        allow_missing: mark Sentinel-2 as missing in patches without super-area or centroid
            instead of refusing them.
        aerial_gsd: aerial pixel size in metres; read from the first image by default.
        mean: per modality, means of the delivered bands in physical units, instead of the
            published ones.
        std: likewise, standard deviations.
        **loader: options of `DataModule`: how batches are made, `augment`, `modality_dropout`,
            `missing`, and `fraction`, `max_samples` and `subset_seed` for a part of the patches.

    Raises:
        InputError: for options that make no sense; unusable data are refused in `setup`.
    """

    def __init__(
        self,
        root: PathLike | None = None,
        *,
        aerial_train: PathLike | None = None,
        sen_train: PathLike | None = None,
        labels_train: PathLike | None = None,
        aerial_test: PathLike | None = None,
        sen_test: PathLike | None = None,
        labels_test: PathLike | None = None,
        centroids: PathLike | None = None,
        modalities: Sequence[Literal["aerial", "sentinel2"]] = ("aerial", "sentinel2"),
        bands: dict[str, list[str]] | None = None,
        target: Literal["segmentation", "canopy_height"] = "segmentation",
        height_classes: Sequence[str] | None = constants.TREE_CLASSES,
        train_domains: list[str] | None = None,
        val_domains: Literal["flair2", "flair1"] | list[str] = "flair2",
        test_domains: list[str] | None = None,
        predict_split: Literal["test", "val"] = "test",
        classes: Literal[13, 19] = 13,
        sen_crop_size: int = 40,
        cloud_probability: float = 60,
        cloud_area: float | None = 0.5,
        monthly_means: bool = False,
        max_dates: int | None = None,
        cloud_cover: bool = False,
        allow_missing: bool = False,
        aerial_gsd: float | None = None,
        mean: dict[str, list[float]] | None = None,
        std: dict[str, list[float]] | None = None,
        **loader: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**loader)
        self.root = path_or_none(root)
        given = {
            "aerial_train": aerial_train,
            "sen_train": sen_train,
            "labels_train": labels_train,
            "aerial_test": aerial_test,
            "sen_test": sen_test,
            "labels_test": labels_test,
        }
        self._given = {part: path_or_none(path) for part, path in given.items()}
        self._centroids = path_or_none(centroids)
        self.train_domains = train_domains
        self.val_domains = val_domains
        self.test_domains = test_domains
        self.predict_split = predict_split
        self.classes = classes
        self.allow_missing = allow_missing

        if isinstance(val_domains, str) and val_domains not in constants.VAL_DOMAINS:
            raise InputError(
                f"val_domains is a list of domains or the name of a published list, of "
                f"{list(constants.VAL_DOMAINS)}, got {val_domains!r}."
            )
        require_known([target], ["segmentation", "canopy_height"], option="target", what="target")
        self.target = target
        self._height_values = mask_values(height_classes)
        wanted = dict(bands or {})
        if target == "canopy_height" and "aerial" in modalities:
            wanted.setdefault("aerial", list(constants.SPECTRAL_BANDS))
            if "height" in wanted["aerial"]:
                raise InputError(
                    "bands.aerial includes the height, which is what target: canopy_height is to "
                    "be learned: a model would only have to copy it. Leave it out: "
                    f"{list(constants.SPECTRAL_BANDS)}."
                )
        chosen = with_statistics(_choose(modalities, wanted), mean=mean, std=std)
        self.series_options = SeriesOptions(
            crop_size=sen_crop_size,
            cloud_probability=cloud_probability,
            cloud_area=cloud_area,
            monthly_means=monthly_means,
            max_dates=max_dates,
            cloud_cover=cloud_cover,
            channels=_channels("sentinel2", chosen) if "sentinel2" in (bands or {}) else None,
        )
        if "sentinel2" in chosen:
            chosen["sentinel2"] = replace(
                chosen["sentinel2"], preparation=self.series_options.preparation
            )
        gsd = aerial_gsd or self._aerial_gsd() or constants.AERIAL.gsd
        if "aerial" in chosen:
            chosen["aerial"] = replace(chosen["aerial"], gsd=gsd)
        self.schema = self._schema(chosen, gsd)
        self.check_modalities()

    def dataset(self, split: Split) -> Flair2Dataset:
        """The samples of a split; checks all that file names and headers tell.

        Raises:
            InputError: if the data cannot be used; says which file and why.
        """
        part: Part = self.predict_split if split == "predict" else split
        patches = self._patches(part, split)
        side = "test" if part == "test" else "train"
        aerial = series = None
        if "aerial" in self.schema.modalities:
            aerial = AerialSource(
                self._folder(f"aerial_{side}"), _channels("aerial", self.schema.modalities)
            )
            self._check_grid(patches[0].image(aerial.folder))
        if "sentinel2" in self.schema.modalities:
            series = SeriesSource(
                self._folder(f"sen_{side}"),
                index.read_centroids(index.find_centroids(self.root, self._centroids)),
                self.series_options,
                num_bands=len(self.schema.modalities["sentinel2"].bands),
                allow_missing=self.allow_missing,
            )
        predicting = split == "predict"
        heights = None
        if self.target == "canopy_height" and not predicting:
            heights = CanopyHeight(self._folder(f"aerial_{side}"), self._height_values)
        masks = self._needs_masks and not predicting
        return Flair2Dataset(
            patches,
            aerial=aerial,
            sentinel2=series,
            labels=self._folder(f"labels_{side}") if masks else None,
            canopy_height=heights,
            num_classes=self.classes,
            placement=self._folder(f"aerial_{side}") if predicting else None,
            gsd=self.schema.gsd or constants.AERIAL.gsd,
            transforms=self.transforms(split),
        )

    def _schema(self, modalities: Mapping[str, Modality], gsd: float) -> Schema:
        if self.target == "canopy_height":
            return Schema(
                modalities,
                gsd=gsd,
                target="regression",
                variables=("canopy_height",),
                units=("m",),
            )
        few = self.classes == 13
        return Schema(
            modalities,
            constants.CLASSES_13 if few else constants.CLASSES_19,
            colors=constants.COLORS_13 if few else constants.COLORS_19,
            gsd=gsd,
            scores={"flair2": constants.SCORED_CLASSES},
        )

    def _patches(self, part: Part, split: Split) -> list[index.Patch]:
        side = "test" if part == "test" else "train"
        # Without aerial images in the batch the masks alone say which patches there are.
        heights = self.target == "canopy_height"
        images = heights or "aerial" in self.schema.modalities or split == "predict"
        folder = self._folder(f"{'aerial' if images else 'labels'}_{side}")
        on_disk = index.domains_on_disk(folder)
        domains = self._domains(part, on_disk)
        patches = index.list_patches(folder, domains, kind="image" if images else "mask")
        if not patches:
            raise InputError(
                f"The split {part!r} is empty: {folder} holds no patch of {domains or 'it'}. "
                f"Domains there: {on_disk}. Choose with {part}_domains."
            )
        if images and split != "predict" and self._needs_masks:
            index.require_masks(patches, self._folder(f"labels_{side}"))
        return [patches[i] for i in self.kept(len(patches), part)]

    @property
    def _needs_masks(self) -> bool:
        return self.target == "segmentation" or self._height_values is not None

    def _domains(self, part: Part, on_disk: list[str]) -> list[str]:
        if part == "test":
            if self.test_domains is None:
                return on_disk
            return index.match_domains(self.test_domains, on_disk, where="test_domains")
        if isinstance(self.val_domains, str):
            # A published list may name more domains than were downloaded.
            published = constants.VAL_DOMAINS[self.val_domains]
            val = [domain for domain in on_disk if domain.split("_")[0] in published]
        else:
            val = index.match_domains(self.val_domains, on_disk, where="val_domains")
        if part == "val":
            return val
        if self.train_domains is None:
            return [domain for domain in on_disk if domain not in val]
        train = index.match_domains(self.train_domains, on_disk, where="train_domains")
        both = sorted(set(train) & set(val))
        if both:
            raise InputError(
                f"{both} would be trained on and validated on: remove them from train_domains or "
                "val_domains."
            )
        return train

    def _folder(self, part: str) -> Path:
        return index.find_folder(part, self.root, self._given.get(part))

    def _aerial_gsd(self) -> float | None:
        """Pixel size of some image or mask, None where there is none yet."""
        parts = ("aerial_train", "aerial_test", "labels_train", "labels_test")
        for part in parts:
            try:
                path = self._first(part)
            except InputError:
                continue  # refused in `setup`, if it is needed
            if path is not None:
                return read_grid(path)[2]
        return None

    def _first(self, part: str) -> Path | None:
        folder, image = self._folder(part), part.startswith("aerial")
        for domain in index.domains_on_disk(folder):
            patches = index.list_patches(folder, [domain], kind="image" if image else "mask")
            if patches:
                return patches[0].image(folder) if image else patches[0].mask(folder)
        return None

    def _check_grid(self, image: Path) -> None:
        gsd, expected = read_grid(image)[2], self.schema.modalities["aerial"].gsd
        if abs(gsd - expected) > 0.01 * expected:
            raise InputError(
                f"{image} has pixels of {gsd} m, but the schema says {expected} m: set aerial_gsd, "
                "or keep images of different pixel sizes in different data sets."
            )


def _choose(names: Sequence[str], bands: dict[str, list[str]]) -> dict[str, Modality]:
    unknown = [name for name in names if name not in MODALITIES]
    if unknown or not names:
        raise InputError(f"modalities must be of {list(MODALITIES)}, got {list(names)}.")
    require_modalities(bands, names, option="bands")
    chosen = {name: MODALITIES[name] for name in names}
    for name, wanted in bands.items():
        chosen[name] = chosen[name].select(wanted, where=f"bands of {name!r}")
    return chosen


def _channels(name: str, chosen: Mapping[str, Modality]) -> tuple[int, ...]:
    return tuple(MODALITIES[name].indices(chosen[name].bands, where="bands"))


__all__ = ["Flair2DataModule", "Flair2Dataset"]

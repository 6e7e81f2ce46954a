"""BigEarthNet: Sentinel-1 and Sentinel-2 patches of 1.2 km with up to 19 land-cover classes each.

"reBEN: Refined BigEarthNet Dataset for Remote Sensing Image Analysis" (Clasen et al., 2024,
arXiv:2407.03653) is v2, "BigEarthNet-MM" (Sumbul et al., 2021, arXiv:2105.07921) is v1. Reads the
published folders of GeoTIFFs, and the LMDB that rico-hdl makes of them, as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from fusionlab.data.base import DataModule, Split
from fusionlab.data.bigearthnet import checks, constants, index, options, pairing
from fusionlab.data.bigearthnet.database import RicoDatabase
from fusionlab.data.bigearthnet.dataset import BigEarthNetDataset
from fusionlab.data.bigearthnet.index import Patches
from fusionlab.data.bigearthnet.names import Sensor
from fusionlab.data.bigearthnet.sources import (
    FOLDERS,
    REFERENCE_MAP,
    GeoTiffFolders,
    Kind,
    Source,
)
from fusionlab.data.bigearthnet.targets import FileLabels, ReferenceMap, TableLabels, Target
from fusionlab.data.choices import Part, PathLike, path_or_none, require_known, with_statistics
from fusionlab.errors import InputError
from fusionlab.types import Schema


class BigEarthNetDataModule(DataModule):
    """Delivers BigEarthNet: named modalities of chosen bands, and labels or reference maps.

    * An image is ``(bands, n, n)`` on the grid of its finest band, whose patch is 120 × 120 pixels
      at 10 m, 60 × 60 at 20 m or 20 × 20 at 60 m. Sentinel-2 is reflectance times 10,000, uint16 as
      on disk unless it is interpolated; Sentinel-1 is backscatter in dB, float32. A modality of
      bands of both is float32, and there only if both are.
    * `labels` are ``(19,)`` float32 of zeros and ones; a `reference_map` is ``(120, 120)`` int64
      with 255 where CORINE has none of the 19 classes.
    * Sentinel-1 is found through the metadata, which pair it with Sentinel-2 by name.

    The official protocol of v2 is the default: the splits of ``metadata.parquet``, without the
    patches of the snow and cloud table. Numbers of v1 and v2 are not comparable.

    Args:
        root: folder of the data set with its published folders and files; of an LMDB, the folder of
            ``metadata.parquet`` (by default also looked for beside the LMDB).
        lmdb: folder of an LMDB made by rico-hdl, read instead of the folders of GeoTIFFs.
        version: `v2` (reBEN), or `v1` with flat folders, labels in JSON files, and splits in
            ``train.csv``, ``val.csv`` and ``test.csv`` in the root or its folder ``splits``.
        s1_root: folder of the Sentinel-1 patches, if not below the root.
        s2_root: likewise, of the Sentinel-2 patches.
        reference_maps: likewise, of the reference maps.
        metadata: likewise, the table (v2), or the folder of the lists of splits (v1).
        metadata_snow_cloud: likewise, the table of patches with snow, clouds or shadows.
        modalities: per name its bands, such as `VV` and `B02`, or names of published band sets:
            `S1`, `S2` (12 bands), `RGB`, `10m`, `20m`, `60m`, `10m_20m`, `S1_10m_20m`, `ALL`.
            By default `s1` is VV and VH, `s2` the ten bands of 10 and 20 m.
        upsampling: how coarser bands are brought to the grid of the finest.
        class_order: order of the classes: `alphabetical`, as in the checkpoints that the data set's
            publishers provide, or `paper`.
        target: `labels` of the patch, or its `reference_map`.
        countries: only patches of these; all by default. v1 does not name countries.
        seasons: only patches that Sentinel-2 saw in `winter` (December to February), `spring`,
            `summer` or `autumn`; all by default.
        include_snow_cloud: add the patches with seasonal snow, clouds or shadows.
        allow_missing: mark a modality as missing in patches whose Sentinel-1 or Sentinel-2 is not
            on disk instead of refusing them; patches of which nothing is there are left out.
        predict_split: which patches to predict; `folder` takes all that lie in the folders, without
            metadata, and pairs them by place and nearest time.
        mean: per modality, means of its bands in the unit of the data, instead of the published
            ones.
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
        lmdb: PathLike | None = None,
        version: Literal["v2", "v1"] = "v2",
        s1_root: PathLike | None = None,
        s2_root: PathLike | None = None,
        reference_maps: PathLike | None = None,
        metadata: PathLike | None = None,
        metadata_snow_cloud: PathLike | None = None,
        modalities: dict[str, list[str] | str] | None = None,
        upsampling: Literal["nearest", "bilinear"] = "nearest",
        class_order: Literal["alphabetical", "paper"] = "alphabetical",
        target: Literal["labels", "reference_map"] = "labels",
        countries: list[str] | None = None,
        seasons: list[str] | None = None,
        include_snow_cloud: bool = False,
        allow_missing: bool = False,
        predict_split: Literal["test", "val", "train", "folder"] = "test",
        mean: dict[str, list[float]] | None = None,
        std: dict[str, list[float]] | None = None,
        **loader: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**loader)
        self.root = path_or_none(root)
        self.lmdb = path_or_none(lmdb)
        self.version: Literal["v1", "v2"] = version
        self._given: dict[Kind, Path | None] = {
            "S1": path_or_none(s1_root),
            "S2": path_or_none(s2_root),
            "reference_map": path_or_none(reference_maps),
        }
        self._metadata = path_or_none(metadata)
        self._metadata_snow_cloud = path_or_none(metadata_snow_cloud)
        self.target = target
        self.countries = countries
        self.include_snow_cloud = include_snow_cloud
        self.allow_missing = allow_missing
        self.predict_split = predict_split
        self._months = options.months(seasons)
        self._refuse_choices(class_order)

        self.recipes = options.recipes(modalities or constants.MODALITIES, upsampling)
        paper = class_order == "paper"
        self.classes = constants.CLASSES_PAPER if paper else constants.CLASSES
        self.schema = Schema(
            with_statistics(
                {name: recipe.modality(version) for name, recipe in self.recipes.items()},
                mean=mean,
                std=std,
            ),
            self.classes,
            colors=[constants.COLORS[name] for name in self.classes],
            gsd=10.0 if target == REFERENCE_MAP else None,
            target="segmentation" if target == REFERENCE_MAP else "multilabel",
        )
        self.check_modalities()

    def dataset(self, split: Split) -> BigEarthNetDataset:
        """The samples of a split; checks all that lists of files and headers tell.

        Raises:
            InputError: if the data cannot be used; says which file and why.
        """
        predicting = split == "predict"
        folder = predicting and self.predict_split == "folder"
        source = self._source(maps=not predicting, partial=folder or self.allow_missing)
        if folder:
            patches = pairing.find(source, self._sensors, version=self.version)
            part = "predict"
        else:
            part = self.predict_split if predicting else split
            patches = self._patches(part)  # type: ignore[arg-type]
        present = checks.presence(source, patches, self._sensors)
        if not folder and not self.allow_missing:
            checks.require_present(part, source, patches, present)
        recipes = list(self.recipes.values())
        patches, present = checks.usable(part, patches, present, recipes)
        target = None if folder else self._target(source, predicting=predicting)
        if isinstance(target, ReferenceMap):
            checks.check_maps(part, source, patches)
        checks.check_bands(source, patches, present, recipes)
        return BigEarthNetDataset(
            patches,
            source,
            recipes,
            present,
            target=target,
            placed=predicting and source.georeferenced,
            transforms=self.transforms(split),
        )

    @property
    def _sensors(self) -> list[Sensor]:
        wanted = {sensor for recipe in self.recipes.values() for sensor in recipe.sensors}
        return [sensor for sensor in get_args(Sensor) if sensor in wanted]

    def _refuse_choices(self, class_order: str) -> None:
        for option, what, given, known in (
            ("version", "version", self.version, ["v2", "v1"]),
            ("class_order", "order", class_order, ["alphabetical", "paper"]),
            ("target", "target", self.target, ["labels", REFERENCE_MAP]),
            ("predict_split", "split", self.predict_split, ["test", "val", "train", "folder"]),
        ):
            require_known([given], known, option=option, what=what)
        require_known(self.countries or [], constants.COUNTRIES, option="countries", what="country")
        if self.version == "v1":
            for option, chosen in (
                ("lmdb", self.lmdb),
                ("target: reference_map", self.target == REFERENCE_MAP),
                ("countries", self.countries),
                ("include_snow_cloud", self.include_snow_cloud),
            ):
                if chosen:
                    raise InputError(
                        f"{option} is for version v2: v1 has GeoTIFFs, labels and lists of splits "
                        "only. Leave it out, or set version: v2."
                    )
        elif self.root is None and self.lmdb is None and self._metadata is None:
            roots = self._given["S1"] or self._given["S2"]
            if self.predict_split != "folder" or not roots:
                raise InputError(
                    "No BigEarthNet data: give `root`, the folder of the data set, or `lmdb`, that "
                    "of an LMDB made by rico-hdl."
                )

    def _source(self, *, maps: bool, partial: bool) -> Source:
        if self.lmdb is not None:
            return RicoDatabase(self.lmdb)
        kinds: list[Kind] = [*self._sensors]
        if maps and self.target == REFERENCE_MAP:
            kinds.append(REFERENCE_MAP)
        folders: dict[Kind, Path] = {}
        problems = []
        for kind in kinds:
            given = self._given[kind]
            path = given or (self.root / FOLDERS[self.version, kind] if self.root else None)
            if path is not None and path.is_dir():
                folders[kind] = path
                continue
            option = {"S1": "s1_root", "S2": "s2_root"}.get(kind, "reference_maps")
            found = f"{path} does not exist" if path else "nothing says where it is"
            problems.append(f"No folder of {kind}: {found}; name it with `root` or `{option}`.")
            if kind == REFERENCE_MAP or not partial:
                raise InputError(problems[-1])
        if not folders:
            raise InputError(f"There are no patches to read. {' '.join(problems)}")
        return GeoTiffFolders(folders, self.version)

    def _patches(self, part: Part) -> Patches:
        beside = self.lmdb.parent if self.lmdb else None
        if self.version == "v1":
            lists = self._metadata or self.root
            patches = index.read_split_list(
                index.find_file(
                    f"{part}.csv",
                    [lists, lists / "splits" if lists else None],
                    None,
                    option="metadata",
                    what=f"list of the split {part!r}",
                )
            )
        else:
            folders = [self.root, beside]
            tables = [
                index.find_file(
                    index.METADATA, folders, self._metadata, option="metadata", what="metadata"
                )
            ]
            if self.include_snow_cloud:
                tables.append(
                    index.find_file(
                        index.METADATA_SNOW_CLOUD,
                        folders,
                        self._metadata_snow_cloud,
                        option="metadata_snow_cloud",
                        what="metadata of patches with snow, clouds or shadows",
                    )
                )
            patches = index.read_tables(
                tables,
                part,
                labels=self.classes if self.target == "labels" else None,
                s1="S1" in self._sensors,
                countries=self.countries,
            )
        if self._months is not None:
            total = len(patches)
            patches = patches.take(index.acquired_in(patches.s2, self._months))
            if not len(patches):
                raise InputError(
                    f"The split {part!r} is empty: none of its {total} patches was acquired in the "
                    f"months {sorted(self._months)} of the seasons chosen."
                )
        rows = self.kept(len(patches), part)
        return patches if len(rows) == len(patches) else patches.take(rows)

    def _target(self, source: Source, *, predicting: bool) -> Target | None:
        if self.target == REFERENCE_MAP:
            return None if predicting else ReferenceMap(source, self.classes)
        if isinstance(source, GeoTiffFolders) and self.version == "v1":
            return FileLabels(source, self.classes)
        return TableLabels()

"""Which patches of FLAIR #2 lie on disk, found by listing folders without opening any image."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from fusionlab.data.flair2.constants import CENTROIDS_PATTERN, FOLDER_NAMES
from fusionlab.errors import InputError

_DOMAIN = re.compile(r"^D\d{3}_\d{4}$")

Centroids = Mapping[str, tuple[int, int]]


class Patch(NamedTuple):
    """One aerial patch.

    Attributes:
        id: six digits, shared by the image ``IMG_<id>.tif`` and the mask ``MSK_<id>.tif``.
        domain: folder of the département and year, such as ``D004_2021``.
        zone: folder of the area, such as ``Z1_NN``; its patches share one super-area.
    """

    id: str
    domain: str
    zone: str

    @property
    def name(self) -> str:
        """Name of the sample and key of the metadata."""
        return f"IMG_{self.id}"

    def image(self, folder: Path) -> Path:
        """Path of the aerial image."""
        return folder / self.domain / self.zone / "img" / f"IMG_{self.id}.tif"

    def mask(self, folder: Path) -> Path:
        """Path of the label mask."""
        return folder / self.domain / self.zone / "msk" / f"MSK_{self.id}.tif"

    def super_area(self, folder: Path) -> Path:
        """Folder of the Sentinel-2 series that covers the patch."""
        return folder / self.domain / self.zone / "sen"


def find_folder(part: str, root: Path | None, given: Path | None) -> Path:
    """Where a part of the data set lies.

    Args:
        part: a key of `FOLDER_NAMES`.
        root: folder of the whole data set.
        given: the part's own folder, which wins over the root.

    Raises:
        InputError: if neither is given, or the folder does not exist; lists what was tried.
    """
    if given is not None:
        candidates = [given]
    elif root is not None:
        candidates = [root / name for name in FOLDER_NAMES[part]]
    else:
        raise InputError(f"No FLAIR #2 data: give `root`, the data set's folder, or `{part}`.")
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    if given is None and root is not None and not root.is_dir():
        raise InputError(f"The folder of FLAIR #2, root={root}, does not exist.")
    tried = " or ".join(str(candidate) for candidate in candidates)
    raise InputError(
        f"The FLAIR #2 folder of {part!r} does not exist: looked for {tried}. "
        f"Check `root`, or name the folder with `{part}`."
    )


def domains_on_disk(folder: Path) -> list[str]:
    """Names of the domain folders, sorted."""
    return sorted(entry.name for entry in _folders(folder) if _DOMAIN.match(entry.name))


def match_domains(wanted: Sequence[str], on_disk: Sequence[str], *, where: str) -> list[str]:
    """The domain folders that names stand for.

    Args:
        wanted: names such as ``D004_2021``, or ``D004`` for that département in any year.
        on_disk: the folders there are.
        where: what is asking, for the error message.

    Raises:
        InputError: if a name matches no folder; lists the folders.
    """
    found: list[str] = []
    unknown = []
    for name in wanted:
        matches = [domain for domain in on_disk if name in (domain, domain.split("_")[0])]
        found += matches
        if not matches:
            unknown.append(name)
    if unknown:
        raise InputError(
            f"{where} names domains that are not on disk: {unknown}. There are {list(on_disk)}."
        )
    return sorted(set(found))


def list_patches(
    folder: Path, domains: Collection[str], *, kind: Literal["image", "mask"]
) -> list[Patch]:
    """All patches of some domains, in the order of domain, zone and id.

    Args:
        folder: the folder that holds the domains.
        domains: names of domain folders.
        kind: whether to list images or masks.

    Raises:
        InputError: if a patch has another suffix, which the published names do not; names it.
    """
    leaf, prefix = ("img", "IMG_") if kind == "image" else ("msk", "MSK_")
    patches = []
    for domain in sorted(domains):
        for zone in sorted(entry.name for entry in _folders(folder / domain)):
            directory = folder / domain / zone / leaf
            if directory.is_dir():
                with os.scandir(directory) as entries:
                    names = sorted(e.name for e in entries if e.name.startswith(prefix))
                _refuse_suffixes(directory, names)
                patches += [
                    Patch(name[len(prefix) : -len(".tif")], domain, zone)
                    for name in names
                    if name.endswith(".tif")
                ]
    return patches


def _refuse_suffixes(directory: Path, names: Sequence[str]) -> None:
    other = [n for n in names if n.lower().endswith((".tif", ".tiff")) and not n.endswith(".tif")]
    if other:
        raise InputError(
            f"{len(other)} of the patches in {directory} do not end in .tif, e.g. {other[0]}, and "
            "would be left out: rename them."
        )


def require_masks(patches: Sequence[Patch], folder: Path) -> None:
    """Refuses patches without a mask.

    Raises:
        InputError: says how many masks are missing and names the first.
    """
    domains = {patch.domain for patch in patches}
    masks = set(list_patches(folder, domains, kind="mask"))
    missing = [patch for patch in patches if patch not in masks]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(patches)} patches have no mask. The first is {missing[0].name}"
            f": expected {missing[0].mask(folder)}."
        )


def find_centroids(root: Path | None, given: Path | None) -> Path:
    """The file that places patches in super-areas.

    Raises:
        InputError: if there is none.
    """
    if given is not None:
        if given.is_file():
            return given
        raise InputError(f"The centroids file {given} does not exist.")
    if root is not None:
        for pattern in (CENTROIDS_PATTERN, f"*/{CENTROIDS_PATTERN}"):
            found = sorted(path for path in root.glob(pattern) if path.is_file())
            if found:
                return found[0]
    raise InputError(
        f"No file {CENTROIDS_PATTERN} in {root}: it says where each patch lies in its Sentinel-2 "
        "super-area. Name it with `centroids`."
    )


def read_centroids(path: Path) -> Centroids:
    """Row and column of each patch's centre in its super-area, by the patch's name.

    Raises:
        InputError: if the file does not hold pairs of numbers by image name.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # Keys carry the extension; the values are row and column, not x and y.
        return {
            name.removesuffix(".tif"): (int(row), int(col)) for name, (row, col) in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"Cannot read the centroids {path} ({error}). "
            'Expected {"IMG_000001.tif": [row, column], …}.'
        ) from error


def _folders(folder: Path) -> Iterator[os.DirEntry[str]]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if entry.is_dir())

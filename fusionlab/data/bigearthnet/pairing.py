"""New patches without metadata: which there are, and which of the two sensors belong together."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence

import pyarrow as pa

from fusionlab.data.bigearthnet.index import Patches
from fusionlab.data.bigearthnet.names import PatchName, Sensor, Version, parse
from fusionlab.data.bigearthnet.sources import GeoTiffFolders, Source
from fusionlab.errors import InputError


def pair(s2: Sequence[str], s1: Sequence[str]) -> Patches:
    """Patches of v2 names, paired by place and time.

    A Sentinel-2 patch takes the Sentinel-1 patch of the same tile and numbers that was acquired
    nearest to it in time (the earlier of two as near), if there is one. A Sentinel-1 patch of a
    place without Sentinel-2 stands alone.

    Args:
        s2: names of Sentinel-2 patches.
        s1: names of Sentinel-1 patches.

    Raises:
        InputError: for a name that is no patch's.
    """
    radar: dict[tuple[str, int, int], list[tuple[int, str]]] = defaultdict(list)
    for name in s1:
        told = _parse(name, "S1")
        radar[told.place].append((told.seconds, name))
    for candidates in radar.values():
        candidates.sort()
    rows: list[tuple[str | None, str | None]] = []
    optical = set()
    for name in s2:
        told = _parse(name, "S2")
        optical.add(told.place)
        rows.append((name, _nearest(radar.get(told.place, []), told.seconds)))
    for place, candidates in radar.items():
        if place not in optical:
            rows += [(None, name) for _, name in candidates]
    return _patches(rows)


def find(source: Source, sensors: Sequence[Sensor], *, version: Version) -> Patches:
    """All patches of a source, paired.

    Those of v1, whose Sentinel-2 names lack the tile, are paired by the ``corresponding_s2_patch``
    in the file beside each Sentinel-1 patch.

    Args:
        source: where they lie.
        sensors: those that are wanted.
        version: of the names.

    Raises:
        InputError: if there are none; says where they were looked for.
    """
    optical = source.names("S2") if "S2" in sensors else []
    radar = source.names("S1") if "S1" in sensors else []
    if not optical and not radar:
        looked = " and ".join(source.where(sensor) for sensor in sensors)
        raise InputError(f"There are no patches to predict: looked for them in {looked}.")
    if version == "v2" or not isinstance(source, GeoTiffFolders):
        return pair(optical, radar)
    partners = {
        name: str(source.metadata("S1", name).get("corresponding_s2_patch")) for name in radar
    }
    return pair_by_name(optical, partners)


def pair_by_name(s2: Sequence[str], partners: Mapping[str, str]) -> Patches:
    """Patches paired by what each Sentinel-1 patch says is its Sentinel-2 patch.

    Args:
        s2: names of Sentinel-2 patches.
        partners: per Sentinel-1 patch, the name of a Sentinel-2 patch.
    """
    radar = {partner: name for name, partner in sorted(partners.items(), reverse=True)}
    known = set(s2)
    rows: list[tuple[str | None, str | None]] = [(name, radar.get(name)) for name in s2]
    rows += [(None, name) for name, partner in partners.items() if partner not in known]
    return _patches(rows)


def _patches(rows: Sequence[tuple[str | None, str | None]]) -> Patches:
    ordered = sorted(rows, key=lambda row: row[0] or row[1] or "")
    return Patches(
        pa.array([row[0] for row in ordered], pa.string()),
        pa.array([row[1] for row in ordered], pa.string()),
    )


def _nearest(candidates: Sequence[tuple[int, str]], seconds: int) -> str | None:
    if not candidates:
        return None
    position = bisect_left(candidates, (seconds, ""))
    around = candidates[max(position - 1, 0) : position + 1]
    return min(around, key=lambda candidate: abs(candidate[0] - seconds))[1]


def _parse(name: str, sensor: Sensor) -> PatchName:
    told = parse(name, sensor=sensor)
    if told is None:
        raise InputError(f"{name!r} is not the name of a patch of BigEarthNet v2.")
    return told

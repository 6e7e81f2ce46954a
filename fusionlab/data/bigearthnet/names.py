"""Names of patches: what they tell, and in which folder a patch lies.

* Sentinel-2, v2: ``S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57``; the last two numbers, the
  patch's column and row in its tile, have two digits.
* Sentinel-2, v1: ``S2A_MSIL2A_20170613T101031_26_57``; without tile, numbers without leading zeros,
  and times that lack theirs (``T93020``) or hold 61 seconds (``T94161``).
* Sentinel-1, both: ``S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57``; without leading zeros.

Which Sentinel-1 patch belongs to which Sentinel-2 patch is said by the metadata alone. Only where
there are none, for new patches, tile and numbers are compared.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Literal, NamedTuple

Version = Literal["v1", "v2"]
Sensor = Literal["S1", "S2"]

_TIME = r"(?P<date>\d{8})T(?P<time>\d{5,6})"
_PLACE = r"_(?P<column>\d+)_(?P<row>\d+)"
_S1 = rf"S1[A-Z]_\w+?_{_TIME}_(?P<tile>[0-9A-Z]{{5}}){_PLACE}"
PATTERNS = {
    ("S2", "v2"): rf"S2[A-Z]_MSIL2A_{_TIME}_N\d{{4}}_R\d{{3}}_T(?P<tile>[0-9A-Z]{{5}}){_PLACE}",
    ("S2", "v1"): rf"S2[A-Z]_MSIL2A_{_TIME}(?P<tile>){_PLACE}",
    ("S1", "v2"): _S1,
    ("S1", "v1"): _S1,
}
"""Regular expressions of whole names, for Python and for RE2."""

EXAMPLES = {
    ("S2", "v2"): "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57",
    ("S2", "v1"): "S2A_MSIL2A_20170613T101031_26_57",
    ("S1", "v2"): "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57",
    ("S1", "v1"): "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57",
}
"""A name of each kind, for messages."""

MONTH = slice(15, 17)
"""Where the month of acquisition stands in a Sentinel-2 name of either version."""


class PatchName(NamedTuple):
    """What the name of a patch tells.

    Attributes:
        tile: MGRS tile, empty for Sentinel-2 of v1.
        column: first number of the patch in its tile.
        row: second number.
        seconds: time of acquisition, seconds since 1970-01-01.
    """

    tile: str
    column: int
    row: int
    seconds: int

    @property
    def place(self) -> tuple[str, int, int]:
        """The same for all patches of one square on the ground."""
        return self.tile, self.column, self.row


def parse(name: str, *, sensor: Sensor, version: Version = "v2") -> PatchName | None:
    """What a name tells; None if it is not the name of a patch of that sensor."""
    found = re.fullmatch(PATTERNS[sensor, version], name)
    if found is None:
        return None
    day, clock = found["date"], found["time"].zfill(6)
    try:
        days = (date(int(day[:4]), int(day[4:6]), int(day[6:])) - date(1970, 1, 1)).days
    except ValueError:
        return None
    # By hand, as some names of v1 hold 61 seconds.
    seconds = 3600 * int(clock[:2]) + 60 * int(clock[2:4]) + int(clock[4:])
    return PatchName(found["tile"], int(found["column"]), int(found["row"]), 86400 * days + seconds)


def parent(name: str, *, sensor: Sensor, version: Version) -> str:
    """The folder below the sensor's root that holds the folder of a patch; empty for v1.

    In v2 it is the name of the Sentinel-2 tile or the Sentinel-1 scene.
    """
    if version == "v1":
        return ""
    return name.rsplit("_", 2 if sensor == "S2" else 3)[0]

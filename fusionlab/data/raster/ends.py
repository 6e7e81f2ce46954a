"""Whether a file of an image is there to its end, told without reading its pixels.

A copy or download that stopped leaves a file whose header is sound. PNG and JPEG end with a marker;
a TIFF's directories say where its strips and tiles lie ("TIFF, Revision 6.0", Adobe, 1992; BigTIFF:
64-bit offsets). For other formats (JPEG 2000, VRT and the like) there is no check this cheap: a cut
is found when their pixels are read.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_JPEG = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_JPEG_SCAN = 0xDA
_OFFSETS = {273: 279, 324: 325}
"""Tags of the offsets of strips and of tiles, each with that of their byte counts."""
_INTEGERS = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_DIRECTORIES = 64
"""Pages, masks and overviews that are looked at, at most."""


def cut_off(path: str | Path) -> str | None:
    """What is missing at the end of a file; None if nothing is, or this cannot be told.

    Args:
        path: a file that can be opened as an image.
    """
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(8)
            if head == _PNG:
                whole = _png_ends(file, size)
            elif head.startswith(_JPEG):
                whole = _jpeg_ends(file, size)
            elif head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                needed = _tiff_needs(file, size, head)
                return None if needed <= size else f"{size} of {needed} bytes or more are there"
            else:
                whole = True
    except (OSError, struct.error, ValueError):  # whoever reads it says so
        return None
    return None if whole else f"it stops after {size} bytes without an end"


def _png_ends(file: BinaryIO, size: int) -> bool:
    file.seek(-len(_PNG_END), os.SEEK_END)
    if file.read() == _PNG_END:
        return True
    at = len(_PNG)
    while at + 12 <= size:  # something may follow the last chunk
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        at += 12 + length
        if kind == b"IEND":
            return True
    return False


def _jpeg_ends(file: BinaryIO, size: int) -> bool:
    file.seek(-2, os.SEEK_END)
    if file.read() == _JPEG_END:
        return True
    # Cameras append previews and padding. Behind the first scan, its end is no part of the pixels.
    at = 2
    while at + 4 <= size:
        file.seek(at)
        marker, kind, length = struct.unpack(">BBH", file.read(4))
        if marker != 0xFF:
            return True  # of some other make
        at += 2 + length
        if kind == _JPEG_SCAN:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(_JPEG_END, at) >= 0
    return False


def _tiff_needs(file: BinaryIO, size: int, head: bytes) -> int:
    """How many bytes the strips and tiles of all directories reach."""
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    entry, offset = (20, "Q") if big else (12, "I")
    file.seek(8 if big else 4)
    at: int = struct.unpack(order + offset, file.read(8 if big else 4))[0]
    needed, seen = 0, set[int]()
    while at and at not in seen and len(seen) < _DIRECTORIES:
        seen.add(at)
        if at >= size:
            return max(needed, at + entry)
        file.seek(at)
        (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
        if file.tell() + int(count) * entry > size:
            return max(needed, file.tell() + int(count) * entry)
        table = file.read(count * entry)
        at = struct.unpack(order + offset, file.read(8 if big else 4))[0]
        entries = {
            struct.unpack_from(order + "H", table, i)[0]: table[i : i + entry]
            for i in range(0, len(table), entry)
        }
        for offsets, counts in _OFFSETS.items():
            if offsets in entries and counts in entries:
                starts = _tiff_numbers(file, entries[offsets], order, big=big)
                lengths = _tiff_numbers(file, entries[counts], order, big=big)
                if len(starts) == len(lengths) and len(starts):
                    ends = np.where(lengths > 0, starts + lengths, 0)  # of sparse files, none
                    needed = max(needed, int(ends.max()))
    return needed


def _tiff_numbers(file: BinaryIO, entry: bytes, order: str, *, big: bool) -> NDArray[np.int64]:
    _, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), entry)
    dtype = np.dtype(order + _INTEGERS.get(kind, "u4"))
    inside = entry[12:] if big else entry[8:]
    if count * dtype.itemsize > len(inside):
        file.seek(struct.unpack(order + ("Q" if big else "I"), inside)[0])
        inside = file.read(min(count * dtype.itemsize, os.fstat(file.fileno()).st_size))
    held = min(count, len(inside) // dtype.itemsize)
    return np.frombuffer(inside, dtype, held).astype(np.int64)

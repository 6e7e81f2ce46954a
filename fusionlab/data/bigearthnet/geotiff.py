"""One band of one file, fast: GDAL needs far longer to open a small GeoTIFF than to read it.

A file that is a single band, uncompressed, in strips one after the other (as all bands of both
versions are) is read as its bytes; any other, such as the compressed reference maps, goes through
GDAL. Both give the same pixels.
"""

from __future__ import annotations

import os
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from fusionlab.data.damage import unreadable
from fusionlab.errors import InputError

_ENTRY = np.dtype([("tag", "<u2"), ("type", "<u2"), ("count", "<u4"), ("value", "<u4")])
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _FILL_ORDER = 256, 257, 258, 259, 266
_OFFSETS, _SAMPLES, _ROWS, _COUNTS, _FORMAT = 273, 277, 278, 279, 339
_SHORT, _LONG = 3, 4
_DTYPES: dict[tuple[int, int], np.dtype[Any]] = {(16, 1): np.dtype("<u2"), (32, 3): np.dtype("<f4")}
"""By bits per sample and sample format: what Sentinel-2 and Sentinel-1 are stored in."""

_HEADER = 4096
"""Bytes within which the tags of such a file mostly lie."""
_EXPECTED = "a GeoTIFF of one band"


class Layout(NamedTuple):
    """Where the pixels of a plain file lie.

    Attributes:
        shape: rows and columns.
        dtype: of the pixels.
        offset: first byte.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    offset: int

    @property
    def end(self) -> int:
        """The byte after the last pixel."""
        return self.offset + self.shape[0] * self.shape[1] * self.dtype.itemsize


def read_band(path: Path | str) -> NDArray[Any]:
    """The pixels of a file of one band, ``(H, W)``, in the type they have on disk.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it cannot be read, is not whole, or has several bands; names it.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # a Path per read costs as much
        content = file.read()
    layout = plain_layout(content)
    if layout is None:
        return _through_gdal(path)
    _refuse_cut(path, layout, len(content))
    count = layout.shape[0] * layout.shape[1]
    return np.frombuffer(content, layout.dtype, count, layout.offset).reshape(layout.shape)


def read_header(path: Path | str) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Shape and type of a file of one band that is whole, without reading more than its last pixel.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it cannot be read, is not whole, or has several bands; names it.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        layout = plain_layout(file.read(_HEADER))
        if layout is not None:
            _refuse_cut(path, layout, os.fstat(file.fileno()).st_size)
            return layout.shape, layout.dtype
    try:
        with rasterio.open(path) as source:
            _refuse_bands(path, source.count)
            source.read(1, window=Window(source.width - 1, source.height - 1, 1, 1))
            return (source.height, source.width), np.dtype(source.dtypes[0])
    except RasterioError as error:
        raise unreadable(path, error, expected=_EXPECTED) from error


def plain_layout(content: bytes) -> Layout | None:
    """Where the pixels lie, if the file is plain enough to be read as its bytes.

    Args:
        content: the file, or its beginning.

    Returns:
        None for anything but one band of uint16 or float32, little-endian, uncompressed, in strips
        one after the other, or if the beginning given does not hold all the tags.
    """
    if content[:4] != b"II*\0" or len(content) < 8:
        return None
    start = struct.unpack_from("<I", content, 4)[0]
    if start + 2 > len(content):
        return None
    (count,) = struct.unpack_from("<H", content, start)
    if start + 2 + count * _ENTRY.itemsize > len(content):
        return None
    tags = _plain_tags(content[start + 2 : start + 2 + count * _ENTRY.itemsize])
    if tags is None:
        return None
    offsets = _numbers(content, *tags.offsets)
    counts = _numbers(content, *tags.counts)
    if not offsets or counts is None:
        return None
    layout = Layout(tags.shape, tags.dtype, offsets[0])
    whole = sum(counts) == layout.end - layout.offset
    if not whole or offsets != list(range(layout.offset, layout.end, tags.strip)):
        return None
    return layout


class _Tags(NamedTuple):
    """What the tags of a plain file say.

    Attributes:
        shape: rows and columns.
        dtype: of the pixels.
        strip: bytes of a strip, except for the last.
        offsets: type, count and value of the tag that says where strips begin.
        counts: likewise, how many bytes they have.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    strip: int
    offsets: tuple[int, int, int]
    counts: tuple[int, int, int]


@lru_cache(maxsize=256)
def _plain_tags(directory: bytes) -> _Tags | None:
    """The tags of a file directory, the same in nearly all files of one size and type.

    None if they are not those of a plain file.
    """
    entries = np.frombuffer(directory, _ENTRY).tolist()
    tags = {tag: (kind, number, value) for tag, kind, number, value in entries}

    def single(tag: int, default: int) -> int:
        if tag not in tags:
            return default
        kind, number, value = tags[tag]
        return -1 if number != 1 else value & 0xFFFF if kind == _SHORT else value

    dtype = _DTYPES.get((single(_BITS, 1), single(_FORMAT, 1)))
    shape = single(_HEIGHT, 0), single(_WIDTH, 0)
    plain = all(single(tag, 1) == 1 for tag in (_COMPRESSION, _SAMPLES, _FILL_ORDER))
    rows = min(single(_ROWS, shape[0]), shape[0])  # of a strip
    if dtype is None or not plain or min(*shape, rows) < 1:
        return None
    if _OFFSETS not in tags or _COUNTS not in tags:  # tiles, which have other tags
        return None
    return _Tags(shape, dtype, rows * shape[1] * dtype.itemsize, tags[_OFFSETS], tags[_COUNTS])


def _numbers(content: bytes, kind: int, count: int, value: int) -> list[int] | None:
    """All numbers of a tag; None if they are no integers, or not in the content."""
    if kind not in (_SHORT, _LONG):
        return None
    size = 2 if kind == _SHORT else 4
    if count * size <= 4:  # held by the tag itself
        return [value >> 16 * i & 0xFFFF for i in range(count)] if kind == _SHORT else [value]
    if value + count * size > len(content):
        return None
    return list(struct.unpack_from(f"<{count}{'H' if kind == _SHORT else 'I'}", content, value))


def _through_gdal(path: Path | str) -> NDArray[Any]:
    try:
        with rasterio.open(path) as source:
            _refuse_bands(path, source.count)
            pixels: NDArray[Any] = source.read(1)
    except RasterioError as error:
        raise unreadable(path, error, expected=_EXPECTED) from error
    return pixels


def _refuse_cut(path: Path | str, layout: Layout, size: int) -> None:
    if size < layout.end:
        raise InputError(
            f"{path} is incomplete: its header announces {layout.end} bytes, and it has {size}. "
            "Copy or download it again."
        )


def _refuse_bands(path: Path | str, count: int) -> None:
    if count != 1:
        raise InputError(f"{path}: expected one band, found {count}.")

"""Reading images, depths and angles, and saying in a few words why that is impossible.

Reasons are short and name no file, so that all files of one reason can be listed behind it.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fusionlab.errors import InputError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLORS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey and alpha", 6: "RGBA"}
_RGBA = 6
_DAMAGED = "is a PNG that is damaged or cut off"

Shape = tuple[int, int]


def image_shape(path: Path) -> Shape:
    """Rows and columns of a PNG, of which all is read and nothing unpacked.

    Raises:
        InputError: if it is not a PNG of 4 channels of 8 bits, or if it is cut off or one of its
            checksums is wrong; without the name of the file.
    """
    return _header(_content(path))


def read_image(path: Path) -> NDArray[np.uint8]:
    """An RGBA image ``(4, rows, columns)``.

    Raises:
        InputError: as `image_shape`, or if its pixels cannot be unpacked.
    """
    content = _content(path)
    _header(content)
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    # Pillow raises these of damaged files, and the last of implausibly large ones.
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        raise InputError(_DAMAGED) from None
    return np.moveaxis(pixels, -1, 0)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error


def _header(content: bytes) -> Shape:
    """Follows the chunks of a PNG: length, type, data and checksum, up to the one named IEND."""
    if content[:8] != _SIGNATURE or content[12:16] != b"IHDR" or len(content) < 33:
        raise InputError("is no PNG, or damaged")
    start, kind = 8, b""
    while kind != b"IEND":
        if start + 12 > len(content):
            raise InputError(_DAMAGED)
        (length,) = struct.unpack_from(">I", content, start)
        end = start + 8 + length
        kind = content[start + 4 : start + 8]
        expected = struct.pack(">I", zlib.crc32(memoryview(content)[start + 4 : end]))
        if content[end : end + 4] != expected:
            raise InputError(_DAMAGED)
        start = end + 4
    width, height, bits, color = struct.unpack_from(">IIBB", content, 16)
    if color != _RGBA or bits != 8:
        found = _COLORS.get(color, f"colour type {color}")
        raise InputError(f"is {found} of {bits} bits, expected RGBA of 8 bits")
    return height, width


def scan_shape(path: Path) -> Shape:
    """Rows and columns of an array of depths, of which the header is read.

    Raises:
        InputError: if it is no whole array of two axes of numbers; without the name of the file.
    """
    rows, columns = _open(path, axes=2).shape
    return rows, columns


def read_depth(path: Path) -> NDArray[np.float32]:
    """Depths ``(rows, columns)``, metres.

    Raises:
        InputError: as `scan_shape`.
    """
    return np.asarray(_open(path, axes=2, mmap=None), np.float32)


def read_angles(path: Path) -> NDArray[np.float32]:
    """Angles ``(n,)``, radians.

    Raises:
        InputError: if they are missing, damaged, or degrees; without the name of the file.
    """
    if not path.is_file():
        raise InputError("is missing")
    angles = np.asarray(_open(path, axes=1, mmap=None), np.float32)
    if not np.isfinite(angles).all():
        raise InputError("holds angles that are not finite")
    if np.abs(angles).max() > 2 * np.pi + 1e-3:
        raise InputError(f"holds angles up to {np.abs(angles).max():.4g}, expected radians")
    return angles


def _open(path: Path, *, axes: int, mmap: Literal["r"] | None = "r") -> NDArray[Any]:
    """An array of numbers; as a file in memory it is known to be whole without being read."""
    try:
        found = np.load(path, mmap_mode=mmap, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError("is no array of numbers in NPY form, or damaged or cut off") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise InputError("is no array of numbers in NPY form, or damaged or cut off")
    if found.ndim != axes:
        shape = " × ".join(map(str, found.shape)) or "a single number"
        expected = "rows × columns" if axes == 2 else "one angle after the other"
        raise InputError(f"is {shape}, expected {expected}")
    return found

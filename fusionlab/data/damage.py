"""What to say of a file that cannot be read."""

from __future__ import annotations

from pathlib import Path

from fusionlab.errors import InputError


def reason(error: Exception) -> str:
    """Why reading failed, as part of a sentence.

    GDAL's own words, where rasterio hides them behind "See previous exception for details.".
    """
    lines = str(error.__cause__ or error).splitlines()
    return lines[0].rstrip(". ") if lines else type(error).__name__


def unreadable(path: Path | str, error: Exception, *, expected: str, where: str = "") -> InputError:
    """The error for an image that cannot be read, before or in the middle of a run.

    Args:
        path: the file.
        error: what the reader raised.
        expected: what the file should be.
        where: config key that named it.
    """
    prefix = f"{where}: " if where else ""
    return InputError(
        f"{prefix}{path} cannot be read ({reason(error)}). Expected {expected}; it is something "
        "else, or damaged or incomplete: check it with `gdalinfo -checksum` and copy or download "
        "it again."
    )
